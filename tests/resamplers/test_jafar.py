"""JAFAR against loops over pixels, written from the formulas; ``test_anyup`` uses the same loops."""

import math

import pytest
import torch

from mmseg_resample.models import ResampleFPN
from mmseg_resample.ops import AxisMap
from mmseg_resample.ops.grid import axis_maps
from mmseg_resample.resamplers import JAFAR
from tests.conftest import assert_close

SIZES = [(6, 8), (7, 9), (2, 3), (1, 1), (1, 5)]
PLACES = [None, "asymmetric", [AxisMap(0.5, 0.1), AxisMap(0.4, -0.3)]]


def silu(x):
    return x / (1 + (-x).exp())


def group_norm(x, norm=None):
    """Normalise (C, H, W) in 8 groups of channels."""
    groups = []
    for group in x.chunk(8):
        centred = group - group.mean()
        groups.append(centred / (centred.square().mean() + 1e-5).sqrt())
    out = torch.cat(groups)
    return out if norm is None else out * norm.weight[:, None, None] + norm.bias[:, None, None]


def reflected(i, n):
    return 0 if n == 1 else (n - 1) - abs((n - 1) - abs(i))


def conv(x, weight, reflect=True):
    """Convolve (C, H, W), tap by tap."""
    (height, width), reach = x.shape[1:], weight.shape[2] // 2
    out = x.new_zeros(len(weight), height, width)
    for i in range(height):
        for j in range(width):
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    r, c = i + dy, j + dx
                    if reflect:
                        r, c = reflected(r, height), reflected(c, width)
                    if 0 <= r < height and 0 <= c < width:
                        out[:, i, j] += weight[:, :, dy + reach, dx + reach] @ x[:, r, c]
    return out


def blocks(x, encoder):
    for block in encoder.blocks:
        y = conv(silu(group_norm(x, block.norm1)), block.conv1.weight)
        x = x + conv(silu(group_norm(y, block.norm2)), block.conv2.weight)
    return x


def encode(x, encoder):
    return blocks(conv(x, encoder.stem.weight), encoder)


def rotate(x, frequency):
    (channels, height, width), half = x.shape, len(x) // 2
    out = torch.empty_like(x)
    for i in range(height):
        for j in range(width):
            y = i / max(height - 1, 1), j / max(width - 1, 1)
            for c in range(channels):
                angle = frequency[0, c] * y[0] + frequency[1, c] * y[1]
                other = -x[c + half, i, j] if c < half else x[c - half, i, j]
                out[c, i, j] = x[c, i, j] * angle.cos() + other * angle.sin()
    return out


def cell(i, n, extent, map_, whole):
    """Weights of the fine samples in the cell of coarse sample ``i``."""
    if whole:  # adaptive average pooling
        first, last = i * extent // n, -(-(i + 1) * extent // n)
        return dict.fromkeys(range(first, last), 1 / (last - first))
    centre = min(max((i - map_.offset) / map_.scale, 0), extent - 1)
    ends = centre - 0.5 / map_.scale, centre + 0.5 / map_.scale
    covered = {k: max(min(ends[1], k + 0.5) - max(ends[0], k - 0.5), 0) for k in range(extent)}
    return {k: share / sum(covered.values()) for k, share in covered.items()}


def pool(x, size, maps, whole):
    out = x.new_zeros(len(x), *size)
    for i in range(size[0]):
        for j in range(size[1]):
            for r, a in cell(i, size[0], x.shape[1], maps[0], whole).items():
                for c, b in cell(j, size[1], x.shape[2], maps[1], whole).items():
                    out[:, i, j] += a * b * x[:, r, c]
    return out


def unit(x):
    return x / x.square().sum(0).sqrt()


def rms(x, norm):
    return x / (x.square().mean() + torch.finfo(torch.float64).eps).sqrt() * norm.weight


def attend(attention, query, key, value, seen=lambda i, j, r, c: True):
    """Average the values of all samples that a pixel sees, with the mean of the heads' weights."""
    query = conv(query, attention.smooth.weight, reflect=False)
    out = value.new_zeros(len(value), *query.shape[1:])
    for i in range(query.shape[1]):
        for j in range(query.shape[2]):
            samples = [(r, c) for r in range(key.shape[1]) for c in range(key.shape[2]) if seen(i, j, r, c)]
            q = attention.query.weight @ rms(query[:, i, j], attention.norm_query) + attention.query.bias
            keys = torch.stack([rms(key[:, r, c], attention.norm_key) for r, c in samples])
            k = keys @ attention.key.weight.T + attention.key.bias
            for head_q, head_k in zip(q.chunk(attention.num_heads), k.chunk(attention.num_heads, 1), strict=True):
                scores = (head_k @ head_q / math.sqrt(len(head_q))).exp()
                weights = scores / scores.sum() / attention.num_heads
                out[:, i, j] += sum(w * value[:, r, c] for w, (r, c) in zip(weights, samples, strict=True))
    return out


def maps_of(module, x, like):
    return axis_maps(module.coordinates or "half_pixel", x.shape[1:], like.shape[1:])


