import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from mmseg_resample.resamplers import FADE, SAPA, FADELite, fuse
from tests.conftest import assert_close
from tests.resamplers.test_reassemble import cell, coordinate, reassemble_by_loops


def randomised(module):
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return module.double()


def by_loops(module, x, like, flag):
    """Semi-shift convolution, softmax, reassembly and gate, target position by target position."""
    conv, size = module.semi_shift, like.shape[2:]
    side = conv.kernel_size[0]
    depthwise = conv.groups > 1
    compressed = [
        F.pad(F.conv2d(feature, layer.weight, layer.bias), [side // 2] * 4)
        for feature, layer in ((like, module.compress_like), (x, module.compress_x))
    ]
    logits = torch.zeros(x.shape[0], module.up_kernel**2, *size, dtype=torch.float64)
    gate = torch.zeros(x.shape[0], 1, *size, dtype=torch.float64)
    for i in range(size[0]):
        row, _ = cell(coordinate(i, x.shape[2], size[0], flag), 1)
        for j in range(size[1]):
            column, _ = cell(coordinate(j, x.shape[3], size[1], flag), 1)
            if module.gate is not None:
                gate[:, 0, i, j] = torch.sigmoid(
                    x[:, :, row, column] @ module.gate.weight[0, :, 0, 0] + module.gate.bias
                )
            # The same weights on a window that follows the target position, and on one that follows the source sample.
            shared = compressed[0][:, :, i : i + side, j : j + side]
            shared = shared + compressed[1][:, :, row : row + side, column : column + side]
            for tap in range(module.up_kernel**2):
                of_tap = shared[:, tap : tap + 1] if depthwise else shared
                logits[:, tap, i, j] = (of_tap * conv.weight[tap]).sum((1, 2, 3)) + conv.bias[tap]
    kernel = logits.exp() / logits.exp().sum(1, keepdim=True)
    out = reassemble_by_loops(x, kernel[:, None], flag)
    return out if module.gate is None else gate * like + (1 - gate) * out


@pytest.mark.parametrize("kind", [FADE, FADELite])
@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("size", [(6, 8), (5, 7), (2, 3)])
def test_matches_loops(kind, gate, flag, size):
    module = randomised(kind(4, 4, flag, up_kernel=3, gate=gate))
    x = torch.randn(2, 4, 3, 4, dtype=torch.float64)
    like = torch.randn(2, 4, *size, dtype=torch.float64)
    with torch.no_grad():
        assert_close(module(x, like), by_loops(module, x, like, flag))


@pytest.mark.parametrize(("kind", "each", "published"), [(FADE, 47578, 0.29), (FADELite, 13357, 0.080)])
def test_parameters_are_the_published_ones(kind, each, published):
    """0.29 M and 80 K for six between features of 256 channels."""
    count = sum(p.numel() for p in kind(256, 256).parameters())
    assert count == each
    assert round(6 * count / 1e6, len(str(published)) - 2) == published


@pytest.mark.parametrize(("kind", "published"), [(FADE, 2.65), (FADELite, 0.89)])
def test_operations_are_the_published_ones(kind, published):
    """Billions of multiply-adds that six of them add to SegFormer-B1 at 512x512, all four levels meeting at stride 4:
    one step from 16 to 32 samples, two from 32 to 64, three from 64 to 128."""
    low, high = 16**2 + 2 * 32**2 + 3 * 64**2, 32**2 + 2 * 64**2 + 3 * 128**2
    module = kind(256, 256)
    per_low = sum(m.weight.numel() for m in (module.compress_x, module.semi_shift, module.gate))
    per_high = sum(m.weight.numel() for m in (module.compress_like, module.semi_shift))
    per_high += 256 * 25 + 2 * 256  # reassembly, and the two products of the gate
    assert (low * per_low + high * per_high) / 1e9 == pytest.approx(published, abs=0.005)


def test_the_gate_decides_between_the_two():
    module = FADE(4, 4, compressed_channels=3)
    x, like = torch.randn(1, 4, 5, 5), torch.randn(1, 4, 10, 10)
    torch.nn.init.zeros_(module.gate.weight)
    torch.nn.init.constant_(module.gate.bias, 100.0)
    assert_close(module(x, like), like)
    assert_close(module.explain(x, like)["gate"], torch.ones(1, 1, 10, 10))
    torch.nn.init.constant_(module.gate.bias, -100.0)
    out, module.gate = module(x, like), None
    assert_close(out, module(x, like))


def test_a_neck_does_not_add_the_guide_to_what_contains_it():
    x, like = torch.randn(1, 4, 5, 5), torch.randn(1, 4, 10, 10)
    for module in (FADE(4, 4), FADELite(4, 4)):
        assert_close(fuse(module, x, like), module(x, like))
    for module in (FADE(4, 4, gate=False), SAPA(4, 4)):
        assert_close(fuse(module, x, like), like + module(x, like))


@pytest.mark.parametrize("kind", [FADE, FADELite])
def test_starts_as_published(kind):
    """The semi-shift convolution as well is Xavier initialised."""
    weight = kind(256, 256).semi_shift.weight
    fan_in, fan_out = (side * weight[0, 0].numel() for side in (weight.shape[1], weight.shape[0]))
    assert weight.std().item() == pytest.approx((2 / (fan_in + fan_out)) ** 0.5, rel=0.15)


def test_constant_maps_stay_constant_away_from_the_border():
    module = randomised(FADE(4, 6, gate=False)).float()
    out = module(torch.full((1, 4, 8, 8), 3.0), torch.randn(1, 6, 16, 16))
    assert_close(out[:, :, 4:12, 4:12], torch.full((1, 4, 8, 8), 3.0))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(guide_channels=4), "FADE: expected in_channels, got None"),
        (dict(in_channels=4), "FADE: expected guide_channels, got None"),
        (dict(in_channels=4, guide_channels=6), "got 4 and 6. Use gate=False"),
        (dict(in_channels=4, guide_channels=4, up_kernel=2), "up_kernel to be odd"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        FADE(**kwargs)


def test_registered_in_mmseg():
    assert MODELS.get("FADE") is FADE
    assert MODELS.get("FADELite") is FADELite
