import pytest
import torch

from mmseg_resample.ops import AxisMap
from mmseg_resample.ops.grid import axis_maps
from mmseg_resample.resamplers import AnyUp
from mmseg_resample.resamplers.image_attention import Window
from tests.conftest import assert_close
from tests.resamplers import test_jafar as jafar


def unify(x, module):
    """Average softmaxes over groups of responses of the channels to the filters, (filters, h, w)."""
    filters, (channels, h, w), reach = module.filters, x.shape, module.filters.shape[2] // 2
    out = x.new_zeros(len(filters), h, w)
    for i in range(h):
        for j in range(w):
            taps = [
                (r, c)
                for r in range(max(i - reach, 0), min(i + reach + 1, h))
                for c in range(max(j - reach, 0), min(j + reach + 1, w))
            ]
            responses = [  # channel by channel
                sum(x[channel, r, c] * f[0, r - i + reach, c - j + reach] for r, c in taps) / len(taps)
                for channel in range(channels)
                for f in filters
            ]
            for g in range(channels):
                n = len(filters)
                group = responses[g::channels] if module.convention == "released" else responses[g * n : g * n + n]
                out[:, i, j] += torch.stack(group).softmax(0) / channels
    return out


def by_loops(module, x, like):
    """AnyUp on one image."""
    maps, share = jafar.maps_of(module, x, like), module.window_share
    encoded = jafar.rotate(jafar.encode(like, module.image_encoder), module.frequency)
    encoded_key = jafar.encode(encoded, module.key_encoder)
    image = jafar.pool(encoded_key, x.shape[1:], maps, module.coordinates is None)
    features = jafar.blocks(unify(jafar.unit(x), module.features_encoder.stem), module.features_encoder)
    key = jafar.encode(torch.cat([image, features]), module.aggregate)

    def seen(i, j, r, c):
        for map_, n, fine, coarse in zip(maps, x.shape[1:], (i, j), (r, c), strict=True):
            p = min(max((map_(fine) + 0.5) / n, 0), 1)
            if not (max(p - share, 0) * n) // 1 <= coarse < -(-(min(p + share, 1) * n) // 1):
                return False
        return True

    return jafar.attend(module.attention, jafar.encode(encoded, module.query_encoder), key, x, seen)


@pytest.mark.parametrize("convention", ["released", "paper"])
@pytest.mark.parametrize("coordinates", jafar.PLACES, ids=str)
@pytest.mark.parametrize("size", jafar.SIZES, ids=str)
@torch.no_grad()
def test_matches_loops(size, coordinates, convention):
    options = dict(qk_channels=16, num_heads=2, window_share=0.23, filter_size=3, convention=convention, chunk_size=9)
    module = jafar.drawn(AnyUp(2, 2, coordinates=coordinates, **options))
    x, like = torch.randn(1, 2, 3, 4).double(), torch.randn(1, 2, *size).double()
    assert_close(module(x, like)[0], by_loops(module, x[0], like[0]))


@pytest.mark.parametrize("chunk_size", [6, 30, 100])
def test_chunks_change_nothing(chunk_size):
    """Neither of pixels nor of channels."""
    for actual, expected in zip(jafar.outputs(AnyUp, chunk_size), jafar.outputs(AnyUp, 130), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)


def test_it_averages_features():
    jafar.averages(jafar.drawn(AnyUp(5, 3, qk_channels=16)))


def test_keys_come_from_where_the_samples_sit(monkeypatch):
    jafar.moved_by_one_cell(AnyUp, monkeypatch)


@pytest.mark.parametrize("coarse", [1, 3, 16, 35, 37])
@pytest.mark.parametrize("fine", [1, 2, 10, 105, 518, 525])
def test_windows_are_the_published_ones(coarse, fine):
    """To the last bit where an edge of a cell meets that of a window: from 35 to 525 samples, for one."""
    p = (torch.arange(fine, dtype=torch.float32) + 0.5) / fine
    first = ((p - 0.1).clamp(0, 1) * coarse).floor()[:, None]
    last = ((p + 0.1).clamp(0, 1) * coarse).ceil()[:, None]
    window = Window(axis_maps("half_pixel", (coarse, coarse), (fine, fine))[0], coarse, 0.1)
    index = torch.arange(coarse)
    assert torch.equal(window.contains(torch.arange(fine), index), (index >= first) & (index < last))
    for start in range(0, fine, 7):
        stop = min(start + 7, fine)
        low, high = window.reach(start, stop)
        assert low <= first[start:stop].min()
        assert high >= last[start:stop].max()


@torch.no_grad()
def test_windows_lie_around_where_a_pixel_is():
    """A map that is moved by one sample moves them by one, and beyond the last sample they stay at it."""
    x, like = torch.randn(1, 4, 20, 20), torch.randn(1, 3, 40, 40)
    kernels = []
    for offset in (-0.25, 0.75, 60.0):
        module = AnyUp(4, 3, coordinates=AxisMap(0.5, offset), qk_channels=16)
        kernels.append(module.explain(x, like)["kernel"].unflatten(2, (20, 20))[0, 0] > 0)
    here, moved, beyond = kernels
    assert torch.equal(moved[6:15, 6:15, 16:24, 16:24], here[5:14, 5:14, 16:24, 16:24])
    assert here[:, :, 20, 20].sum() == 5 * 5
    assert beyond[-2:, -2:].all()
    assert not beyond[:-2].any()


@torch.no_grad()
def test_the_order_of_channels():
    """It matters in the released code alone."""
    x, like = jafar.inputs()
    order = torch.tensor([3, 0, 4, 1, 2])
    for convention, same in {"paper": True, "released": False}.items():
        module = jafar.drawn(AnyUp(5, 3, qk_channels=16, convention=convention))
        difference = (module(x[:, order], like) - module(x, like)[:, order]).abs().max()
        assert (difference < 1e-12) == same


def test_any_number_of_channels():
    module = AnyUp(5, 3, qk_channels=16)
    assert module(torch.randn(1, 7, 3, 3), torch.randn(1, 3, 6, 6)).shape == (1, 7, 6, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(window_share=0), r"AnyUp: expected window_share >= 0\.001, got 0\."),
        (dict(filter_size=4), r"AnyUp: expected filter_size to be odd and >= 1, got 4\."),
        (dict(convention="none"), r"AnyUp: expected convention 'released' or 'paper', got 'none'\."),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        AnyUp(4, 3, **arguments)
