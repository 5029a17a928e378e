"""The commands train and test, as tools, and mmseg's own, on a tiny FCN and data set: real runs, and every refusal."""

import errno
import functools
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from PIL import Image

from mmseg_resample import launch
from mmseg_resample.cli import main
from mmseg_resample.launch import train
from mmseg_resample.study.training import _isolated
from mmseg_resample.unpickle import load

REPOSITORY = Path(__file__).parents[2]
TOOLS = REPOSITORY / "tools"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}

CONFIG = """
_base_ = [
    {base!r},
    'mmseg::_base_/models/fcn_r50-d8.py',
    'mmseg::_base_/schedules/schedule_20k.py',
    'mmseg::_base_/default_runtime.py',
]
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    data_preprocessor=dict(size=(32, 40)), pretrained=None, backbone=dict(depth=18, base_channels=4, norm_cfg=norm_cfg),
    decode_head=dict(in_channels=32, channels=4, num_convs=1, num_classes=3, norm_cfg=norm_cfg), auxiliary_head=None)
dataset = dict(
    type='BaseSegDataset', data_root={data!r}, data_prefix=dict(img_path='images', seg_map_path='labels'),
    img_suffix='.png', seg_map_suffix='.png',
    metainfo=dict(classes=('sky', 'road', 'car'), palette=[[0, 0, 0], [99, 0, 0], [0, 99, 0]]),
    pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')])
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True), dataset=dataset)
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
train_cfg = dict(max_iters=4, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2, save_best='mIoU'), logger=dict(interval=1))
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='RandomFlip', prob=0.), dict(type='RandomFlip', prob=1.)],
        [dict(type='LoadAnnotations')],
        [dict(type='PackSegInputs')]])]
"""

# All that mmengine stores in a checkpoint: epochs, warm-up, AdamW, an average of the weights, one-cycle momentum.
BY_EPOCH = """
_base_ = ['tiny.py']
train_dataloader = dict(sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True))
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2),
    dict(type='PolyLR', power=0.9, by_epoch=True, begin=1, end=4),
    dict(type='OneCycleLR', eta_max=1e-3, total_steps=9, by_epoch=False)]
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1), logger=dict(log_metric_by_epoch=True))
log_processor = dict(by_epoch=True)
custom_hooks = [dict(type='EMAHook'), dict(type='EarlyStoppingHook', monitor='mIoU', patience=9)]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a config, four images and their labels."""
    folder = tmp_path_factory.mktemp("tools")
    rng = np.random.default_rng(0)
    for kind, shape, classes in (("images", (32, 40, 3), 256), ("labels", (32, 40), 3)):
        (folder / kind).mkdir()
        for index in range(4):
            Image.fromarray(rng.integers(classes, size=shape, dtype=np.uint8)).save(folder / kind / f"{index}.png")
    base = str(REPOSITORY / "configs" / "_base_" / "mmseg_resample.py")
    (folder / "tiny.py").write_text(CONFIG.format(base=base, data=str(folder)))
    (folder / "by_epoch.py").write_text(BY_EPOCH)
    return folder


