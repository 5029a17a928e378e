"""Commands on files that somebody else made: every one is data, and nothing in it is run."""

import copy
from pathlib import Path

import pytest
from mmengine.logging import MMLogger
from mmseg.apis import init_model

from mmseg_resample.cli import main
from mmseg_resample.study import loading, records
from mmseg_resample.unpickle import RefusedError, load

from .malicious import CHECKPOINTS, program
from .study.tiny import write_study

SHORT = {"train_cfg.max_iters": 2, "default_hooks": {"checkpoint": {"type": "CheckpointHook", "by_epoch": False}}}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with the config of a model, a study of it, and what a training leaves."""
    folder = tmp_path_factory.mktemp("project")
    write_study(folder, SHORT, evaluations={"own": {}}, evaluators={}, seeds=[3])
    options = ["--cfg-options", "default_hooks.checkpoint.interval=1"]
    assert main(["train", str(folder / "base.py"), "--work-dir", str(folder / "trained"), *options]) == 0
    return folder


@pytest.fixture(scope="module")
def content(project):
    """A checkpoint in the middle of the training."""
    return load(project / "trained" / "iter_1.pth")


@pytest.fixture(autouse=True)
def _loggers():
    yield
    MMLogger._instance_dict.clear()  # one that a Runner made writes to the output of its test for ever


def resume(config: str, file: Path, out: Path) -> int:
    return main(["train", config, "--resume", "--cfg-options", f"load_from={file}", "--work-dir", str(out)])


def resume_the_last(config: str, file: Path, out: Path) -> int:
    out.mkdir()
    (out / "last_checkpoint").write_text(str(file))
    return main(["train", config, "--resume", "--work-dir", str(out)])


def study(config: str, file: Path, out: Path) -> int:
    path = Path(config).with_name("tiny.py")
    for run in loading.load(path).runs():
        folder = out / run.directory / "train"
        folder.mkdir(parents=True)
        (folder / "iter_1.pth").write_bytes(file.read_bytes())
    return main(["study", str(path), "--work-dir", str(out), "--executor", "inline"])


def initialize(config: str, file: Path, out: Path) -> int:
    try:
        init_model(config, str(file), device="cpu")
    except RefusedError as error:
        print(error)
        return 2
    return 0


COMMANDS = {
    "test": lambda config, file, out: main(["test", config, str(file), "--work-dir", str(out)]),
    "train --resume": resume,
    "train --resume of a folder": resume_the_last,
    "visualize": lambda config, file, out: main(["visualize", config, str(file), "test:0", "--out-dir", str(out)]),
    "convert": lambda config, file, out: main(["convert", str(file), str(out / "converted.pth")]),
    "study": study,
    "init_model": initialize,
}
REFUSED = "Nothing of it was run"


@pytest.mark.parametrize(
    ("command", "file", "status", "message"),
    [
        *[(command, "a call", 1 if command == "study" else 2, REFUSED) for command in COMMANDS],
        ("test", "a call in the format of torch before 1.6", 2, REFUSED),
        ("train --resume", "a config that hides", 2, REFUSED),
        # What is a text to everybody but `Runner.resume`
        ("test", "a config", 0, "mIoU"),
        ("train --resume", "a config", 0, "resumed epoch: 0, iter: 1"),
        ("train --resume", "a config beside weights", 2, "no training to go on with (message_hub missing)"),
        ("train --resume of a folder", "a config beside weights", 2, "no training to go on with (message_hub missing)"),
        ("visualize", "a config beside weights", 0, "test0_boundary_errors"),
        ("convert", "a config", 2, "keys belong to no SFNet"),
        ("study", "a config beside weights", 1, "message_hub"),
        ("init_model", "a config", 0, ""),
        pytest.param("study", "a config", 0, "resumed epoch: 0, iter: 1", marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_is_not_run(project, content, tmp_path, monkeypatch, capfd, command, file, status, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCAL_RANK", "0")
    path, marker, out = tmp_path / "e.pth", tmp_path / "marker", tmp_path / "out"
    CHECKPOINTS[file](path, marker, copy.deepcopy(content))
    result = COMMANDS[command](str(project / "base.py"), path, out)
    shown = "".join(capfd.readouterr())
    assert not marker.exists()
    assert result == status, shown[-3000:]
    assert message in shown


def test_a_directory_of_results_is_not_run(project, tmp_path, monkeypatch, capsys):
    """Run it neither in a study that would go on in it, nor in its report."""
    monkeypatch.chdir(tmp_path)
    marker, root = tmp_path / "marker", tmp_path / "results"
    plan = loading.load(project / "tiny.py")
    run, *_ = plan.runs()
    config = root / run.directory / "config.py"
    config.parent.mkdir(parents=True)
    for text in (
        program(marker),
        run.config.pretty_text + program(marker),
        f"model = {program(marker)}",
        "_base_ = 'x.py'",
    ):
        (config.parent / "x.py").write_text(program(marker))
        config.write_text(text)
        for arguments in ([], ["--dry-run"]):
            assert main(["study", str(project / "tiny.py"), "--work-dir", str(root), *arguments]) == 2
            assert not marker.exists()
            shown = capsys.readouterr().err
            assert f"{run.directory}: made by another version of this study. config.py: " in shown
            assert "Use a new --work-dir" in shown
    records.open_study(root, plan.describe())
    assert main(["study", "report", str(root)]) == 0 and not marker.exists()
    config.write_text(run.config.pretty_text)
    assert main(["study", str(project / "tiny.py"), "--work-dir", str(root), "--dry-run"]) == 0
