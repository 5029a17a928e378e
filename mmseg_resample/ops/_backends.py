"""The one place that chooses which kernel computes an op. Kernel modules are imported by nobody else.

``backend="auto"`` takes the environment variable ``MMSEG_RESAMPLE_BACKEND`` where it names a kernel of the op, and the
best available kernel otherwise. A backend asked for by argument must exist.
"""

import os
from collections.abc import Callable
from typing import Any

from . import _check, _torch

_KERNELS: dict[str, dict[str, Callable[..., Any]]] = {
    "resample": {"torch": _torch.resample},
    "flow_warp": {"torch": _torch.flow_warp},
}


def select(op: str, backend: str) -> Callable[..., Any]:
    """The kernel of ``op`` for ``backend``.

    Raises:
        ValueError: the op has no such backend.
    """
    kernels = _KERNELS[op]
    if backend == "auto":
        backend = os.environ.get("MMSEG_RESAMPLE_BACKEND", "torch")
        return kernels.get(backend, kernels["torch"])
    _check.one_of(op, "backend", backend, ("auto", *kernels))
    return kernels[backend]
