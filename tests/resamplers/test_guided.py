"""Where coarse samples sit in the image, against sums over pixels written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mmseg_resample
from mmseg_resample.ops import AxisMap, resize
from mmseg_resample.ops.grid import axis_maps
from mmseg_resample.policy import ResizePolicy
from mmseg_resample.resamplers import ImageGuided, Interpolate, guide_of
from mmseg_resample.resamplers.guided import pool_at
from tests.conftest import assert_close


class Plain(ImageGuided):
    """Read the image where the coarse samples sit, and nothing else."""

    def _upsample(self, x, like, maps):
        return pool_at(like, (x.shape[2], x.shape[3]), maps)


def pooled(image, size, maps):
    """Sum over pixels, each weighed by the length of it that a cell covers."""
    out = torch.zeros(*image.shape[:2], *size, dtype=image.dtype)
    weights = []
    for map_, n, extent in zip(maps, size, image.shape[2:], strict=True):
        matrix = torch.zeros(n, extent, dtype=image.dtype)
        for i in range(n):
            centre = min(max((i - map_.offset) / map_.scale, 0), extent - 1)
            low, high = centre - 0.5 / map_.scale, centre + 0.5 / map_.scale
            for pixel in range(extent):
                matrix[i, pixel] = max(0.0, min(high, pixel + 0.5) - max(low, pixel - 0.5))
        weights.append(matrix / matrix.sum(1, keepdim=True))
    for i in range(size[0]):
        for j in range(size[1]):
            out[:, :, i, j] = (image * weights[0][i][:, None] * weights[1][j]).sum((2, 3))
    return out


@pytest.mark.parametrize("model", ["asymmetric", "align_corners", (AxisMap(0.25, 0.0), AxisMap(0.3, -0.4))], ids=str)
def test_cells_lie_around_the_samples(model):
    image = torch.randn(2, 3, 13, 18, dtype=torch.float64)
    maps = axis_maps(model, (4, 5), (13, 18))
    torch.testing.assert_close(pool_at(image, (4, 5), maps), pooled(image, (4, 5), maps), atol=1e-12, rtol=0)


def test_half_pixel_cells_are_adaptive_pooling():
    image = torch.randn(2, 3, 12, 20, dtype=torch.float64)
    for size in ((3, 5), (5, 7)):
        assert torch.equal(guide_of(Interpolate(align_corners=False), image, size), F.adaptive_avg_pool2d(image, size))
    maps = axis_maps("half_pixel", (3, 5), (12, 20))
    torch.testing.assert_close(pooled(image, (3, 5), maps), F.adaptive_avg_pool2d(image, (3, 5)), atol=1e-12, rtol=0)
    assert guide_of(Interpolate(), image, (12, 20)) is image


def test_a_guide_lies_where_its_resampler_says():
    image = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    for resampler, model in (
        (Interpolate(align_corners=True), "align_corners"),
        (Interpolate(coordinates="asymmetric"), "asymmetric"),
        (Plain(8, 3, coordinates="asymmetric"), "asymmetric"),
    ):
        expected = pooled(image, (4, 4), axis_maps(model, (4, 4), (16, 16)))
        torch.testing.assert_close(guide_of(resampler, image, (4, 4)), expected, atol=1e-12, rtol=0)


def test_one_sample_is_the_mean_under_either_flag():
    x, image = torch.zeros(1, 8, 1, 1), torch.randn(1, 3, 9, 7)
    for flag in (False, True):
        torch.testing.assert_close(Plain(8, 3, flag)(x, image), image.mean((2, 3), keepdim=True))


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="Plain: expected either align_corners or coordinates, got align_corners=True"):
        Plain(8, 3, True, coordinates="asymmetric")
    with pytest.raises(ValueError, match="expected guide_channels, got None"):
        Plain(8)
    with pytest.raises(ValueError, match="half_pixels"):
        Plain(8, 3, coordinates="half_pixels")
    assert Plain(8, 3, coordinates=dict(scale=0.5, offset=0.0)).coordinates == AxisMap(0.5, 0.0)
    assert "coordinates='asymmetric'" in repr(Plain(8, 3, coordinates="asymmetric"))


class Probe(nn.Module):
    """Features of stride 8 from odd kernels, read at every pixel by two resamplers."""

    def __init__(self, **kwargs):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(*(nn.Conv2d(n, 8, 3, 2, 1) for n in (3, 8, 8)))
        self.up = Twice(8, 3, **kwargs)

    def forward(self, image):
        return self.up(self.stem(image), image)


class Twice(ImageGuided):
    """Resize twice, of which audits and policies are to see one."""

    def _upsample(self, x, like, maps):
        same = resize(x, x.shape[2:], mode="bilinear", align_corners=False)
        return resize(same, like.shape[2:], mode="bilinear", coordinates=maps)


@pytest.mark.parametrize(
    ("kwargs", "apart"), [({}, 3.5), ({"align_corners": True}, 7.0), ({"coordinates": "asymmetric"}, 0)]
)
def test_an_audit_sees_where_features_are_read(kwargs, apart):
    audit = mmseg_resample.audit(Probe(**kwargs), (64, 96))
    (step,) = audit.resizes
    assert (step.path, step.call, step.size) == ("up", 0, (64, 96))
    assert audit.worst == pytest.approx(apart) and not audit.unknown and not audit.unreachable


@pytest.mark.parametrize("size", [(64, 96), (57, 80)])
def test_an_exact_policy_registers_them(size):
    image = torch.randn(1, 3, *size)
    network, same = Probe(align_corners=True), Probe(coordinates=dict(scale=1 / 8, offset=0.0))
    assert (network(image) - same(image)).abs().max() > 1e-2
    mmseg_resample.exact(network)
    assert mmseg_resample.audit(network, size).worst == 0
    assert_close(network(image), same(image))
    assert len(network.resize_policy.report()["exact"]) == 1


def test_a_policy_that_asks_for_another_mode_leaves_it():
    image = torch.randn(1, 3, 64, 96)
    network = Probe()
    with ResizePolicy(rules=[dict(set_mode="bicubic")]).applied(network):
        assert_close(network(image), Probe()(image))
