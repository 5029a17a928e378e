"""The command line of studies, in this process; test_kill.py has it as a process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.logging import MMLogger
from PIL import Image

import mmseg_resample
from mmseg_resample.study import evaluators, loading, records
from mmseg_resample.study.command import main

from .tiny import STUDY, write_study


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runs the command with arguments in an empty directory; returns the exit status."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(MMLogger, "_instance_dict", {})  # a Runner of an earlier test writes to a stream that is closed
    return lambda *arguments: main([*map(str, arguments)])


def test_nothing_heavy_is_imported_for_help():
    """Leave out what the package itself imports: a bare module takes its place."""
    root = Path(mmseg_resample.__file__).parent
    code = f"""
import sys, types
package = sys.modules["mmseg_resample"] = types.ModuleType("mmseg_resample")
package.__path__ = [{str(root)!r}]
package.register = lambda: None
from mmseg_resample.study.command import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
heavy = "torch mmengine mmseg matplotlib scipy numba pandas rich numpy".split()
print("imported:", [name for name in heavy if name in sys.modules])
"""
    for arguments in (["--help"], ["report", "--help"], []):
        shown = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert shown.stdout.endswith("imported: []\n"), shown


def test_the_arguments_of_the_process_are_the_default(command, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["study.py", "nothing.py"])
    assert main() == 2
    assert "study config 'nothing.py' does not exist" in capsys.readouterr().err


def test_dry_run_shows_the_plan_and_writes_nothing(command, tmp_path, capsys):
    path = write_study(tmp_path)
    assert command(path, "--dry-run", "--seeds", 4, 5, 6, "--cfg-options", "train_cfg.max_iters=2") == 0
    shown = capsys.readouterr().out
    assert "tiny: 6 runs, 6 to do" in shown
    assert shown.count("own, larger") == 6
    assert list(Path.cwd().iterdir()) == []


def test_a_full_disk_is_said(command, tmp_path, capsys, monkeypatch):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    study = loading.load(write_study(tmp_path))

    def load(*arguments, **options):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # every write fails from now on, as on a full disk
        return study

    monkeypatch.setattr(loading, "load", load)
    try:
        assert command(study.file) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capsys.readouterr().err
    assert "error: [Errno 27] File too large" in said and "Make room there, or use another --work-dir." in said
    assert "Finished work is kept, the same command goes on." in said


def test_labels_are_checked_before_the_runs(command, tmp_path, capsys):
    """Those of the test set, which the runs would come to after their trainings; ``--check-data none`` goes on."""
    for kind, values in (("images", np.zeros((32, 32, 3), np.uint8)), ("labels", np.full((32, 32), 77, np.uint8))):
        (tmp_path / kind).mkdir()
        Image.fromarray(values).save(tmp_path / kind / "a.png")
    dataset = {
        "_delete_": True,
        "type": "BaseSegDataset",
        "data_root": str(tmp_path),
        "data_prefix": {"img_path": "images", "seg_map_path": "labels"},
        "img_suffix": ".png",
        "metainfo": {"classes": tuple("abcdef")},
        "pipeline": [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}],
    }
    sizes = {"s32": {"train_dataloader.dataset.size": (32, 32)}, "s33": {"train_dataloader.dataset.size": (33, 33)}}
    axes = {"align_corners": STUDY["axes"]["align_corners"], "size": sizes}
    path = write_study(tmp_path, {"test_dataloader.dataset": dataset}, axes=axes, evaluations={"own": {}})
    assert command(path) == 2
    said = capsys.readouterr().err
    assert "1 label map cannot be used:" in said  # once for all runs
    assert f"test_dataloader.dataset: {tmp_path}/labels/a.png: 1024 pixels have label 77: with 6 classes" in said
    assert not Path("work_dirs").exists()


def test_seeds_that_cannot_decide_are_said_before_the_runs(command, tmp_path, capsys):
    path = write_study(tmp_path)  # compares one pair
    for seeds, said in ((1, "1 seed is too few"), (5, "5 seeds are too few"), (6, None)):
        assert command(path, "--dry-run", "--seeds", *range(seeds)) == 0
        shown = " ".join(capsys.readouterr().out.split())
        if said is None:
            assert "whatever the numbers" not in shown
        else:
            assert f"{said} for the declared comparison to be significant, whatever the numbers: that takes 6." in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1", "1"], "tiny.py: --seeds: 1 is listed twice. Remove one."),
        (["--cfg-options", "model.depth=3"], "tiny.py: --cfg-options: 'model.depth' is not in the base config"),
        (["--workers", "0"], "--workers: expected 1 or more, got 0."),
        (["--work-dir", f"{__file__}/x"], "test_command.py is no folder. Name one that is there or can be made."),
    ],
)
def test_what_cannot_work_is_one_message(command, tmp_path, capsys, arguments, message):
    assert command(write_study(tmp_path), *arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_what_is_no_study(command, tmp_path, capsys):
    assert command("nothing.py") == 2
    assert "study config 'nothing.py' does not exist" in capsys.readouterr().err
    path = write_study(tmp_path)
    assert command(path.with_name("tinny.py")) == 2
    assert "tinny.py' does not exist. Did you mean 'tiny.py'?" in capsys.readouterr().err
    assert command(path.with_name("base.py")) == 2
    shown = capsys.readouterr().err
    assert "base.py: model: this is the config of a model, not of a study. Write a study with base = 'base.py'" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "3"], "unrecognized arguments: --epochs 3"),
        (["--executor", "lcal"], "expected one of local, inline, ray, slurm, got 'lcal'. Did you mean 'local'?"),
        (["--cfg-options", "norm"], "argument --cfg-options: expected KEY=VALUE, got norm"),
        (["--slurm", "time"], "argument --slurm: expected KEY=VALUE, got time"),
    ],
)
def test_arguments_that_cannot_be_read_are_status_2(command, capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        command("study.py", *arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--executor", "inline", "--workers", "2"], "--executor inline: runs in this process alone"),
        (["--executor", "inline", "--runs-per-gpu", "2"], "--runs-per-gpu: the executor inline does not take it"),
        (["--ray-address", "auto"], "--ray-address: the executor local does not take it. Use --executor ray."),
        (["--executor", "ray", "--slurm", "time=10"], "--slurm: the executor ray does not take it"),
        (["--gpus", "99"], "--gpus: '99' is not a GPU of this machine"),
        (["--procs-per-run", "0"], "--procs-per-run: expected 1 or more, got 0"),
    ],
)
def test_executors_that_cannot_work_are_one_message(command, tmp_path, capsys, arguments, message):
    assert command(write_study(tmp_path), *arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert list(Path("work_dirs").glob("*/*")) == []


def test_dry_run_says_how_long(command, tmp_path, capsys):
    path = write_study(tmp_path)
    assert command(path, "--dry-run") == 0
    assert "No run has finished, so the time is not known; --estimate times some iterations." in capsys.readouterr().out
    run, *_ = loading.load(path).runs()
    result = {"seconds": 300.0, "metrics": {"mIoU": 50.0}, "evaluators": dict(evaluators.DEFAULT_EVALUATORS)}
    training, evaluations = {"seconds": 3000.0}, {"own": result, "larger": result}
    metrics = {"variants": run.variants, "seed": 0, "training": training, "evaluations": evaluations}
    records.write_json(Path("work_dirs/tiny", run.directory, "metrics.json"), metrics)
    assert command(path, "--dry-run", "--workers", 3) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "About 60.0 min for 3 runs, 3 at a time: from the finished run of this study, 3600 s each (median)." in shown


@pytest.mark.parametrize("arguments", [["--dry-run"], ["--dry-run", "--estimate"], []])
def test_data_that_is_not_there_is_one_message(command, tmp_path, capsys, arguments):
    dataset = {"type": "CityscapesDataset", "data_root": "gone", "data_prefix": {"img_path": "images"}}
    path = write_study(tmp_path, {"train_dataloader.dataset": dataset, "test_dataloader.dataset": dataset})
    assert command(path, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.err == (
        "error: train_dataloader.dataset: there is no gone/images. Put the data there, or say where it is: "
        "--cfg-options train_dataloader.dataset.data_root=<folder> test_dataloader.dataset.data_root=<folder>.\n"
    )
    assert ("to do" in captured.out) == ("--dry-run" in arguments)
    assert list(Path.cwd().iterdir()) == []


class TestReport:
    @pytest.fixture
    def studies(self, tmp_path):
        """Two studies without a finished run: enough to be reported."""
        study = loading.load(write_study(tmp_path / "file"))
        for name in ("first", "second"):
            records.open_study(tmp_path / name, study.describe())
        return tmp_path / "first", tmp_path / "second"

    def test_of_one(self, command, studies, capsys):
        assert command("report", studies[0]) == 0
        assert (studies[0] / "report.html").exists()
        assert str(studies[0] / "report.html") in capsys.readouterr().out.replace("\n", "")
        assert not (studies[1] / "report.html").exists()

    def test_across(self, command, studies, tmp_path):
        assert command("report", *studies, "--out", tmp_path / "both") == 0
        for root in (*studies, tmp_path / "both"):
            assert (root / "report.html").exists(), root

    def test_of_nothing(self, command, studies, tmp_path, capsys):
        assert command("report", studies[0], tmp_path / "nothing") == 2
        assert "nothing: expected the directory of a study" in capsys.readouterr().err
        assert not (studies[0] / "report.html").exists()


@pytest.mark.slow
def test_runs_reports_failures_and_goes_on(command, tmp_path, capsys):
    fault = {"type": "Fault", "iteration": 3, "where": "align_corners=true"}
    path = write_study(tmp_path, {"custom_hooks": [fault]}, seeds=[0], evaluations={"own": {}})
    root = Path("work_dirs/tiny")

    assert command(path, "--workers", 2) == 1
    shown = capsys.readouterr().out
    assert "failed    align_corners=true size=s32 seed 0: RuntimeError: a fault after iteration 3" in shown
    assert f"{root}/align_corners=true,size=s32/seed-0/log.txt" in shown
    assert "finished  align_corners=false size=s32 seed 0  mIoU own" in shown
    assert "Writing the report." in shown
    assert "1 planned run is missing" in " ".join(shown.split())
    assert "\x1b" not in shown  # no control characters where there is no terminal

    finished = (root / "align_corners=false,size=s32/seed-0/metrics.json").stat()
    assert command(path, "--workers", 2) == 0
    shown = capsys.readouterr().out
    assert "align_corners=false" not in shown.split("mIoU (%)")[0]
    assert (root / "align_corners=false,size=s32/seed-0/metrics.json").stat() == finished
    assert shown.split()[-3:] == [str(root / f"report.{suffix}") for suffix in ("html", "md", "json")]
    assert records.read_json(root / "report.json")["comparisons"][0]["differences"][0]["n"] == 1
