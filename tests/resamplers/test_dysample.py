import math

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from mmseg_resample.ops import resize
from mmseg_resample.resamplers import DySample
from tests.conftest import assert_close

VARIANTS = [dict(style=style, dyscope=scope) for style in ("lp", "pl") for scope in (False, True)]


def build(channels=16, groups=2, std=0.5, **kwargs):
    module = DySample(channels, groups=groups, **kwargs)
    for p in module.parameters():
        torch.nn.init.normal_(p, std=std)
    return module.double()


def sample(x, row, column):
    """Bilinear reading of (C, h, w) at real coordinates, edges repeated."""
    height, width = x.shape[1:]
    top, left = math.floor(row), math.floor(column)
    out = torch.zeros(x.shape[0], dtype=x.dtype)
    for i, wi in ((top, 1 - (row - top)), (top + 1, row - top)):
        for j, wj in ((left, 1 - (column - left)), (left + 1, column - left)):
            out += wi * wj * x[:, min(max(i, 0), height - 1), min(max(j, 0), width - 1)]
    return out


def offsets(module, x):
    """(N, 2, groups, s * h, s * w) in source pixels, from the definition."""
    s, groups = module.scale_factor, module.groups
    features = F.pixel_shuffle(x, s) if module.style == "pl" else x
    raw = F.conv2d(features, module.offset.weight, module.offset.bias)
    raw = raw / 4 if module.scope is None else raw * torch.sigmoid(F.conv2d(features, module.scope.weight)) / 2
    if module.style == "lp":  # channel (component * groups + group) * s * s + cell, cells row by row
        batch, _, height, width = raw.shape
        raw = raw.view(batch, 2 * groups, s, s, height, width).permute(0, 1, 4, 2, 5, 3)
    return raw.reshape(x.shape[0], 2, groups, s * x.shape[2], s * x.shape[3])


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("factor", [2, 4])
def test_whole_ratios_are_the_published_operator(variant, factor):
    """Cell k of a source sample starts at its (k + 1/2) / s - 1/2, displaced by its offset."""
    module = build(scale_factor=factor, **variant)
    x = torch.randn(1, 16, 3, 2, dtype=torch.float64)
    size = (3 * factor, 2 * factor)
    actual, offset = module(x, torch.empty(1, 1, *size)), offsets(module, x).detach()
    for i in range(size[0]):
        for j in range(size[1]):
            for group in range(2):
                dx, dy = offset[0, :, group, i, j].tolist()
                row = i // factor + (i % factor + 0.5) / factor - 0.5 + dy
                column = j // factor + (j % factor + 0.5) / factor - 0.5 + dx
                channels = slice(8 * group, 8 * group + 8)
                assert_close(actual[0, channels, i, j], sample(x[0, channels], row, column))


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("size", [(5, 7), (6, 8), (2, 9), (1, 1)])
@pytest.mark.parametrize("style", ["lp", "pl"])
def test_any_size_reads_the_offset_where_it_reads_the_feature(size, flag, style):
    module = build(style=style, align_corners=flag)
    x = torch.randn(1, 16, 3, 4, dtype=torch.float64)
    actual, offset = module(x, torch.empty(1, 1, *size)), offsets(module, x).detach()

    def coordinate(index, n, out):
        return index * (n - 1) / max(out - 1, 1) if flag else (index + 0.5) * n / out - 0.5

    for i in range(size[0]):
        for j in range(size[1]):
            row, column = coordinate(i, 3, size[0]), coordinate(j, 4, size[1])
            for group in range(2):
                # Cell centre m of the field lies at source coordinate (m + 1/2) / 2 - 1/2.
                dx, dy = sample(offset[0, :, group], 2 * row + 0.5, 2 * column + 0.5).tolist()
                channels = slice(8 * group, 8 * group + 8)
                assert_close(actual[0, channels, i, j], sample(x[0, channels], row + dy, column + dx))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("size", [(10, 14), (9, 13), (15, 21), (5, 7), (3, 4), (1, 1), (1, 6)])
def test_zero_offsets_are_bilinear_resize(variant, flag, size):
    module = build(align_corners=flag, std=0.0, **variant).float()
    x = torch.randn(2, 16, 5, 7)
    expected = resize(x, size, mode="bilinear", align_corners=flag, warning=False)
    assert_close(module(x, torch.empty(2, 1, *size)), expected)


@pytest.mark.parametrize("flag", [False, True])
def test_a_constant_offset_is_in_source_pixels(flag):
    """Read one more on a ramp, one source pixel to the right, whatever the ratio."""
    module = build(4, 1, std=0.0, align_corners=flag)
    torch.nn.init.constant_(module.offset.bias[:4], 4.0)  # dx of the four cells; a quarter of it is applied
    x = torch.arange(12.0, dtype=torch.float64).expand(1, 4, 3, 12).contiguous()
    like = torch.empty(1, 1, 7, 31)
    moved, unmoved = module(x, like), resize(x, (7, 31), mode="bilinear", align_corners=flag, warning=False)
    inner = slice(4, 26)
    assert_close(moved[..., inner], unmoved[..., inner] + 1)
    explained = module.explain(x, like)
    assert_close(explained["offset"][0, 0, :, 0, 0], torch.tensor([1.0, 0.0]).double())
    per_pixel = 30 / 11 if flag else 31 / 12
    assert_close(explained["flow"][0, :, 0, 0], torch.tensor([per_pixel, 0.0], dtype=torch.float64))


def test_coordinates_are_float32_in_half_precision():
    """Keep coordinates out of bfloat16, where a map 512 wide would be sampled whole pixels off."""
    module = build(8, 1, std=0.0).bfloat16()
    x = torch.rand(1, 8, 1, 512).bfloat16()
    expected = resize(x.float(), (2, 1024), mode="bilinear", align_corners=False)
    assert_close(module(x, torch.empty(1, 1, 2, 1024)), expected, torch.bfloat16)


@pytest.mark.parametrize(
    ("variant", "published"), [(VARIANTS[0], 49152), (VARIANTS[1], 98304), (VARIANTS[2], 6144), (VARIANTS[3], 12288)]
)
def test_parameters_are_the_published_ones(variant, published):
    """Count six at 256 channels: 49.2K, 98.3K, 6.1K, 12.3K, which leave out the biases."""
    module = DySample(256, **variant)
    assert 6 * sum(p.numel() for name, p in module.named_parameters() if name.endswith("weight")) == published
    assert module.offset.bias.numel() == 2 * module.groups * (4 if module.style == "lp" else 1)


def test_sampling_starts_near_bilinear():
    x = torch.randn(1, 16, 6, 6)
    expected = resize(x, (12, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(DySample(16)(x, torch.empty(1, 1, 12, 12)), expected, atol=2e-2, rtol=0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(), "in_channels, got None"),
        (dict(in_channels=8, style="ps"), "'lp' or 'pl', got 'ps'"),
        (dict(in_channels=6), "multiple of 4, got 6"),
        (dict(in_channels=8, style="pl", scale_factor=3), "multiple of 9, got 8"),
        (dict(in_channels=8, scale_factor=0), "scale_factor to be a whole number >= 1, got 0"),
        (dict(in_channels=8, groups=0), "groups to be a whole number >= 1, got 0"),
        (dict(in_channels=8, groups=2.0), "groups to be a whole number >= 1, got 2.0"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        DySample(**kwargs)


def test_registered_in_mmseg():
    assert MODELS.get("DySample") is DySample
