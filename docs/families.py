"""Audits one config of every family of mmsegmentation and writes docs/families.md: ``python docs/families.py``."""

import argparse
import time
import warnings
from pathlib import Path

from audit_tables import first_line, levels_cell, number, size_cell, unfollowed, worst
from mmengine.config import Config
from mmengine.utils import get_installed_path
from rich.progress import track

from mmseg_resample.grids import Audit
from mmseg_resample.grids.words import in_pixels
from mmseg_resample.launch.auditing import audit_config, input_size

HEAD = """\
# Every family of mmsegmentation 1.2.2, audited

One config of each folder of mmseg's `configs/`, as `mmseg-resample audit` sees it: no weights, no data. Sizes are the
config's crop, else 512x1024. Pixels of the input throughout; `a .. b` drifts from the first to the last position of an
axis.

- **levels**: stride and offset of the backbone's outputs. Offset 0 means odd kernels (feature `i` on pixel
  `stride * i`), offset `(stride - 1) / 2` means patches.
- **worst meeting**: how far apart two levels are where they are added, multiplied or concatenated, as configured, with
  `align_corners=True`, and exact. What was averaged over large bins (pyramid pooling) is left out; only half-pixel
  fits it.
- **prediction**: where the evidence for a label is, relative to the label, along x: with `False`, `True` and exact
  resizes.
- **beyond features**: how far, at most, a resize reads beyond the first or last sample of what it resizes, as
  configured and exact; it repeats that sample there. Pooled bins, which never reach the border, are left out.
- **covered at**: the smallest size at or above this one at which exact resizes read nothing beyond; `-` where none
  does, as for features of patches.
- **hard-coded**: resizes that ignore the config's flag.

Regenerate with `python docs/families.py`.

| family | size | stride @ offset of levels | worst meeting | prediction: False | True | exact | beyond features | covered at | hard-coded |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""  # noqa: E501


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "families.md")
    parser.add_argument("--only", nargs="+", help="these folders alone")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    root = Path(get_installed_path("mmsegmentation")) / ".mim" / "configs"
    folders = [f for f in sorted(root.iterdir()) if f.is_dir() and not f.name.startswith("_")]
    start = time.process_time()
    rows, missing, notes = [], [], []
    for folder in track([f for f in folders if not args.only or f.name in args.only], description="auditing"):
        path = representative(folder)
        try:
            comparison = audited(path)
        except Exception as error:  # a family whose dependencies are not here is a finding, not a failure
            missing.append(f"- `{folder.name}`: {reason(error, path)}")
            continue
        rows.append(row(folder.name, comparison))
        notes += [f"- `{folder.name}`, {place or 'segmentor'}: {what}" for place, what in unfollowed(comparison)]
    seconds = time.process_time() - start
    text = HEAD + "\n".join(rows) + "\n"
    text += f"\n{len(rows)} families, {seconds:.0f} s of CPU time.\n"
    if notes:
        text += "\n## Not followed\n\n" + "\n".join(dict.fromkeys(notes)) + "\n"
    if missing:
        text += "\n## Not audited here\n\n" + "\n".join(missing) + "\n"
    args.out.write_text(text)
    print(f"{args.out}: {len(rows)} families in {seconds:.0f} s of CPU time, {len(missing)} without their dependencies")


def representative(folder: Path) -> Path:
    """The plainest config: Cityscapes at 512x1024 before ADE20K before others, then the shortest name."""

    def rank(path: Path) -> tuple[bool, bool, bool, int, str]:
        name = path.name
        return "cityscapes" not in name, "512x1024" not in name, "ade20k" not in name, len(name), name

    return min(folder.glob("*.py"), key=rank)


def audited(path: Path) -> Audit:
    cfg = Config.fromfile(path)
    return audit_config(cfg, path.stem, [input_size(cfg)])


def row(family: str, comparison: Audit) -> str:
    now = comparison.now
    true = comparison.passes.get("True")
    meetings = " / ".join(
        [number(worst(now)), number(worst(true[0])) if true else "-", number(worst(comparison.exact))]
    )
    predictions = []
    for key in ("False", "True", "exact"):
        audits = comparison.passes.get(key)
        final = audits[0].final if audits else None
        predictions.append("-" if final is None else in_pixels(final.x))
    if "False" not in comparison.passes:
        final = now.final
        predictions[0] = "-" if final is None else f"{in_pixels(final.x)} (no flag)"
    hard_coded = f"{len(comparison.hard_coded)} of {len(now.trace.resizes)}" if comparison.hard_coded else ""
    beyond = " / ".join(number(max((e.pixels for e in p.repeats), default=0.0)) for p in (now, comparison.exact))
    covering = "-" if comparison.covering is None else size_cell(comparison.covering)
    network = f"{family} | {size_cell(now.size)} | {levels_cell(now.levels)}"
    return f"| {network} | {meetings} | {' | '.join(predictions)} | {beyond} | {covering} | {hard_coded} |"


def reason(error: Exception, path: Path) -> str:
    for package in ("mmdet", "mmpretrain"):
        if package in path.read_text() or package in str(error):
            return f"needs {package}"
    return first_line(error)


if __name__ == "__main__":
    main()
