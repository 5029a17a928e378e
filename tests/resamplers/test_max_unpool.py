from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from mmseg_resample.models import ResampleFPN
from mmseg_resample.resamplers import MaxUnpool, max_pool, max_unpool
from tests.conftest import HALVES, ONE_GRAPH

FLAGS = [True, False]
# pooled, full: whole ratio, odd, one pixel, equal, smaller along one axis or both
SIZES = [((3, 4), (6, 8)), ((3, 4), (8, 7)), ((1, 1), (3, 2)), ((4, 4), (4, 4)), ((5, 2), (3, 6)), ((4, 5), (1, 1))]


def nearest(n, size, flag):
    """Return, of each of ``size`` targets, the nearest of ``n`` sources in exact arithmetic, ties to the right."""
    out = []
    for j in range(size):
        u = Fraction(j * (n - 1), max(size - 1, 1)) if flag else Fraction(2 * j + 1, 2) * n / size - Fraction(1, 2)
        out.append((u + Fraction(1, 2)).__floor__())
    return out


def by_loops(x, like, flag):
    """Sample by sample: where the first maximum of ``like`` in each cell is, the value goes."""
    (h, w), (height, width) = x.shape[2:], like.shape[2:]
    rows, columns = nearest(h, height, flag), nearest(w, width, flag)
    out = torch.zeros_like(like)
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            for i in range(h):
                for j in range(w):
                    cell = [(a, b) for a in range(height) for b in range(width) if rows[a] == i and columns[b] == j]
                    if cell:
                        top = max(float(like[n, c, a, b]) for a, b in cell)
                        a, b = next((a, b) for a, b in cell if float(like[n, c, a, b]) == top)
                        out[n, c, a, b] = x[n, c, i, j]
    return out


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize(("pooled", "full"), SIZES)
def test_against_loops(flag, pooled, full):
    x, like = torch.randn(2, 3, *pooled), torch.randint(0, 3, (2, 3, *full)).float()  # with many equal maxima
    module = MaxUnpool(3, 3, align_corners=flag)
    assert torch.equal(module(x, like), by_loops(x, like, flag))


@pytest.mark.parametrize("stride", [2, 3])
def test_is_pytorchs_pooling_and_unpooling(stride):
    x = torch.randn(2, 3, 4 * stride, 5 * stride).relu()
    values, indices = F.max_pool2d(x, stride, return_indices=True)
    ours = max_pool(x, (4, 5))
    assert torch.equal(ours[0], values) and torch.equal(ours[1], indices)
    assert torch.equal(MaxUnpool(3, 3)(values, x), F.max_unpool2d(values, indices, stride))


@pytest.mark.parametrize("ceil", [True, False])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("full", [(9, 45), (10, 7), (3, 4), (6, 6)])
def test_of_a_stride_is_pytorchs_pooling_and_unpooling(full, stride, ceil):
    x = torch.randint(0, 9, (2, 3, *full)).double()  # with many equal maxima
    values, indices = F.max_pool2d(x, stride, ceil_mode=ceil, return_indices=True)
    size = tuple(values.shape[2:])
    ours = max_pool(x, size, stride=stride)
    assert torch.equal(ours[0], values) and torch.equal(ours[1], indices)
    module = MaxUnpool(3, 3, align_corners=True, stride=stride)  # the flag of its owner is not read
    assert torch.equal(module(values, x), F.max_unpool2d(values, indices, stride, output_size=full))
    assert torch.equal(module.explain(values, x)["indices"], indices)


def test_of_a_stride_where_the_axes_round_differently():
    """No ``ceil_mode`` does that: each axis as if it were pooled alone."""
    x = torch.randn(1, 2, 9, 5)
    values, indices = max_pool(x, (4, 3), stride=2)
    assert torch.equal(values, F.max_pool2d(x[:, :, :8], 2, ceil_mode=True))
    assert torch.equal(x.flatten(2).gather(2, indices.flatten(2)).view(values.shape), values)


def test_the_cells_of_a_whole_ratio_are_those_of_its_stride_and_others_are_not():
    x = torch.randn(1, 2, 9, 45)
    assert torch.equal(max_pool(x[..., :8, :44], (4, 22))[1], max_pool(x[..., :8, :44], (4, 22), stride=2)[1])
    assert not torch.equal(max_pool(x, (5, 23))[0], max_pool(x, (5, 23), stride=2)[0])


