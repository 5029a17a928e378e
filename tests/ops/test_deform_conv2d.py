import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import mmseg_resample
from mmseg_resample.ops import _deform, deform_conv2d
from tests.conftest import HALVES, ONE_GRAPH, assert_close

SHAPES = [(4, 5), (1, 3), (3, 1), (1, 1)]


def case(size=(4, 5), groups=2, kernel=(3, 3), dtype=torch.float64, spread=1.5):
    taps = kernel[0] * kernel[1]
    return dict(
        input=torch.randn(2, 4, *size, dtype=dtype),
        offset=spread * torch.randn(2, 2 * groups * taps, *size, dtype=dtype),
        weight=torch.randn(3, 4, *kernel, dtype=dtype),
        bias=torch.randn(3, dtype=dtype),
        mask=torch.rand(2, groups * taps, *size, dtype=dtype),
    )


def by_loops(input, offset, weight, bias, mask):
    """Sample by sample and tap by tap, in source coordinates."""
    batch, channels, height, width = input.shape
    kh, kw = weight.shape[2:]
    taps = kh * kw
    groups = offset.shape[1] // (2 * taps)
    out = bias.view(1, -1, 1, 1).repeat(batch, 1, height, width)

    def read(n, c, y, x):
        return float(input[n, c, y, x]) if 0 <= y < height and 0 <= x < width else 0.0

    for n in range(batch):
        for i in range(height):
            for j in range(width):
                for c in range(channels):
                    group = c // (channels // groups)
                    for tap in range(taps):
                        at = group * taps + tap
                        y = i + tap // kw - kh // 2 + float(offset[n, 2 * at, i, j])
                        x = j + tap % kw - kw // 2 + float(offset[n, 2 * at + 1, i, j])
                        y0, x0 = math.floor(y), math.floor(x)
                        value = sum(
                            (1 - abs(y - yy)) * (1 - abs(x - xx)) * read(n, c, yy, xx)
                            for yy in (y0, y0 + 1)
                            for xx in (x0, x0 + 1)
                        )
                        out[n, :, i, j] += weight[:, c, tap // kw, tap % kw] * value * mask[n, at, i, j]
    return out


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize(("groups", "kernel"), [(1, (3, 3)), (4, (3, 1))])
def test_against_loops(size, groups, kernel):
    tensors = case(size, groups, kernel)
    assert_close(deform_conv2d(**tensors, backend="torch"), by_loops(**tensors))


@pytest.mark.skipif(not _deform.has_torchvision("cpu"), reason="no torchvision that fits this torch")
@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("with_mask", [True, False])
def test_torchvision_is_the_same(size, groups, with_mask):
    tensors = case(size, groups)
    if not with_mask:
        del tensors["mask"]
    for tensor in tensors.values():
        tensor.requires_grad_()
    ours, theirs = (deform_conv2d(**tensors, backend=backend) for backend in ("torch", "torchvision"))
    assert_close(ours, theirs)
    upstream = torch.randn_like(ours)
    for a, b in zip(*(torch.autograd.grad(o, tensors.values(), upstream) for o in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


def test_torchvision_without_its_operators_counts_as_absent(tmp_path):
    """Built for another torch, it can be imported up to version 0.15; built for CPUs, it has no operator for CUDA."""
    (tmp_path / "torchvision").mkdir()
    for name in ("__init__", "ops"):
        (tmp_path / "torchvision" / f"{name}.py").touch()
    code = """
import sys, types
package = types.ModuleType('mmseg_resample')  # ops alone: the package itself imports mmseg
package.__path__ = [sys.argv[1]]
sys.modules.update(mmseg_resample=package)
sys.path.insert(0, sys.argv[2])
import torch
from mmseg_resample.ops import _backends, deform_conv2d
assert _backends.available('deform_conv2d', 'cpu') == ['torch']
x, offset = torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 4, 4)
deform_conv2d(x, offset, torch.ones(1, 1, 1, 1))
try:
    deform_conv2d(x, offset, torch.ones(1, 1, 1, 1), backend='torchvision')
except ImportError as error:
    assert "backend='torchvision' needs a torchvision that was built for torch" in str(error), error
    assert "for cpu, and there is none. Install it, or use backend='auto'" in str(error), error
else:
    raise SystemExit('it ran')
library = torch.library.Library('torchvision', 'DEF')
library.define('deform_conv2d(Tensor input) -> Tensor')
library.impl('deform_conv2d', lambda input: input, 'CPU')
assert _backends.available('deform_conv2d', 'cuda') == ['torch']
"""
    package = str(Path(mmseg_resample.__file__).parent)
    subprocess.run([sys.executable, "-c", code, package, str(tmp_path)], check=True)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 3)])
