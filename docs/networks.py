"""Audits networks of torchvision, smp and timm and writes docs/networks.md: ``python docs/networks.py``.

It needs torchvision, timm and segmentation_models_pytorch, and no part of mmsegmentation. Nothing is downloaded.
"""

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from audit_tables import first_line, levels_cell, number, size_cell, unfollowed, worst
from rich.progress import track

from mmseg_resample.grids import Audit, audit, build
from mmseg_resample.grids.words import in_pixels

HEAD = """\
# Networks of torchvision, smp and timm, audited

`mmseg_resample.audit(model)`, out of the box: no weights, no data, no mmsegmentation. Without a size, the audit takes
the one that a model names as its own, as timm's do, else 512x512. Pixels of the input throughout; `a .. b` drifts from
the first to the last position of an axis.

- **levels**: stride and offset of what the model's `backbone` or `encoder` returns, else of what the model does.
  Offset 0 means odd kernels (feature `i` on pixel `stride * i`), offset `(stride - 1) / 2` means patches. smp's
  encoders return the image itself first, and an empty tensor, `none`, for a stride that they lack.
- **worst meeting**: how far apart two features are where they are added, multiplied or concatenated. What was averaged
  over bins (pyramid pooling) stands behind a plus sign.
- **prediction**: where the evidence for a label is, relative to the label, along x; `-` where no output has the size of
  the image. Outputs of a lower resolution are not judged.
- **exact**: the largest distance that `mmseg_resample.exact(model)` leaves, anywhere.
- **uncovered**: how far beyond the last sample of what it resizes a resize reads at most, as the model stands.
- **unknown**: operators that could not be followed; what depends on them is not judged, and the figures of that row are
  those of the rest.
- **out of reach**: resizes that no policy can change.

Regenerate with `python docs/networks.py`.
"""

LIMITS = """
## Known limits

- What a layer *learns* to pick is not seen. A layer that mixes the pixels of a block which views put into channels
  (patch merging) is placed at the middle of the block, as a convolution is at the middle of its window.
- A nearest resize by a factor that is no whole number, and a bilinear one that shrinks without low-passing, are placed
  where they read on average.
- Attention output lies at its queries. Where these are no pixels of the map that it is added to (global queries of
  GC ViT), the distance in the table is that of the queries, not of features. A class token, a pooled feature or a table
  of positions lies nowhere.
"""

HEADER = """
| {kind} | size | stride @ offset of levels | worst meeting | prediction | exact | uncovered | unknown | out of reach |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""

TORCHVISION = ("fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")
DECODERS = (
    *("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "PAN", "DeepLabV3", "DeepLabV3Plus", "UPerNet"),
    "Segformer",
)
ENCODERS = ("resnet18", "mit_b0", "mobilenet_v2", "tu-convnext_tiny", "tu-tf_efficientnet_b0")
VIT_ENCODER = "tu-vit_tiny_patch16_224"
TWICE = ("resnet50d", "tf_efficientnet_b0", "mobilenetv3_large_100", "resnet18")
"""Models of timm beside the representative of their module, whose layers have other positions."""


@dataclass(frozen=True)
class Entry:
    """A network of a table: its name there, and how it is built."""

    name: str
    spec: str
    arguments: tuple[str, ...]


@dataclass
class Section:
    """A table: its title, what its first column is called, and its networks."""

    title: str
    kind: str
    entries: list[Entry]
    rows: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "networks.md")
    parser.add_argument("--only", nargs="+", help="networks with one of these texts in their names")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    start = time.process_time()
    notes: list[str] = []
    refused: list[str] = []
    tables = sections()
    for table in tables:
        chosen = [e for e in table.entries if not args.only or any(text in e.name for text in args.only)]
        for entry in track(chosen, description=table.title):
            try:
                audited = audit(build(entry.spec, entry.arguments))
            except Exception as error:  # what a library or its model refuses is a finding, not a failure
                refused.append(f"- `{entry.name}`: {reason(error)}")
                continue
            table.rows.append(row(entry.name, audited))
            places = Counter(what for _, what in unfollowed(audited))
            notes += [f"- `{entry.name}`: {what} ({count} modules)" for what, count in places.items()]
    seconds = time.process_time() - start
    text = HEAD + "".join(written(table) for table in tables)
    count = sum(len(table.rows) for table in tables)
    text += f"\n{count} networks, {seconds:.0f} s of CPU time. {', '.join(versions())}.\n" + LIMITS
    if notes:
        text += "\n## Not followed\n\n" + "\n".join(notes).replace("(1 modules)", "(1 module)") + "\n"
    if refused:
        text += "\n## Not audited\n\n" + "\n".join(refused) + "\n"
    args.out.write_text(text)
    print(f"{args.out}: {count} networks in {seconds:.0f} s of CPU time, {len(refused)} refused, {len(notes)} notes")


def sections() -> list[Section]:
    smp = "segmentation_models_pytorch"
    combinations = [
        Entry(f"{d}, {e}", f"{smp}:{d}", (e, "encoder_weights=None")) for d in DECODERS for e in ENCODERS
    ] + [Entry(f"DPT, {VIT_ENCODER}", f"{smp}:DPT", (VIT_ENCODER, "encoder_weights=None"))]
    return [
        Section(
            "torchvision.models.segmentation",
            "model",
            [
                Entry(n, f"torchvision.models.segmentation:{n}", ("weights=None", "weights_backbone=None"))
                for n in TORCHVISION
            ],
        ),
        Section("segmentation_models_pytorch", "decoder, encoder", combinations),
        Section(
            "timm.create_model(..., features_only=True)",
            "model",
            [
                Entry(name, "timm:create_model", (name, "features_only=True", "pretrained=False"))
                for name in representatives()
            ],
        ),
    ]


def representatives() -> Iterator[str]:
    """Yield a model of each module of timm, the one with the shortest name, and those of ``TWICE``."""
    import timm

    names = {}
    for module in timm.list_modules():
        models = [name for name in timm.list_models(module=module) if not name.startswith("test_")]
        if models:
            names[module] = min(models, key=lambda name: (len(name), name))
    yield from sorted({*names.values(), *TWICE})


def versions() -> Iterator[str]:
    for package in ("torch", "torchvision", "segmentation_models_pytorch", "timm"):
        yield f"{package} {version(package).partition('+')[0]}"


def row(name: str, audited: Audit) -> str:
    now, final = audited.now, audited.final
    bins = worst(now, pooled=True)
    meeting = number(worst(now)) + (f" + {number(bins)}" if bins else "")
    predicted = "-" if not now.predicts else "not followed" if final is None else in_pixels(final.x)
    uncovered = f"{audited.uncovered[0].pixels:.3g}" if audited.uncovered else ""
    figures = [meeting, predicted, number(audited.exact.worst), uncovered]
    counts = [str(len(found) or "") for found in (audited.unknown, audited.unreachable)]
    return f"| {' | '.join([name, size_cell(now.size), levels_cell(now.levels), *figures, *counts])} |"


def written(table: Section) -> str:
    return f"\n## {table.title}\n" + HEADER.format(kind=table.kind) + "\n".join(table.rows) + "\n"


def reason(error: Exception) -> str:
    """Write what a library said, not what ``audit`` and ``build`` say around it."""
    return first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)


if __name__ == "__main__":
    main()
