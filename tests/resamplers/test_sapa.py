import pytest
import torch
from mmseg.registry import MODELS

from mmseg_resample.resamplers import SAPA
from tests.conftest import assert_close
from tests.resamplers.test_reassemble import cell, coordinate


def normalised(feature, layer):
    """Over the channels of one sample."""
    if isinstance(layer, torch.nn.Identity):
        return feature
    centred = feature - feature.mean()
    return centred / (centred.square().mean() + layer.eps).sqrt() * layer.weight + layer.bias


def by_loops(module, x, like, flag):
    size, reach = like.shape[2:], module.up_kernel // 2
    out = torch.zeros(x.shape[0], x.shape[1], *size, dtype=torch.float64)
    for n in range(x.shape[0]):
        for i in range(size[0]):
            row, _ = cell(coordinate(i, x.shape[2], size[0], flag), 1)
            for j in range(size[1]):
                column, _ = cell(coordinate(j, x.shape[3], size[1], flag), 1)
                query = module.query.weight @ normalised(like[n, :, i, j], module.norm_like) + module.query.bias
                scores, values = [], []
                for r in range(row - reach, row + reach + 1):
                    for c in range(column - reach, column + reach + 1):
                        if 0 <= r < x.shape[2] and 0 <= c < x.shape[3]:
                            key = module.key.weight @ normalised(x[n, :, r, c], module.norm_x) + module.key.bias
                            scores.append(query @ key)
                            values.append(x[n, :, r, c])
                        else:  # takes part in the softmax with nothing to give
                            scores.append(query.new_zeros(()))
                            values.append(query.new_zeros(x.shape[1]))
                weights = torch.stack(scores).exp()
                out[n, :, i, j] = weights / weights.sum() @ torch.stack(values)
    return out


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("size", [(6, 8), (5, 7), (2, 3), (1, 1)])
def test_matches_loops(norm, flag, size):
    module = SAPA(4, 6, flag, up_kernel=3, embedding_channels=5, norm=norm).double()
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.5)
    x = torch.randn(2, 4, 3, 4, dtype=torch.float64)
    like = torch.randn(2, 6, *size, dtype=torch.float64)
    with torch.no_grad():
        assert_close(module(x, like), by_loops(module, x, like, flag))


@pytest.mark.parametrize("flag", [False, True])
def test_constant_maps_stay_constant_inside_and_fade_at_the_border(flag):
    out = SAPA(4, 6, flag)(torch.full((1, 4, 7, 7), 3.0), torch.randn(1, 6, 14, 14))
    assert_close(out[..., 5:9, 5:9], torch.full((1, 4, 4, 4), 3.0))
    # Kernels start almost uniform, and 9 of the 25 taps of a corner are inside.
    torch.testing.assert_close(out[..., 0, 0], torch.full((1, 4), 3 * 9 / 25), atol=0.05, rtol=0)


def test_starts_with_nearly_uniform_kernels():
    """What a larger initialisation breaks: 25 taps whose softmax is saturated by two or three."""
    kernel = SAPA(32, 32).explain(torch.randn(1, 32, 12, 12), torch.randn(1, 32, 24, 24))["kernel"]
    taps = 1 / kernel.square().sum(2)
    assert taps.mean() > 24
    module = SAPA(256, 256)
    for layer in (module.query, module.key):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not layer.bias.any()


def test_flipping_both_flips_the_result():
    module = SAPA(4, 4)
    x, like = torch.randn(1, 4, 4, 5), torch.randn(1, 4, 8, 10)
    assert_close(module(x.flip(2, 3), like.flip(2, 3)).flip(2, 3), module(x, like))


def test_a_boundary_of_the_guide_is_kept():
    """Two classes whose boundary runs between source samples: each target sample takes its own class's value."""
    like = torch.zeros(1, 2, 8, 8)
    like[:, 0, :, :3], like[:, 1, :, 3:] = 1, 1
    x = torch.zeros(1, 2, 4, 4)
    x[:, 0, :, :2], x[:, 1, :, 2:] = 1, 1  # column 1 covers target columns 2 and 3, of one class each
    module = SAPA(2, 2, embedding_channels=2, norm=False)
    for layer in (module.query, module.key):
        layer.weight.data = torch.eye(2) * 5
    assert_close(module(x, like), like)


def test_parameters_are_the_published_ones():
    """0.1 M for six between features of 256 channels."""
    assert sum(p.numel() for p in SAPA(256, 256).parameters()) == 2 * (256 * 32 + 32) + 4 * 256
    assert sum(p.numel() for p in SAPA(256, 256, norm=False).parameters()) == 2 * (256 * 32 + 32)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(guide_channels=4), "in_channels, got None"),
        (dict(in_channels=4), "guide_channels, got None"),
        (dict(in_channels=4, guide_channels=4, up_kernel=4), "up_kernel to be odd"),
        (dict(in_channels=4, guide_channels=4, embedding_channels=0), "embedding_channels to be a whole number"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SAPA(**kwargs)


def test_registered_in_mmseg():
    assert MODELS.get("SAPA") is SAPA
