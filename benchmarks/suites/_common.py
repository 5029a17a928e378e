"""What several suites need."""

from collections.abc import Callable

import torch
from torch import Tensor

from mmseg_resample.ops import _backends

backends = _backends.available


def memcpy(size: float, device: str) -> Callable[[], object]:
    """Move ``size`` bytes: half of them read, half of them written, in memory that is there already."""
    source = torch.ones(max(1, round(size / 8)), device=device)
    target = torch.zeros_like(source).fill_(2)
    return lambda: target.copy_(source)


def size_of(*tensors: Tensor) -> int:
    """Bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def times(*numbers: int) -> str:
    return "x".join(map(str, numbers))


def largest_difference(reference: Tensor, result: Tensor) -> float:
    """Relative to the largest value of the reference."""
    scale = reference.abs().max().clamp_min(1e-30)
    return float((reference.double() - result.double()).abs().max() / scale)
