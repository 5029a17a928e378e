"""mmseg's heads with resamplers: with interpolation they are mmseg's own, bit for bit."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads import DepthwiseSeparableASPPHead, FPNHead, SegformerHead, UPerHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_resample.models import (
    ResampleDeepLabV3PlusHead,
    ResampleFPNHead,
    ResampleSegformerHead,
    ResampleUPerHead,
)

CHANNELS = [8, 12, 16, 20]
PYRAMID = dict(in_channels=CHANNELS, in_index=[0, 1, 2, 3])
BN = dict(norm_cfg=dict(type="BN"), channels=16, num_classes=5, dropout_ratio=0.0)
HEADS = {
    "uper": (UPerHead, ResampleUPerHead, PYRAMID),
    "fpn": (FPNHead, ResampleFPNHead, dict(PYRAMID, feature_strides=[4, 8, 16, 32])),
    "segformer": (SegformerHead, ResampleSegformerHead, PYRAMID),
    "segformer nearest": (SegformerHead, ResampleSegformerHead, dict(PYRAMID, interpolate_mode="nearest")),
    "deeplabv3+": (
        DepthwiseSeparableASPPHead,
        ResampleDeepLabV3PlusHead,
        dict(in_channels=20, in_index=3, dilations=(1, 2), c1_in_channels=8, c1_channels=6),
    ),
}
NAMES = list(HEADS)
SIZES = {
    "even": [(32, 48), (16, 24), (8, 12), (4, 6)],
    "odd": [(19, 23), (10, 12), (5, 6), (3, 3)],
    "not halves": [(17, 30), (11, 13), (7, 6), (2, 5)],
}


def features(size="odd"):
    return [torch.randn(2, c, *hw) for c, hw in zip(CHANNELS, SIZES[size], strict=True)]


def pair(name, flag=False, **kwargs):
    stock, ours, options = HEADS[name]
    torch.manual_seed(1)
    return stock(**options, **BN, align_corners=flag), ours(**options, **BN, align_corners=flag, **kwargs)


@pytest.mark.filterwarnings("ignore:When align_corners")
@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_with_interpolation_it_is_mmsegs_head_bit_for_bit(name, size, flag):
    stock, ours = pair(name, None if "nearest" in name else flag)
    assert list(ours.state_dict()) == list(stock.state_dict())
    ours.load_state_dict(stock.state_dict(), strict=True)
    x = features(size)
    for training in (True, False):  # the statistics of the first pass are those of the second
        stock.train(training), ours.train(training)
        assert torch.equal(ours(x), stock(x))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_mmsegs(name):
    stock, ours = pair(name, None if "nearest" in name else False)
    ours.load_state_dict(stock.state_dict())
    x = features()
    for module in (stock, ours):
        module(x).square().sum().backward()
    for (key, a), (_, b) in zip(stock.named_parameters(), ours.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=key)


def resamplers(head):
    return [m for m in head.modules() if hasattr(m, "guide_channels")]


@pytest.mark.parametrize(
    "cfg",
    [
        dict(type="FlowAlign"),
        dict(type="SAPA", embedding_channels=4),
        dict(type="FADE", compressed_channels=4, gate=False),
        dict(type="DySample"),
        dict(type="CARAFE", compressed_channels=4),
    ],
    ids=lambda cfg: cfg["type"],
)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_trains_with_any_resampler_at_any_size(name, size, cfg):
    kwargs = dict(fusion_resampler=cfg, pool_resampler=cfg) if name == "uper" else {}
    _, head = pair(name, resampler=cfg, **kwargs)
    found = resamplers(head)
    assert found and {type(m).__name__ for m in found} == {cfg["type"]}
    samples = []
    for _ in range(2):
        samples.append(SegDataSample())
        samples[-1].gt_sem_seg = PixelData(data=torch.randint(0, 5, (1, 67, 71)))
    sum(v for k, v in head.loss(features(size), samples, None).items() if "loss" in k).backward()
    assert [k for k, p in head.named_parameters() if p.grad is None] == []
    assert head(features(size)).shape == (2, 5, *SIZES[size][0])


@pytest.mark.parametrize("name", NAMES)
def test_resamplers_get_what_the_head_knows(name):
    """Each is called with maps of the channels it was built for, and brings the first to the second."""
    _, head = pair(name, flag=True, resampler=dict(type="SAPA"))
    calls = []
    for m in resamplers(head):
        assert m.align_corners is True
        m.register_forward_hook(lambda m, args, out: calls.append((m, *(a.shape for a in args), out.shape)))
    head(features())
    assert [m for m, *_ in calls] and len({m for m, *_ in calls}) == len(calls) == len(resamplers(head))
    for m, x, like, out in calls:
        assert (x[1], out[1], out[2:]) == (m.in_channels, m.in_channels, like[2:])
        assert m.guide_channels == like[1]


def test_uper_separates_its_three_kinds():
    _, head = pair(
        "uper",
        resampler=dict(type="FlowAlign"),
        pool_resampler=dict(type="Interpolate", mode="nearest"),
        fusion_resampler=dict(type="DySample"),
    )
    assert [type(m).__name__ for m in head.resamplers] == ["FlowAlign"] * 3
    assert [m.mode for m in head.pool_resamplers] == ["nearest"] * 4
    assert [type(m).__name__ for m in head.fusion_resamplers] == ["DySample"] * 3


def test_uper_does_not_add_what_is_fused():
    """A resampler that returns the lateral itself leaves the laterals alone."""
    _, head = pair("uper")

    class Keep(torch.nn.Module):
        fuses = True

        def forward(self, x, like):
            return like

    head.resamplers = torch.nn.ModuleList(Keep() for _ in range(3))
    seen = []
    head.fpn_convs[0].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    head.eval()
    x = features()
    head(x)
    assert torch.equal(seen[0], head.lateral_convs[0](x[0]))


def test_fpn_is_guided_by_the_level_of_the_doublings_stride():
    _, head = pair("fpn", resampler=dict(type="SAPA"))
    assert head.guides == [[], [0], [1, 0], [2, 1, 0]]
    guides = []
    for m in resamplers(head):
        m.register_forward_hook(lambda m, args, out: guides.append(args[1]))
    x = features("even")
    head(x)
    assert [next(i for i, level in enumerate(x) if level is g) for g in guides] == [0, 1, 0, 2, 1, 0]


def test_segformer_stepwise_is_six_doublings_through_the_levels():
    _, head = pair("segformer", resampler=dict(type="SAPA"), stepwise=True)
    sizes = []
    for m in resamplers(head):
        m.register_forward_hook(lambda m, args, out: sizes.append((tuple(args[0].shape[2:]), tuple(out.shape[2:]))))
    head(features("odd"))
    a, b, c, d = SIZES["odd"]
    assert sizes == [(b, a), (c, b), (b, a), (d, c), (c, b), (b, a)]


def test_segformer_stepwise_parameters_are_the_published_ones():
    """DySample on SegFormer-B1: 49.2K for the six of 256 channels."""
    options = dict(in_channels=[64, 128, 320, 512], in_index=[0, 1, 2, 3], channels=256, num_classes=150)
    stock = SegformerHead(**options)
    ours = ResampleSegformerHead(**options, resampler=dict(type="DySample"), stepwise=True)
    added = sum(p.numel() for p in ours.parameters()) - sum(p.numel() for p in stock.parameters())
    assert added == pytest.approx(49.2e3, abs=300)


@pytest.mark.parametrize("cls", [ours for _, ours, _ in HEADS.values()])
def test_registered_in_mmseg(cls):
    assert MODELS.get(cls.__name__) is cls


def test_errors():
    with pytest.raises(ValueError, match=r"once or twice the one before, got \[4, 16\]"):
        ResampleFPNHead([4, 16], in_channels=[8, 8], in_index=[0, 1], **BN)
    with pytest.raises(ValueError, match="c1_in_channels > 0, got 0"):
        ResampleDeepLabV3PlusHead(in_channels=8, in_index=0, c1_in_channels=0, c1_channels=4, **BN)
    with pytest.raises(ValueError, match="in_channels and guide_channels to be equal for the gate"):
        ResampleDeepLabV3PlusHead(
            in_channels=8, in_index=0, c1_in_channels=8, c1_channels=4, resampler=dict(type="FADE"), **BN
        )
