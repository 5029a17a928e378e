"""``flow_warp``: resize and displace in one sampling, the op of flow alignment."""

from typing import Literal, get_args

from torch import Tensor

from . import _backends, _check

FlowUnit = Literal["pixel", "sfnet"]
_UNITS = get_args(FlowUnit)
PaddingMode = Literal["border", "zeros"]
_PADDINGS = get_args(PaddingMode)


@_check.overridable
def flow_warp(
    input: Tensor,
    flow: Tensor,
    *,
    align_corners: bool,
    unit: FlowUnit = "pixel",
    padding_mode: PaddingMode = "border",
    backend: str = "auto",
) -> Tensor:
    """Resize ``input`` to the size of ``flow``, bilinearly, while displacing every sample by ``flow``.

    Zero flow with ``padding_mode="border"`` is bilinear ``resize``, for both values of ``align_corners`` and every
    size, to rounding.

    Args:
        input: (N, C, H, W), floating point.
        flow: (N, 2, Ho, Wo), floating point; may be wider than ``input``. Channel 0 is dx (positive reads further
            right), channel 1 is dy (down).
        align_corners: pixel model, see docs/conventions.md. No default on purpose.
        unit: what a flow of 1 moves. ``"pixel"``: one output pixel. ``"sfnet"``: 1/Wo (1/Ho) on the [-1, 1] grid,
            about half an output pixel; the released SFNet code has it with ``align_corners=True`` and zero padding.
        padding_mode: what lies outside ``input``, as in ``F.grid_sample``.
        backend: ``"auto"``, ``"torch"``, or ``"numba"``, which ``"auto"`` takes for channels-last images on CPUs; same
            result within the tolerances of docs/conventions.md. Compiled, traced and transformed calls are PyTorch's.

    Returns:
        (N, C, Ho, Wo), dtype and device of ``input``; channels-last by Numba. Coordinates are float32 or better.

    Raises:
        ValueError: wrong rank or channel count, batch sizes differ, an empty map, an unknown option.
        TypeError: a dtype is not floating point, or the devices differ.

    Source: Li et al., "Semantic Flow for Fast and Accurate Scene Parsing", ECCV 2020, arXiv:2002.10120.
    """
    if input.ndim != 4 or flow.ndim != 4 or flow.shape[1] != 2 or input.shape[0] != flow.shape[0]:
        raise ValueError(
            f"flow_warp: expected input (N, C, H, W) and flow (N, 2, Ho, Wo) with equal N, "
            f"got input {tuple(input.shape)} and flow {tuple(flow.shape)}."
        )
    if min(*input.shape[2:], *flow.shape[2:]) < 1:
        raise ValueError(
            f"flow_warp: expected at least one sample along every spatial axis, "
            f"got input {tuple(input.shape)} and flow {tuple(flow.shape)}."
        )
    _check.floating("flow_warp", "input", input)
    _check.floating("flow_warp", "flow", flow)
    if input.device != flow.device:
        raise TypeError(f"flow_warp: expected input and flow on one device, got {input.device} and {flow.device}.")
    _check.one_of("flow_warp", "unit", unit, _UNITS)
    _check.one_of("flow_warp", "padding_mode", padding_mode, _PADDINGS)
    kernel = _backends.select("flow_warp", backend, input)
    height, width = flow.shape[-2:]
    steps = _grid_step(width, unit, align_corners), _grid_step(height, unit, align_corners)
    return kernel(input, flow, steps, align_corners, padding_mode)


def _grid_step(length: int, unit: FlowUnit, align_corners: bool) -> float:
    """Return what a flow of 1 adds on the [-1, 1] grid of ``F.grid_sample``."""
    if unit == "sfnet":
        return 1 / length
    return 2 / max(length - 1, 1) if align_corners else 2 / length
