"""Where a training pipeline puts labels relative to the image: measured by running its own resizes on ramps."""

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS

from ..grids.audit import LabelOffset
from .wrapped import walk

_DRAWS = 8  # sizes drawn from a random resize
_RESIZES = ("Resize", "Mosaic")
_BORDER = 0.1  # share of each side left out: edges repeat there
_STEP = 29  # of the lines along which positions grow, all the same but for mosaics


def label_offsets(cfg: Config, seed: int = 0) -> list[LabelOffset]:
    """Measure the displacement that each resize of a config's pipelines gives the labels, on average.

    Found are resizes of the training data set, of those that it wraps, inside random choices and mosaics; and of
    validation, testing and test-time augmentation where they come behind the loading of labels.
    """
    init_default_scope(cfg.get("default_scope") or "mmseg")
    datasets = [(cfg.get(f"{stage}_dataloader") or {}).get("dataset") or {} for stage in ("train", "val", "test")]
    training = list(_pipelines(datasets[0])) or [cfg.get("train_pipeline") or []]
    testing = [pipeline for dataset in datasets[1:] for pipeline in _pipelines(dataset)]
    testing.append(cfg.get("tta_pipeline") or [])
    found = [entry for pipeline in training for entry in flat_pipeline(pipeline)]
    found += [entry for pipeline in testing for entry in _behind_labels(pipeline)]
    resizes = {str(entry): entry for entry in found if any(word in _name(entry["type"]) for word in _RESIZES)}
    return [_measure(entry, seed) for entry in resizes.values()]


def _pipelines(dataset: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """Yield the pipelines of a data set and of those that it wraps."""
    return (config["pipeline"] for _, config in walk(dataset) if config.get("pipeline"))


def flat_pipeline(entries: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the transforms of a pipeline, those inside others too, in their order."""
    for entry in entries:
        if not isinstance(entry, Mapping):  # one of several to choose from
            yield from flat_pipeline(entry)
        elif "transforms" in entry:
            yield from flat_pipeline(entry["transforms"])
        else:
            yield entry


def _behind_labels(pipeline: Any) -> Iterator[Mapping[str, Any]]:
    entries = list(flat_pipeline(pipeline))
    loads = [i for i, entry in enumerate(entries) if "LoadAnnotations" in _name(entry["type"])]
    yield from entries[loads[0] + 1 :] if loads else ()


def _name(kind: Any) -> str:
    return kind if isinstance(kind, str) else kind.__name__


def _measure(entry: Mapping[str, Any], seed: int) -> LabelOffset:
    entry = dict(entry)
    if "Mosaic" in _name(entry["type"]):  # always, and with nothing between the images
        entry |= {"prob": 1.0, "pad_val": np.nan, "seg_pad_val": np.nan}
    transform = TRANSFORMS.build(entry)
    states = np.random.get_state(), random.getstate()  # transforms draw from the global ones
    np.random.seed(seed)
    random.seed(seed)
    try:
        found = [_displacement(transform, *_shape(entry)) for _ in range(_DRAWS)]
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])
    y, x = np.mean(found, axis=0)
    return LabelOffset(_name(entry["type"]), float(y), float(x))


def _displacement(transform: Any, height: int, width: int) -> tuple[float, float]:
    """Return the source position that the image shows minus the one the label names, in output pixels (y, x).

    Each pixel of the image holds its row and column, each label its number, row by row.
    """
    rows, columns = np.indices((height, width), dtype=np.float32, sparse=True)
    image = np.zeros((height, width, 3), np.float32)
    image[..., 0], image[..., 1] = rows, columns
    sample = dict(
        img=image,
        img_shape=(height, width),
        ori_shape=(height, width),
        gt_seg_map=np.arange(height * width, dtype=np.float64).reshape(height, width),
        seg_fields=["gt_seg_map"],
    )
    if hasattr(transform, "get_indices"):  # a mosaic, which changes the images that it is given
        sample["mix_results"] = [copy.deepcopy(sample) for _ in range(3)]
    results = transform(sample)
    values = []
    for axis, (n, named) in enumerate(((height, np.floor_divide), (width, np.remainder))):
        size = results["img"].shape[axis]
        inner = slice(int(_BORDER * size), int((1 - _BORDER) * size))
        seen, labels = (
            np.moveaxis(plane, axis, 0)[inner, ::_STEP] for plane in (results["img"][..., axis], results["gt_seg_map"])
        )
        slope = float(np.nanmedian(np.diff(seen, axis=0)))  # a mosaic repeats the image
        scale = 1 / slope if slope > 0 else size / n
        values.append(float(np.nanmean(seen - named(labels, width))) * scale)
    return values[0], values[1]


def _shape(entry: Mapping[str, Any]) -> tuple[int, int]:
    """Return (height, width) of a test image: about the transform's nominal scale, but no whole ratio of it."""
    scale = entry.get("scale") or entry.get("img_scale") or (683, 512)
    if isinstance(scale, (list, tuple)) and not isinstance(scale[0], (int, float)):  # several to choose from
        scale = scale[-1]
    width, height = (scale, scale) if isinstance(scale, (int, float)) else scale
    return round(min(height, 1024) * 0.93), round(min(width, 1024) * 0.93)
