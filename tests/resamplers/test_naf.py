from math import cos, floor, pi, sin

import pytest
import torch
from mmseg.registry import MODELS

from mmseg_resample.launch.upsampler_keys import naf_keys
from mmseg_resample.resamplers import NAF
from tests.conftest import assert_close


def build(*args, **kwargs):
    module = NAF(*args, **{"qk_channels": 32, "num_heads": 2, "up_kernel": 3, **kwargs}).double().eval()
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return module


def inputs(size, source=(4, 5), batch=2):
    return (
        torch.randn(batch, 4, *source, dtype=torch.float64),
        torch.randn(batch, 3, *size, dtype=torch.float64),
    )


def turned(v, row, column, module):
    """One vector, head by head: channel i against i + half, by an angle of its row or its column."""
    out, width = v.clone(), len(v) // module.num_heads
    rates = [float(f) for f in module.frequency]
    angles = [rate * at for at in (row, column) for rate in rates]
    for head in range(module.num_heads):
        for i, angle in enumerate(angles):
            a, b = head * width + i, head * width + i + width // 2
            out[a] = v[a] * cos(angle) - v[b] * sin(angle)
            out[b] = v[b] * cos(angle) + v[a] * sin(angle)
    return out


def cell(centre, half, extent):
    """Each pixel's share of an interval around a centre."""
    centre = min(max(centre, 0), extent - 1)
    covered = [max(min(centre + half, p + 0.5) - max(centre - half, p - 0.5), 0) for p in range(extent)]
    return torch.tensor(covered, dtype=torch.float64) / sum(covered)


def adaptive(i, n, extent):
    """Whole pixels from ``floor`` to ``ceil``."""
    first, last = i * extent // n, -(-(i + 1) * extent // n)
    return torch.tensor([first <= p < last for p in range(extent)], dtype=torch.float64) / (last - first)