def start(folder: Path, tool: Path, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(tool), *map(str, arguments)],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen, status: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == status, out[-2000:] + err[-4000:]
    return out, err


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """Runs a command in the folder, in this process, as if it were alone there; returns what it printed."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LOCAL_RANK", "0")  # which commands set

    def command(*arguments: object) -> tuple[str, str]:
        with _isolated():
            status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert status == 0, out[-2000:] + err[-4000:]
        return out, err

    return command


@pytest.fixture(scope="module")
def trained(folder):
    """Output of a training; its results are in the folder ``trained``."""
    out, _ = finish(start(folder, TOOLS / "train.py", "tiny.py", "--work-dir", "trained"))
    return out


def metrics(out: str) -> dict[str, float]:
    (line,) = re.findall(r"^metrics: (.*)$", out, re.MULTILINE)
    return {name: float(value) for name, value in (item.split() for item in line.split("  "))}


def test_training_prints_where_the_results_are_and_the_last_metrics(folder, trained):
    assert f"work_dir: {folder / 'trained'}" in trained
    assert metrics(trained)["iter"] == 4 and 0 < metrics(trained)["mIoU"] < 100
    assert load(folder / "trained" / "iter_4.pth")["meta"]["iter"] == 4


def test_testing_the_checkpoint_reproduces_the_validation(folder, trained):
    (folder / "both.py").write_text(
        "_base_ = ['tiny.py']\n"
        "test_evaluator = [dict(type='IoUMetric'), dict(type='ConfusionMatrixMetric', prefix='exact')]\n"
    )
    arguments = ("both.py", "trained/iter_4.pth", "--work-dir", "tested", "--show-dir", "painted", "--out", "predicted")
    out, _ = finish(start(folder, TOOLS / "test.py", *arguments))
    expected = metrics(trained)
    del expected["iter"]
    assert metrics(out).items() >= expected.items() and metrics(out).keys() - expected == {
        "exact/aAcc",
        "exact/mIoU",
        "exact/mAcc",
    }
    assert len(list((folder / "painted" / "vis_data" / "vis_image").iterdir())) == 4
    assert np.asarray(Image.open(folder / "predicted" / "0.png")).shape == (32, 40)


TWO = """
from mmseg_resample.cli import main

