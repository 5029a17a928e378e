"""What a ResizePolicy costs on the forward pass of a whole network."""

from functools import partial

import torch
from measure import Call, Case, Options
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor

from ._common import largest_difference, times

TITLE = "Policies on whole networks"
NOTE = (
    "The forward pass of stock models, the same with a policy that leaves every site as it is, with exact resizes, and "
    "with exact resizes on images padded until features reach their border."
)
CONFIGS = {
    "UPerNet-R18": "mmseg::upernet/upernet_r18_4xb2-40k_cityscapes-512x1024.py",
    "PSPNet-R18-d8": "mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py",
    "FCN-HRNet-18s": "mmseg::hrnet/fcn_hr18s_4xb2-40k_cityscapes-512x1024.py",
    "SegFormer-B0": "mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py",
}
POLICIES = {
    "unchanged": dict(rules=[dict(coordinates="keep")]),
    "exact": dict(exact=True),
    "exact+pad": dict(exact=True, pad="replicate"),
}
SIZE, QUICK_SIZE = (256, 512), (64, 64)


def cases(options: Options) -> list[Case]:
    names, size = (CONFIGS, SIZE) if not options.quick else (["SegFormer-B0"], QUICK_SIZE)
    return [
        Case(
            name=f"{name} at {times(*size)}",
            ways=["stock", *POLICIES],
            build=partial(_build, CONFIGS[name], size, options.device),
            tiny=partial(_build, CONFIGS[name], QUICK_SIZE, options.device),
            compare=_compare,
        )
        for name in names
    ]


def _build(config: str, size: tuple[int, int], device: str, way: str) -> Call:
    init_default_scope("mmseg")
    model_config = get_config(config).model
    model_config.update(pretrained=None)
    if way != "stock":
        model_config = dict(model_config, type="ResampledSegmentor", resize_policy=POLICIES[way])
    torch.manual_seed(0)
    model = MODELS.build(model_config).to(device).eval()
    meta = [dict(img_shape=size, ori_shape=size, pad_shape=size, padding_size=[0] * 4)]
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)

    @torch.inference_mode()
    def forward() -> Tensor:
        return model.encode_decode(x, meta)

    return forward


def _compare(way: str, reference: Tensor, result: Tensor) -> dict[str, float]:
    return {"logits": largest_difference(reference, result)} if way == "unchanged" else {}
