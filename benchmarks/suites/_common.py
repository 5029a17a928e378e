"""What several suites need."""

import importlib
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

from mmseg_resample.ops import _backends

# Backends are named after the package that runs them; these two run on one kind of device.
_ONLY_ON = {"numba": "cpu", "triton": "cuda"}


def backends(op: str, device: str) -> list[str]:
    """Those of ``op`` that are installed and run on ``device``."""
    return [name for name in _backends._KERNELS[op] if _ONLY_ON.get(name, device) == device and _is_installed(name)]


def _is_installed(backend: str) -> bool:
    if backend not in ("numba", "triton", "torchvision"):
        return True
    if importlib.util.find_spec(backend) is None:
        return False
    try:
        importlib.import_module(backend)
    except (ImportError, OSError, RuntimeError):  # built for another torch, or for another numpy
        return False
    return True


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