def by_loops(module, x, like, index_of):
    """``index_of`` holds (scale, offset) of rows and of columns, or is None: half-pixel."""
    (h, w), (height, width) = x.shape[2:], like.shape[2:]
    shares = []
    maps = index_of or [(n / extent, n / extent / 2 - 0.5) for n, extent in ((h, height), (w, width))]
    for (scale, offset), n, extent in zip(maps, (h, w), (height, width), strict=True):
        if index_of is None:
            shares.append([adaptive(i, n, extent) for i in range(n)])
        else:
            shares.append([cell((i - offset) / scale, 0.5 / scale, extent) for i in range(n)])
    out = torch.zeros(*x.shape[:2], height, width, dtype=torch.float64)
    encoded = torch.cat([module.pixels(like), module.surroundings(like)], 1)
    length = encoded.shape[1] // module.num_heads
    channels = x.shape[1] // module.num_heads

    def window(at, n):
        first = max(min(floor(at + 0.5 + 1e-9) - module.up_kernel // 2, n - module.up_kernel), 0)
        return range(first, min(first + module.up_kernel, n))

    for n in range(len(x)):
        query = torch.zeros_like(encoded[n])
        for i in range(height):
            for j in range(width):
                at = (2 * i + 1) / height - 1, (2 * j + 1) / width - 1
                query[:, i, j] = turned(encoded[n, :, i, j], *at, module)
        for i in range(height):
            for j in range(width):
                near = [
                    (r, c)
                    for r in window(maps[0][0] * i + maps[0][1], h)
                    for c in window(maps[1][0] * j + maps[1][1], w)
                ]
                for head in range(module.num_heads):
                    part = query[head * length : (head + 1) * length]
                    keys = torch.stack([torch.einsum("cij,i,j->c", part, shares[0][r], shares[1][c]) for r, c in near])
                    weights = (keys @ part[:, i, j] / length**0.5).softmax(0)
                    mine = slice(head * channels, (head + 1) * channels)
                    out[n, mine, i, j] = weights @ torch.stack([x[n, mine, r, c] for r, c in near])
    return out


@pytest.mark.parametrize("size", [(7, 9), (2, 3), (1, 1)])
@pytest.mark.parametrize("kwargs", [{}, dict(up_kernel=5), dict(chunk_size=1, up_kernel=9)], ids=str)
def test_matches_loops(kwargs, size):
    module = build(4, 3, **kwargs)
    x, like = inputs(size, batch=1)
    with torch.no_grad():
        torch.testing.assert_close(module(x, like), by_loops(module, x, like, None), atol=1e-10, rtol=0)


def test_matches_loops_under_another_pixel_model():
    x, like = inputs((8, 10), batch=1)
    ends = [(3 / 7, 0.0), (4 / 9, 0.0)]
    for kwargs, maps in (
        (dict(align_corners=True), ends),
        (dict(coordinates="asymmetric"), [(0.5, 0.0), (0.5, 0.0)]),
        (dict(coordinates=dict(scale=0.4, offset=0.7)), [(0.4, 0.7), (0.4, 0.7)]),
    ):
        module = build(4, 3, **kwargs)
        with torch.no_grad():
            torch.testing.assert_close(module(x, like), by_loops(module, x, like, maps), atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("kwargs", "nearest"),
    [
        ({}, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]),
        (dict(align_corners=True), [0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2]),
        (dict(coordinates="asymmetric"), [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]),
    ],
    ids=str,
)
def test_with_one_neighbour_it_is_the_nearest(kwargs, nearest):
    x, like = inputs((12, 12), source=(3, 3))
    index = torch.tensor(nearest)
    assert_close(build(4, 3, up_kernel=1, **kwargs)(x, like), x[:, :, index][:, :, :, index])


@pytest.mark.parametrize("flag", [False, True])
def test_constants_stay_up_to_the_border(flag):
    x, like = inputs((13, 9))
    out = build(4, 3, flag)(torch.full_like(x, 3.0), like)
    assert_close(out, torch.full_like(out, 3.0))


@pytest.mark.parametrize("chunk_size", [1, 20, 1000])
def test_chunks_change_nothing(chunk_size):
    module = build(4, 3)
    x, like = inputs((9, 11))
    expected = module(x, like)
    module.chunk_size = chunk_size
    assert_close(module(x, like), expected)


@pytest.mark.parametrize("up_kernel", [3, 5])
def test_kernels_are_what_it_weighs_with(up_kernel):
    """A feature that is 1 at one sample shows how much each pixel takes of it."""
    module = build(2, 3, up_kernel=up_kernel)
    x, like = torch.zeros(1, 2, 4, 5, dtype=torch.float64), inputs((8, 10), batch=1)[1]
    x[:, :, 0, 0] = 1
    rows = min(up_kernel, 4)
    kernel = module.explain(x, like)["kernel"]
    assert kernel.shape == (1, 2, rows * up_kernel, 8, 10)
    assert_close(module(x, like)[..., :2, :2], kernel[:, :, 0, :2, :2])


def test_positions_are_rescaled_in_training():
    module = build(4, 3, rescale=2.0)
    x, like = inputs((9, 11))
    assert_close(module(x, like), module(x, like))
    module.train()
    assert (module(x, like) - module(x, like)).abs().max() > 1e-3


def published():
    shapes = {"image_encoder.rope.periods": (16,)}
    for encoder, side in (("encoder", 1), ("sem_encoder", 3)):
        stem = f"image_encoder.{encoder}."
        shapes |= {f"{stem}0.weight": (128, 3, side, side), f"{stem}0.bias": (128,)}
        for block in (1, 2):
            for i in (1, 2):
                shapes |= {f"{stem}{block}.norm{i}.{name}": (128,) for name in ("weight", "bias")}
                shapes |= {f"{stem}{block}.conv{i}.weight": (128, 128, side, side)}
                shapes |= {f"{stem}{block}.conv{i}.bias": (128,)}
    return {key: torch.randn(shape) for key, shape in shapes.items()}


def test_published_keys():
    source = published()
    source["image_encoder.rope.periods"] = 100 ** (torch.arange(16) / 16)
    module = NAF(4, 3)
    state = naf_keys(source)
    assert_close(state["frequency"], module.frequency)
    assert_close(module.frequency[0], torch.tensor(2 * pi))
    module.load_state_dict(state)
    with pytest.raises(ValueError, match=r"naf_keys: 1 key .*: image_encoder\.encoder\.3\.conv1\.bias"):
        naf_keys({**source, "image_encoder.encoder.3.conv1.bias": torch.zeros(1)})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(guide_channels=3), "in_channels, got None"),
        (dict(in_channels=4), "guide_channels, got None"),
        (dict(in_channels=6, guide_channels=3), "in_channels to be a multiple of 4, got 6"),
        (dict(in_channels=4, guide_channels=3, qk_channels=24), "qk_channels to be a multiple of 16"),
        (dict(in_channels=4, guide_channels=3, up_kernel=4), "up_kernel to be odd"),
        (dict(in_channels=4, guide_channels=3, rescale=0.5), "rescale >= 1, got 0.5"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        NAF(**kwargs)


def test_registered_in_mmseg():
    assert MODELS.get("NAF") is NAF
