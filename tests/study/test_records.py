"""What is kept of a study."""

import json
import math
import subprocess

import pytest
from mmengine.config import Config

from mmseg_resample.study import plan, records


def test_git_state_of_results(tmp_path):
    """Results that a run wrote into its own repository do not make the next run one of changed code."""

    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    (tmp_path / "results").mkdir()
    for name in ("code.py", "results/a.json"):
        (tmp_path / name).write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    (tmp_path / "results" / "a.json").write_text("2")
    assert records.git_state(tmp_path)["dirty"]
    assert not records.git_state(tmp_path / "results", results="results")["dirty"]
    (tmp_path / "code.py").write_text("2")
    assert records.git_state(tmp_path / "results", results="results")["dirty"]


def test_a_failure_that_cannot_be_written_down_is_told(tmp_path):
    resource = pytest.importorskip("resource")
    run = plan.Run({"flag": "true"}, 0, Config(), ())
    files = records.RunFiles(tmp_path / run.directory)
    assert records.record_failure(run, files, "it failed") == "it failed"
    assert records.read_json(files.failure)["error"] == "it failed"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # every write fails, as on a full disk
    try:
        told = records.record_failure(run, files, "it failed again")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert told.startswith("it failed again; and that could not be written down: [Errno 27] File too large")
    assert records.read_json(files.failure)["error"] == "it failed"


def test_lines_of_json():
    """A line per key, and one per entry of a list whose entries have parts: a change shows where it was made."""
    data = {"schema": 2, "axes": {"flag": ["a", "b"]}, "runs": [{"seed": 0, "x": [1]}, {"seed": 1}], "notes": ["é"]}
    text = records.to_lines(data)
    assert text.splitlines() == [
        "{",
        '"schema": 2,',
        '"axes": {"flag":["a","b"]},',
        '"runs": [',
        '{"seed":0,"x":[1]},',
        '{"seed":1}',
        "],",
        '"notes": ["\\u00e9"]',
        "}",
    ]
    assert json.loads(text) == data
    for empty in ({}, {"runs": []}, {"runs": [[]]}):
        assert json.loads(records.to_lines(empty)) == empty
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.to_lines({"value": math.nan})


def test_compact_records_are_read_like_others(tmp_path):
    data = {"attempts": [{"seed": 0}, {"seed": 1}], "name": "x"}
    for compact in (False, True):
        records.write_json(tmp_path / "environment.json", data, compact=compact)
        assert records.read_json(tmp_path / "environment.json") == data