options = ["--launcher", "pytorch", "--work-dir"]
assert main(["test", "tiny.py", "trained/iter_4.pth", *options, "tested"]) == 0
assert main(["train", "tiny.py", *options, "trained_by_two"]) == 0
"""


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a GPU for each process where there are any")
def test_two_processes_on_the_cpu(folder, trained):
    (folder / "two.py").write_text(TWO)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=localhost"]
    command = [*torchrun, "--nproc-per-node=2", "two.py"]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = metrics(trained)
    del expected["iter"]
    tested, trained_by_two = (metrics(line) for line in done.stdout.splitlines() if line.startswith("metrics: "))
    assert tested == expected and trained_by_two["iter"] == 4


@pytest.mark.slow
def test_test_time_augmentation_loads_the_weights(folder, trained, command):
    out, _ = command("test", "tiny.py", "trained/iter_4.pth", "--work-dir", "tested", "--tta")
    assert metrics(out)["mIoU"] > 0
    cfg = launch.load_config(str(folder / "tiny.py"))
    launch.prepare_test(cfg, str(folder / "trained" / "iter_4.pth"), tta=True)
    assert cfg.model.type == "TTASegmentor"  # where mmseg's takes the sigmoid of probabilities


@pytest.mark.slow
def test_an_interrupted_and_a_killed_training_go_on(folder, command):
    arguments = ("tiny.py", "--work-dir", "killed", "--cfg-options", "default_hooks.checkpoint.interval=20")
    arguments += ("train_cfg.max_iters=100000", "train_cfg.val_interval=100000")
    last = folder / "killed" / "last_checkpoint"

    process = start(folder, TOOLS / "train.py", *arguments)
    first = wait_for_checkpoint(last, None, process)
    process.send_signal(signal.SIGINT)
    _, err = finish(process, status=130)
    assert "interrupted" in err and "Traceback" not in err

    process = start(folder, TOOLS / "train.py", *arguments, "--resume")
    second = wait_for_checkpoint(last, first, process)
    process.kill()
    finish(process, status=-signal.SIGKILL)

    reached = int(re.search(r"iter_(\d+)", second)[1])
    out, err = command("train", *arguments, f"train_cfg.max_iters={reached + 2}", "--resume")
    assert f"resumed epoch: 0, iter: {reached}" in out and "nothing to resume" not in err
    assert load(folder / "killed" / f"iter_{reached + 2}.pth")["meta"]["iter"] == reached + 2


def wait_for_checkpoint(last: Path, before: str | None, process: subprocess.Popen) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if last.is_file() and (now := last.read_text()) and now != before:
            return now
        time.sleep(0.05)
    process.kill()
    raise AssertionError(process.communicate()[1])


@pytest.mark.slow
def test_everything_mmengine_stores_is_resumed(folder, command):
    arguments = ("train", "by_epoch.py", "--work-dir", "epochs")
    command(*arguments)
    out, _ = command(*arguments, "--resume", "--cfg-options", "train_cfg.max_epochs=2")
    assert "resumed epoch: 1, iter: 2" in out
    checkpoint = load(folder / "epochs" / "epoch_2.pth")
    assert {"optimizer", "param_schedulers", "ema_state_dict", "message_hub"} <= checkpoint.keys()
    assert len(checkpoint["message_hub"]["log_scalars"]["train/loss"].data[0]) == 4  # two iterations of each training


# Refusals, in this process


def refused(monkeypatch, capsys, folder, tool: str, *arguments: str, status: int = 2) -> str:
    """Run a tool that must end with ``status``; return what it says on stderr."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [tool, *arguments])
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(TOOLS / tool), run_name="__main__")
    MMLogger._instance_dict.clear()  # a Runner's logger writes to the stderr of this test for ever
    assert stop.value.code == status
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tinny.py"], "config tinny.py: there is no file tinny.py. Did you mean 'tiny.py'?"),
        (["mmseg::fnc/x.py"], "Did you mean 'fcn'"),
        (
            ["mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1023"],
            "Did you mean 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'",
        ),
        (
            ["mmseg::fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py"],
            r"40k_cityscapes-512x1024.py. It is mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py\.\n",
        ),
        (["no_such_package::a/b.py"], "the package 'no_such_package' is not installed"),
        (["msegs::a/b.py"], "the package 'msegs' is not installed. Did you mean 'mmseg'?"),
        (["tiny.py/tiny.py"], "tiny.py is a file, not a folder"),
        (["tiny.py", "--work-dir", "tiny.py/x"], "work_dir tiny.py/x: .*tiny.py is no folder. Name one that"),
        (["tiny.py", "--wrok-dir", "x"], "unrecognized arguments: --wrok-dir x. Did you mean '--work-dir'?"),
        (
            ["tiny.py", "--launcher", "pytroch"],
            "expected one of none, pytorch, slurm, mpi, got 'pytroch'. Did you mean 'pytorch'?",
        ),
        (["tiny.py", "--policy", "exat"], "--policy exat: expected exact, .* Did you mean 'exact'?"),
        (
            ["tiny.py", "--cfg-options", "model.decode_head.type=FCNHed"],
            "error: type 'FCNHed' of the config: mmseg has no such model. Did you mean 'FCNHead'?",
        ),
        (
            ["tiny.py", "--cfg-options", "train_dataloader.dataset.type=BaseSegDatset"],
            "error: type 'BaseSegDatset' of the config: mmseg has no such dataset. Did you mean 'BaseSegDataset'?",
        ),
        (
            ["tiny.py", "--cfg-options", "model.backbone.type=nowhere.ResNet"],
            "error: type 'nowhere.ResNet': it needs the package nowhere, which is not installed.",
        ),
        (["trained"], "It is a folder"),
        (["orphan.py"], "config orphan.py cannot be read: .*missing.py"),
        (["empty.py"], "training needs model, train_dataloader, train_cfg, optim_wrapper in the config"),
        (["tiny.py", "--cfg-options", "nonsense"], "expected KEY=VALUE, got nonsense"),
        (
            ["tiny.py", "--cfg-options", "train_cfg.max_iters.deep=1"],
            "--cfg-options train_cfg.max_iters.deep: .*max_iters",
        ),
        (["tiny.py", "--cfg-options", "dataset.pipeline.7.type=Resize"], "Index 7 exceeds the length"),
        (["tiny.py", "--resume", "--cfg-options", "load_from=gone.pth"], "--resume: checkpoint gone.pth: no such file"),
        (
            ["tiny.py", "--resume", "--work-dir", "moved"],
            "moved/last_checkpoint: not a checkpoint.*--resume --cfg-options load_from=",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_train_refuses(monkeypatch, capsys, folder, trained, arguments, message):
    (folder / "orphan.py").write_text("_base_ = ['missing.py']\n")
    (folder / "empty.py").write_text("a = 1\n")
    (folder / "moved").mkdir(exist_ok=True)
    (folder / "moved" / "last_checkpoint").write_text("")
    err = refused(monkeypatch, capsys, folder, "train.py", *arguments)
    assert re.search(message, err) and "Traceback" not in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--amp"], "--amp: mixed precision needs a GPU"),
        (["--cfg-options", "optim_wrapper.type=AmpOptimWrapper"], "AmpOptimWrapper: mixed precision needs a GPU"),
        (["--launcher", "slurm"], "--launcher slurm: mmengine gives every process a GPU"),
        (["--launcher", "pytorch"], "--launcher pytorch: the command must be started by torchrun"),
    ],
)
def test_train_refuses_what_needs_a_gpu(monkeypatch, capsys, folder, arguments, message):
    assert message in refused(monkeypatch, capsys, folder, "train.py", "tiny.py", *arguments)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("trained/iter_5.pth", "no such file. Did you mean 'iter_4.pth'"),
        ("truncated.pth", "not a checkpoint, or truncated"),
        ("text.pth", "not a checkpoint, or truncated"),
        ("list.pth", "expected weights by name, got a list"),
        ("custom.pth", r"the checkpoint holds functools.partial. Nothing of it was run. If you trust the file, "),
        (
            "foreign.pth",
            r"(\d+) of the \1 weights .* cannot be loaded(.|\n)*\1 missing: backbone.stem.0.weight"
            r"(.|\n)*2 that only the checkpoint has: head.weight \(3,\)",
        ),
        (
            "other_classes.pth",
            r"2 of the \d+ weights of the model cannot be loaded(.|\n)*"
            r"2 of another shape: decode_head.conv_seg.weight \(3, 4, 1, 1\) in the model, \(19, 4, 1, 1\) in the",
        ),
        ("backbone.pth", r"(\d+) of the \d+ weights of the model cannot be loaded(.|\n)*\1 missing: decode_head"),
    ],
)
def test_test_refuses_checkpoints(monkeypatch, capsys, folder, trained, checkpoint, message):
    (folder / "truncated.pth").write_bytes((folder / "trained" / "iter_4.pth").read_bytes()[:3000])
    (folder / "text.pth").write_text("hello")
    torch.save([1], folder / "list.pth")
    torch.save({"state_dict": {}, "callback": functools.partial(print)}, folder / "custom.pth")
    torch.save({"state_dict": {"head.weight": torch.ones(3), "head.bias": torch.ones(1)}}, folder / "foreign.pth")
    weights = load(folder / "trained" / "iter_4.pth")["state_dict"]
    head = {"decode_head.conv_seg.weight": torch.ones(19, 4, 1, 1), "decode_head.conv_seg.bias": torch.ones(19)}
    torch.save(weights | head, folder / "other_classes.pth")
    backbone = {key: value for key, value in weights.items() if key.startswith("backbone") or value.ndim == 0}
    torch.save(backbone, folder / "backbone.pth")
    err = refused(monkeypatch, capsys, folder, "test.py", "tiny.py", checkpoint, "--work-dir", "refused")
    assert re.search(message, err) and "Traceback" not in err


