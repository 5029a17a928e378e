"""``resize_cross_entropy``: cross entropy of resized logits, forward and backward, without the resized logits."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from . import _backends, _check
from .grid import AxisMap, Coordinates
from .resize_argmax import check_logits, check_target, linear_rules

Reduction = Literal["mean", "sum", "none"]
_REDUCTIONS = get_args(Reduction)
_EPS = torch.finfo(torch.float32).eps  # mmseg adds it to divisors


@_check.overridable
@_check.opaque  # a loop over rows: compiled, it would be unrolled
def resize_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    size: int | Sequence[int] | None = None,
    align_corners: bool | None = None,
    coordinates: Coordinates | AxisMap | Sequence[AxisMap] | None = None,
    weight: Tensor | Sequence[float] | None = None,
    ignore_index: int = 255,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    avg_non_ignore: bool = False,
    pixel_weight: Tensor | None = None,
    return_accuracy: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Compute the cross entropy between ``target`` and bilinearly resized ``logits``, without the resized logits.

    The loss of mmseg's decode heads, ``CrossEntropyLoss(...)(resize(logits, size), target, weight=pixel_weight)``, with
    its gradient and, in the same pass, its accuracy. For ``"mean"`` and ``"sum"`` the forward pass computes the
    gradient as well, since it needs the same values; for ``"none"`` the backward pass resizes once more. Memory beside
    the gradient of ``logits`` is a band of rows and, for ``"none"``, the losses. Values and sums are float32 or better
    whatever the dtype of ``logits``. No atomics, no reduction that threads split: equal inputs give equal bits.

    Args:
        logits: (N, C, h, w), floating point.
        target: (N, H, W), integers in [0, C) or ``ignore_index``.
        size: None or the size (H, W) of ``target``, to which ``logits`` are resized.
        align_corners: pixel model, see docs/conventions.md. ``None`` is ``False``.
        coordinates: instead of ``align_corners``, a convention's name or explicit maps.
        weight: (C,), factor of each class.
        ignore_index: label of pixels that have no loss and no gradient, whatever their logits and weights are, NaN and
            infinity included; ``F.cross_entropy`` has a gradient of NaN there.
        label_smoothing: in [0, 1], as ``F.cross_entropy`` has it.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the loss of every pixel.
        avg_non_ignore: of the mean: False divides by the number of all pixels, True by those that are not ignored, as
            mmseg does. With ``weight`` both divide by the sum of the class weights of the pixels that are not ignored:
            mmseg looks up a weight for ``ignore_index`` where that is a class, and fails elsewhere; here it has none.
        pixel_weight: (N, H, W), factor of each pixel's loss; the mean's divisor does not know it. mmseg's samplers
            choose pixels by it. It gets no gradient.
        return_accuracy: return mmseg's ``acc_seg`` too: the percentage of pixels that are not ignored and whose
            largest logit, of equal ones the first, is the target's.
        backend: ``"auto"``, ``"torch"``, ``"numba"`` (CPUs) or ``"triton"``. Numba compiles when first called, for some
            seconds, and keeps the result on disk.

    Returns:
        The loss, () or (N, H, W), float32 or better. With ``return_accuracy`` (loss, accuracy), both ().

    Raises:
        ValueError: shapes or options that do not fit each other.
        TypeError: a dtype of the wrong kind, different devices.
        ModuleNotFoundError: ``backend`` needs a package that is not installed.
        IndexError: on a CPU, a label that is neither a class nor ignored.
        RuntimeError: when the gradient is differentiated, or inside a transform of ``torch.func``.
    """
    op = "resize_cross_entropy"
    check_logits(op, logits)
    if _check.is_transformed(logits):
        raise RuntimeError(
            f"{op}: torch.func has no transform of it. Compute F.cross_entropy(resize(logits, ...), target) there, or "
            f"the gradient by torch.autograd.grad."
        )
    if target.ndim != 3:
        raise ValueError(
            f"{op}: expected target (N, H, W), got {tuple(target.shape)}. Drop a channel axis with .squeeze(1)."
        )
    height, width = target.shape[1:]
    if size is not None and _check.spatial_size(op, "size", size, 2) != (height, width):
        raise ValueError(f"{op}: expected size to be the size of target, {(height, width)}, got {size}. Drop size.")
    if min(height, width) < 1:
        raise ValueError(f"{op}: expected target (N, H, W) with H, W >= 1, got {tuple(target.shape)}.")
    check_target(op, target, (logits.shape[0], height, width), logits.device)
    _check.one_of(op, "reduction", reduction, _REDUCTIONS)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{op}: expected label_smoothing in [0, 1], got {label_smoothing}.")
    weight = _checked_weights(op, weight, pixel_weight, logits, target)
    rules = linear_rules(op, logits.shape[2:], (height, width), align_corners, coordinates)
    axes = [(n, out, rule) for n, out, rule in zip(logits.shape[2:], (height, width), rules, strict=True)]
    kernel = _backends.select(op, backend, logits)

    def sums(logits: Tensor, target: Tensor, pixel_weight: Tensor | None, *want: str) -> Any:
        return kernel(logits.detach(), target, axes, weight, ignore_index, label_smoothing, pixel_weight, want)

    def divisor(sums: Any) -> Tensor | float:
        if reduction == "sum":
            return 1.0
        if weight is not None:
            return sums.weight + _EPS
        # In the dtype of the sums: a number of pixels plus a fraction would have PyTorch's default dtype.
        return (sums.pixels.to(sums.loss.dtype) if avg_non_ignore else target.numel()) + _EPS

    fused = _PerPixel if reduction == "none" else _Reduced
    loss, accuracy = fused.apply(logits, target, pixel_weight, sums, divisor, return_accuracy, torch.is_grad_enabled())
    return (loss, accuracy) if return_accuracy else loss