def test_zero_offsets_are_conv2d(kernel):
    tensors = case(kernel=kernel)
    del tensors["mask"]
    tensors["offset"].zero_()
    padding = kernel[0] // 2, kernel[1] // 2
    expected = F.conv2d(tensors["input"], tensors["weight"], tensors["bias"], padding=padding)
    assert_close(deform_conv2d(**tensors), expected)


def test_offsets_are_dy_then_dx():
    x = torch.arange(5.0).view(1, 1, 1, 5) + 10 * torch.arange(4.0).view(1, 1, 4, 1)
    offset = torch.zeros(1, 2, 4, 5)
    offset[:, 0], offset[:, 1] = 1.0, 0.5
    out = deform_conv2d(x, offset, torch.ones(1, 1, 1, 1))
    torch.testing.assert_close(out[..., :3, :4], x[..., :3, :4] + 10.5)


def test_gradcheck():
    tensors = case((2, 2), groups=2, kernel=(1, 3), spread=0.3)
    tensors["offset"] += 0.4  # away from whole pixels, where the derivative jumps
    names = list(tensors)
    for tensor in tensors.values():
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *args: deform_conv2d(**dict(zip(names, args, strict=True)), backend="torch"), tuple(tensors.values())
    )


@pytest.mark.parametrize("dtype", HALVES)
def test_half(dtype):
    tensors = case(dtype=torch.float32, spread=0.5)
    low = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    out = deform_conv2d(**low)
    assert out.dtype == dtype
    exact = deform_conv2d(**{name: tensor.double() for name, tensor in low.items()})
    torch.testing.assert_close(out.double(), exact, atol=64 * torch.finfo(dtype).eps, rtol=16 * torch.finfo(dtype).eps)


def test_memory_format_empty_batch_compile():
    tensors = case(kernel=(1, 3), dtype=torch.float32)
    expected = deform_conv2d(**tensors)
    last = tensors | {"input": tensors["input"].to(memory_format=torch.channels_last)}
    torch.testing.assert_close(deform_conv2d(**last), expected)
    empty = tensors | {name: tensors[name][:0] for name in ("input", "offset", "mask")}
    assert deform_conv2d(**empty).shape == (0, 3, 4, 5)
    compiled = torch.compile(deform_conv2d, fullgraph=ONE_GRAPH, backend="aot_eager")
    torch.testing.assert_close(compiled(**tensors), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(weight=torch.zeros(3, 4, 2, 2)), ValueError, "odd kernel sizes"),
        (dict(weight=torch.zeros(3, 5, 3, 3)), ValueError, "weight"),
        (dict(offset=torch.zeros(2, 54, 4, 5)), ValueError, "G dividing C"),
        (dict(offset=torch.zeros(2, 36, 4, 4)), ValueError, "expected offset"),
        (dict(mask=torch.zeros(2, 9, 4, 5)), ValueError, "expected mask"),
        (dict(input=torch.zeros(2, 4, 4, 5).int()), TypeError, "input of a floating dtype"),
        (dict(backend="torchvison"), ValueError, "Did you mean 'torchvision'"),
    ],
)
def test_errors(change, error, message):
    with pytest.raises(error, match=message):
        deform_conv2d(**(case() | change))