class _Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.auxiliary_head = torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 2, 1)
        self.register_buffer("index", torch.arange(3))


def test_what_a_test_does_not_use_may_be_missing_or_left_over(capsys):
    model = _Model()
    norm = {f"norm.{key}": (3,) for key in ("weight", "bias", "running_mean", "running_var")}
    launch.check_weights(model, {key: tuple(value.shape) for key, value in model.state_dict().items()}, "all.pth")
    assert capsys.readouterr().err == ""
    launch.check_weights(model, norm | {"ema.weight": (7,), "ema.count": ()}, "some.pth")
    assert capsys.readouterr().err == (
        "warning: checkpoint some.pth: 2 weights of auxiliary heads are not in it; a test does not use them.\n"
        "warning: checkpoint some.pth: 1 left out, not in the model: ema.weight (7,).\n"
    )
    del norm["norm.running_mean"]
    with pytest.raises(launch.UsageError, match=r"3 of the 6 weights (.|\n)*missing: norm.running_mean \(3,\)"):
        launch.check_weights(model, norm, "some.pth")


def test_data_that_is_not_there_is_one_message(monkeypatch, capsys, folder, trained):
    for tool, arguments in (("train.py", ["tiny.py"]), ("test.py", ["tiny.py", "trained/iter_4.pth"])):
        loaders = {"train.py": ("train_dataloader", "val_dataloader"), "test.py": ("test_dataloader",)}[tool]
        options = [f"{loader}.dataset.data_root=gone" for loader in loaders]
        err = refused(monkeypatch, capsys, folder, tool, *arguments, "--work-dir", "refused", "--cfg-options", *options)
        settings = " ".join(f"{loader}.dataset.data_root=<folder>" for loader in loaders)
        assert err == (
            f"error: {loaders[0]}.dataset: there is no gone/images. Put the data there, or say where it is: "
            f"--cfg-options {settings}.\n"
        )


