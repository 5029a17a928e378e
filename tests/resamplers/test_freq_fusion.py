import math

import pytest
import torch
from mmseg.registry import MODELS

from mmseg_resample.models import ResampleFPN
from mmseg_resample.ops import reference
from mmseg_resample.resamplers import FreqFusion, fuse
from tests.conftest import ONE_GRAPH

FLAGS = [True, False]
SIZES = [((2, 3), (4, 6)), ((2, 3), (5, 4)), ((4, 3), (2, 2)), ((1, 1), (3, 2)), ((2, 2), (1, 1))]


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


def softmax(x):
    return x.exp() / x.exp().sum(1, keepdim=True)


def filtered(x, kernel, size, flag):
    """Every target a weighted sum over the window around its nearest source; taps outside are skipped."""
    k = math.isqrt(kernel.shape[1])
    out = torch.zeros(*x.shape[:2], *size).double()

    def centre(j, n, total):
        # Ties go to the right.
        return (
            ((2 * j * (n - 1) + max(total - 1, 1)) // (2 * max(total - 1, 1)))
            if flag
            else (2 * j + 1) * n // (2 * total)
        )

    for i in range(size[0]):
        for j in range(size[1]):
            row, column = centre(i, x.shape[2], size[0]), centre(j, x.shape[3], size[1])
            for tap in range(k * k):
                a, b = row + tap // k - k // 2, column + tap % k - k // 2
                if 0 <= a < x.shape[2] and 0 <= b < x.shape[3]:
                    out[:, :, i, j] += kernel[:, tap, None, i, j] * x[:, :, a, b]
    return out


def by_loops(module, x, like, flag):
    size = tuple(like.shape[2:])

    def kernels(z):
        high = -softmax(conv(z, module.high_pass))
        high[:, high.shape[1] // 2] += 1
        return softmax(conv(z, module.low_pass)), high

    still = torch.zeros(len(x), 2, *size)
    coarse, fine = conv(x, module.compress_x), conv(like, module.compress_like)
    low, high = kernels(fine + reference.flow_warp(coarse, still, flag))
    z = filtered(coarse, low, size, flag) + fine + filtered(fine, high, size, False)
    low, high = kernels(z)
    cosines = torch.zeros(len(x), 8, *size).double()
    neighbours = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
    for i in range(size[0]):
        for j in range(size[1]):
            for k, (dy, dx) in enumerate(neighbours):
                if 0 <= i + dy < size[0] and 0 <= j + dx < size[1]:
                    a, b = z[:, :, i, j], z[:, :, i + dy, j + dx]
                    cosines[:, k, i, j] = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    evidence = torch.cat([z, cosines], 1)
    offset = conv(evidence, module.direction) / (1 + (-conv(evidence, module.magnitude)).exp())
    smooth = filtered(x, low, size, flag)
    moved = [
        reference.flow_warp(part, offset[:, 2 * g : 2 * g + 2], flag)
        for g, part in enumerate(smooth.chunk(module.groups, dim=1))
    ]
    return torch.cat(moved, 1) + like + filtered(like, high, size, False)


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize(("source", "size"), SIZES)
def test_against_loops(flag, source, size):
    module = randomised(build(align_corners=flag))
    x, like = torch.randn(2, 4, *source).double(), torch.randn(2, 4, *size).double()
    torch.testing.assert_close(module(x, like), by_loops(module, x, like, flag), atol=1e-9, rtol=1e-9)


def test_parameters():
    module = FreqFusion(256, 256)
    expected = 2 * (256 * 64 + 64) + (576 * 25 + 25) + (576 * 9 + 9) + 2 * (72 * 9 * 8 + 8)
    assert sum(p.numel() for p in module.parameters()) == expected == 62_898


def test_kernels_are_low_and_high_pass():
    told = build().explain(torch.randn(1, 4, 3, 4), torch.randn(1, 4, 7, 9))
    assert told["kernel"].shape == (1, 1, 25, 7, 9) and told["kernel_like"].shape == (1, 1, 9, 7, 9)
    torch.testing.assert_close(told["kernel"].sum(2), torch.ones(1, 1, 7, 9))
    torch.testing.assert_close(told["kernel_like"].sum(2), torch.zeros(1, 1, 7, 9))
    assert told["offset"].shape == (1, 2, 2, 7, 9)


@pytest.mark.parametrize("flag", FLAGS)
def test_constants_add_inside_the_border(flag):
    module = randomised(build(align_corners=flag)).float()
    torch.nn.init.zeros_(module.direction.weight), torch.nn.init.zeros_(module.direction.bias)
    out = module(torch.full((1, 4, 7, 8), 2.0), torch.full((1, 4, 13, 15), 3.0))
    inner = out[:, :, 5:8, 5:10]
    torch.testing.assert_close(inner, torch.full_like(inner, 5.0))


@pytest.mark.parametrize("flag", FLAGS)
def test_gradcheck(flag):
    module = build(align_corners=flag).double()
    torch.nn.init.constant_(module.direction.bias, 0.6)  # offsets away from whole pixels, where the derivative jumps
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    like = torch.randn(1, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x, like), atol=1e-4)


def test_autocast_memory_format_empty_batch():
    module = build()
    x, like = torch.randn(2, 4, 4, 5), torch.randn(2, 4, 9, 7)
    expected = module(x, like)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(module(x, like).float(), expected, atol=0.1, rtol=0.1)
    last = dict(memory_format=torch.channels_last)
    torch.testing.assert_close(module(x.to(**last), like.to(**last)), expected)
    assert module(x[:0], like[:0]).shape == (0, 4, 9, 7)


@pytest.mark.slow
def test_compile():
    module = build(lowpass_kernel=3)
    x, like = torch.randn(2, 4, 4, 5), torch.randn(2, 4, 9, 7)
    expected = module(x, like)
    compiled = torch.compile(module, fullgraph=ONE_GRAPH, backend="aot_eager")
    torch.testing.assert_close(compiled(x, like), expected)


def test_in_the_pyramid():
    assert MODELS.get("FreqFusion") is FreqFusion
    neck = ResampleFPN([2, 3], 8, 2, resampler=dict(type="FreqFusion"))
    neck.init_weights()
    assert neck.resamplers[0].direction.weight.std() < 0.01
    x, like = torch.randn(1, 8, 4, 5), torch.randn(1, 8, 9, 7)
    assert torch.equal(fuse(neck.resamplers[0], x, like), neck.resamplers[0](x, like))
    neck((torch.randn(1, 2, 9, 7), torch.randn(1, 3, 4, 5)))[0].square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in neck.resamplers.parameters())


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((4, 8), {}, "in_channels == guide_channels"),
        ((6, 6), {}, "in_channels to be a multiple of 4, got 6"),
        ((4, 4), dict(lowpass_kernel=4), "lowpass_kernel to be odd"),
        ((None, 4), {}, "FreqFusion: expected in_channels, got None"),
    ],
)
def test_errors(args, kwargs, message):
    with pytest.raises(ValueError, match=message):
        FreqFusion(*args, **kwargs)
