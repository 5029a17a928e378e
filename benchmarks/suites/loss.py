"""Resize, cross entropy, accuracy and the gradient: mmseg's ``loss_by_feat`` and ``resize_cross_entropy``."""

from collections.abc import Callable
from functools import partial

import torch
from measure import Call, Case, Options
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_resample.ops import resize_cross_entropy

from ._common import backends, largest_difference, memcpy, size_of, times

TITLE = "Loss of resized logits"
NOTE = (
    "*mmseg* is `loss_by_feat` with `CrossEntropyLoss` and `accuracy`, and the gradient; the others are backends of "
    "`ops.resize_cross_entropy` with `return_accuracy=True`. Random logits, float32; 5 % of the labels are ignored. "
    "*copy* moves as many bytes as the logits, the labels and the gradient have."
)
SHAPES: list[tuple[tuple[int, int, int, int], tuple[int, int]]] = [
    ((2, 19, 128, 128), (512, 512)),
    ((2, 150, 128, 128), (512, 512)),
    ((1, 19, 128, 256), (512, 1024)),
]
QUICK: list[tuple[tuple[int, int, int, int], tuple[int, int]]] = [((1, 5, 32, 32), (128, 128))]


def cases(options: Options) -> list[Case]:
    return [case(shape, size, options.device) for shape, size in (QUICK if options.quick else SHAPES)]


def case(shape: tuple[int, int, int, int], size: tuple[int, int], device: str) -> Case:
    """Logits of ``shape`` and labels of ``size``."""
    return Case(
        name=f"loss {times(*shape)} to {times(*size)}",
        ways=["mmseg", *backends("resize_cross_entropy", device)],
        build=partial(_build, shape, size, device),
        tiny=partial(_build, (1, *shape[1:2], 8, 8), (32, 32), device),
        floor=partial(_floor, shape, size, device),
        compare=_compare,
        facts=lambda: {"pixels": shape[0] * size[0] * size[1], "classes": shape[1]},
    )


def _inputs(shape: tuple[int, int, int, int], size: tuple[int, int], device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator)
    target = torch.randint(0, shape[1], (shape[0], *size), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.05] = 255
    return logits.to(device).requires_grad_(), target.to(device)


def _build(shape: tuple[int, int, int, int], size: tuple[int, int], device: str, way: str) -> Call:
    logits, target = _inputs(shape, size, device)
    loss_of = _stock(shape[1], target) if way == "mmseg" else _fused(target, way)

    def step() -> tuple[Tensor, Tensor]:
        loss = loss_of(logits)
        return loss.detach(), torch.autograd.grad(loss, logits)[0]

    return step


def _stock(classes: int, target: Tensor) -> Callable[[Tensor], Tensor]:
    head = FCNHead(in_channels=1, channels=1, num_classes=classes, norm_cfg=None, align_corners=False)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=labels[None])) for labels in target]
    return lambda logits: head.loss_by_feat(logits, samples)["loss_ce"]  # and acc_seg, unread


def _fused(target: Tensor, backend: str) -> Callable[[Tensor], Tensor]:
    return lambda logits: resize_cross_entropy(logits, target, return_accuracy=True, backend=backend)[0]


def _floor(shape: tuple[int, int, int, int], size: tuple[int, int], device: str) -> Call:
    logits, target = _inputs(shape, size, device)
    return memcpy(size_of(logits, target, logits), device)


def _compare(_way: str, reference: tuple[Tensor, Tensor], result: tuple[Tensor, Tensor]) -> dict[str, float]:
    return {
        "loss": largest_difference(reference[0], result[0]),
        "gradient": largest_difference(reference[1], result[1]),
    }
