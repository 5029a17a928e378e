import math
from fractions import Fraction

import pytest
import torch
from mmseg.registry import MODELS

from mmseg_resample.models import ResampleFPN
from mmseg_resample.ops import reference
from mmseg_resample.resamplers import FreqFusion, fuse
from tests.conftest import assert_close

FLAGS = [True, False]
SIZES = [((2, 3), (4, 6)), ((2, 3), (5, 4)), ((4, 3), (2, 2)), ((1, 1), (3, 2)), ((2, 2), (1, 1)), ((1, 3), (1, 7))]
PLAIN = dict(offsets=False)


def build(**kwargs):
    return FreqFusion(4, 4, **({"compressed_channels": 3, "groups": 2} | kwargs))


def randomised(module):
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return module.double().requires_grad_(False)


def conv(x, module):
    k = module.kernel_size[0]
    x = torch.nn.functional.pad(x, [k // 2] * 4)
    return torch.stack(
        [
            torch.stack(
                [
                    torch.einsum("nckl,ockl->no", x[:, :, i : i + k, j : j + k], module.weight)
                    for j in range(x.shape[3] - k + 1)
                ],
                -1,
            )
            for i in range(x.shape[2] - k + 1)
        ],
        -2,
    ) + module.bias.view(-1, 1, 1)


def source_coordinate(j, n, total, flag):
    """Return the coordinate of target ``j``, exactly."""
    return Fraction(j * (n - 1), max(total - 1, 1)) if flag else Fraction(2 * j + 1, 2) * n / total - Fraction(1, 2)


def weights(logits, hamming):
    """Softmax over taps, then times the window over its sum."""
    k = math.isqrt(logits.shape[1])
    edge = torch.tensor(
        [0.54 - 0.46 * math.cos(2 * math.pi * n / (k - 1)) if hamming else 1.0 for n in range(k)], dtype=torch.float64
    )
    out = logits.exp() / logits.exp().sum(1, keepdim=True) * (edge[:, None] * edge).double().view(-1, 1, 1)
    return out / out.sum(1, keepdim=True)


def filtered(x, kernel, flag):
    """Every target a weighted sum over the window around its nearest source; taps outside are skipped."""
    k, size = math.isqrt(kernel.shape[1]), kernel.shape[2:]
    out = torch.zeros(*x.shape[:2], *size).double()
    for i in range(size[0]):
        for j in range(size[1]):
            row, column = (
                math.floor(source_coordinate(*each, flag) + Fraction(1, 2))  # ties to the right
                for each in ((i, x.shape[2], size[0]), (j, x.shape[3], size[1]))
            )
            for tap in range(k * k):
                a, b = row + tap // k - k // 2, column + tap % k - k // 2
                if 0 <= a < x.shape[2] and 0 <= b < x.shape[3]:
                    out[:, :, i, j] += kernel[:, tap, None, i, j] * x[:, :, a, b]
    return out


def evidence(z, norm):
    """Normalised over an eighth of the channels (here all of them), and the cosines with neighbours two away."""
    mean, var = z.mean((1, 2, 3), keepdim=True), z.var((1, 2, 3), correction=0, keepdim=True)
    z = (z - mean) / (var + norm.eps).sqrt() * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
    cosines = torch.zeros(len(z), 8, *z.shape[2:]).double()
    neighbours = [(-2, -2), (-2, 0), (-2, 2), (0, -2), (0, 2), (2, -2), (2, 0), (2, 2)]
    for i in range(z.shape[2]):
        for j in range(z.shape[3]):
            for k, (dy, dx) in enumerate(neighbours):
                if 0 <= i + dy < z.shape[2] and 0 <= j + dx < z.shape[3]:
                    a, b = z[:, :, i, j], z[:, :, i + dy, j + dx]
                    cosines[:, k, i, j] = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return torch.cat([z, cosines], 1)


def quarter(j, n, total, flag):
    """Return which sample of the source, and which half of its cell, target ``j`` lies in."""
    u = source_coordinate(j, n, total, flag) + Fraction(1, 2)
    return math.floor(u), math.floor(2 * (u - math.floor(u)))


def offsets_by_loops(part, coarse, fine, flag):
    """(N, 2 * groups, H, W): dx of every group, then dy; in samples of the source."""
    of_x, of_like = evidence(coarse, part.norm_x), evidence(fine, part.norm_like)
    out = []
    for conv_x, conv_like in ((part.direction_x, part.direction_like), (part.weight_x, part.weight_like)):
        quarters, here = conv(of_x, conv_x), conv(of_like, conv_like)
        for i in range(here.shape[2]):
            row, below = quarter(i, coarse.shape[2], here.shape[2], flag)
            for j in range(here.shape[3]):
                column, right = quarter(j, coarse.shape[3], here.shape[3], flag)
                here[:, :, i, j] += quarters[:, 2 * below + right :: 4, row, column]
        out.append(here)
    return out[0] / (1 + (-out[1]).exp())


def by_loops(module, x, like, flag):
    hamming = module.hamming
    coarse, fine = conv(x, module.compress_x), conv(like, module.compress_like)
    high = conv(fine, module.high_pass)
    fine = 2 * fine - filtered(fine, weights(high, hamming), False)
    low = conv(fine, module.low_pass)
    low = low + filtered(conv(coarse, module.low_pass), weights(low, hamming), flag)
    high = high + filtered(conv(coarse, module.high_pass), weights(low, hamming), flag)
    out = filtered(x, weights(low, hamming), flag)
    if module.offset is not None:
        offset = offsets_by_loops(module.offset, coarse, fine, flag)
        per_sample = [
            (size - 1) / (n - 1) if flag and min(size, n) > 1 else size / n
            for n, size in zip(x.shape[2:], like.shape[2:], strict=True)
        ]
        groups = module.groups
        flows = [
            torch.stack([offset[:, g] * per_sample[1], offset[:, groups + g] * per_sample[0]], 1) for g in range(groups)
        ]
        parts = [reference.flow_warp(part, flow, flag) for part, flow in zip(out.chunk(groups, 1), flows, strict=True)]
        out = torch.cat(parts, 1)
    return out + 2 * like - filtered(like, weights(high, hamming), False)


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize(("source", "size"), SIZES)
@pytest.mark.parametrize("kwargs", [PLAIN, dict(offsets=True), dict(hamming=True)], ids=str)
def test_against_loops(kwargs, flag, source, size):
    module = randomised(build(align_corners=flag, **kwargs))
    x, like = torch.randn(2, 4, *source).double(), torch.randn(2, 4, *size).double()
    torch.testing.assert_close(module(x, like), by_loops(module, x, like, flag), atol=1e-10, rtol=1e-10)


def published(module, x, like):
    """Compute the released code at a doubling, in its layout: shuffles, and samples at (p + 1/2)/2 + o."""
    (height, width), up = x.shape[2:], torch.nn.functional.interpolate

    def filtered(x, kernel, ratio):
        side = math.isqrt(kernel.shape[1])
        windows = torch.nn.functional.unfold(x, side, padding=side // 2).unflatten(1, (x.shape[1], -1))
        windows = up(windows.flatten(1, 2).unflatten(2, x.shape[2:]), scale_factor=ratio, mode="nearest")
        return (windows.unflatten(1, (x.shape[1], -1)) * kernel.unsqueeze(1)).sum(2)

    def kernel(logits):
        return weights(logits, module.hamming)

    b, a = module.compress_x(x), module.compress_like(like)
    h = module.high_pass(a)
    a = 2 * a - filtered(a, kernel(h), 1)
    low = module.low_pass(a)
    low = kernel(low + filtered(module.low_pass(b), kernel(low), 2))
    h = h + filtered(module.high_pass(b), low, 2)
    part = module.offset
    of_x, of_like = evidence(b, part.norm_x), evidence(a, part.norm_like)
    direction, weight = (
        on_x(of_x) + torch.nn.functional.pixel_unshuffle(on_like(of_like), 2)
        for on_x, on_like in ((part.direction_x, part.direction_like), (part.weight_x, part.weight_like))
    )
    offset = torch.nn.functional.pixel_shuffle(direction * weight.sigmoid(), 2).unflatten(1, (2, -1))
    rows, columns = ((torch.arange(2 * n).double() + 0.5) / 2 for n in (height, width))
    at = torch.stack([columns.expand(2 * height, -1), rows[:, None].expand(-1, 2 * width)])[:, None] + offset
    grid = (2 * at / torch.tensor([width, height]).double().view(2, 1, 1, 1) - 1).permute(0, 2, 3, 4, 1).flatten(0, 1)
    smooth = filtered(x, low, 2).unflatten(1, (module.groups, -1)).flatten(0, 1)
    moved = torch.nn.functional.grid_sample(smooth, grid, padding_mode="border", align_corners=False)
    return moved.view(like.shape) + 2 * like - filtered(like, kernel(h), 1)


@pytest.mark.parametrize("hamming", [False, True])
@pytest.mark.parametrize("source", [(3, 5), (4, 2), (1, 1)])
def test_is_the_published_module_at_a_doubling(hamming, source):
    module = randomised(build(hamming=hamming))
    x, like = torch.randn(2, 4, *source).double(), torch.randn(2, 4, *(2 * n for n in source)).double()
    torch.testing.assert_close(module(x, like), published(module, x, like), atol=1e-10, rtol=1e-10)


def test_parameters():
    expected = 2 * (256 * 64 + 64) + (576 * 25 + 25) + (576 * 9 + 9)
    offsets = 4 * 64 + 2 * (72 * 9 * 32 + 32) + 2 * (72 * 9 * 8 + 8)
    for kwargs, count in ((dict(offsets=False), expected), ({}, expected + offsets)):
        module = FreqFusion(256, 256, compressed_channels=64, **kwargs)
        assert sum(p.numel() for p in module.parameters()) == count
    assert FreqFusion(256, 256).compress_x.out_channels == 128
    assert expected + offsets == 104_690


def test_starts_as_published():
    """Kernels almost uniform; everything else Xavier initialised, the offsets too."""
    module = FreqFusion(64, 64)
    assert module.low_pass.weight.std() < 0.002 and module.high_pass.weight.std() < 0.002
    weight = module.offset.direction_x.weight
    assert weight.std().item() == pytest.approx((2 / (9 * (weight.shape[0] + weight.shape[1]))) ** 0.5, rel=0.05)


@pytest.mark.parametrize(("channels", "groups"), [(2, 1), (16, 2), (28, 2), (104, 13), (13, 1)])
def test_normalises_in_groups_of_eight_where_they_fit(channels, groups):
    assert FreqFusion(8, 8, compressed_channels=channels).offset.norm_x.num_groups == groups


def test_kernels_are_low_and_high_pass():
    told = build().explain(torch.randn(1, 4, 3, 4), torch.randn(1, 4, 7, 9))
    assert told["kernel"].shape == (1, 1, 25, 7, 9) and told["kernel_like"].shape == (1, 1, 9, 7, 9)
    torch.testing.assert_close(told["kernel"].sum(2), torch.ones(1, 1, 7, 9))
    torch.testing.assert_close(told["kernel_like"].sum(2), torch.zeros(1, 1, 7, 9))
    assert told["offset"].shape == (1, 2, 2, 7, 9)
    assert "offset" not in build(**PLAIN).explain(torch.randn(1, 4, 3, 4), torch.randn(1, 4, 7, 9))


def test_offsets_are_samples_of_x():
    """Of one sample to the right, whatever the ratio; told in pixels of the output."""
    x, like = torch.arange(6.0).expand(1, 4, 6, 6), torch.zeros(1, 4, 18, 12)
    module, still = build(), build(**PLAIN)
    for layer in (module.offset.direction_x, module.offset.direction_like):
        torch.nn.init.zeros_(layer.weight)
    module.offset.direction_like.bias.data = torch.tensor([1.0, 1, 0, 0])
    torch.nn.init.zeros_(module.offset.weight_x.weight), torch.nn.init.zeros_(module.offset.weight_like.weight)
    torch.nn.init.constant_(module.offset.weight_like.bias, 100)
    assert_close(module.explain(x, like)["offset"][0, 0, :, 4, 5], torch.tensor([2.0, 0.0]))
    still.load_state_dict(module.state_dict(), strict=False)
    assert_close(module(x, like)[..., :-2], still(x, like)[..., 2:])


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("hamming", [False, True])
def test_constants_add_inside_the_border(hamming, flag):
    module = randomised(build(align_corners=flag, hamming=hamming, **PLAIN)).float()
    out = module(torch.full((1, 4, 7, 8), 2.0), torch.full((1, 4, 13, 15), 3.0))
    inner = out[:, :, 5:8, 5:10]
    torch.testing.assert_close(inner, torch.full_like(inner, 5.0))


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("hamming", [False, True])
def test_gradcheck(hamming, flag):
    module = build(align_corners=flag, hamming=hamming).double()
    for layer in (module.offset.direction_x, module.offset.direction_like):  # away from whole pixels: a kink is there
        torch.nn.init.normal_(layer.weight, std=0.01)
    torch.nn.init.constant_(module.offset.direction_like.bias, 0.6)
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    like = torch.randn(1, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x, like), atol=1e-4, fast_mode=True)


def test_in_the_pyramid():
    assert MODELS.get("FreqFusion") is FreqFusion
    neck = ResampleFPN([2, 3], 8, 2, resampler=dict(type="FreqFusion"))
    neck.init_weights()
    assert neck.resamplers[0].low_pass.weight.std() < 0.002
    x, like = torch.randn(1, 8, 4, 5), torch.randn(1, 8, 9, 7)
    assert torch.equal(fuse(neck.resamplers[0], x, like), neck.resamplers[0](x, like))
    neck((torch.randn(1, 2, 9, 7), torch.randn(1, 3, 4, 5)))[0].square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in neck.resamplers.parameters())


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((4, 8), {}, "in_channels == guide_channels"),
        ((6, 6), {}, "in_channels to be a multiple of 4, got 6"),
        ((4, 4), dict(compressed_channels=0), "compressed_channels to be a whole number"),
        ((4, 4), dict(lowpass_kernel=4), "lowpass_kernel to be odd"),
        ((None, 4), {}, "FreqFusion: expected in_channels, got None"),
    ],
)
def test_errors(args, kwargs, message):
    with pytest.raises(ValueError, match=message):
        FreqFusion(*args, **kwargs)
