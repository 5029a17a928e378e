import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import build_upsample_layer
from mmengine.registry import init_default_scope
from mmseg.models.backbones import UNet

from mmseg_resample.resamplers import Interpolate, ResampleLayer

UNGUIDED = [
    dict(type="Interpolate", mode="bicubic"),
    dict(type="DySample", groups=1),
    dict(type="CARAFE", compressed_channels=4),
    dict(type="Deconv"),
    dict(type="PixelShuffle"),
]
GUIDED = [
    "FlowAlign",
    "GatedFlowAlign",
    "DualFlowAlign",
    "DeformAlign",
    "FADE",
    "FADELite",
    "SAPA",
    "FreqFusion",
    "MaxUnpool",
]


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmseg")


@pytest.mark.parametrize("cfg", UNGUIDED, ids=lambda cfg: cfg["type"])
def test_built_by_mmcv(cfg):
    layer = build_upsample_layer(dict(type="ResampleLayer", resampler=cfg, scale_factor=2), in_channels=8)
    x = torch.randn(2, 8, 3, 5)
    torch.testing.assert_close(layer(x), layer.resampler(x, torch.zeros(2, 8, 6, 10)))


def test_scale_and_convolution():
    layer = ResampleLayer(
        4, 6, scale_factor=2.5, align_corners=True, norm_cfg=dict(type="BN"), act_cfg=dict(type="ReLU")
    )
    x = torch.randn(2, 4, 3, 5)
    resized = F.interpolate(x, (7, 12), mode="bilinear", align_corners=True)
    assert isinstance(layer.resampler, Interpolate)
    torch.testing.assert_close(layer(x), layer.conv(resized))
    assert layer(x).shape == (2, 6, 7, 12) and layer(x).min() == 0


def test_channels_that_the_resampler_makes():
    layer = ResampleLayer(4, 6, resampler=dict(type="PixelShuffle", out_channels=3))
    assert layer(torch.randn(1, 4, 2, 2)).shape == (1, 6, 4, 4)


def test_in_mmsegs_unet():
    net = UNet(
        base_channels=4,
        num_stages=3,
        strides=(1, 1, 1),
        enc_num_convs=(1, 1, 1),
        dec_num_convs=(1, 1),
        downsamples=(True, True),
        enc_dilations=(1, 1, 1),
        dec_dilations=(1, 1),
        with_cp=True,
        upsample_cfg=dict(type="ResampleLayer", resampler=dict(type="DySample", groups=2)),
    )
    layers = [m for m in net.modules() if isinstance(m, ResampleLayer)]
    assert len(layers) == 2 and all(layer.with_cp for layer in layers)
    outs = net(torch.randn(2, 3, 16, 24))
    assert outs[-1].shape == (2, 4, 16, 24)
    outs[-1].square().mean().backward()
    assert all(p.grad is not None for layer in layers for p in layer.parameters())


@pytest.mark.parametrize("name", GUIDED)
def test_guided_resamplers_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is guided by a second feature"):
        ResampleLayer(16, resampler=dict(type=name))
