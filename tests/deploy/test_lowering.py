"""Operators in other words compute what the operators do: in PyTorch, before any exporter sees them."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from mmseg_resample.deploy import lowering
from mmseg_resample.ops import AxisMap, reference, resize

SIZES = [((7, 9), (14, 18)), ((13, 17), (97, 131)), ((5, 8), (3, 2)), ((1, 6), (4, 1)), ((26, 26), (64, 64))]
MAPS = {
    "as many per sample": (AxisMap(0.5, 0.0), AxisMap(0.25, 0.25)),
    "before the first": (AxisMap(0.5, -0.5), AxisMap(0.125, -1.25)),
    "beyond the last": (AxisMap(0.5, 2.0), AxisMap(0.25, 3.5)),
    "any": (AxisMap(0.37, 0.1), AxisMap(0.9, -0.7)),
    "shrinking": (AxisMap(2.0, 0.5), AxisMap(1.5, 0.0)),
    "same": (AxisMap(1.0, 0.0), AxisMap(1.0, 1.0)),
}


@pytest.mark.parametrize("form", lowering.FORMS)
@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest", "nearest-exact"])
@pytest.mark.parametrize("maps", MAPS.values(), ids=MAPS)
def test_resizes_of_any_map(maps, mode, form):
    kernel = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    for source, size in SIZES:
        x = torch.randn(2, 3, *source, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        scales, offsets = [m.scale for m in maps], [m.offset for m in maps]
        found = lowering.resample(x, size, scales, offsets, kernel, form)
        matrices = [reference.kernel_matrix(kernel, *each) for each in zip(maps, source, size, strict=True)]
        torch.testing.assert_close(found, reference.resample(x, matrices), atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", [(2, 3, 11), (1, 2, 5, 6, 7)])
@pytest.mark.parametrize("kernel", ["linear", "nearest"])
def test_resizes_of_one_and_three_axes(shape, kernel):
    x = torch.randn(shape)
    maps = [AxisMap(0.5, -0.25)] * (len(shape) - 2)
    size = [2 * n for n in shape[2:]]
    mode = {1: "linear", 3: "trilinear"}[len(size)] if kernel == "linear" else kernel
    found = lowering.resample(x, size, [0.5] * len(size), [-0.25] * len(size), kernel, "portable")
    torch.testing.assert_close(found, resize(x, size, mode=mode, coordinates=maps))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_computed_in_float32(dtype):
    x = torch.randn(1, 2, 6, 7).to(dtype)
    found = lowering.resample(x, (11, 12), [0.5, 0.5], [-0.1, 0.3], "linear", "fast")
    expected = resize(x.double(), (11, 12), mode="bilinear", coordinates=(AxisMap(0.5, -0.1), AxisMap(0.5, 0.3)))
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, atol=4 * torch.finfo(dtype).eps, rtol=0)


@pytest.mark.parametrize("bins", [(1, 1), (2, 3), (6, 6), (11, 4)])
def test_bins_of_adaptive_pooling(bins):
    for size in itertools.product((1, 4, 11, 13, 97), repeat=2):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(lowering.adaptive_avg_pool2d(x, bins), F.adaptive_avg_pool2d(x, bins))


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_nearest_reads_what_pytorch_reads(mode):
    packet = f"{'_' * (mode == 'nearest-exact')}upsample_{mode.replace('-', '_')}2d"
    function = lowering.table("portable")[getattr(torch.ops.aten, packet).vec]
    for n, out in itertools.product((1, 5, 17, 26, 27), (1, 5, 9, 34, 61, 64, 200)):
        x = torch.arange(float(n)).expand(1, 1, n, n).contiguous()
        assert torch.equal(function(x, (out, out), None), F.interpolate(x, (out, out), mode=mode)), (n, out)
    for factor in (0.5, 1.0, 1.3, 2.3):
        x = torch.arange(40.0).expand(1, 1, 150, 40).contiguous()  # large, so that PyTorch heeds the factor
        expected = F.interpolate(x, scale_factor=factor, mode=mode)
        assert torch.equal(function(x, None, [factor, factor]), expected), factor


@pytest.mark.parametrize("right", [False, True])
def test_search_in_a_sorted_sequence(right):
    sequence = torch.randint(0, 9, (3, 20)).sort(-1).values
    values = torch.randint(-1, 10, (3, 7))
    found = lowering.searchsorted(sequence, values, right=right)
    assert torch.equal(found, torch.searchsorted(sequence, values, right=right))