def _checked_weights(
    op: str, weight: Tensor | Sequence[float] | None, pixel_weight: Tensor | None, logits: Tensor, target: Tensor
) -> Tensor | None:
    """Check both weights and return the one of the classes as a tensor."""
    if weight is not None:
        weight = torch.as_tensor(weight, dtype=torch.promote_types(logits.dtype, torch.float32), device=logits.device)
        if tuple(weight.shape) != (logits.shape[1],):
            raise ValueError(
                f"{op}: expected weight with one factor for each of the {logits.shape[1]} classes, "
                f"got {tuple(weight.shape)}."
            )
    if pixel_weight is not None and pixel_weight.shape != target.shape:
        raise ValueError(f"{op}: expected pixel_weight {tuple(target.shape)}, got {tuple(pixel_weight.shape)}.")
    for name, factor in (("weight", weight), ("pixel_weight", pixel_weight)):
        if factor is not None and factor.requires_grad:
            raise ValueError(f"{op}: {name} gets no gradient, but requires one. Pass {name}.detach().")
    return weight


def _accuracy(ctx: Any, sums: Any, batch: int) -> Tensor:
    """Return the accuracy in percent, as mmseg has it; an output of ``ctx`` without a gradient."""
    if batch == 0:
        accuracy = torch.zeros_like(sums.pixels, dtype=torch.float32)
    else:
        exact = sums.loss.dtype
        accuracy = ((sums.correct.to(exact) + _EPS) * 100 / (sums.pixels.to(exact) + _EPS)).float()
    ctx.mark_non_differentiable(accuracy)
    return accuracy


class _Reduced(torch.autograd.Function):
    """The loss as a sum, whose gradient is known up to one factor in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        pixel_weight: Tensor | None,
        sums_of: Callable[..., Any],
        divisor_of: Callable[[Any], Tensor | float],
        return_accuracy: bool,
        grad_enabled: bool,
    ) -> tuple[Tensor, Tensor | None]:
        want = ["gradient"] * (logits.requires_grad and grad_enabled) + ["correct"] * return_accuracy
        sums = sums_of(logits, target, pixel_weight, *want)
        divisor = divisor_of(sums)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        if sums.gradient is not None:
            ctx.save_for_backward(logits, sums.gradient)
            ctx.divisor = divisor
        return (sums.loss / divisor).to(dtype), _accuracy(ctx, sums, logits.shape[0]) if return_accuracy else None

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _accuracy: Any) -> tuple[Tensor | None, ...]:
        logits, gradient = ctx.saved_tensors
        with torch.no_grad():
            # A loss scaler's factor comes in here, before half precision could underflow.
            result = (gradient * (grad / ctx.divisor).to(gradient.dtype)).to(logits.dtype)
        return _once(result, logits), None, None, None, None, None, None


class _PerPixel(torch.autograd.Function):
    """The loss of every pixel; the gradient that comes from above weighs the pixels of a second pass."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        pixel_weight: Tensor | None,
        sums_of: Callable[..., Any],
        divisor_of: Callable[[Any], Tensor | float],
        return_accuracy: bool,
        grad_enabled: bool,
    ) -> tuple[Tensor, Tensor | None]:
        sums = sums_of(logits, target, pixel_weight, "losses", *["correct"] * return_accuracy)
        ctx.save_for_backward(logits, target, pixel_weight)
        ctx.sums_of = sums_of
        return sums.losses, _accuracy(ctx, sums, logits.shape[0]) if return_accuracy else None

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _accuracy: Any) -> tuple[Tensor | None, ...]:
        logits, target, pixel_weight = ctx.saved_tensors
        with torch.no_grad():
            factor = grad if pixel_weight is None else grad * pixel_weight
            result = ctx.sums_of(logits, target, factor, "gradient").gradient.to(logits.dtype)
        return _once(result, logits), None, None, None, None, None, None


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, result: Tensor, logits: Tensor) -> Tensor:
        return result.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            "resize_cross_entropy: its gradient has no derivative. "
            "Where gradients are differentiated use F.cross_entropy(resize(logits, ...), target), or in a config "
            "LeanSegmentor with lean=dict(loss=False)."
        )


def _once(result: Tensor, logits: Tensor) -> Tensor:
    """Return ``result`` as a gradient that raises when it is differentiated."""
    return _Once.apply(result, logits) if torch.is_grad_enabled() else result
