"""The image as a level, and heads that read it."""

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from mmseg_resample.models import LinearProbeHead, WithImage
from tests.conftest import assert_close

THIN = dict(type="mmseg.ResNetV1c", depth=18, stem_channels=8, base_channels=8, norm_cfg=dict(type="BN"))


def probe(**kwargs):
    return LinearProbeHead([3, 16, 64], in_index=[0, 2, 4], num_classes=5, align_corners=False, **kwargs)


def test_the_image_comes_first():
    backbone, image = WithImage(THIN).eval(), torch.randn(2, 3, 40, 56)
    first, *levels = backbone(image)
    assert first is image
    for level, expected in zip(levels, backbone.backbone(image), strict=True):
        assert torch.equal(level, expected)


def test_a_single_level_is_one():
    assert len(WithImage({**THIN, "out_indices": (3,)}).eval()(torch.randn(1, 3, 32, 32))) == 2


def test_a_frozen_backbone_stays_as_it_is():
    backbone = WithImage(THIN, frozen=True).train()
    assert backbone.training and not any(module.training for module in backbone.backbone.modules())
    *_, level = backbone(torch.randn(2, 3, 64, 64, requires_grad=True))
    assert not level.requires_grad and not any(p.requires_grad for p in backbone.parameters())
    *_, level = WithImage(THIN)(torch.randn(2, 3, 64, 64))
    assert level.requires_grad


def test_what_is_no_config_is_refused():
    with pytest.raises(TypeError, match="WithImage: expected backbone to be a config"):
        WithImage("ResNet")


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("size", [(40, 56), (37, 50)])
def test_a_probe_reads_levels_at_the_size_of_the_image(size, stride):
    image = torch.randn(2, 3, *size)
    levels = WithImage(THIN)(image)
    head = probe(guide_stride=stride, resampler=dict(type="DySample"))
    logits = head(levels)
    assert logits.shape == (2, 5, -(-size[0] // stride), -(-size[1] // stride))
    logits.sum().backward()
    assert all(p.grad is not None for p in head.parameters())


def test_a_probe_is_a_norm_and_a_linear_layer():
    levels = WithImage(THIN)(torch.randn(2, 3, 64, 64))
    head = probe().eval()
    fine = torch.cat([F.interpolate(levels[i], (64, 64), mode="bilinear") for i in (2, 4)], 1)
    assert_close(head(levels), F.conv2d(fine / (1 + head.norm.eps) ** 0.5, head.conv_seg.weight, head.conv_seg.bias))
    assert {name for name, _ in head.named_parameters()} == {
        "conv_seg.weight",
        "conv_seg.bias",
        "norm.weight",
        "norm.bias",
    }


@pytest.mark.parametrize("wrong", [dict(in_channels=64), dict(in_channels=[3]), dict(guide_stride=0)])
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match="LinearProbeHead: expected"):
        LinearProbeHead(**{"in_channels": [3, 64], "num_classes": 5, **wrong})


def test_by_config():
    model = MODELS.build(
        dict(
            type="mmseg.EncoderDecoder",
            backbone=dict(type="WithImage", backbone=THIN, frozen=True),
            decode_head=dict(type="LinearProbeHead", in_channels=[3, 64], in_index=[0, 4], num_classes=5),
            test_cfg=dict(mode="whole"),
        )
    ).eval()
    assert model.encode_decode(torch.randn(1, 3, 33, 45), [dict(img_shape=(33, 45))]).shape == (1, 5, 33, 45)
