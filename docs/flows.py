"""What flow alignment learns on Shapes, next to what the audit says that it would have to undo.

Trains the tiny SFNet under both flags at 128 and 129 pixels, with three seeds, and draws the mean flow of every level:
``python docs/flows.py`` (about ten minutes on two CPU cores). Runs are kept in ``work_dirs/flows``; what is there is
not trained again.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from mmengine.config import Config

import mmseg_resample  # noqa: F401  (registers the models)
from mmseg_resample.grids import fake_tensors, follow
from mmseg_resample.launch.auditing import build_fake

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "shapes" / "sfnet_r18-tiny_1xb8-400_shapes-128x128.py"
FLAGS, SIZES, SEEDS = (False, True), (128, 129), (0, 1, 2)
STRIDES = {"top_down.0": 4, "top_down.1": 8, "top_down.2": 16}  # of what a level is brought to
COLORS = dict(zip(STRIDES, ("#2563eb", "#ea580c", "#059669"), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/flows"))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    args = parser.parse_args()
    settings = list(itertools.product(FLAGS, SIZES))
    with ThreadPoolExecutor(args.workers) as pool:
        list(pool.map(lambda run: train(args.work_dir, *run), itertools.product(FLAGS, SIZES, SEEDS)))

    figure, panels = plt.subplots(2, 2, figsize=(9, 6), sharex=True, sharey=True, layout="constrained")
    print(
        "| align_corners | input | level | to undo, px | learned: x | y | spread |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    )
    for panel, (flag, size) in zip(panels.flat, settings, strict=True):
        needed = to_undo(flag, size)
        for level, stride in STRIDES.items():
            iterations, dx, dy, spread = (
                np.stack(values)
                for values in zip(*(flows(args.work_dir, flag, size, s, level) for s in SEEDS), strict=True)
            )
            for values, style, name in ((dx, "-", "x"), (dy, ":", "y")):
                panel.plot(
                    iterations[0],
                    stride * values.mean(0),
                    style,
                    color=COLORS[level],
                    label=f"{level} {name}",
                )
            panel.axhline(needed[level], color=COLORS[level], linestyle="--", linewidth=0.8)
            last = [f"{stride * v[:, -1].mean():+.2f} ± {stride * v[:, -1].std(ddof=1):.2f}" for v in (dx, dy, spread)]
            print(f"| {flag} | {size} | {level} | {needed[level]:+.2f} | {' | '.join(last)} |")
        panel.set_title(f"align_corners={flag}, {size} px", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("iteration")
    figure.supylabel("mean flow, px of the input; dashed: would undo the misregistration")
    panels[0, 0].legend(fontsize=7, ncol=3)
    figure.savefig(ROOT / "docs" / "figures" / "flows.svg")


def directory(root: Path, flag: bool, size: int, seed: int) -> Path:
    return root / f"align_corners={flag},input={size}" / f"seed-{seed}"


def train(root: Path, flag: bool, size: int, seed: int) -> None:
    folder = directory(root, flag, size, seed)
    if (folder / "iter_400.pth").exists():
        return
    options = {
        "model.decode_head.align_corners": flag,
        "model.data_preprocessor.size": f"({size},{size})",
        "train_dataloader.dataset.size": f"({size},{size})",
        "val_dataloader.dataset.size": f"({size},{size})",
        "randomness.seed": seed,
    }
    command = [sys.executable, str(ROOT / "tools" / "train.py"), str(CONFIG), "--work-dir", str(folder)]
    command += ["--cfg-options", *(f"{key}={value}" for key, value in options.items())]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def flows(root: Path, flag: bool, size: int, seed: int, level: str) -> tuple[np.ndarray, ...]:
    """Iterations, and dx, dy and spread in pixels of the level."""
    (path,) = directory(root, flag, size, seed).glob("*/vis_data/scalars.json")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    keys = [f"flow/decode_head.{level}.{key}" for key in ("dx", "dy", "spread")]
    logged = [row for row in rows if keys[0] in row]
    return tuple(np.array([row[key] for row in logged]) for key in ("iter", *keys))


def to_undo(flag: bool, size: int) -> dict[str, float]:
    """The mean over the image of what the audit finds between each level and the coarser one, with interpolation."""
    config = Config.fromfile(CONFIG)
    config.model.decode_head.update(align_corners=flag, resampler=dict(type="Interpolate", mode="bilinear"))
    with fake_tensors():
        found = follow(build_fake(config), (size, size))
    needed = dict.fromkeys(STRIDES, 0.0)
    for resize in found.trace.resizes:
        if resize.path.startswith("decode_head.top_down.") and resize.result is not None:
            level = resize.path.removeprefix("decode_head.")
            stride = STRIDES[level]
            middle = (resize.size[1] - 1) / 2
            needed[level] = stride * middle - (resize.result.offset[1] + resize.result.stride[1] * middle)
    return needed


if __name__ == "__main__":
    main()
