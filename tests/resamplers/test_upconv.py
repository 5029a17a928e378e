import math

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import build_upsample_layer
from mmseg.registry import MODELS

from mmseg_resample.models import ResampleFPN
from mmseg_resample.resamplers import Deconv, PixelShuffle
from tests.conftest import ONE_GRAPH

FLAGS = [True, False]
SIZES = [((3, 4), (6, 8)), ((3, 4), (7, 5)), ((2, 3), (9, 10)), ((1, 1), (3, 2)), ((4, 3), (1, 2)), ((3, 3), (3, 3))]
MODULES = {
    "deconv": lambda flag: Deconv(3, align_corners=flag),
    "deconv-odd": lambda flag: Deconv(3, align_corners=flag, kernel_size=5, stride=3, padding=2),
    "shuffle": lambda flag: PixelShuffle(3, align_corners=flag, out_channels=2),
    "shuffle-3": lambda flag: PixelShuffle(3, align_corners=flag, scale_factor=3, upsample_kernel=1),
}


def fine_samples(module, x):
    """Compute by loops what there is per sample of ``x``, and how many of them one sample of ``x`` is wide."""
    h, w = x.shape[2:]
    if isinstance(module, Deconv):
        conv = module.deconv
        (k, _), (s, _), (p, _) = conv.kernel_size, conv.stride, conv.padding
        out = torch.zeros(len(x), conv.out_channels, (h - 1) * s - 2 * p + k, (w - 1) * s - 2 * p + k).double()
        for i in range(h):
            for j in range(w):
                for a in range(k):
                    for b in range(k):
                        row, column = i * s - p + a, j * s - p + b
                        if 0 <= row < out.shape[2] and 0 <= column < out.shape[3]:
                            out[:, :, row, column] += x[:, :, i, j] @ conv.weight[:, :, a, b]
        return out + conv.bias.view(-1, 1, 1), s, (k - 1) / 2 - p
    conv, s = module.upsample_conv, module.factor
    k = conv.kernel_size[0]
    padded = F.pad(x, [k // 2] * 4)
    out = torch.zeros(len(x), conv.out_channels // s**2, h * s, w * s).double()
    for i in range(h):
        for j in range(w):
            values = torch.einsum("nckl,ockl->no", padded[:, :, i : i + k, j : j + k], conv.weight) + conv.bias
            out[:, :, i * s : i * s + s, j * s : j * s + s] = values.unflatten(1, (-1, s, s))
    return out, s, (s - 1) / 2


def by_loops(module, x, size, flag):
    fine, s, first = fine_samples(module, x)

    def taps(j, n, out, length):
        u = j * (n - 1) / max(out - 1, 1) if flag else (j + 0.5) * n / out - 0.5
        at = s * u + first
        low = math.floor(at)
        return [(min(max(low + t, 0), length - 1), (1 - (at - low), at - low)[t]) for t in (0, 1)]

    out = torch.zeros(*fine.shape[:2], *size).double()
    for i in range(size[0]):
        for j in range(size[1]):
            for row, wy in taps(i, x.shape[2], size[0], fine.shape[2]):
                for column, wx in taps(j, x.shape[3], size[1], fine.shape[3]):
                    out[:, :, i, j] += wy * wx * fine[:, :, row, column]
    return out


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize(("source", "size"), SIZES)
def test_against_loops(kind, flag, source, size):
    module = MODULES[kind](flag).double().requires_grad_(False)
    x, like = torch.randn(2, 3, *source).double(), torch.zeros(2, 1, *size).double()
    torch.testing.assert_close(module(x, like), by_loops(module, x, size, flag), atol=1e-10, rtol=1e-10)


def test_whole_ratios_are_mmcvs_layers():
    x = torch.randn(2, 3, 4, 5)
    deconv = Deconv(3, out_channels=2)
    stock = build_upsample_layer(dict(type="deconv", in_channels=3, out_channels=2, kernel_size=4, stride=2, padding=1))
    stock.load_state_dict(deconv.deconv.state_dict())
    assert torch.equal(deconv(x, torch.zeros(2, 1, 8, 10)), stock(x))
    stock = build_upsample_layer(
        dict(type="pixel_shuffle", in_channels=3, out_channels=2, scale_factor=3, upsample_kernel=3)
    )
    shuffle = PixelShuffle(3, out_channels=2, scale_factor=3)
    shuffle.load_state_dict(stock.state_dict())
    assert torch.equal(shuffle(x, torch.zeros(2, 1, 12, 15)), stock(x))


def test_odd_kernels_are_exact_with_aligned_corners():
    module, x = Deconv(3, align_corners=True, kernel_size=3, padding=1), torch.randn(1, 3, 4, 5)
    assert torch.equal(module(x, torch.zeros(1, 1, 7, 9)), module.deconv(x))


@pytest.mark.parametrize("kind", ["deconv", "shuffle"])
def test_parameters(kind):
    c = 256
    module, expected = {
        "deconv": (Deconv(c), 16 * c * c + c),
        "shuffle": (PixelShuffle(c), 4 * (9 * c * c + c)),
    }[kind]
    assert sum(p.numel() for p in module.parameters()) == expected


@pytest.mark.parametrize("kernel", [1, 3])
def test_icnr_starts_as_nearest_upsampling(kernel):
    module = PixelShuffle(3, out_channels=2, scale_factor=2, upsample_kernel=kernel, icnr=True)
    x = torch.randn(1, 3, 4, 5)
    conv = F.conv2d(x, module.upsample_conv.weight[::4], padding=kernel // 2)
    out = module(x, torch.zeros(1, 1, 8, 10))
    torch.testing.assert_close(out, F.interpolate(conv, scale_factor=2, mode="nearest"))
    assert out.std() > 0.1


def test_the_necks_initialisation_leaves_icnr():
    neck = ResampleFPN([2, 3], 8, 2, resampler=dict(type="PixelShuffle", icnr=True))
    neck.init_weights()
    weight = neck.resamplers[0].upsample_conv.weight.unflatten(0, (-1, 4))
    assert torch.equal(weight, weight[:, :1].expand_as(weight)) and weight.std() > 0.01


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("kind", MODULES)
def test_gradcheck(kind, flag):
    module = MODULES[kind](flag).double()
    x = torch.randn(1, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: module(x, torch.zeros(1, 1, 5, 4)), x)


@pytest.mark.parametrize("kind", ["deconv", "shuffle"])
@pytest.mark.parametrize("size", [(8, 10), (9, 7)])
def test_autocast_memory_format_empty_batch(kind, size):
    module = MODULES[kind](False)
    x, like = torch.randn(2, 3, 4, 5), torch.zeros(2, 1, *size)
    expected = module(x, like)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(module(x, like).float(), expected, atol=0.05, rtol=0.05)
    torch.testing.assert_close(module(x.to(memory_format=torch.channels_last), like), expected)
    assert module(x[:0], like[:0]).shape == (0, *expected.shape[1:])


@pytest.mark.parametrize("kind", ["deconv", "shuffle"])
def test_compile(kind):
    module = MODULES[kind](False)
    compiled = torch.compile(module, fullgraph=ONE_GRAPH, backend="aot_eager")
    x = torch.randn(2, 3, 4, 5)
    for size in ((8, 10), (9, 7), (11, 13)):  # from the second on, sizes are symbols
        like = torch.zeros(2, 1, *size)
        torch.testing.assert_close(compiled(x, like), module(x, like))


@pytest.mark.parametrize("cls", [Deconv, PixelShuffle])
def test_in_the_pyramid(cls):
    assert MODELS.get(cls.__name__) is cls
    neck = ResampleFPN([2, 3], 8, 2, resampler=dict(type=cls.__name__), align_corners=True)
    assert neck.resamplers[0].align_corners is True
    assert neck((torch.randn(1, 2, 9, 7), torch.randn(1, 3, 4, 5)))[0].shape == (1, 8, 9, 7)


def test_errors():
    with pytest.raises(ValueError, match="PixelShuffle: expected upsample_kernel to be odd"):
        PixelShuffle(3, upsample_kernel=2)
    with pytest.raises(ValueError, match="Deconv: expected in_channels"):
        Deconv()
    with pytest.raises(ValueError, match="scale_factor to be a whole number"):
        PixelShuffle(3, scale_factor=0)
