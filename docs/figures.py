"""Draws the figures of README.md and docs/conventions.md from the package's own grids: ``python docs/figures.py``."""

import argparse
import json
from pathlib import Path

import matplotlib
import torch
from mmseg.registry import MODELS
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from mmseg_resample import launch, register
from mmseg_resample.grids import level_shifts
from mmseg_resample.grids.evidence import evidence
from mmseg_resample.ops import PixelGrid
from mmseg_resample.ops.grid import axis_maps

HERE = Path(__file__).parent / "figures"
RESULTS = Path(__file__).parent / "results"
PRETRAINED = dict(type="Pretrained", checkpoint="package://efficientnet_lite0")
BLUE, ORANGE, GREEN, GREY = "#2563eb", "#ea580c", "#059669", "#64748b"
NAMES = {
    "half_pixel": ("half_pixel  (align_corners=False)", BLUE),
    "align_corners": ("align_corners  (align_corners=True)", ORANGE),
    "asymmetric": ("asymmetric", GREEN),
}

plt.rcParams.update(
    {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.hashsalt": "mmseg_resample",  # the same figure is the same file
        "svg.fonttype": "none",
    }
)


def reads():
    """Draw what the eight outputs of a 4 -> 8 resize read."""
    figure, axes = plt.subplots(figsize=(8, 2.9))
    for row, (name, (label, color)) in enumerate(NAMES.items()):
        (axis_map,) = axis_maps(name, (4,), (8,))
        y = -row
        for index in range(4):
            axes.add_patch(plt.Rectangle((index - 0.5, y - 0.3), 1, 0.6, fill=False, ec="#cbd5e1", lw=1))
            axes.plot(index, y, "s", color=GREY, ms=5)
        for x in range(8):
            axes.plot(axis_map(x), y + 0.14, "v", color=color, ms=7)
            axes.annotate(str(x), (axis_map(x), y + 0.2), ha="center", va="bottom", fontsize=8, color=color)
        axes.text(4.35, y, f"{label}\nu = {axis_map.scale:.4g} x {axis_map.offset:+.4g}", va="center", color=color)
    axes.set(xlim=(-1, 7.4), ylim=(-2.6, 0.7), xticks=range(4), yticks=[])
    axes.set_xlabel("source index", loc="left")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_title("Where each of 8 outputs reads a row of 4 samples (squares)", loc="left", fontsize=11)
    return figure


def backbone(size, odd):
    """A stride-8 feature grid of one axis: ResNet-like 3x3 layers, or patches."""
    grid = PixelGrid.image((size,))
    windows = [(7, 2, 3), (3, 2, 1), (3, 2, 1)] if odd else [(4, 4, 0), (2, 2, 0)]
    for window in windows:
        grid = grid.window(*window)
    return grid


def displacement(feature, size, name):
    """For every label position: how far away, in input pixels, the evidence comes from that the resize puts there."""
    (axis_map,) = axis_maps(name, feature.size, (size,))
    last = feature.size[0] - 1
    return [feature.offset[0] + feature.stride[0] * min(max(axis_map(x), 0), last) - x for x in range(size)]


def errors():
    """The displacement of logits of stride 8, by backbone family, input size and convention."""
    cases = [
        ("3x3 layers, input 128", 128, True),
        ("3x3 layers, input 129", 129, True),
        ("patches, input 128", 128, False),
    ]
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.1), sharey=True, layout="constrained")
    for axis, (title, size, odd) in zip(axes, cases, strict=True):
        feature = backbone(size, odd)
        for name, (label, color) in NAMES.items():
            axis.plot(displacement(feature, size, name), color=color, lw=2, label=label)
        axis.axhline(0, color=GREY, lw=0.8, zorder=0)
        axis.set_title(f"{title}\n{feature.size[0]} features at 8 i {feature.offset[0]:+g}", fontsize=10, loc="left")
        axis.set_xlabel("label position (px)")
    axes[0].set_ylabel("evidence minus label (px)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def weights():
    """Draw what a feature of stride 8 depends on, with random and ImageNet weights, around the centre of its layers."""
    generator = torch.Generator().manual_seed(0)
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.9), sharey=True, layout="constrained")
    reach, size = 20, 256
    for axis, (title, init) in zip(axes, {"random weights": None, "ImageNet weights": PRETRAINED}.items(), strict=True):
        torch.manual_seed(0)
        net = MODELS.build(dict(type="EfficientNetLite", out_indices=(1,), init_cfg=init))
        net.init_weights()
        (level,) = level_shifts(net.eval(), (size, size))
        total = torch.zeros(2 * reach + 1, 2 * reach + 1, dtype=torch.float64)
        for _ in range(32):
            image = torch.randn(4, 3, size, size, generator=generator).requires_grad_()
            for shares, (row, column) in zip(*evidence(image, net(image)[0], generator), strict=True):
                y, x = (
                    int(o + s * i) for o, s, i in zip(level.grid.offset, level.grid.stride, (row, column), strict=True)
                )
                part = shares[y - reach : y + reach + 1, x - reach : x + reach + 1]
                total += part / part.sum()
        axis.imshow(total.sqrt(), extent=(-reach - 0.5, reach + 0.5, reach + 0.5, -reach - 0.5), cmap="Blues")
        axis.plot(0, 0, "+", color=GREY, ms=14, mew=2, label="centre of the layers")
        axis.plot(*reversed(level.shift), "o", color=ORANGE, ms=8, mfc="none", mew=2, label="centre of the evidence")
        axis.plot(-3.5, -3.5, "x", color=GREEN, ms=9, mew=2, label="centre of the cell (half-pixel)")
        axis.set_title(title, loc="left", fontsize=11)
        axis.set_xlabel("pixels", loc="left")
    axes[1].legend(loc="lower right", fontsize=8)
    return figure


