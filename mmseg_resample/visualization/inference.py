"""The way from a config, a checkpoint and an image to pictures of the model at work."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import DATASETS
from torch import Tensor, nn

from ..datasets.wrapped import leaves
from ..suggest import did_you_mean_file
from .explain import explanations
from .pictures import boundary_picture, explanation_pictures, segmentation_picture

_FROM_FILES = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]  # what LoadShapes does for scenes


def load_sample(cfg: Config, image: str, label: str | None = None) -> dict[str, Any]:
    """Prepare one image as the test of a config would.

    Args:
        cfg: a config with ``test_dataloader``.
        image: a file, or ``"test:N"`` for sample N of the test set, which has its label.
        label: file of the label map, as the annotations of the data set are stored; optional.

    Returns:
        ``inputs`` and ``data_samples``, as the pipeline packs them.

    Raises:
        FileNotFoundError: no such file.
        IndexError: the test set has no such sample.
        ValueError: ``label`` given for a sample of the test set, or no number after ``test:``.
    """
    init_default_scope(cfg.get("default_scope", "mmseg"))
    config = cfg.test_dataloader.dataset
    if image.startswith("test:"):
        if label is not None:
            raise ValueError(f"visualize: {image} has a label of its own. Leave --label away, or give a file as image.")
        if not image.removeprefix("test:").isdecimal():
            raise ValueError(f"visualize: expected test:N with the number of a sample, such as test:0, got {image}.")
        dataset = DATASETS.build(config)
        number = int(image.removeprefix("test:"))
        if not 0 <= number < len(dataset):
            raise IndexError(f"visualize: the test set has samples test:0 to test:{len(dataset) - 1}, got {image}.")
        return dataset[number]
    for path in (image, label):
        if path is not None and "://" not in path and not Path(path).is_file():
            raise FileNotFoundError(f"visualize: {path}: no such file.{did_you_mean_file(Path(path))}")
    dataset = _first(cfg)
    pipeline = [
        step
        for transform in _first_config(config)["pipeline"]
        for step in (_FROM_FILES if transform["type"] == "LoadShapes" and "://" not in image else [transform])
        if label is not None or step["type"] != "LoadAnnotations"
    ]
    return Compose(pipeline)(
        {
            "img_path": image,
            "seg_map_path": label,
            "label_map": getattr(dataset, "label_map", None),
            "reduce_zero_label": getattr(dataset, "reduce_zero_label", False),
            "seg_fields": [],
        }
    )


def _first_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config of a data set, or of the first of those that it wraps."""
    return next(leaves(config), ("", config))[1]


def _first(cfg: Config) -> Any:
    """Build the test set, the first of several, as far as it goes without its files."""
    config = {**_first_config(cfg.test_dataloader.dataset), "pipeline": []}
    kind = DATASETS.get(config["type"]) if isinstance(config["type"], str) else config["type"]
    parameters = inspect.signature(kind.__init__).parameters
    takes = "lazy_init" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return DATASETS.build({**config, "lazy_init": True} if takes else config)


def _ignore_index(model: nn.Module) -> int:
    """Return the label that the loss ignores; of several heads the last one predicts."""
    head = getattr(model, "decode_head", None)
    head = head[-1] if isinstance(head, nn.ModuleList | list) else head
    ignored = getattr(head, "ignore_index", 255)
    return 255 if ignored is None else ignored


def _picture(inputs: Tensor) -> np.ndarray:
    """Convert the input of a network to (H, W, 3) uint8 RGB: BGR as it was read, grey, or the first of many bands."""
    bands = inputs.permute(1, 2, 0).cpu().numpy()
    bands = bands[..., 2::-1] if bands.shape[-1] >= 3 else np.repeat(bands[..., :1], 3, axis=-1)
    if bands.dtype != np.uint8:
        low, high = bands.min(), bands.max()
        bands = (255 * ((bands - low) / max(high - low, 1e-12))).astype(np.uint8)
    return np.ascontiguousarray(bands)


def draw(runner: Runner, sample: dict[str, Any], name: str) -> list[str]:
    """Predict and send every picture to the backends of the runner's visualizer.

    - ``<name>_prediction``: prediction, and label if there is one, painted over the image;
    - ``<name>_boundary_errors``: errors at boundaries, if there is a label;
    - ``<name>_resampler_<module>``: what each resampler did.

    Args:
        runner: with loaded weights.
        sample: from ``load_sample``.
        name: of the pictures.

    Returns:
        Names of the pictures drawn.
    """
    model, visualizer = runner.model.eval(), runner.visualizer
    meta = _first(runner.cfg).metainfo
    with torch.no_grad(), explanations(model) as found:
        result = model.test_step(pseudo_collate([sample]))[0]
    image = _picture(sample["inputs"])
    height, width = result.pred_sem_seg.shape
    shown = image if image.shape[:2] == (height, width) else mmcv.imresize(image, (width, height))
    keys = {"label": "gt_sem_seg", "prediction": "pred_sem_seg"}
    maps = {
        title: getattr(result, key).data.squeeze(0).cpu().numpy().astype(np.int64)
        for title, key in keys.items()
        if key in result
    }
    drawn = {"prediction": segmentation_picture(maps, shown, meta["classes"], meta.get("palette"), name)}
    if "label" in maps:
        drawn["boundary_errors"] = boundary_picture(
            maps["prediction"], maps["label"], shown, _ignore_index(model), name=name
        )
    drawn |= {f"resampler_{module}": picture for module, picture in explanation_pictures(found, image, name)}
    for what, picture in drawn.items():
        visualizer.add_image(f"{name}_{what}", picture)
    return [f"{name}_{what}" for what in drawn]