def test_metrics_of_equal_names_are_one_message(monkeypatch, capsys, folder, trained):
    (folder / "twice.py").write_text(
        "_base_ = ['tiny.py']\n"
        "val_evaluator = [dict(type='IoUMetric'), dict(type='ConfusionMatrixMetric')]\n"
        "test_evaluator = val_evaluator\n"
    )
    for tool, arguments in (("train.py", ["twice.py"]), ("test.py", ["twice.py", "trained/iter_4.pth"])):
        err = refused(monkeypatch, capsys, folder, tool, *arguments, "--work-dir", "refused")
        assert "_evaluator: IoUMetric and ConfusionMatrixMetric both give aAcc" in err and "prefix='second'" in err
    cfg = launch.load_config(str(folder / "twice.py"))
    cfg.test_evaluator[1].prefix = "exact"
    launch.prepare_test(cfg, str(folder / "trained" / "iter_4.pth"))


@pytest.mark.parametrize(
    ("dataset", "missing"),
    [
        (dict(type="CamVidDataset", data_root="data/nowhere", data_prefix=dict(img_path="images/train")), ".dataset"),
        (dict(type="ConcatDataset", datasets=[dict(type="ADE20KDataset", data_root="gone")]), ".dataset.datasets.0"),
        (dict(type="RepeatDataset", times=2, dataset=dict(type="X", data_root="gone")), ".dataset.dataset"),
        (dict(type="ADE20KDataset", data_root="s3://bucket/gone"), None),
        (dict(type="ADE20KDataset", data_root="gone", backend_args=dict(backend="petrel")), None),
        (dict(type="ADE20KDataset", data_root="."), None),
        (dict(type="ShapesDataset", length=3), None),
    ],
)
def test_where_data_is_looked_for(dataset, missing):
    cfg = Config(dict(test_dataloader=dict(dataset=dataset)))
    if missing is None:
        launch.require_data(cfg, "test_dataloader", "val_dataloader")
        return
    with pytest.raises(launch.UsageError, match=f"--cfg-options test_dataloader{missing}.data_root=<folder>") as error:
        launch.require_data(cfg, "test_dataloader", "val_dataloader")
    assert ("prepare_camvid.py" in str(error.value)) == (dataset["type"] == "CamVidDataset")


@pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        (None, 0, ""),
        (0, 0, ""),
        (1, 1, ""),
        (launch.UsageError("x"), 2, "error: x\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (signal.SIGTERM, 143, "interrupted by SIGTERM\n"),
        (signal.SIGHUP, 129, "interrupted by SIGHUP\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "w/x.py"),
            2,
            "error: [Errno 28] No space left on device: 'w/x.py'. Make room there, or use another --work-dir.\n",
        ),
    ],
)
def test_exit_status(capsys, monkeypatch, outcome, status, said):
    monkeypatch.delenv("RANK", raising=False)

    def main():
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, signal.Signals):
            os.kill(os.getpid(), outcome)
            time.sleep(1)
        return outcome

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    assert launch.run(main) == status
    assert capsys.readouterr().err == said
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


