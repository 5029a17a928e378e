import pytest
import torch
from mmseg.models.necks import FPN

from mmseg_resample.models import ResampleFPN

SIZES = [(33, 47), (17, 24), (9, 12), (5, 6)]


def features(channels=(2, 3, 5, 7)):
    return tuple(torch.randn(2, c, *size) for c, size in zip(channels, SIZES, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(start_level=1, num_outs=4, add_extra_convs="on_input"),
        dict(num_outs=6),
        dict(num_outs=6, add_extra_convs="on_lateral", relu_before_extra_convs=True),
        dict(num_outs=6, add_extra_convs="on_output"),
        dict(start_level=1, end_level=3, num_outs=2),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_with_interpolate_is_mmsegs_fpn(options, mode):
    options = {"num_outs": 4, **options}
    upsample = dict(mode=mode) | (dict(align_corners=True) if mode == "bilinear" else {})
    stock = FPN([2, 3, 5, 7], 8, upsample_cfg=upsample, **options)
    ours = ResampleFPN([2, 3, 5, 7], 8, resampler=dict(type="Interpolate", mode=mode), align_corners=True, **options)
    ours.load_state_dict(stock.state_dict())
    x = features()
    for expected, actual in zip(stock(x), ours(x), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("flag", [True, False])
def test_flow_align_at_odd_sizes(flag):
    neck = ResampleFPN([2, 3, 5, 7], 8, 4, resampler=dict(type="FlowAlign"), align_corners=flag)
    assert all(r.align_corners is flag for r in neck.resamplers)
    outs = neck(features())
    assert [tuple(o.shape[2:]) for o in outs] == SIZES
    sum(o.square().mean() for o in outs).backward()
    assert all(p.grad is not None for p in neck.resamplers.parameters())


def test_errors():
    with pytest.raises(ValueError, match="resampler=dict"):
        ResampleFPN([2, 3], 8, 2, upsample_cfg=dict(mode="nearest"))
    with pytest.raises(ValueError, match="expected 4 levels, got 3"):
        ResampleFPN([2, 3, 5, 7], 8, 4)(features()[:3])
