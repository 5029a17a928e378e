"""``resize``: bring a tensor to another size, or onto another pixel grid."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from . import _check, _plan
from ._plan import Mode
from .grid import AxisMap, Coordinates

__all__ = ["Mode", "resize"]


@_check.overridable
@_check.opaque_before("2.6")  # torch 2.1 cannot compile it, 2.6 can: between, it runs between two graphs
def resize(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: Mode = "nearest",
    align_corners: bool | None = None,
    *,
    coordinates: Coordinates | AxisMap | Sequence[AxisMap] | None = None,
    antialias: bool = False,
    recompute_scale_factor: bool | None = None,
    warning: bool = True,
    backend: str = "auto",
) -> Tensor:
    """Resize the spatial axes of ``input``: ``F.interpolate`` and mmseg's ``resize``, with every pixel model.

    Without ``coordinates`` the values, gradients and dtypes are those of ``F.interpolate``, whose kernels run. With
    ``coordinates`` any affine map between the two grids is computed, by PyTorch's kernel where one computes the same
    thing and by products of matrices, deterministic forward and backward, elsewhere. Samples outside ``input`` repeat
    its edge; where the products run, coordinates are float64 and weights float32 or better whatever the dtype
    (PyTorch's own kernels compute coordinates in float32; docs/conventions.md says up to which size that is enough). A
    nearest mode with ``coordinates`` reads the very sample that they name, where PyTorch rounds some to its neighbour.

    PyTorch's linear and cubic kernels add gradients in any order on GPUs: under
    ``torch.use_deterministic_algorithms(True)`` products take their place, with values equal to rounding.

    Args:
        input: (N, C, L), (N, C, H, W) or (N, C, D, H, W).
        size: output size, one number for all spatial axes or one per axis.
        scale_factor: output over input size; the output has ``floor(n * scale_factor)`` samples.
        mode: ``"linear"``, ``"bilinear"`` and ``"trilinear"`` are the linear kernel for 1, 2 and 3 spatial axes.
            With ``coordinates``, ``"bicubic"`` is the cubic kernel (a = -0.75) for any number of axes,
            ``"nearest"`` reads the sample at ``floor`` of the source coordinate and ``"nearest-exact"`` the closest
            one, ties to the right.
        align_corners: pixel model, see docs/conventions.md. ``None`` is ``False`` for the linear family and bicubic.
            ``"nearest"``, ``"nearest-exact"`` and ``"area"`` have no such choice and ignore the flag, so that a
            config may set it for all modes.
        coordinates: the pixel model by its ONNX name, or one ``AxisMap`` per spatial axis (one alone serves all).
            Explicit maps need ``size``. Not together with ``align_corners``.
        antialias: low-pass before shrinking, for ``"bilinear"`` and ``"bicubic"`` on images.
        recompute_scale_factor: with ``scale_factor``, derive the step from the two sizes instead of the factor.
        warning: warn when the sizes of an upsampling speak against ``align_corners``.
        backend: ``"auto"`` is as above, ``"torch"`` the same without Numba. Two others replace PyTorch's kernels of the
            linear family and bicubic always, with values equal to rounding: ``"products"`` multiplies by matrices in
            bands, on CPUs mostly faster than PyTorch's kernels, forward and backward (in the precision that
            ``torch.set_float32_matmul_precision`` allows); ``"numba"`` does that for all but images in channels-last
            order on CPUs, for which it has a kernel of its own. Both are deterministic.

    Returns:
        The resized tensor, dtype of ``input``; images keep their memory format.

    Raises:
        ValueError: sizes, factors or options that are missing, out of range or exclude each other.
        TypeError: a size that is no whole number, a dtype the kernel cannot compute in.
        NotImplementedError: ``mode`` is for another number of axes (as ``F.interpolate`` has it).

    Source: PyTorch ``F.interpolate``; ONNX ``Resize`` for the names of ``coordinates``.
    """
    plan = _plan.make(
        input, size, scale_factor, mode, align_corners, coordinates, antialias, recompute_scale_factor, backend
    )
    if warning and size is not None and not (torch.jit.is_tracing() or _check.is_compiling()):
        wanted = _check.per_axis("resize", "size", size, input.ndim - 2)
        _warn_of_misfit(tuple(input.shape[2:]), wanted, None if mode in _plan.CORNERLESS else align_corners)
    return plan.run(input)


def _warn_of_misfit(source: tuple[int, ...], size: tuple[int, ...], align_corners: bool | None) -> None:
    """Warn when an axis grows by sizes that only the other value of ``align_corners`` registers.

    Along an axis, True registers features of stride ``s`` when the sizes are ``n`` and ``s * (n - 1) + 1``, and False
    when they are ``n`` and ``s * n``. mmseg's warning compares height with width and needs every axis to be wrong.
    """
    if align_corners is None:
        return
    grown = [(n, out) for n, out in zip(source, size, strict=True) if out > n > 1]
    unfit_true = [(n, out) for n, out in grown if (out - 1) % (n - 1)]
    unfit_false = [(n, out) for n, out in grown if out % n]
    unfit, other_unfit = (unfit_true, unfit_false) if align_corners else (unfit_false, unfit_true)
    if not unfit or (not align_corners and other_unfit):
        return
    n, out = unfit[0]
    remedy = "neither value of align_corners fits these sizes"
    if not other_unfit:
        remedy = f"align_corners={not align_corners} fits these sizes"
    stride = round(out / n) if align_corners else (out - 1) // (n - 1)
    if stride > 1:
        fitting = stride * (n - 1) + 1 if align_corners else stride * n
        remedy += f"; align_corners={align_corners} fits {n} -> {fitting}"
    warnings.warn(
        f"resize: align_corners={align_corners} from {source} to {size} spaces the samples unevenly over the input "
        f"({n} -> {out}): {remedy}. See docs/conventions.md; silence with warning=False.",
        stacklevel=4,
    )
