"""Thin models of every kind, stock and lean with the same weights, and batches for them."""

import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch.utils._python_dispatch import TorchDispatchMode

CLASSES = 5
SIZE = (64, 96)
BN = dict(type="BN")
BACKBONE = dict(type="ResNetV1c", depth=18, stem_channels=8, base_channels=8, norm_cfg=BN)
COMMON = dict(channels=8, num_classes=CLASSES, norm_cfg=BN)
PYRAMID = dict(COMMON, in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3])
TOP = dict(COMMON, in_channels=64, in_index=3)
FCN = dict(TOP, type="FCNHead", num_convs=1)
HEADS = {
    "UPerHead": dict(PYRAMID, type="UPerHead", pool_scales=(1, 2)),
    "PSPHead": dict(TOP, type="PSPHead", pool_scales=(1, 2)),
    "SegformerHead": dict(PYRAMID, type="SegformerHead"),
    "FCNHead": FCN,
}
AUXILIARY = dict(FCN, in_channels=32, in_index=2)


def config(head="FCNHead", lean=None, segmentor="EncoderDecoder", **kwargs):
    """A config whose head is named, or given with what differs from the thin one."""
    model = dict(
        type=segmentor,
        data_preprocessor=dict(type="SegDataPreProcessor"),
        backbone=BACKBONE,
        decode_head=dict(HEADS[head], dropout_ratio=0.0) if isinstance(head, str) else head,
        test_cfg=dict(mode="whole"),
    )
    model |= kwargs
    if lean is not None:
        model |= dict(type="LeanSegmentor", lean=lean, segmentor=segmentor)
    return ConfigDict(model)


def build(*args, **kwargs):
    init_default_scope("mmseg")
    torch.manual_seed(0)
    return MODELS.build(config(*args, **kwargs))


def pair(*args, lean=None, **kwargs):
    """The stock model and the lean one with its weights."""
    stock, model = build(*args, **kwargs), build(*args, lean=lean or {}, **kwargs)
    tell_classes_apart(stock)
    assert list(model.state_dict()) == list(stock.state_dict())
    model.load_state_dict(stock.state_dict())
    return stock, model


@torch.no_grad()
def tell_classes_apart(model):
    """Weights with which ``model`` predicts several classes: untrained statistics make features next to nothing."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.9
    for seed in range(3):
        model(*batch(classes=2, ignored=False, seed=seed), mode="loss")
    for norm in norms:
        norm.momentum = 0.1
    for name, parameter in model.named_parameters():
        if "conv_seg" in name:
            torch.nn.init.normal_(parameter) if name.endswith("weight") else torch.nn.init.zeros_(parameter)


def batch(n=2, size=SIZE, ori_shape=None, classes=CLASSES, ignored=True, seed=0, **meta):
    """Images (n, 3, h, w) and their data samples, some of whose pixels are ignored."""
    generator = torch.Generator().manual_seed(seed)
    meta = dict(img_shape=size, pad_shape=size, ori_shape=ori_shape or size, padding_size=[0] * 4) | meta
    samples = []
    for _ in range(n):
        labels = torch.randint(0, classes, (1, *size), generator=generator)
        if ignored:
            labels[:, : size[0] // 4] = 255
        samples.append(SegDataSample(metainfo=dict(meta), gt_sem_seg=PixelData(data=labels)))
    return torch.randn(n, 3, *size, generator=generator), samples


class Largest(TorchDispatchMode):
    """Values in the largest floating-point tensor that anything inside the block computes."""

    def __init__(self):
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, torch.Tensor) and x.is_floating_point():
                self.values = max(self.values, x.numel())
        return out
