"""Kernels of deformable convolution: sums of warps, and torchvision's."""

import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _check, _torch


def by_warps(input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    """Sum one warp and one 1x1 convolution per tap: no unfolded copy of the input."""
    batch, channels, height, width = input.shape
    kernel = weight.shape[2:]
    taps = kernel[0] * kernel[1]
    groups = offset.shape[1] // (2 * taps)
    x = input.reshape(batch * groups, channels // groups, height, width)
    flows = offset.to(torch.promote_types(offset.dtype, torch.float32))
    flows = flows.reshape(batch * groups, taps, 2, height, width)
    out: Tensor | None = None
    for tap in range(taps):
        row, column = divmod(tap, kernel[1])
        dy, dx = flows[:, tap, 0] + row - kernel[0] // 2, flows[:, tap, 1] + column - kernel[1] // 2
        sampled = _torch.flow_warp(x, torch.stack((dx, dy), 1), (2 / width, 2 / height), False, "zeros")
        if mask is not None:
            sampled = sampled * mask.reshape(batch * groups, taps, height, width)[:, tap, None]
        term = F.conv2d(sampled.reshape(batch, channels, height, width), weight[:, :, row, column, None, None])
        out = term if out is None else out + term
    assert out is not None
    return out if bias is None else out + bias.to(out.dtype).view(-1, 1, 1)


@_check.once
def has_torchvision(device: str) -> bool:
    """Tell whether torchvision has its operator for ``device``: it can be imported without, built for another torch."""
    if importlib.util.find_spec("torchvision") is None:
        return False
    try:
        import torchvision.ops  # noqa: F401

        return torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::deform_conv2d", device.upper())
    except (ImportError, OSError, RuntimeError):  # the last one where there is no operator of that name
        return False


def torchvision_is_best(input: Tensor) -> bool:
    """Prefer torchvision on CUDA where it fits this torch. A compiler does better with kernels that it can see into."""
    return input.is_cuda and not _check.is_compiling() and has_torchvision("cuda")


def by_torchvision(input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    if not has_torchvision(input.device.type):
        raise ImportError(
            f"deform_conv2d: backend='torchvision' needs a torchvision that was built for torch {torch.__version__}, "
            f"with its operators for {input.device.type}, and there is none. Install it, or use backend='auto'."
        )
    import torchvision.ops

    dtype = torch.promote_types(input.dtype, torch.float32)  # half precision is too coarse for coordinates
    tensors = [tensor if tensor is None else tensor.to(dtype) for tensor in (input, offset, weight, bias)]
    padding = weight.shape[2] // 2, weight.shape[3] // 2
    out = torchvision.ops.deform_conv2d(*tensors, padding=padding, mask=mask if mask is None else mask.to(dtype))
    return out.to(input.dtype)
