"""``resize``: bring a tensor to another size, or onto another pixel grid."""

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from . import _backends, _check, _fastest
from .grid import AxisMap, Coordinates, axis_maps

Mode = Literal["nearest", "nearest-exact", "linear", "bilinear", "trilinear", "bicubic", "area"]
_MODES = get_args(Mode)

_AXES = {"linear": 1, "bilinear": 2, "trilinear": 3}  # and bicubic: 2, or any number with `coordinates`
_CORNERLESS = ("nearest", "nearest-exact", "area")  # F.interpolate refuses align_corners for these
_ANTIALIASED = ("bilinear", "bicubic")

_is_compiling = getattr(torch.compiler, "is_compiling", lambda: False)  # there from torch 2.2 on


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
    thing and by a gather that is deterministic forward and backward elsewhere. Samples outside ``input`` repeat its
    edge; where the gather runs, coordinates are float64 and weights float32 or better whatever the dtype (PyTorch's own
    kernels compute coordinates in float32).

    Two switches of PyTorch replace its linear and cubic kernels on GPUs, with values equal to rounding. They add
    gradients in any order: under ``torch.use_deterministic_algorithms(True)`` gathers take their place. And they leave
    most of a GPU idle for some shapes: under ``torch.backends.cudnn.benchmark = True`` they are timed beside Triton's,
    once for sizes alike, and the faster ones run.

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
        backend: ``"auto"`` is as above, ``"torch"`` the same without Triton. Two others replace PyTorch's kernels
            always, with values equal to rounding: ``"banded"`` computes ``"bicubic"`` on CPUs by matrix products,
            several times faster forward and backward (in the precision that ``torch.set_float32_matmul_precision``
            allows), and ``"triton"`` computes the linear family and bicubic on GPUs, deterministic; under autocast it
            reads and writes half precision, where the others make float32 of it. Where PyTorch has
            a ``"nearest"`` or ``"nearest-exact"`` of these coordinates, that one runs.

    Returns:
        The resized tensor, dtype of ``input``; images keep their memory format.

    Raises:
        ValueError: sizes, factors or options that are missing, out of range or exclude each other.
        TypeError: a size that is no whole number, a dtype the kernel cannot compute in.
        NotImplementedError: ``mode`` is for another number of axes (as ``F.interpolate`` has it).

    Source: PyTorch ``F.interpolate``; ONNX ``Resize`` for the names of ``coordinates``.
    """
    if has_torch_function_unary(input):
        options: dict[str, Any] = dict(coordinates=coordinates, antialias=antialias, warning=warning, backend=backend)
        options |= dict(recompute_scale_factor=recompute_scale_factor)
        return handle_torch_function(resize, (input,), input, size, scale_factor, mode, align_corners, **options)
    _check.one_of("resize", "mode", mode, _MODES)
    axes = input.ndim - 2
    _check_rank(mode, axes, anywhere=coordinates is not None)
    if (size is None) == (scale_factor is None):
        raise ValueError(f"resize: expected either size or scale_factor, got size={size}, scale_factor={scale_factor}.")
    if align_corners is not None and coordinates is not None:
        raise ValueError(
            f"resize: align_corners={align_corners} and coordinates={coordinates!r} both name the pixel model. "
            f"Keep one: align_corners=False is 'half_pixel', True is 'align_corners'."
        )
    if mode in _CORNERLESS:
        align_corners = None
    if antialias:
        _check_antialias(mode, axes, align_corners, coordinates)
    only_native = mode == "area" or antialias
    _check_backend(backend, mode, only_native, input)
    compiling = torch.jit.is_tracing() or _is_compiling()
    if size is not None:
        if recompute_scale_factor:
            raise ValueError("resize: recompute_scale_factor goes with scale_factor, got size. Drop one of the two.")
        size = _check.spatial_size("resize", "size", size, axes)
        if warning and align_corners is not None and not compiling:
            _warn_of_misfit(tuple(input.shape[2:]), size, align_corners)
    factors = None if scale_factor is None else _check_factors(scale_factor, axes)
    wish = _backends.named("resize", backend, input)
    if not only_native and (wish != "banded" or mode == "bicubic"):
        backend = wish
    native = backend in ("auto", "torch") and not _needs_determinism(input, mode, antialias)
    by_clock = backend == "auto" and native and not (only_native or compiling)
    by_clock = by_clock and mode not in _CORNERLESS and _fastest.is_wanted(input)
    if coordinates is None:
        if mode in _CORNERLESS or (native and not by_clock):
            return F.interpolate(input, size, factors, mode, align_corners, recompute_scale_factor, antialias)
        coordinates = "align_corners" if align_corners else "half_pixel"
    return _resize_by_map(
        input, size, factors, mode, coordinates, antialias, bool(recompute_scale_factor), backend, native, by_clock
    )


if torch.__version__ < "2.6":  # torch 2.1 cannot compile this, 2.6 can: between, it runs between two graphs
    resize = torch.compiler.disable(resize)


def _resize_by_map(
    input: Tensor,
    size: tuple[int, ...] | None,
    factors: tuple[float, ...] | None,
    mode: Mode,
    coordinates: Coordinates | AxisMap | Sequence[AxisMap],
    antialias: bool,
    recompute_scale_factor: bool,
    backend: str,
    native: bool,
    by_clock: bool,
) -> Tensor:
    if mode == "area":
        raise ValueError(
            "resize: mode='area' averages bins and reads no coordinates. Drop coordinates, or use 'bilinear'."
        )
    source = tuple(input.shape[2:])
    if min(source) < 1:
        raise ValueError(
            f"resize: expected at least one sample along every spatial axis, got input {tuple(input.shape)}."
        )
    if factors is not None:
        if not isinstance(coordinates, str):
            raise ValueError("resize: explicit AxisMaps fix the scale themselves. Give size instead of scale_factor.")
        size = _check.spatial_size(
            "resize",
            "floor(n * scale_factor)",
            tuple(int(n * float(f)) for n, f in zip(source, factors, strict=True)),
            len(source),
        )
        if recompute_scale_factor:
            factors = None
    assert size is not None
    maps = axis_maps(coordinates, source, size, factors)
    call = _native_call(mode, maps, source, size, factors) if native or mode in _CORNERLESS else None
    kernel: str = mode if mode.startswith("nearest") else "cubic" if mode == "bicubic" else "linear"
    arguments = list(size), [m.scale for m in maps], [m.offset for m in maps], kernel
    if call is None:
        if not mode.startswith("nearest"):
            _check.floating("resize", f"input for mode={mode!r} with these coordinates", input)
        return _backends.select("resize", backend, input)(input, *arguments)

    def by_torch(x: Tensor) -> Tensor:
        return F.interpolate(x, antialias=antialias, **call)

    if not (by_clock and _backends.is_best("triton", input)):
        return by_torch(input)
    by_kernel = _backends.select("resize", "triton", input)

    def by_triton(x: Tensor) -> Tensor:
        if torch.is_autocast_enabled() and x.dtype in (torch.float16, torch.bfloat16):
            x = x.float()  # as F.interpolate has it
        return by_kernel(x, *arguments)

    ways = {"torch": by_torch, "triton": by_triton}
    return ways[_fastest.fastest(("resize", mode, _fastest.magnitude(math.prod(size))), ways, input)](input)


def _needs_determinism(input: Tensor, mode: Mode, antialias: bool) -> bool:
    """Whether PyTorch, asked for determinism, would refuse or take a slow detour."""
    atomic = input.is_cuda and mode not in _CORNERLESS and not antialias
    return atomic and torch.are_deterministic_algorithms_enabled()


def _native_call(
    mode: Mode,
    maps: tuple[AxisMap, ...],
    source: tuple[int, ...],
    size: tuple[int, ...],
    factors: tuple[float, ...] | None,
) -> dict[str, Any] | None:
    """Arguments of the ``F.interpolate`` call that reads the same source coordinates, if there is one."""

    def is_convention(name: Coordinates) -> bool:
        expected = axis_maps(name, source, size, factors)
        # One output sample reads `offset` alone.
        return all(
            a.offset == b.offset and (out == 1 or a.scale == b.scale)
            for a, b, out in zip(maps, expected, size, strict=True)
        )

    target: dict[str, Any] = {"size": size} if factors is None else {"scale_factor": factors}
    if mode == "nearest" and is_convention("asymmetric"):
        return target | {"mode": "nearest"}
    if (mode == "nearest-exact" and is_convention("half_pixel")) or (
        mode == "nearest" and is_convention("tf_half_pixel_for_nn")
    ):
        return target | {"mode": "nearest-exact"}
    if mode.startswith("nearest") or (mode == "bicubic" and len(source) != 2):
        return None
    if is_convention("half_pixel"):
        return target | {"mode": mode, "align_corners": False}
    if is_convention("align_corners"):
        return {"size": size, "mode": mode, "align_corners": True}
    return None


def _check_rank(mode: Mode, axes: int, anywhere: bool) -> None:
    if axes not in (1, 2, 3):
        raise NotImplementedError(
            f"resize: expected (N, C, L), (N, C, H, W) or (N, C, D, H, W), got {axes + 2} dimensions. "
            f"Add the batch or channel axis with x[None]."
        )
    wanted = _AXES.get(mode, axes)
    if mode == "bicubic" and not anywhere:
        wanted = 2
    if wanted != axes:
        fitting = {1: "linear", 2: "bilinear", 3: "trilinear"}[axes]
        raise NotImplementedError(
            f"resize: mode={mode!r} is for {wanted + 2}-dimensional input, got {axes + 2} dimensions. "
            f"The linear kernel for this input is {fitting!r}."
        )


def _check_factors(scale_factor: Any, axes: int) -> tuple[float, ...]:
    factors = _check.per_axis("resize", "scale_factor", scale_factor, axes)
    if not all(isinstance(f, (torch.SymFloat, torch.SymInt, Tensor)) or 0 < f < float("inf") for f in factors):
        raise ValueError(f"resize: expected scale_factor > 0 and finite along every axis, got {scale_factor!r}.")
    return factors


def _check_antialias(mode: Mode, axes: int, align_corners: bool | None, coordinates: Any) -> None:
    if mode not in _ANTIALIASED or axes != 2:
        raise ValueError(
            f"resize: antialias=True is for {' and '.join(_ANTIALIASED)} on (N, C, H, W), "
            f"got mode={mode!r} on {axes + 2} dimensions. mode='area' is the average for the others."
        )
    if align_corners or coordinates not in (None, "half_pixel"):
        model = "align_corners=True" if align_corners else f"coordinates={coordinates!r}"
        raise ValueError(
            f"resize: antialias=True with {model} is refused: PyTorch's antialiased kernels place the samples at "
            f"half-pixel centres whatever the flag says. Use align_corners=False, or resize without antialias."
        )


def _check_backend(backend: str, mode: Mode, only_native: bool, input: Tensor) -> None:
    if backend in ("auto", "torch"):
        return
    if only_native:
        what = "mode='area'" if mode == "area" else "antialias=True"
        raise ValueError(f"resize: {what} is computed by PyTorch alone, got backend={backend!r}. Use backend='auto'.")
    if backend == "banded" and (mode != "bicubic" or input.device.type not in ("cpu", "meta")):
        raise ValueError(
            f"resize: backend='banded' is for mode='bicubic' on CPUs, got mode={mode!r} on {input.device}. "
            f"Use backend='auto'."
        )


def _warn_of_misfit(source: tuple[int, ...], size: tuple[int, ...], align_corners: bool) -> None:
    """Warn when an axis grows by sizes that only the other value of ``align_corners`` registers.

    Along an axis, True registers features of stride ``s`` when the sizes are ``n`` and ``s * (n - 1) + 1``, and False
    when they are ``n`` and ``s * n``. mmseg's warning compares height with width and needs every axis to be wrong.
    """
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
        stacklevel=3,
    )