@pytest.mark.parametrize("size", [(2, 3), (9, 4), (5, 9), (20, 20), (1, 1)])
def test_of_a_stride_takes_any_sizes(size):
    """What is behind the last window stays zero, and windows beyond the map are dropped."""
    x, like = torch.randn(2, 3, *size), torch.randn(2, 3, 9, 8)
    expected = torch.zeros_like(like)
    for i in range(size[0]):
        for j in range(size[1]):
            cell = like[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            if cell.numel():
                first = torch.zeros_like(cell).flatten(2)
                first.scatter_(2, cell.flatten(2).argmax(2, keepdim=True), x[:, :, i, j, None])
                expected[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = first.view(cell.shape)
    module = MaxUnpool(3, 3, stride=2)
    assert torch.equal(module(x, like), expected)
    assert module.explain(x, like)["indices"].shape == x.shape


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("full", [(6, 8), (5, 7), (4, 4)])
def test_pool_after_unpool_gives_the_values_back(flag, full):
    like, x = torch.randn(2, 3, *full), torch.rand(2, 3, 3, 4)
    _, indices = max_pool(like, (3, 4), flag)
    out = max_unpool(x, indices, full)
    assert torch.equal(max_pool(out, (3, 4), flag)[0], x)
    assert int((out != 0).sum()) == x.numel()


@pytest.mark.parametrize("flag", FLAGS)
def test_flips_commute_where_no_position_is_between_two_samples(flag):
    size = 4 if flag else 3  # to 6
    x, like = torch.randn(1, 2, size, size), torch.randn(1, 2, 6, 6)
    module = MaxUnpool(2, 2, flag)
    assert torch.equal(module(x.flip(-1), like.flip(-1)), module(x, like).flip(-1))


def test_nan_is_a_maximum_as_in_pytorch():
    x = torch.randn(1, 1, 5, 6)
    x[0, 0, 1, 1] = torch.nan
    values, indices = max_pool(x, (2, 3))
    assert values[0, 0, 0, 0].isnan() and indices[0, 0, 0, 0] == 7 and values.isnan().sum() == 1


@pytest.mark.parametrize("full", [(4, 6), (5, 3)])
def test_gradients(full):
    like = torch.randn(1, 2, *full, dtype=torch.float64, requires_grad=True)
    x = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: MaxUnpool(2, 2)(x, like.detach()), x)
    assert torch.autograd.gradcheck(lambda y: max_pool(y, (2, 3))[0], like)
    MaxUnpool(2, 2)(x, like).sum().backward()
    assert like.grad is None and torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("stride", [None, 2])
def test_half_memory_format_empty_batch_compile(stride, dtype):
    module = MaxUnpool(3, 3, align_corners=True, stride=stride)
    x, like = torch.randn(2, 3, 3, 4, dtype=dtype), torch.randn(2, 3, 7, 6, dtype=dtype)
    expected = module(x, like)
    assert expected.dtype == dtype and torch.equal(expected.float(), module(x.float(), like.float()))
    last = dict(memory_format=torch.channels_last)
    assert torch.equal(module(x.to(**last), like.to(**last)), expected)
    assert module(x[:0], like[:0]).shape == (0, 3, 7, 6)
    compiled = torch.compile(module, fullgraph=ONE_GRAPH, backend="aot_eager")
    assert torch.equal(compiled(x, like), expected)


def test_explain():
    x, like = torch.randn(1, 3, 2, 3), torch.randn(1, 3, 5, 6)
    module = MaxUnpool(3, 3)
    assert torch.equal(max_unpool(x, module.explain(x, like)["indices"], (5, 6)), module(x, like))


def test_in_the_pyramid():
    assert MODELS.get("MaxUnpool") is MaxUnpool
    neck = ResampleFPN([2, 3], 8, 2, resampler=dict(type="MaxUnpool"))
    assert neck((torch.randn(1, 2, 9, 7), torch.randn(1, 3, 4, 5)))[0].shape == (1, 8, 9, 7)


def test_errors():
    with pytest.raises(ValueError, match="in_channels == guide_channels"):
        MaxUnpool(3, 4)
    with pytest.raises(ValueError, match=r"at most \(2, 2\), the size of x, got \(3, 2\)"):
        max_pool(torch.zeros(1, 1, 2, 2), (3, 2))
    with pytest.raises(ValueError, match=r"at most \(5, 2\), the windows of stride 2 in \(9, 4\), got \(5, 3\)"):
        max_pool(torch.zeros(1, 1, 9, 4), (5, 3), stride=2)
    for refused in (lambda: MaxUnpool(3, 3, stride=0), lambda: max_pool(torch.zeros(1, 1, 2, 2), (1, 1), stride=0)):
        with pytest.raises(ValueError, match="expected stride to be a whole number >= 1, got 0"):
            refused()
