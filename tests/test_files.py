"""A file is the old one or the new one, never a part of it."""

import os
import subprocess
import sys

import pytest

from mmseg_resample import files


@pytest.mark.parametrize("durable", [False, True])
def test_what_was_written_takes_the_place(tmp_path, durable):
    path = tmp_path / "x.json"
    path.write_text("old")
    with files.atomic_write(path, durable=durable) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["x.json"]


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), files.atomic_write(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.json"]


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), files.atomic_write(tmp_path / "x.json"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_kill_leaves_nothing_that_looks_like_the_file(tmp_path):
    code = (
        "import os, pathlib, signal\n"
        "from mmseg_resample import files\n"
        f"with files.atomic_write(pathlib.Path({str(tmp_path / 'x.json')!r})) as partial:\n"
        "    partial.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode < 0
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".x.json.")
    assert not left.endswith(".json")


def test_writers_do_not_meet(tmp_path):
    path = tmp_path / "x.json"
    with files.atomic_write(path) as first, files.atomic_write(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # it ended last
