"""From logits to labels: mmseg's ``predict_by_feat`` with ``postprocess_result``, and ``resize_argmax``."""

from functools import partial
from types import SimpleNamespace

import torch
from measure import Call, Case, Options
from mmseg.models.decode_heads import FCNHead
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_resample.ops import resize_argmax

from ._common import backends, memcpy, times

TITLE = "Labels of resized logits"
NOTE = (
    "*mmseg* is `predict_by_feat` and `postprocess_result`: a resize to the network's input, another to the image "
    "(a copy where the two are equal), argmax. The others are backends of `ops.resize_argmax`, which evaluate both "
    "resizes. Random logits, float32. *copy* moves as many bytes as the logits and the labels have."
)
# Shape of the logits, size of the network's input, size of the image.
SHAPES: list[tuple[tuple[int, int, int], tuple[int, int], tuple[int, int]]] = [
    ((19, 128, 256), (1024, 2048), (1024, 2048)),
    ((150, 128, 128), (512, 512), (512, 512)),
    ((150, 128, 171), (512, 683), (480, 640)),
    ((150, 128, 256), (1024, 2048), (1024, 2048)),
]
QUICK: list[tuple[tuple[int, int, int], tuple[int, int], tuple[int, int]]] = [
    ((5, 32, 32), (128, 128), (128, 128)),
    ((5, 32, 32), (128, 128), (100, 150)),
]


def cases(options: Options) -> list[Case]:
    return [case(*shapes, options.device) for shapes in (QUICK if options.quick else SHAPES)]


def case(shape: tuple[int, int, int], first: tuple[int, int], size: tuple[int, int], device: str) -> Case:
    """Logits of ``shape``, resized to ``first`` and then to ``size``."""
    through = "" if first == size else f" to {times(*first)}"
    return Case(
        name=f"labels {times(*shape)}{through} to {times(*size)}",
        ways=["mmseg", *backends("resize_argmax", device)],
        build=partial(_build, shape, first, size, device),
        tiny=partial(_build, (shape[0], 8, 8), (32, 32), (32, 32) if first == size else (30, 35), device),
        floor=lambda: memcpy(4 * shape[0] * shape[1] * shape[2] + _label_bytes(shape[0]) * size[0] * size[1], device),
        compare=_compare,
        facts=lambda: {"pixels": size[0] * size[1], "classes": shape[0]},
    )


def _label_bytes(classes: int) -> int:
    return 1 if classes <= 256 else 2


def _build(shape: tuple[int, int, int], first: tuple[int, int], size: tuple[int, int], device: str, way: str) -> Call:
    logits = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0)).to(device)
    if way != "mmseg":
        return lambda: resize_argmax(logits, size, first_size=first, backend=way)
    head = FCNHead(in_channels=1, channels=1, num_classes=shape[0], align_corners=False)
    model = SimpleNamespace(align_corners=False, decode_head=head)
    meta = dict(img_shape=first, pad_shape=first, ori_shape=size)

    @torch.no_grad()
    def predict() -> Tensor:
        samples = [SegDataSample(metainfo=meta)]
        BaseSegmentor.postprocess_result(model, head.predict_by_feat(logits, [meta]), samples)
        return samples[0].pred_sem_seg.data

    return predict


def _compare(_way: str, reference: Tensor, result: Tensor) -> dict[str, float]:
    return {"labels": int((reference != result).sum())}
