"""The command visualize on a trained tiny SFNet, and the flows that its training logged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from mmseg_resample.cli import main
from mmseg_resample.datasets import ShapesScene
from mmseg_resample.launch import visualize
from mmseg_resample.study.training import _isolated

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "configs" / "shapes" / "sfnet_r18-tiny_1xb8-400_shapes-128x128.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
STEPS = [f"decode_head.top_down.{level}" for level in range(3)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("visualize")
    config = folder / "sfnet.py"
    config.write_text(
        f"_base_ = [{str(CONFIG)!r}]\n"
        "custom_hooks = [dict(type='FlowLoggerHook', interval=2), dict(type='EMAHook')]\n"
        "train_cfg = dict(max_iters=2, val_interval=2)\n"
        "train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(length=4))\n"
        "test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(length=4))\n"
        "val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(length=2))\n"
        "default_hooks = dict(logger=dict(interval=2), checkpoint=dict(interval=2))\n"
    )
    command = [sys.executable, str(REPOSITORY / "tools" / "train.py"), config, "--work-dir", folder / "work"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return config, folder / "work" / "iter_2.pth", folder


def test_flows_are_logged_beside_the_losses(trained):
    (scalars,) = (trained[2] / "work").glob("*/vis_data/scalars.json")
    logged = [json.loads(line) for line in scalars.read_text().splitlines()]
    row = next(row for row in logged if "loss" in row)
    for step in STEPS:
        dx, dy, spread = (row[f"flow/{step}.{key}"] for key in ("dx", "dy", "spread"))
        assert abs(dx) + abs(dy) > 0 and spread > 0


@pytest.mark.slow
def test_pictures_of_a_test_image(trained):
    config, checkpoint, folder = trained
    out = folder / "pictures"
    tool = str(REPOSITORY / "tools" / "visualize.py")
    command = [sys.executable, tool, config, checkpoint, "test:1", "--out-dir", out, "--policy", "exact"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "trained with model.resize_policy=None (now {'exact': True})" in done.stderr
    pictures = {path.name.removesuffix("_0.png"): cv2.imread(str(path)) for path in out.rglob("vis_image/*.png")}
    names = ["test1_prediction", "test1_boundary_errors", *(f"test1_resampler_{step}" for step in STEPS)]
    assert pictures.keys() == set(names)
    shown = [Path(line) for line in done.stdout.splitlines() if line.endswith(".png")]
    assert sorted(path.name for path in shown) == sorted(f"{name}_0.png" for name in names)
    assert all(path.is_file() and path.is_relative_to(out) for path in shown)
    assert all(picture.std() > 10 for picture in pictures.values())


def test_any_image_with_and_without_its_label(trained, capsys):
    config, checkpoint, folder = trained
    scene = ShapesScene(seed=5, index=0, size=(100, 141))
    image, label = scene.render()
    cv2.imwrite(str(folder / "scene.png"), image)
    cv2.imwrite(str(folder / "label.png"), label)
    for name, options in (("with", ["--label", folder / "label.png"]), ("without", [])):
        arguments = [config, checkpoint, folder / "scene.png", "--out-dir", folder / name, *options]
        with _isolated():
            assert main(["visualize", *map(str, arguments)]) == 0
        assert ("scene_boundary_errors" in capsys.readouterr().out) is bool(options)


def test_images_of_one_name_do_not_overwrite_each_other():
    assert visualize._names(["a/street.jpg", "b/street.jpg", "b/c.png", "test:3"]) == {
        "a/street.jpg": "a_street",
        "b/street.jpg": "b_street",
        "b/c.png": "c",
        "test:3": "test3",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["test:9"], "samples test:0 to test:3"),
        (["test:0", "--policy", "exakt"], "expected exact, exact+pad, True, False or one of"),
        (["nowhere.png"], "nowhere.png: no such file"),
        (["test:0", "test:1", "--label", "label.png"], "expected one image"),
    ],
)
def test_mistakes(trained, capfd, arguments, message):
    config, checkpoint, folder = map(str, trained)
    try:
        status = main(["visualize", config, checkpoint, *arguments, "--out-dir", f"{folder}/none"])
    except SystemExit as stopped:  # by the parser
        status = stopped.code
    assert status == 2 and message in capfd.readouterr().err