def answer():
    """Draw what pixel models are worth on photographs, from the reports of two studies."""
    flags, weights = (
        json.loads((RESULTS / name / "report.json").read_text())
        for name in ("flag_and_size_camvid_lite0", "where_weights_look_camvid_lite0")
    )
    groups = {
        "even size, padding of the pretraining: False is right by the weights": ("even", "same"),
        "even size, PyTorch's padding: False is 7 px off by the weights": ("even", "symmetric"),
        "odd size: False drifts": ("odd", "same"),
    }
    names = {"true": "True", "exact_pad": "exact, by the layers", "by_weights": "exact, by the weights"}
    figure, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
    y, ticks = 0, {}
    for title, where in groups.items():
        axes.text(-2.35, y, title, va="center", fontsize=9.5)
        y += 1
        for name, label in names.items():
            found = _difference(weights if name == "by_weights" else flags, where, name)
            if found is None:
                continue
            color = BLUE if found["declared"] else GREY
            axes.plot([found["low"], found["high"]], [y, y], color=color, lw=3, solid_capstyle="round")
            axes.plot(found["mean"], y, "o", color=color, ms=8, mfc=color if found["status"] == "significant" else "w")
            axes.plot(list(found["seeds"].values()), [y] * found["n"], ".", color=color, ms=3, alpha=0.5, zorder=0)
            axes.text(2.1, y, f"{found['mean']:+.2f}", va="center", color=color)
            ticks[y] = f"{label} $-$ False"
            y += 1
    axes.axvline(0, color=GREY, lw=0.8, zorder=0)
    axes.set(xlim=(-2.4, 2.5), ylim=(y - 0.4, -0.6))
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("points of mIoU, 95 % intervals; dots are seeds; blue: declared; filled: significant", loc="left")
    axes.set_title("CamVid at 240x180, ImageNet weights, logits of stride 8", loc="left", fontsize=11)
    return figure


def _difference(report, where, variant):
    found = (
        difference
        for each in report["comparisons"]
        if each["evaluation"] == "own" and (each["combination"]["input"], each["combination"]["padding"]) == where
        for difference in each["differences"]
        if difference["variant"] == variant
    )
    return next(found, None)


def audits(out):
    """Draw the picture of an audit, for light pages and for dark ones."""
    register()
    from mmseg_resample.launch.auditing import audit_config

    config = launch.load_config("mmseg::upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py")
    audit = audit_config(config, "UPerNet-R50", [(512, 1024)])
    for theme in ("light", "dark"):
        path = out / f"audit-{theme}.png"
        audit.plot(path, theme)
        with Image.open(path) as picture:
            picture.convert("RGB").quantize(64).save(path, optimize=True)
        print(path)


FIGURES = {"reads": reads, "errors": errors, "weights": weights, "answer": answer}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", default="svg", choices=["svg", "png"])
    parser.add_argument("--out", type=Path, default=HERE, help="folder, default docs/figures")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        figure = draw()
        path = args.out / f"{name}.{args.format}"
        metadata = {"Date": None} if args.format == "svg" else None
        figure.savefig(path, dpi=150, bbox_inches="tight", metadata=metadata)
        plt.close(figure)
        print(path)
    audits(args.out)


if __name__ == "__main__":
    main()
