import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from mmseg_resample.resamplers import CARAFE
from tests.conftest import assert_close
from tests.resamplers.test_reassemble import cell, coordinate


def upsampled(x, kernel, factor, groups):
    """The published upsampler by loops over mmcv's definition: ``kernel`` (N, groups * k * k, s * h, s * w)."""
    batch, channels, height, width = x.shape
    side = int((kernel.shape[1] // groups) ** 0.5)
    out = torch.zeros(batch, channels, factor * height, factor * width, dtype=torch.float64)
    for n in range(batch):
        for c in range(channels):
            group = c // (channels // groups)
            for i in range(factor * height):
                for j in range(factor * width):
                    for a in range(side):
                        for b in range(side):
                            row, column = i // factor - side // 2 + a, j // factor - side // 2 + b
                            if 0 <= row < height and 0 <= column < width:
                                weight = kernel[n, (group * side + a) * side + b, i, j]
                                out[n, c, i, j] += weight * x[n, c, row, column]
    return out


def randomised(module):
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return module


@pytest.mark.parametrize(("factor", "groups", "up_kernel"), [(2, 1, 5), (2, 2, 3), (3, 1, 3), (4, 1, 1)])
def test_whole_ratios_are_the_published_operator(factor, groups, up_kernel):
    module = CARAFE(
        4, scale_factor=factor, up_group=groups, up_kernel=up_kernel, encoder_dilation=2, compressed_channels=3
    )
    module = randomised(module.double())
    x = torch.randn(2, 4, 3, 4, dtype=torch.float64)
    encoder, compressor = module.content_encoder, module.channel_compressor
    compressed = F.conv2d(x, compressor.weight, compressor.bias)
    logits = F.pixel_shuffle(F.conv2d(compressed, encoder.weight, encoder.bias, padding=2, dilation=2), factor)
    kernel = torch.cat([part.softmax(1) for part in logits.split(up_kernel**2, 1)], 1)
    actual = module(x, torch.empty(2, 1, 3 * factor, 4 * factor))
    assert_close(actual, upsampled(x, kernel, factor, groups))


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("size", [(7, 9), (8, 10), (4, 5), (3, 2), (1, 1), (15, 17)])
def test_any_size_takes_the_kernel_of_the_cell_that_is_read(size, flag):
    module = randomised(CARAFE(2, align_corners=flag, up_kernel=3, compressed_channels=3).double())
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64)
    kernels = F.pixel_shuffle(module.content_encoder(module.channel_compressor(x)), 2).softmax(1)
    actual = module(x, torch.empty(1, 1, *size))
    assert actual.shape == (1, 2, *size)
    for i in range(size[0]):
        row, row_cell = cell(coordinate(i, 4, size[0], flag), 2)
        for j in range(size[1]):
            column, column_cell = cell(coordinate(j, 5, size[1], flag), 2)
            kernel = kernels[0, :, 2 * row + row_cell, 2 * column + column_cell].view(3, 3)
            window = F.pad(x, (1, 1, 1, 1))[0, :, row : row + 3, column : column + 3]
            assert_close(actual[0, :, i, j], (window * kernel).sum((1, 2)))


def test_taps_outside_are_skipped_and_nothing_is_renormalised():
    """Uniform 5x5 kernels on ones: the corner sees 9 of 25 samples, the centre all."""
    module = CARAFE(1, compressed_channels=1)
    torch.nn.init.zeros_(module.content_encoder.weight)
    out = module(torch.ones(1, 1, 6, 6), torch.empty(1, 1, 12, 12))
    assert_close(out[0, 0, 0, 0], torch.tensor(9 / 25))
    assert_close(out[0, 0, 0, 6], torch.tensor(15 / 25))
    assert_close(out[0, 0, 4:8, 4:8], torch.ones(4, 4))


def test_parameters_are_the_published_ones():
    """0.44 M for six at 256 channels, with the names of mmcv's layer."""
    module = CARAFE(256)
    assert sum(p.numel() for p in module.parameters()) == 74148
    assert set(module.state_dict()) == {
        f"{layer}.{name}" for layer in ("channel_compressor", "content_encoder") for name in ("weight", "bias")
    }


def test_kernels_start_near_uniform():
    kernel = CARAFE(16).explain(torch.randn(1, 16, 4, 4), torch.empty(1, 1, 8, 8))["kernel"]
    torch.testing.assert_close(kernel, torch.full((1, 1, 25, 8, 8), 1 / 25), atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(), "in_channels, got None"),
        (dict(in_channels=6, up_group=4), "multiple of 4, got 6"),
        (dict(in_channels=4, up_kernel=4), "up_kernel to be odd and >= 1, got 4"),
        (dict(in_channels=4, encoder_kernel=2), "encoder_kernel to be odd"),
        (dict(in_channels=4, compressed_channels=0), "compressed_channels to be a whole number >= 1, got 0"),
        (dict(in_channels=4, scale_factor=1.5), "scale_factor to be a whole number >= 1, got 1.5"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        CARAFE(**kwargs)


def test_registered_in_mmseg():
    assert MODELS.get("CARAFE") is CARAFE
