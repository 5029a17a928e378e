from fractions import Fraction
from math import floor

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_resample.ops.grid import axis_maps
from mmseg_resample.resamplers.reassemble import centres, correlate, read, reassemble, subpositions
from tests.conftest import assert_close

SIZES = [(1, 1), (1, 5), (5, 1), (4, 8), (5, 15), (5, 9), (6, 11), (7, 7), (9, 4), (8, 3), (3, 32)]


def coordinate(index: int, source: int, target: int, flag: bool) -> Fraction:
    """Source coordinate of a target index, exactly."""
    if flag:
        return Fraction(index * (source - 1), max(target - 1, 1))
    return Fraction((2 * index + 1) * source, 2 * target) - Fraction(1, 2)


def cell(u: Fraction, factor: int) -> tuple[int, int]:
    """The nearest source sample and the cell of it that ``u`` lies in."""
    sample = floor(u + Fraction(1, 2))
    return sample, floor((u - sample + Fraction(1, 2)) * factor)


def reassemble_by_loops(x, kernel, flag):
    batch, groups, taps, height, width = kernel.shape
    side, out = int(taps**0.5), torch.zeros(batch, x.shape[1], height, width, dtype=torch.float64)
    for i in range(height):
        row, _ = cell(coordinate(i, x.shape[2], height, flag), 1)
        for j in range(width):
            column, _ = cell(coordinate(j, x.shape[3], width, flag), 1)
            for dy in range(-(side // 2), side // 2 + 1):
                for dx in range(-(side // 2), side // 2 + 1):
                    if not (0 <= row + dy < x.shape[2] and 0 <= column + dx < x.shape[3]):
                        continue
                    tap = (dy + side // 2) * side + dx + side // 2
                    for c in range(x.shape[1]):
                        group = c // (x.shape[1] // groups)
                        out[:, c, i, j] += kernel[:, group, tap, i, j] * x[:, c, row + dy, column + dx]
    return out


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_cells_are_where_the_pixel_model_reads(source, target, flag, factor):
    actual = subpositions(source, target, flag, factor, torch.device("cpu")).tolist()
    (axis,) = axis_maps("align_corners" if flag else "half_pixel", (source,), (target,))
    for index, value in enumerate(actual):
        u = coordinate(index, source, target, flag)
        assert float(u) == pytest.approx(axis(index), abs=1e-12)
        sample, part = cell(u, factor)
        assert (value // factor, value % factor) == (sample, part)
        assert 0 <= value < factor * source


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_whole_ratios_without_aligned_corners_are_the_identity(factor):
    assert subpositions(5, 5 * factor, False, factor, torch.device("cpu")).tolist() == list(range(5 * factor))


@pytest.mark.parametrize("source", [1, 2, 5, 16])
def test_at_a_doubling_both_flags_have_the_same_nearest_samples(source):
    device = torch.device("cpu")
    assert subpositions(source, 2 * source, True, 1, device).equal(subpositions(source, 2 * source, False, 1, device))


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("size", [(8, 10), (7, 9), (1, 4), (3, 2), (13, 5)])
@pytest.mark.parametrize(("side", "groups"), [(1, 2), (3, 1), (5, 2)])
def test_matches_loops(size, flag, side, groups):
    x = torch.randn(2, 4, 4, 5, dtype=torch.float64)
    kernel = torch.randn(2, groups, side**2, *size, dtype=torch.float64)
    assert_close(reassemble(x, kernel, centres(x, size, flag)), reassemble_by_loops(x, kernel, flag))


@pytest.mark.parametrize("flag", [False, True])
def test_correlate_matches_loops(flag):
    x, query = torch.randn(2, 3, 3, 4, dtype=torch.float64), torch.randn(2, 3, 6, 7, dtype=torch.float64)
    at = centres(x, (6, 7), flag)
    actual = correlate(x, query, 3, at)
    assert actual.shape == (2, 1, 9, 6, 7)
    for i in range(6):
        for j in range(7):
            for tap in range(9):
                row = cell(coordinate(i, 3, 6, flag), 1)[0] + tap // 3 - 1
                column = cell(coordinate(j, 4, 7, flag), 1)[0] + tap % 3 - 1
                exists = 0 <= row < 3 and 0 <= column < 4
                expected = (query[:, :, i, j] * x[:, :, row, column]).sum(1) if exists else torch.zeros(2)
                assert_close(actual[:, 0, tap, i, j], expected, torch.float64)


def test_read_is_nearest():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert read(x, centres(x, (4, 6), False)).equal(torch.nn.functional.interpolate(x, (4, 6), mode="nearest"))


def test_flipping_everything_flips_the_result():
    x, kernel = torch.randn(1, 2, 4, 5), torch.randn(1, 1, 9, 8, 10)
    at = centres(x, (8, 10), False)
    flipped = reassemble(x.flip(2, 3), kernel.flip(2, 3, 4), at)
    assert_close(flipped.flip(2, 3), reassemble(x, kernel, at))


@pytest.mark.parametrize("flag", [False, True])
def test_gradients(flag):
    x = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(2, 2, 9, 3, 5, dtype=torch.float64, requires_grad=True)
    query = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    at = centres(x, (3, 5), flag)
    assert torch.autograd.gradcheck(lambda x, k: reassemble(x, k, at), (x, kernel))
    assert torch.autograd.gradcheck(lambda x, q: correlate(x, q, 3, at), (x, query))
    assert torch.autograd.gradgradcheck(lambda x, k: reassemble(x, k, at), (x, kernel), fast_mode=True)


def test_sums_are_float32_in_half_precision():
    """25 equal terms: in bfloat16 the running sum would stall."""
    x, kernel = torch.ones(1, 1, 5, 5, dtype=torch.bfloat16), torch.full((1, 1, 25, 5, 5), 1.0039)
    kernel[:, :, 0] = 256
    out = reassemble(x, kernel, centres(x, (5, 5), False))
    assert out.dtype == torch.bfloat16
    assert out[0, 0, 2, 2] == torch.tensor(256 + 24 * 1.0039, dtype=torch.bfloat16)


class Largest(TorchDispatchMode):
    """The numbers of elements of the largest tensor that is made, and of all that is kept for the gradient."""

    elements = kept = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(t.numel() for t in torch.utils._pytree.tree_flatten(out)[0] if _is(t))])
        return out

    def keep(self, tensor):
        self.kept += tensor.numel()
        return tensor


def _is(value):
    return isinstance(value, torch.Tensor)


def test_no_unfolded_map_forward_or_backward():
    x = torch.randn(1, 32, 8, 8, requires_grad=True)
    kernel = torch.randn(1, 1, 25, 16, 16, requires_grad=True)
    at = centres(x, (16, 16), False)
    with Largest() as seen, torch.autograd.graph.saved_tensors_hooks(seen.keep, lambda t: t):
        reassemble(x, kernel, at).sum().backward()
    assert seen.elements <= 32 * 16 * 16  # one map of the target's size; an unfolded one has 25 times that
    assert seen.kept <= 32 * 12 * 12 + 25 * 16 * 16 + 64  # the padded source, the kernels, the centres
