"""What a ResizePolicy costs on whole networks: the prediction of logits, and a training step."""

from functools import partial
from typing import Any

import torch
from measure import Call, Case, Options
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ._common import largest_difference, times

TITLE = "Policies on whole networks"
NOTE = (
    "Stock models, the same with exact resizes, with exact resizes on images padded until features reach their "
    "border, and stock with `fast_resize=True`. *prediction* is the forward pass to logits at the size of the image, "
    "*step* the loss of one image with its gradients, statistics frozen."
)
CONFIGS = {
    "UPerNet-R18": "mmseg::upernet/upernet_r18_4xb2-40k_cityscapes-512x1024.py",
    "PSPNet-R18-d8": "mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py",
    "FCN-HRNet-18s": "mmseg::hrnet/fcn_hr18s_4xb2-40k_cityscapes-512x1024.py",
    "SegFormer-B0": "mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py",
    "DeepLabV3+-R18-d8": "mmseg::deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024.py",
}
CHANGES: dict[str, dict[str, Any]] = {
    "exact": dict(resize_policy=dict(exact=True)),
    "exact+pad": dict(resize_policy=dict(exact=True, pad="replicate")),
    "fast": dict(fast_resize=True),
}
SIZES, QUICK_SIZE = [(500, 700), (512, 1024)], (64, 64)


def cases(options: Options) -> list[Case]:
    names, sizes = (list(CONFIGS), SIZES) if not options.quick else (["SegFormer-B0"], [QUICK_SIZE])
    return [
        Case(
            name=f"{name}, {'step' if step else 'prediction'} at {times(*size)}",
            ways=["stock", *CHANGES],
            build=partial(_build, CONFIGS[name], step, size, options.device),
            tiny=partial(_build, CONFIGS[name], step, QUICK_SIZE, options.device),
            compare=_compare,
            memory=False,
        )
        for step in (False, True)
        for size in sizes
        for name in names
    ]


def _build(config: str, step: bool, size: tuple[int, int], device: str, way: str) -> Call:
    init_default_scope("mmseg")
    model_config = get_config(config).model
    model_config.update(pretrained=None)
    if way != "stock":
        model_config = dict(model_config, type="ResampledSegmentor", **CHANGES[way])
    torch.manual_seed(0)
    model = MODELS.build(model_config).to(device).eval()
    meta = dict(img_shape=size, ori_shape=size, pad_shape=size, padding_size=[0] * 4)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, *size, generator=generator).to(device)
    if not step:
        return torch.inference_mode()(lambda: model.encode_decode(x, [meta]))
    for module in model.modules():
        module.training = not isinstance(module, (_BatchNorm, _DropoutNd))
    sample = SegDataSample(metainfo=meta)
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 19, (1, *size), generator=generator).to(device))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def loss() -> Tensor:
        losses = [value for key, value in model.loss(x, [sample]).items() if "loss" in key]
        total = torch.stack(losses).sum()
        torch.autograd.grad(total, parameters, allow_unused=True)
        return total.detach()

    return loss


def _compare(way: str, reference: Tensor, result: Tensor) -> dict[str, float]:
    return {"results": largest_difference(reference, result)} if way == "fast" else {}