def test_a_signal_that_is_ignored_stays_so(monkeypatch):
    """Ignore it as nohup does."""
    monkeypatch.delenv("RANK", raising=False)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert launch.run(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("loader", ["train", "val"])
def test_labels_are_checked_before_the_training(folder, tmp_path, capsys, loader):
    """A label that is no class, in the validation set too, where it would be found after the first iterations."""
    data = shutil.copytree(folder, tmp_path / "data", ignore=shutil.ignore_patterns("trained*"))
    Image.fromarray(np.full((32, 40), 7, np.uint8)).save(data / "labels" / "2.png")
    set_root = f"{loader}_dataloader.dataset.data_root={data}"
    command = [str(folder / "tiny.py"), "--work-dir", str(tmp_path / "work"), "--cfg-options", set_root]
    assert train.main(command) == 2
    said = capsys.readouterr().err
    assert (
        f"{loader}_dataloader.dataset: {data}/labels/2.png: 1280 pixels have label 7: with 3 classes labels are" in said
    )
    assert not (tmp_path / "work").exists()
    cfg = Config.fromfile(command[0])
    cfg.merge_from_dict({f"{loader}_dataloader.dataset.data_root": str(data)})
    launch.check_data([(cfg, f"{loader}_dataloader")], "none")


# Warnings, and what the package does for other callers


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("train_cfg.max_iter", " Did you mean 'train_cfg.max_iters'?"),
        ("max_iters", " Did you mean 'train_cfg.max_iters'?"),
        ("modl.decode_head.align_corners", " Did you mean 'model.decode_head.align_corners'?"),
        ("model.decode_head.algn_corners", " Did you mean 'model.decode_head.align_corners'?"),
        ("train_dataloader.dataset.indices", ""),
    ],
)
def test_an_unknown_option_is_added_with_a_warning(folder, capsys, option, hint):
    cfg = launch.load_config(str(folder / "tiny.py"), options={option: 3})
    assert cfg.to_dict()[option.split(".")[0]] is not None
    assert capsys.readouterr().err == (f"warning: --cfg-options: the config has no {option}, so it is added.{hint}\n")


def test_known_options_are_merged_silently(folder, capsys):
    options = {
        "train_cfg.max_iters": 7,
        "randomness.seed": 1,
        "dataset.pipeline.1.type": "LoadAnnotations",
        "resume": True,
    }
    cfg = launch.load_config(str(folder / "tiny.py"), options=options)
    assert (cfg.train_cfg.max_iters, cfg.randomness.seed, cfg.resume) == (7, 1, True)
    assert capsys.readouterr().err == ""


def test_the_work_dir_is_the_argument_else_the_configs_else_named_after_the_config(folder):
    path = str(folder / "tiny.py")
    assert launch.load_config(path, work_dir="a", options={"work_dir": "b"}).work_dir == "a"
    assert launch.load_config(path, options={"work_dir": "b"}).work_dir == "b"
    assert launch.load_config(path).work_dir == os.path.join("work_dirs", "tiny")
    assert launch.load_config("mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024").model.decode_head.type == "FCNHead"


def test_resuming_nothing_says_so_and_starts(folder, capsys, tmp_path):
    cfg = launch.load_config(str(folder / "tiny.py"), work_dir=str(tmp_path))
    launch.prepare_training(cfg, resume=True)
    assert (
        cfg.resume
        and f"nothing to resume in {tmp_path}, the training starts from the beginning" in capsys.readouterr().err
    )


def test_options_of_testing_that_the_config_cannot_serve_are_refused(folder):
    def config() -> Config:
        return launch.load_config(str(folder / "tiny.py"))

    cfg = config()
    cfg.pop("tta_pipeline")
    with pytest.raises(launch.UsageError, match="--tta needs tta_pipeline in the config"):
        launch.prepare_test(cfg, "any.pth", tta=True)
    cfg = config()
    cfg.default_hooks.pop("visualization")
    with pytest.raises(launch.UsageError, match=r"needs default_hooks.visualization in the config"):
        launch.prepare_test(cfg, "any.pth", show_dir="painted")
    for option, argument in {"--out": "out", "--show-dir": "show_dir"}.items():
        with pytest.raises(launch.UsageError, match=rf"{option} .*tiny.py/x: .*tiny.py is no folder"):
            launch.prepare_test(config(), "any.pth", **{argument: str(folder / "tiny.py" / "x")})
    cfg = config()
    cfg.test_evaluator = [dict(type="DepthMetric")]
    with pytest.raises(launch.UsageError, match="no metric of the config writes predictions"):
        launch.prepare_test(cfg, "any.pth", out="predicted")
