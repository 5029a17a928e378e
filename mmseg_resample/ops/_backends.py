"""The one place that chooses which kernel computes an op. Kernel modules are imported by nobody else.

``backend="auto"`` takes what the environment variable ``MMSEG_RESAMPLE_BACKEND`` names, if the op has such a kernel for
the device, and the best kernel that works there otherwise. A backend asked for by name must exist.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from . import _check, _deform, _fused, _torch
from ._check import once


class _Optional:
    """A kernel of a module that is imported when the kernel is first chosen, and needs ``package``."""

    def __init__(self, module: Callable[[], ModuleType], name: str, package: str, install: str) -> None:
        self.module, self.name, self.package, self.install = module, name, package, install

    def load(self, op: str, backend: str, input: Tensor | None) -> Callable[..., Any]:
        if not _is_installed(self.package):
            raise ModuleNotFoundError(
                f"{op}: backend={backend!r} needs {self.package}, which is not installed. Get it with {self.install}."
            )
        if input is not None and not _runs_on(backend, input.device.type):
            home = "on a GPU" if backend == "triton" else "on a CPU"
            raise ValueError(
                f"{op}: backend={backend!r} expected a tensor {home}, got one on {input.device}. Use backend='auto'."
            )
        return getattr(self.module(), self.name)


@once
def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


def _runs_on(backend: str, device: str) -> bool:
    if backend == "triton":  # its interpreter, which tests use, runs on CPUs
        return device != "cpu" or os.environ.get("TRITON_INTERPRET") == "1"
    return device == "cpu" or backend != "numba"


def _numba_module() -> ModuleType:
    from . import _numba  # a statement, which compilers can follow

    return _numba


def _triton_module() -> ModuleType:
    from . import _triton

    return _triton


def _numba(name: str) -> _Optional:
    return _Optional(_numba_module, name, "numba", "pip install 'mmseg_resample[fast]'")


def _triton(name: str) -> _Optional:
    return _Optional(_triton_module, name, "triton", "pip install triton")


_KERNELS: dict[str, dict[str, Callable[..., Any] | _Optional]] = {
    "resize": {
        "torch": _torch.resample,
        "products": _torch.resample,
        "numba": _numba("resample"),
    },
    "flow_warp": {"torch": _torch.flow_warp, "numba": _numba("flow_warp")},
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


def available(op: str, device: str) -> list[str]:
    """List the backends of ``op`` that are installed and run on ``device``, ``"cpu"`` or ``"cuda"``."""
    works: dict[str, Callable[[], bool]] = {
        "numba": lambda: _is_installed("numba") and _numba_works(),
        "triton": lambda: _is_installed("triton"),
        "torchvision": lambda: _deform.has_torchvision(device),
    }
    return [name for name in _KERNELS[op] if _runs_on(name, device) and (name not in works or works[name]())]


def named(op: str, backend: str, input: Tensor | None) -> str:
    """Return ``backend``; for ``"auto"``, what the environment names if that can compute ``op``, else ``"auto"``."""
    kernels = _KERNELS[op]
    if backend != "auto":
        _check.one_of(op, "backend", backend, ("auto", *kernels))
        return backend
    wish = _wish()
    return wish if wish in kernels and (input is None or _runs_on(wish, input.device.type)) else "auto"


@_check.constant  # torch 2.1 cannot compile a look into the environment
def _wish() -> str:
    return os.environ.get("MMSEG_RESAMPLE_BACKEND", "")


def select(op: str, backend: str, input: Tensor | None = None) -> Callable[..., Any]:
    """Return the kernel of ``op`` for ``backend``; ``input`` is the tensor that it will run on, where that decides.

    Raises:
        ValueError: the op has no such backend, or the backend cannot run on the device of ``input``.
        ModuleNotFoundError: the backend needs a package that is not installed.
    """
    backend = named(op, backend, input)
    if isinstance(input, FakeTensor):  # no data to compute; audits know the op of PyTorch's kernel
        backend = "torch"
    elif op == "flow_warp" and backend != "torch" and (input is None or not _check.is_plain(input)):
        backend = "torch"  # Numba's is no op that others could follow
    elif op == "resize" and _check.is_transformed(input):
        return _torch.resample_transformed
    elif backend == "auto":
        backend = "torch" if input is None else _best(op, input)
    kernel = _KERNELS[op][backend]
    return kernel.load(op, backend, input) if isinstance(kernel, _Optional) else kernel


# --- what "auto" takes, wherever it works -----------------------------------------------------------------------------


def _numba_is_best(op: str, input: Tensor) -> bool:
    """Prefer Numba on CPUs, faster for every network measured; PyTorch's bands win where two classes grow 30 times.

    It resizes and warps images in channels-last order alone, and loses time on warps of few channels.
    """
    suits = op not in ("resize", "flow_warp") or _torch.is_channels_last(input)
    if op == "flow_warp" and suits:
        suits = input.shape[1] >= 16
    return suits and input.device.type == "cpu" and _is_installed("numba") and _numba_works()


def _triton_is_best(input: Tensor) -> bool:
    """Prefer Triton on GPUs: one launch, where plain PyTorch launches dozens and writes the resized logits."""
    return input.is_cuda and torch.cuda.is_available() and _is_installed("triton") and _triton_works(str(input.device))


def _best(op: str, input: Tensor) -> str:
    """Return the kernel of ``op`` that ``"auto"`` takes for ``input``."""
    for name in _KERNELS[op]:  # not `next`, whose default torch 2.6 cannot compile
        if _is_best(op, name, input):
            return name
    return "torch"


def _is_best(op: str, backend: str, input: Tensor) -> bool:
    """Tell whether ``"auto"`` takes ``backend`` for what PyTorch has no kernel of its own for."""
    if backend == "numba":
        return _numba_is_best(op, input)
    if backend == "triton":
        return _triton_is_best(input)
    return backend == "torchvision" and _deform.torchvision_is_best(input)


_SMALL = 128  # height plus width of the output up to which PyTorch takes another linear kernel, slow in NCHW


def fastest_resize(input: Tensor, mode: str, size: Sequence[int]) -> str:
    """Return the backend of ``resize`` that is faster than PyTorch's own kernel of ``mode``; "auto" where none is.

    The thresholds are round numbers near the crossings that were measured with torch 2.13 and one thread on an AMD EPYC
    with AVX2: 1 to 512 channels by 28 pairs of sizes from 1x1 to 512x1024, both layouts, forward alone and with
    backward. In channels-last order PyTorch's linear kernel was the fastest everywhere, in float64 nearly so. Products
    synchronise threads once per band, which was seen to take a hundred times as long on a busy machine: they are taken
    where one thread computes.
    """
    if _check.is_compiling() or torch.jit.is_tracing() or _check.is_transformed(input):
        return "auto"
    if not (type(input) is Tensor and input.device.type == "cpu" and input.ndim == 4 and input.numel()):
        return "auto"  # audits have other types
    if torch.get_num_threads() > 1 or input.dtype != torch.float32 or mode not in ("bilinear", "bicubic"):
        return "auto"
    outputs = input.shape[0] * input.shape[1] * size[0] * size[1]
    least_growth = min(size[0] / input.shape[2], size[1] / input.shape[3])
    channels_last = _torch.is_channels_last(input)
    if mode == "bicubic":
        is_faster = outputs >= 2**15
    elif channels_last:
        is_faster = False
    elif sum(size) <= _SMALL:
        is_faster = outputs >= 2**17
    else:
        is_trained = torch.is_grad_enabled() and input.requires_grad
        is_faster = outputs >= 2**19 and least_growth >= (1.8 if is_trained else 2.8)
    if not is_faster:
        return "auto"
    return "numba" if channels_last and _numba_is_best("resize", input) else "products"


@once
def _numba_works() -> bool:
    """Import Numba, which refuses a numpy that is newer than itself."""
    try:
        _numba_module()
    except Exception as error:
        _warn_that_torch_computes("Numba", "here", error, "Upgrade it with pip install -U numba, or uninstall it.")
        return False
    return True


@once
def _triton_works(device: str) -> bool:
    """Check that Triton's kernels, compiled for whatever GPU and driver there are, give PyTorch's values there."""
    try:
        _triton_module().check(torch.device(device))
    except Exception as error:
        _warn_that_torch_computes("Triton", f"on {device}", error, "MMSEG_RESAMPLE_BACKEND=torch makes this silent.")
        return False
    return True


def _warn_that_torch_computes(name: str, where: str, error: Exception, remedy: str) -> None:
    lines = str(error).strip().splitlines() or [""]
    warnings.warn(
        f"mmseg_resample: losses and labels are computed by PyTorch, slower, because {name} does not work {where} "
        f"({type(error).__name__}: {lines[0]}). {remedy}",
        stacklevel=2,
    )
