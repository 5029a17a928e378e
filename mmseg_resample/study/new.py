"""A study of somebody's own config: which value of the flag at which size, written as a file to be read and changed."""

import os
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

from mmengine.config import Config

from mmseg_resample.grids import Audit
from mmseg_resample.launch import dotted_keys, load_config
from mmseg_resample.launch.auditing import audit_config, input_size
from mmseg_resample.launch.configs import dotted_items
from mmseg_resample.launch.messages import UsageError

_HEAD = '''\
# What does the pixel model change in {name}?
# Written by `mmseg-resample study --new`. Read it, change what you like, and run it:
#   mmseg-resample study {out}
# docs/studies.md explains every key.
#
# {geometry}
base = {base!r}


def input_size(h, w):
    """What has to be set for crops of another size."""
    return {{
{size_keys}    }}


axes = dict(
    pixel_model=dict(
{variants}    ),
    # Sizes that each value of the flag fits: multiples of the coarsest stride, {stride}, for False, one more for True.
    input={{
{inputs}    }})
# What is trained: the products of these variants, one after the other.
train = [
{train}]
# Each combination is trained once per seed; differences are taken seed by seed. Six seeds can decide one comparison.
seeds = [0, 1, 2, 3, 4, 5]
# What the trained weights are tested as. A variant that is left out is tested as it was trained.
evaluations = dict(
    own=dict(),
{evaluations})
compare = 'pixel_model'
metric = 'mIoU'
# The smallest difference that matters to you, in points.
margin = 0.5
# The comparisons that decide; all others are exploratory. Two of them want seven seeds, four want eight.
family = [{family}]
'''


def write(config: str, out: Path) -> Path:
    """Write a study of a config of mmseg.

    Args:
        config: a path, or a name such as ``mmseg::pspnet/...``.
        out: the file to write; it must not exist.

    Returns:
        ``out``.

    Raises:
        UsageError: the config cannot be read or audited, or ``out`` is there.
    """
    if out.exists():
        raise UsageError(f"study --new: {out} exists. Name another file with --out.")
    cfg = load_config(config)
    size = input_size(cfg)
    audit = audit_config(cfg, config, [size])
    text = _text(config, out, cfg, audit)
    out.write_text(text)
    return out


def _text(config: str, out: Path, cfg: Config, audit: Audit) -> str:
    levels = [level for level in audit.levels if level is not None]
    if not levels:
        raise UsageError(f"study --new: the features of {config} have no position, so no size can be chosen for them.")
    stride = round(max(max(level.stride) for level in levels))
    odd = all(abs(offset) < 1e-6 for level in levels for offset in level.offset)
    even = tuple(-(-n // stride) * stride for n in audit.sizes[0])
    fitting = [even, *([tuple(n + 1 for n in even)] if odd else [])]
    sizes = {"x".join(map(str, size)): size for size in fitting}
    flags = [key for key in dotted_keys(cfg.model.to_dict()) if key.rpartition(".")[2] == "align_corners"]
    variants: dict[str, Mapping[str, Any]] = {
        str(value).lower(): {f"model.{key}": value for key in flags} or {"policy": str(value)}
        for value in ((False, True) if odd else (False,))
    }
    variants["exact_pad"] = {"policy": "exact+pad"}
    first, *larger = sizes
    train = [f"dict(input={first!r})", *(f"dict(input={n!r}, pixel_model=['false', 'true'])" for n in larger)]
    other = "false='true', true='false', exact_pad='false'" if odd else "false='exact_pad', exact_pad='false'"
    return _HEAD.format(
        name=Path(config.rpartition("::")[2]).name,
        out=out,
        geometry=_geometry(stride, odd),
        base=_relative(config, out),
        size_keys="".join(f"        {key!r}: (h, w),\n" for key in _size_keys(cfg)),
        variants=indent("".join(f"{name}={_dict(values)},\n" for name, values in variants.items()), " " * 8),
        stride=stride,
        inputs="".join(f"        {name!r}: input_size{hw},\n" for name, hw in sizes.items()),
        train="".join(f"    {part},\n" for part in train),
        evaluations=f"    other=dict(pixel_model=dict({other})),\n",
        family=f"dict(interaction=dict(input={list(sizes)}), pixel_model='true', evaluation='own')"
        if odd
        else "dict(pixel_model='exact_pad', evaluation='own')",
    )


def _geometry(stride: int, odd: bool) -> str:
    if odd:
        return (
            f"Its features lie on multiples of their strides, up to {stride} px (odd kernels): False fits sizes that "
            f"{stride} divides,\n# True fits one more row and column. Declared is whether the better flag depends on "
            f"that, an interaction."
        )
    return (
        f"Its features lie in the middle of patches, of up to {stride} px: False fits them at every size that {stride} "
        f"divides, True at none.\n# Declared is exact resizes on an image that its features cover, against False."
    )


def _dict(values: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{key!r}: {value!r}" for key, value in values.items()) + "}"


def _relative(config: str, out: Path) -> str:
    return config if "::" in config else Path(os.path.relpath(config, out.parent)).as_posix()


def _size_keys(cfg: Config) -> list[str]:
    """Find what sets the size of images: the preprocessor, the crop of the training by its type, a data set's own."""
    found = []
    if cfg.model.get("data_preprocessor", {}).get("size") is not None:
        found.append("model.data_preprocessor.size")
    if (cfg.model.get("test_cfg") or {}).get("crop_size") is not None:
        found.append("model.test_cfg.crop_size")
    content = cfg.train_dataloader.to_dict() if "train_dataloader" in cfg else {}
    values = dict(dotted_items(content))
    for key, value in values.items():
        holder, _, name = key.rpartition(".")
        if name in ("crop_size", "size") and isinstance(value, (tuple, list)) and len(value) == 2:
            kind = values.get(f"{holder}.type")
            parent, _, index = holder.rpartition(".")
            by_type = f"{parent}.{kind}" if index.isdecimal() and isinstance(kind, str) and "." not in kind else holder
            found.append(f"train_dataloader.{by_type}.{name}")
    drawn = [key for key in found if key.endswith("dataset.size")]  # at a size that is asked for, in tests too
    tested = [key.replace("train_dataloader", "test_dataloader") for key in drawn]
    found += [key for key in tested if key in dict(dotted_items(cfg.to_dict()))]
    if not found:
        raise UsageError("study --new: the config has no crop_size and no size for its training images to be varied.")
    return found
