"""The one place that chooses which kernel computes an op. Kernel modules are imported by nobody else.

``backend="auto"`` takes the environment variable ``MMSEG_RESAMPLE_BACKEND`` where it names a kernel of the op, and the
best available kernel otherwise. A backend asked for by argument must exist.
"""

import os
from collections.abc import Callable
from typing import Any

from torch import Tensor

from . import _check, _deform, _fused, _torch

_KERNELS: dict[str, dict[str, Callable[..., Any]]] = {
    "resample": {"torch": _torch.resample},
    "flow_warp": {"torch": _torch.flow_warp},
    "deform_conv2d": {"torch": _deform.by_warps, "torchvision": _deform.by_torchvision},
    "resize_argmax": {"torch": _fused.resize_argmax},
    "resize_cross_entropy": {"torch": _fused.resize_cross_entropy},
}
# What "auto" takes for inputs that it is best for; everything else has "torch".
_BEST: dict[str, tuple[str, Callable[[Tensor], bool]]] = {"deform_conv2d": ("torchvision", _deform.torchvision_is_best)}


def select(op: str, backend: str, input: Tensor | None = None) -> Callable[..., Any]:
    """The kernel of ``op`` for ``backend``; ``input`` is what it will run on, where that decides.

    Raises:
        ValueError: the op has no such backend.
    """
    kernels = _KERNELS[op]
    if backend == "auto":
        backend = os.environ.get("MMSEG_RESAMPLE_BACKEND", "")
        if backend not in kernels:
            best, is_best = _BEST.get(op, ("torch", lambda _: True))
            backend = best if input is not None and is_best(input) else "torch"
        return kernels[backend]
    _check.one_of(op, "backend", backend, ("auto", *kernels))
    return kernels[backend]
