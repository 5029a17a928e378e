"""Where coarse samples sit in the image, against sums over pixels written out."""

import pytest
import torch
import torch.nn.functional as F

from mmseg_resample.ops import AxisMap
from mmseg_resample.ops.grid import axis_maps
from mmseg_resample.resamplers import ImageGuided, Interpolate, guide_of
from mmseg_resample.resamplers.guided import pool_at


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