def by_loops(module, x, like):
    """JAFAR on one image."""
    encoded = rotate(encode(like, module.image_encoder), module.frequency)
    image = pool(encode(encoded, module.key_encoder), x.shape[1:], maps_of(module, x, like), module.coordinates is None)
    features = encode(unit(x), module.features_encoder)
    key = conv(features, module.gamma.weight) * group_norm(image) + conv(features, module.beta.weight)
    return attend(module.attention, group_norm(encode(encoded, module.query_encoder)), key, x)


def drawn(module):
    """Draw weights that make it do something."""
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return module.double()


@pytest.mark.parametrize("coordinates", PLACES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@torch.no_grad()
def test_matches_loops(size, coordinates):
    module = drawn(JAFAR(5, 2, coordinates=coordinates, qk_channels=16, num_heads=2, chunk_size=9))
    x, like = torch.randn(2, 5, 3, 4).double(), torch.randn(2, 2, *size).double()
    assert_close(module(x, like), torch.stack([by_loops(module, *each) for each in zip(x, like, strict=True)]))


def inputs(size=(13, 10)):
    return torch.randn(2, 5, 4, 3).double(), torch.randn(2, 3, *size).double()


def outputs(make, chunk_size):
    """The result, and its gradients by features, image and weights."""
    torch.manual_seed(0)
    module = drawn(make(5, 3, qk_channels=16, num_heads=2, chunk_size=chunk_size))
    x, like = (each.requires_grad_() for each in inputs())
    out = module(x, like)
    return out, *torch.autograd.grad(out.square().sum(), (x, like, *module.parameters()))


@pytest.mark.parametrize("chunk_size", [6, 30, 100])
def test_chunks_change_nothing(chunk_size):
    for actual, expected in zip(outputs(JAFAR, chunk_size), outputs(JAFAR, 130), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)


@torch.no_grad()
def averages(module):
    """The result lies between the features, and constant ones stay."""
    x, like = inputs()
    out = module(x, like)
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    assert ((out >= low - 1e-12) & (out <= high + 1e-12)).all()
    constant = x[:, :, :1, :1]
    assert_close(module(constant.expand_as(x), like), constant.expand_as(out))


def test_it_averages_features():
    averages(drawn(JAFAR(5, 3, qk_channels=16)))


@torch.no_grad()
def pooled(module, x, like, monkeypatch):
    """Return the encoded image that the key of each sample is made from."""
    images, key = [], module._key
    monkeypatch.setattr(module, "_key", lambda image, x: images.append(image) or key(image, x))
    module(x, like)
    return images[0]


def moved_by_one_cell(cls, monkeypatch):
    """Samples that sit one cell further on have the keys of the next ones."""
    x, like = torch.randn(1, 5, 4, 3).double(), torch.randn(1, 3, 16, 12).double()
    module = drawn(cls(5, 3, qk_channels=16))
    half = axis_maps("half_pixel", (4, 3), (16, 12))
    moved = cls(5, 3, coordinates=[AxisMap(half[0].scale, half[0].offset - 1), half[1]], qk_channels=16).double()
    moved.load_state_dict(module.state_dict())
    here, there = (pooled(each, x, like, monkeypatch) for each in (module, moved))
    assert_close(there[:, :, :3], here[:, :, 1:])
    assert (there[:, :, :3] - here[:, :, :3]).abs().max() > 1e-2
    assert (module(x, like) - moved(x, like)).abs().max() > 1e-2


def test_keys_come_from_where_the_samples_sit(monkeypatch):
    moved_by_one_cell(JAFAR, monkeypatch)


@torch.no_grad()
def test_the_kernel_is_what_it_sums_with():
    module = drawn(JAFAR(5, 3, qk_channels=16, chunk_size=50))
    x, like = inputs()
    kernel = module.explain(x, like)["kernel"]
    assert_close(torch.einsum("nkij,nck->ncij", kernel[:, 0], x.flatten(2)), module(x, like))


def test_a_neck_leaves_its_initialisation_alone():
    neck = ResampleFPN([3, 5], 16, 2, resampler=dict(type="JAFAR", qk_channels=16))
    neck.init_weights()
    module = neck.resamplers[0]
    assert module.attention.smooth.weight.abs().max() <= (16 * 9) ** -0.5  # PyTorch's own, smaller than Xavier's
    turn = pytest.approx(2 * math.pi)
    assert module.frequency[:, ::4].tolist() == [[turn, turn, 0, 0], [0, 0, turn, turn]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(qk_channels=24), r"JAFAR: expected qk_channels to be a multiple of 16, got 24\."),
        (dict(num_heads=0), r"JAFAR: expected num_heads to be a whole number >= 1, got 0\."),
        (dict(num_heads=5), r"JAFAR: expected qk_channels to be a multiple of 80, got 128\."),
        (dict(chunk_size=0), r"JAFAR: expected chunk_size to be a whole number >= 1, got 0\."),
        (dict(in_channels=None), r"JAFAR: expected in_channels, got None\."),
        (dict(align_corners=True, coordinates="asymmetric"), r"expected either align_corners or coordinates"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        JAFAR(**{**dict(in_channels=4, guide_channels=3), **arguments})
