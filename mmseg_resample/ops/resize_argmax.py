"""``resize_argmax``: labels of logits at another size, without the resized logits."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from . import _backends, _check
from .grid import AxisMap, Coordinates, axis_maps

Flip = Literal["horizontal", "vertical"]
_FLIPS = get_args(Flip)
_LABEL_DTYPES = (torch.uint8, torch.int16, torch.int32, torch.int64)


class Segmentation(NamedTuple):
    """Labels, with their confidence and confusion matrix where asked for.

    Args:
        labels: (N, H, W).
        confidence: (N, H, W), the probability of each label, or None.
        confusion: (K, K) int64 counts over the batch, rows the target, columns the prediction, or None. K is the number
            of channels, 2 for one channel.
    """

    labels: Tensor
    confidence: Tensor | None
    confusion: Tensor | None


@_check.overridable
@_check.opaque  # a loop over rows: compiled, it would be unrolled
def resize_argmax(
    logits: Tensor,
    size: int | Sequence[int],
    *,
    align_corners: bool | None = None,
    coordinates: Coordinates | AxisMap | Sequence[AxisMap] | None = None,
    crop: Sequence[int] | None = None,
    flip: Flip | None = None,
    first_size: int | Sequence[int] | None = None,
    first_coordinates: Coordinates | AxisMap | Sequence[AxisMap] | None = None,
    dtype: torch.dtype | None = None,
    threshold: float = 0.3,
    return_confidence: bool = False,
    target: Tensor | None = None,
    ignore_index: int = 255,
    backend: str = "auto",
) -> Tensor | Segmentation:
    """Return the class with the largest logit after a bilinear resize, without the resized logits.

    The labels of mmseg's inference in one pass: resize to ``first_size``, cut off ``crop``, flip, resize to ``size``,
    argmax. Both resizes are evaluated, none is approximated by the other; one between equal sizes is skipped. Memory
    beside the result is a band of rows.

    Exactness: with the pixel models of ``align_corners``, float32 logits on a CPU and PyTorch's general kernel, the
    resized values are bitwise those of ``F.interpolate``, and so are the labels, ties (to the first class) and NaN (the
    largest of all) included. PyTorch takes that kernel for contiguous maps, but not for 3 channels nor where the output
    has H + W <= 128. Its other kernels (channels-last, CUDA, float64) round differently, and a label may differ where
    the two largest logits are that close. Half precision logits are resized in float32 and never rounded back: the
    labels are those of ``logits.float()``.

    Args:
        logits: (N, C, h, w), floating point.
        size: (H, W) of the labels, or one number for both.
        align_corners: pixel model of both resizes, see docs/conventions.md. ``None`` is ``False``.
        coordinates: instead of ``align_corners``, a convention's name or explicit maps; maps are those of the resize to
            ``size`` alone.
        crop: pixels to cut off (left, right, top, bottom) after the first resize, the order of mmseg's
            ``padding_size``. Without ``first_size``, ``crop`` and ``flip`` apply to the logits.
        flip: undoes the flip of the input, ``"horizontal"`` or ``"vertical"``.
        first_size: (H, W) of the network's input. None: no first resize.
        first_coordinates: pixel model of the resize to ``first_size``, a convention's name or explicit maps. None: that
            of ``align_corners`` or ``coordinates``.
        dtype: uint8, int16, int32 or int64 for the labels. None: the first of them that holds all classes.
        threshold: with one channel, label 1 is ``sigmoid > threshold``, and 0 else. mmseg's default is 0.3.
        return_confidence: return the probability of each label too, by softmax or sigmoid.
        target: (N, H, W) integer labels; return the confusion matrix too.
        ignore_index: the value of ``target`` that the confusion matrix leaves out.
        backend: ``"auto"``, ``"torch"``, ``"numba"`` (CPUs) or ``"triton"``. Numba compiles when first called, for some
            seconds, and keeps the result on disk.

    Returns:
        Labels (N, H, W), on the device of ``logits``; with ``return_confidence`` or ``target`` a ``Segmentation``.
        None of it has a gradient.

    Raises:
        ValueError: shapes, sizes or options that do not fit each other.
        TypeError: a dtype of the wrong kind.
        ModuleNotFoundError: ``backend`` needs a package that is not installed.
        IndexError: a label in ``target`` that is neither a class nor ignored.
    """
    op = "resize_argmax"
    check_logits(op, logits)
    height, width = _check.spatial_size(op, "size", size, 2)
    if flip is not None:
        _check.one_of(op, "flip", flip, _FLIPS)
    if first_coordinates is not None and first_size is None:
        raise ValueError(f"{op}: first_coordinates={first_coordinates!r} are those of a first resize. Give first_size.")
    axes, keeps = [], []
    middle = (logits.shape[2], logits.shape[3])
    if first_size is not None or crop is not None or flip is not None:
        rules: tuple[bool | AxisMap, ...] = (False, False)  # between equal sizes
        if first_size is not None:
            first_height, first_width = _check.spatial_size(op, "first_size", first_size, 2)
            middle = first_height, first_width
            rules = _first_rules(op, logits, middle, align_corners, coordinates, first_coordinates)
        left, right, top, bottom = _crop(op, crop, middle)
        axes.append([(n, out, rule) for n, out, rule in zip(logits.shape[2:], middle, rules, strict=True)])
        keeps.append(
            (_kept(top, middle[0] - bottom, flip == "vertical"), _kept(left, middle[1] - right, flip == "horizontal"))
        )
        middle = middle[0] - top - bottom, middle[1] - left - right
    rules = linear_rules(op, middle, (height, width), align_corners, coordinates)
    axes.append([(n, out, rule) for n, out, rule in zip(middle, (height, width), rules, strict=True)])
    keeps.append(((0, height, 1), (0, width, 1)))
    classes = max(2, logits.shape[1])
    if target is not None:
        check_target(op, target, (logits.shape[0], height, width), logits.device)
    label = _backends.select(op, backend, logits)
    label_dtype = _label_dtype(op, dtype, classes)
    with torch.no_grad():
        result = Segmentation(
            *label(logits.detach(), axes, keeps, label_dtype, threshold, return_confidence, target, ignore_index)
        )
    return result if return_confidence or target is not None else result.labels


def check_logits(op: str, logits: Tensor) -> None:
    if logits.ndim != 4 or min(logits.shape[1:]) < 1:
        raise ValueError(
            f"{op}: expected logits (N, C, H, W) with C, H, W >= 1, got {tuple(logits.shape)}. "
            f"Add the batch axis with logits[None]."
        )
    _check.floating(op, "logits", logits)


def check_target(op: str, target: Tensor, shape: tuple[int, int, int], device: torch.device) -> None:
    if target.is_floating_point() or target.dtype == torch.bool:
        raise TypeError(f"{op}: expected target of an integer dtype, got {target.dtype}. Convert it with .long().")
    if tuple(target.shape) != shape:
        raise ValueError(
            f"{op}: expected target (N, H, W) of shape {shape}, got {tuple(target.shape)}. "
            f"Drop a channel axis with .squeeze(1)."
        )
    if target.device != device:
        raise TypeError(f"{op}: expected logits and target on one device, got {device} and {target.device}.")


def linear_rules(
    op: str,
    source: Sequence[int],
    size: Sequence[int],
    align_corners: bool | None,
    coordinates: Coordinates | AxisMap | Sequence[AxisMap] | None,
) -> tuple[bool | AxisMap, ...]:
    """Return per axis the value of align_corners whose coordinates PyTorch computes, or an explicit map."""
    if coordinates is None:
        return (bool(align_corners),) * 2
    if align_corners is not None:
        raise ValueError(
            f"{op}: align_corners={align_corners} and coordinates={coordinates!r} both name the pixel model. "
            f"Keep one: align_corners=False is 'half_pixel', True is 'align_corners'."
        )
    if coordinates in ("half_pixel", "align_corners"):
        return (coordinates == "align_corners",) * 2
    return axis_maps(coordinates, source, size)


def _first_rules(
    op: str,
    logits: Tensor,
    first_size: tuple[int, int],
    align_corners: bool | None,
    coordinates: Coordinates | AxisMap | Sequence[AxisMap] | None,
    first_coordinates: Coordinates | AxisMap | Sequence[AxisMap] | None,
) -> tuple[bool | AxisMap, ...]:
    """Return the ``linear_rules`` of the first of two resizes."""
    if first_coordinates is not None:
        return linear_rules(op, logits.shape[2:], first_size, None, first_coordinates)
    if coordinates is None or isinstance(coordinates, str):
        return linear_rules(op, logits.shape[2:], first_size, align_corners, coordinates)
    raise ValueError(
        f"{op}: explicit AxisMaps fit one resize, got them with first_size={first_size}. "
        f"Give those of the first resize as first_coordinates."
    )


def _crop(op: str, crop: Sequence[int] | None, size: Sequence[int]) -> tuple[int, int, int, int]:
    values = (0, 0, 0, 0) if crop is None else tuple(crop)
    left, right, top, bottom = values if len(values) == 4 else (-1,) * 4
    if min(left, right, top, bottom) < 0 or left + right >= size[1] or top + bottom >= size[0]:
        raise ValueError(
            f"{op}: expected crop (left, right, top, bottom) >= 0 that leaves pixels of the {tuple(size)} map (h, w), "
            f"got {values}."
        )
    return left, right, top, bottom


def _kept(start: int, stop: int, flipped: bool) -> tuple[int, int, int]:
    """Return the arguments of ``range`` for the samples that are kept."""
    return (stop - 1, start - 1, -1) if flipped else (start, stop, 1)


def _label_dtype(op: str, dtype: torch.dtype | None, classes: int) -> torch.dtype:
    fitting = [d for d in _LABEL_DTYPES if classes - 1 <= torch.iinfo(d).max]
    if dtype is None:
        return fitting[0]
    if dtype not in _LABEL_DTYPES:
        raise TypeError(f"{op}: expected dtype to be one of {', '.join(map(str, _LABEL_DTYPES))}, got {dtype}.")
    if dtype not in fitting:
        raise ValueError(f"{op}: {classes} classes do not fit into {dtype}. Use {fitting[0]}, or dtype=None.")
    return dtype
