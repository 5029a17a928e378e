"""The way from a config, a checkpoint and an image to pictures of the model at work."""

import inspect
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

from ..suggest import did_you_mean_file
from .explain import explanations
from .pictures import boundary_picture, explanation_pictures

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
        ValueError: ``label`` given for a sample of the test set.
    """
    init_default_scope(cfg.get("default_scope", "mmseg"))
    config = cfg.test_dataloader.dataset
    if image.startswith("test:"):
        if label is not None:
            raise ValueError(f"visualize: {image} has a label of its own. Leave --label away, or give a file as image.")
        dataset = DATASETS.build(config)
        number = int(image.removeprefix("test:"))
        if not 0 <= number < len(dataset):
            raise IndexError(f"visualize: the test set has samples test:0 to test:{len(dataset) - 1}, got {image}.")
        return dataset[number]
    for path in (image, label):
        if path is not None and "://" not in path and not Path(path).is_file():
            raise FileNotFoundError(f"visualize: {path}: no such file.{did_you_mean_file(Path(path))}")
    kind = DATASETS.get(config.type)
    zero = inspect.signature(kind.__init__).parameters.get("reduce_zero_label")
    default = zero.default if zero is not None else False
    pipeline = [
        step
        for transform in config.pipeline
        for step in (_FROM_FILES if transform["type"] == "LoadShapes" and "://" not in image else [transform])
        if label is not None or step["type"] != "LoadAnnotations"
    ]
    return Compose(pipeline)(
        {
            "img_path": image,
            "seg_map_path": label,
            "label_map": None,
            "reduce_zero_label": config.get("reduce_zero_label", default),
            "seg_fields": [],
        }
    )


def draw(runner: Runner, sample: dict[str, Any], name: str) -> list[str]:
    """Predict and send every picture to the backends of the runner's visualizer.

    - ``<name>``: label, if there is one, and prediction, painted over the image by mmseg's visualizer;
    - ``<name>_boundaries``: errors at boundaries, if there is a label;
    - ``<name>_<module>``: what each resampler did.

    Args:
        runner: with loaded weights.
        sample: from ``load_sample``.
        name: of the pictures.

    Returns:
        Names of the pictures drawn.
    """
    model, visualizer = runner.model.eval(), runner.visualizer
    visualizer.dataset_meta = DATASETS.get(runner.cfg.test_dataloader.dataset.type).METAINFO
    with torch.no_grad(), explanations(model) as found:
        result = model.test_step(pseudo_collate([sample]))[0]
    image = np.ascontiguousarray(sample["inputs"].permute(1, 2, 0).numpy()[..., ::-1])  # BGR, as it was read
    height, width = result.pred_sem_seg.shape
    shown = image if image.shape[:2] == (height, width) else mmcv.imresize(image, (width, height))
    visualizer.add_datasample(name, shown, result, draw_gt="gt_sem_seg" in result, with_labels=False)
    names = [name]
    if "gt_sem_seg" in result:
        pred, label = (getattr(result, key).data.squeeze(0).cpu().numpy() for key in ("pred_sem_seg", "gt_sem_seg"))
        ignore_index = runner.cfg.model.decode_head.get("ignore_index", 255)
        visualizer.add_image(f"{name}_boundaries", boundary_picture(pred, label, shown, ignore_index))
        names.append(f"{name}_boundaries")
    for module, picture in explanation_pictures(found, image):
        visualizer.add_image(f"{name}_{module}", picture)
        names.append(f"{name}_{module}")
    return names
