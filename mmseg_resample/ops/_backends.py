"""The one place that chooses which kernel computes an op. Kernel modules are imported by nobody else.

``backend="auto"`` takes the environment variable ``MMSEG_RESAMPLE_BACKEND`` where it names a kernel of the op, and the
best available kernel otherwise. A backend asked for by name must exist.
"""

import importlib
import os
import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from . import _check, _deform, _fused, _torch


class _Optional:
    """A kernel of a module that is imported when the kernel is first chosen, and needs ``package``."""

    def __init__(self, module: str, name: str, package: str, install: str, device: str) -> None:
        self.module, self.name, self.package, self.install, self.device = module, name, package, install, device

    def load(self, op: str, backend: str, input: Tensor | None) -> Callable[..., Any]:
        if not _is_installed(self.package):
            raise ModuleNotFoundError(
                f"{op}: backend={backend!r} needs {self.package}, which is not installed. Get it with {self.install}."
            )
        if input is not None and self.device == "cpu" and input.device.type != "cpu":
            raise ValueError(
                f"{op}: backend={backend!r} expected a tensor on a CPU, got one on {input.device}. "
                f"Use backend='auto', or move it with .cpu()."
            )
        return getattr(importlib.import_module(f".{self.module}", __package__), self.name)


def _numba(name: str) -> _Optional:
    return _Optional("_numba", name, "numba", "pip install 'mmseg_resample[fast]'", "cpu")


def _triton(name: str) -> _Optional:
    return _Optional("_triton", name, "triton", "pip install triton", "any")


@lru_cache
def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


def _numba_is_best(input: Tensor) -> bool:
    """Measured to be faster at every size, of maps of one pixel too, whose call takes less than 0.1 ms."""
    return input.device.type == "cpu" and _is_installed("numba") and _numba_works()


@lru_cache
def _numba_works() -> bool:
    """Numba refuses to be imported next to a numpy that is newer than it."""
    try:
        importlib.import_module("._numba", __package__)
    except Exception as error:
        warnings.warn(
            f"mmseg_resample: losses and labels are computed by PyTorch, because Numba does not work here "
            f"({type(error).__name__}: {error}). Upgrade it with pip install -U numba, or uninstall it.",
            stacklevel=2,
        )
        return False
    return True


_KERNELS: dict[str, dict[str, Callable[..., Any] | _Optional]] = {
    "resample": {"torch": _torch.resample, "triton": _triton("resample")},
    "flow_warp": {"torch": _torch.flow_warp},
    "deform_conv2d": {"torch": _deform.by_warps, "torchvision": _deform.by_torchvision},
    "resize_argmax": {
        "torch": _fused.resize_argmax,
        "numba": _numba("resize_argmax"),
        "triton": _triton("resize_argmax"),
    },
    "resize_cross_entropy": {
        "torch": _fused.resize_cross_entropy,
        "numba": _numba("resize_cross_entropy"),
        "triton": _triton("resize_cross_entropy"),
    },
}
# What "auto" takes for inputs that it is best for; everything else has "torch".
_BEST: dict[str, tuple[str, Callable[[Tensor], bool]]] = {
    "deform_conv2d": ("torchvision", _deform.torchvision_is_best),
    "resize_argmax": ("numba", _numba_is_best),
    "resize_cross_entropy": ("numba", _numba_is_best),
}


def select(op: str, backend: str, input: Tensor | None = None) -> Callable[..., Any]:
    """The kernel of ``op`` for ``backend``; ``input`` is what it will run on, where that decides.

    Raises:
        ValueError: the op has no such backend, or the backend cannot run on the device of ``input``.
        ModuleNotFoundError: the backend needs a package that is not installed.
    """
    kernels = _KERNELS[op]
    if backend == "auto":
        backend = os.environ.get("MMSEG_RESAMPLE_BACKEND", "")
        if backend not in kernels:
            best, is_best = _BEST.get(op, ("torch", lambda _: True))
            backend = best if input is not None and is_best(input) else "torch"
    else:
        _check.one_of(op, "backend", backend, ("auto", *kernels))
    kernel = kernels[backend]
    return kernel.load(op, backend, input) if isinstance(kernel, _Optional) else kernel
