"""Where a training pipeline puts labels relative to the image: measured by running its own resizes on ramps."""

from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS

from ..grids.audit import LabelOffset

_DRAWS = 8  # sizes drawn from a random resize
_BORDER = 0.1  # share of each side left out: edges repeat there


def label_offsets(cfg: Config, seed: int = 0) -> list[LabelOffset]:
    """Measure the displacement that each resizing transform of ``cfg.train_pipeline`` gives the labels, on average."""
    init_default_scope(cfg.get("default_scope") or "mmseg")
    dataset = (cfg.get("train_dataloader") or {}).get("dataset") or {}
    pipeline = dataset.get("pipeline") or cfg.get("train_pipeline") or []
    return [_measure(entry, seed) for entry in pipeline if "Resize" in _name(entry["type"])]


def _name(kind: Any) -> str:
    return kind if isinstance(kind, str) else kind.__name__


def _measure(entry: dict[str, Any], seed: int) -> LabelOffset:
    transform = TRANSFORMS.build(entry)
    state = np.random.get_state()  # mmcv's transforms draw from the global one
    np.random.seed(seed)
    try:
        found = [_displacement(transform, *_shape(entry)) for _ in range(_DRAWS)]
    finally:
        np.random.set_state(state)
    y, x = np.mean(found, axis=0)
    return LabelOffset(_name(entry["type"]), float(y), float(x))


def _displacement(transform: Any, height: int, width: int) -> tuple[float, float]:
    """Return the source position that the image shows minus the one the label names, in output pixels (y, x)."""
    values = []
    for axis, n in enumerate((height, width)):
        line = np.arange(n)
        plane = np.broadcast_to(line[:, None] if axis == 0 else line, (height, width))
        results = transform(
            dict(
                img=np.repeat(plane[..., None], 3, axis=2).astype(np.float32),
                img_shape=(height, width),
                ori_shape=(height, width),
                gt_seg_map=plane.astype(np.float32),
                seg_fields=["gt_seg_map"],
            )
        )
        image, labels = results["img"][..., 0], results["gt_seg_map"]
        size = image.shape[axis]
        inner = slice(int(_BORDER * size), int((1 - _BORDER) * size))
        difference = np.moveaxis(image - labels, axis, 0)[inner]
        values.append(float(difference.mean()) * size / n)
    return values[0], values[1]


def _shape(entry: dict[str, Any]) -> tuple[int, int]:
    """Return (height, width) of a test image: about the transform's nominal scale, but no whole ratio of it."""
    scale = entry.get("scale") or (683, 512)
    if isinstance(scale, (list, tuple)) and not isinstance(scale[0], (int, float)):  # several to choose from
        scale = scale[-1]
    width, height = (scale, scale) if isinstance(scale, (int, float)) else scale
    return round(min(height, 1024) * 0.93), round(min(width, 1024) * 0.93)
