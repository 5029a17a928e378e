import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from mmseg_resample.ops import AxisMap, resize
from mmseg_resample.resamplers import Interpolate, build_resampler


def build(**cfg):
    return build_resampler(dict(type="Interpolate", **cfg), in_channels=4, guide_channels=2, align_corners=True)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic", "area"])
def test_takes_the_owners_flag_in_every_mode(mode):
    x, like = torch.randn(2, 4, 5, 6), torch.randn(2, 2, 9, 16)
    flag = {"align_corners": True} if mode in ("bilinear", "bicubic") else {}
    resampler = build(mode=mode)
    assert resampler.align_corners is True
    assert torch.equal(resampler(x, like), F.interpolate(x, (9, 16), mode=mode, **flag))


def test_config_wins_over_the_owner():
    assert build(align_corners=False).align_corners is False
    assert build(coordinates="asymmetric").align_corners is None


@pytest.mark.parametrize(("mode", "axes"), [("linear", 1), ("bilinear", 2), ("trilinear", 3)])
def test_one_to_three_axes(mode, axes):
    x, like = torch.randn(1, 2, *[3] * axes), torch.randn(1, 1, *[5] * axes)
    torch.testing.assert_close(
        Interpolate(mode=mode, align_corners=False)(x, like), F.interpolate(x, 5, mode=mode, align_corners=False)
    )


def test_explicit_maps_come_as_dicts():
    maps = [dict(scale=0.5, offset=0.1), dict(scale=0.25, offset=0.0)]
    x, like = torch.randn(1, 2, 6, 5), torch.randn(1, 1, 11, 17)
    expected = resize(x, (11, 17), mode="bilinear", coordinates=(AxisMap(0.5, 0.1), AxisMap(0.25, 0.0)))
    assert torch.equal(Interpolate(coordinates=maps)(x, like), expected)


def test_antialias_under_autocast():
    x, like = torch.randn(1, 2, 9, 8).bfloat16(), torch.randn(1, 1, 4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        out = Interpolate(align_corners=False, antialias=True)(x, like)
    assert torch.equal(out, F.interpolate(x.float(), (4, 3), mode="bilinear", antialias=True).bfloat16())


def test_registered_in_mmseg():
    assert MODELS.get("Interpolate") is Interpolate
    assert "mode='bicubic', align_corners=True" in repr(build(mode="bicubic"))


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (dict(mode="bilinaer"), "Did you mean 'bilinear'"),
        (dict(align_corners=True, antialias=True), "antialias=True with align_corners=True"),
        (dict(align_corners=True, coordinates="asymmetric"), "Keep one"),
        (dict(coordinates="asymetric"), "Did you mean 'asymmetric'"),
    ],
)
def test_bad_options_fail_at_construction(cfg, message):
    with pytest.raises(ValueError, match=message):
        build(**cfg)


def test_build_needs_a_type():
    with pytest.raises(TypeError, match=r"dict\(type='Interpolate'\)"):
        build_resampler({"mode": "bilinear"}, in_channels=1, guide_channels=1, align_corners=False)
