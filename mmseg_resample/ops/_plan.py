"""How one ``resize`` is computed: the one place that checks its arguments and decides."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _backends, _check
from .grid import AxisMap, Coordinates, axis_maps

Mode = Literal["nearest", "nearest-exact", "linear", "bilinear", "trilinear", "bicubic", "area"]
_MODES = get_args(Mode)

CORNERLESS = ("nearest", "nearest-exact", "area")
"""Modes for which ``F.interpolate`` refuses ``align_corners``."""

_MOST_WASTE = 1.3  # outputs that may be computed, of those that are wanted
_SAME = 1e-9  # of a source sample: kernels compute in float32

_AXES = {"linear": 1, "bilinear": 2, "trilinear": 3}  # and bicubic: 2, or any number with `coordinates`
_ANTIALIASED = ("bilinear", "bicubic")
_SMALL, _CHANNELS = 128, 4  # height plus width up to which, and channels from which on, PyTorch vectorises "nearest"


class Native(NamedTuple):
    """A resize that PyTorch has a kernel for: the arguments of ``F.interpolate``, in its order."""

    size: tuple[int, ...] | None
    scale_factor: tuple[float, ...] | None
    mode: str
    align_corners: bool | None
    recompute_scale_factor: bool | None
    antialias: bool

    def run(self, input: Tensor) -> Tensor:
        if not self.antialias or input.device.type != "cpu":
            return F.interpolate(input, *self)
        size = self.size or floors(input.shape[2:], self.scale_factor)  # type: ignore[arg-type]
        if size[1] > 1:
            return F.interpolate(_as_antialiased(input), *self).to(input.dtype)
        given = None if self.recompute_scale_factor else self.scale_factor
        return Cropped(size, heeded_factors(self.mode, input, size, given or (None, None), True), self.mode).run(input)


class Cropped(NamedTuple):
    """An antialiased resize with one sample more along an axis where PyTorch's kernel goes wrong, to be cut off.

    To one column its kernel for CPUs (seen on 2.13) writes whatever, and an axis whose size stays is copied, whatever
    its factor.
    """

    size: tuple[int, ...]
    scale_factor: tuple[float | None, ...]
    mode: str

    def run(self, input: Tensor) -> Tensor:
        size, factors = list(self.size), list(self.scale_factor)
        for axis, (n, out) in enumerate(zip(input.shape[2:], self.size, strict=True)):
            if out == 1 or (out == n and factors[axis] is not None):
                size[axis] += 1
                factors[axis] = factors[axis] or out / n
        kernel = getattr(torch.ops.aten, f"_upsample_{self.mode}2d_aa").default
        out = kernel(_as_antialiased(input), size, False, *(factor and float(factor) for factor in factors))
        layout = torch.contiguous_format if out.is_contiguous() else torch.channels_last
        return out[:, :, : self.size[0], : self.size[1]].to(input.dtype).contiguous(memory_format=layout)


def _as_antialiased(input: Tensor) -> Tensor:
    """Convert half precision on CPUs, where PyTorch's antialiased kernels have none."""
    half = input.device.type == "cpu" and input.dtype in (torch.float16, torch.bfloat16)
    return input.float() if half else input


def floors(source_size: Sequence[int], factors: Sequence[Any]) -> tuple[int, ...]:
    """Return the sizes that follow from factors, as PyTorch rounds them."""
    return tuple(int(n * float(f)) for n, f in zip(source_size, factors, strict=True))


class Window(NamedTuple):
    """A part of a resize that PyTorch has a kernel for: outputs from ``start`` on, ``size`` of them along each axis."""

    whole: Native
    start: tuple[int, ...]
    size: tuple[int, ...]

    def run(self, input: Tensor) -> Tensor:
        output = self.whole.run(input)
        for axis, (start, length) in enumerate(zip(self.start, self.size, strict=True), 2):
            output = output.narrow(axis, start, length)
        return output


class Mapped(NamedTuple):
    """A resize by a kernel of ours: every output sample reads where the affine map of its axis says."""

    backend: str
    size: tuple[int, ...]
    maps: tuple[AxisMap, ...]
    kernel: str

    def run(self, input: Tensor) -> Tensor:
        compute = _backends.select("resize", self.backend, input)
        scales, offsets = [m.scale for m in self.maps], [m.offset for m in self.maps]
        return compute(input, list(self.size), scales, offsets, self.kernel)


class _Target(NamedTuple):
    """The wanted size, or the factors that lead to it."""

    size: tuple[int, ...] | None
    factors: tuple[float, ...] | None
    recompute: bool | None


def make(
    input: Tensor,
    size: int | Sequence[int] | None,
    scale_factor: float | Sequence[float] | None,
    mode: Mode,
    align_corners: bool | None,
    coordinates: Coordinates | AxisMap | Sequence[AxisMap] | None,
    antialias: bool,
    recompute_scale_factor: bool | None,
    backend: str,
) -> Native | Cropped | Window | Mapped:
    """Check the arguments of ``resize`` and decide what computes it."""
    axes = input.ndim - 2
    _check.one_of("resize", "mode", mode, _MODES)
    _check_rank(mode, axes, anywhere=coordinates is not None)
    _check_pixel_model(mode, align_corners, coordinates)
    if mode in CORNERLESS:
        align_corners = None
    if antialias:
        _check_antialias(mode, axes, align_corners, coordinates)
    backend = _backend_of(backend, mode, antialias, input)
    target = _target(size, scale_factor, recompute_scale_factor, axes)
    by_torch = mode in CORNERLESS or _is_left_to_torch(backend, antialias, input)
    if by_torch and (coordinates is None or antialias):
        native = Native(target.size, target.factors, mode, align_corners, target.recompute, antialias)
        return native if coordinates is None else _by_its_factors(native, input)
    as_pytorch = coordinates is None
    if coordinates is None:
        coordinates = "align_corners" if align_corners else "half_pixel"
    source = tuple(input.shape[2:])
    out, factors = _size_and_factors(input, target, coordinates)
    if as_pytorch and factors is not None:
        factors = heeded_factors(mode, input, out, factors)
    maps = axis_maps(coordinates, source, out, factors)
    # Maps of open sizes may equal those of a convention at the size that is traced, and at no other.
    comparable = isinstance(coordinates, str) or not _check.are_symbolic((*source, *out))
    if by_torch and comparable and input.shape[1] != 0:
        known: Native | Window | None = _native(mode, maps, source, out)
        # Audits on fake tensors see the resize that was asked for; while tracing, sizes are tensors.
        if known is None and type(input) is Tensor and not torch.jit.is_tracing():
            known = _window(mode, maps, source, out)
        if known is not None:
            return known
    if mode not in CORNERLESS:
        _check.floating("resize", f"input for mode={mode!r} with these coordinates", input)
    if any(isinstance(number, torch.SymFloat) for m in maps for number in (m.scale, m.offset)):
        named = repr(coordinates) if isinstance(coordinates, str) else "AxisMap"  # whose formulas are long
        raise ValueError(
            f"resize: the map of coordinates={named} depends on sizes that are open in this graph. "
            f"Trace it for one size."
        )
    return Mapped(backend, out, maps, _kernel(mode))


# --- what is wanted ---------------------------------------------------------------------------------------------------


def _target(size: Any, scale_factor: Any, recompute: bool | None, axes: int) -> _Target:
    """Check ``size`` or ``scale_factor`` and spread it over all axes."""
    if (size is None) == (scale_factor is None):
        raise ValueError(f"resize: expected either size or scale_factor, got size={size}, scale_factor={scale_factor}.")
    if size is None:
        return _Target(None, _check_factors(scale_factor, axes), recompute)
    if recompute:
        raise ValueError("resize: recompute_scale_factor goes with scale_factor, got size. Drop one of the two.")
    return _Target(_check.spatial_size("resize", "size", size, axes), None, recompute)


def _size_and_factors(
    input: Tensor, target: _Target, coordinates: Coordinates | AxisMap | Sequence[AxisMap]
) -> tuple[tuple[int, ...], Sequence[float | None] | None]:
    """Return the output size, and the factors where they, and not the two sizes, fix the scale."""
    source = tuple(input.shape[2:])
    if min(source) < 1:
        raise ValueError(f"resize: expected at least one sample along every spatial axis, got spatial size {source}.")
    if target.factors is None:
        assert target.size is not None
        return target.size, None
    if not isinstance(coordinates, str):
        raise ValueError("resize: explicit AxisMaps fix the scale themselves. Give size instead of scale_factor.")
    size = _check.spatial_size("resize", "floor(n * scale_factor)", floors(source, target.factors), len(source))
    return size, None if target.recompute else target.factors


def heeded_factors(
    mode: str, input: Tensor, size: Sequence[int], factors: Sequence[float | None], antialias: bool = False
) -> tuple[float | None, ...]:
    """Return ``factors``, None in place of those that PyTorch's kernel of ``mode`` ignores for the ratio of the sizes.

    On CPUs the linear and antialiased kernels copy an axis whose size stays; a vectorised one of "nearest" does, and
    repeats each sample of an axis that doubles. On GPUs kernels copy where no size changes (read, not measured).
    """
    source = tuple(input.shape[2:])
    if input.device.type not in ("cpu", "meta"):
        by_size = [not antialias and source == tuple(size)] * len(source)
    elif mode == "nearest":
        vectorised = _is_vectorised(input, size)
        by_size = [vectorised and out in (n, 2 * n) for n, out in zip(source, size, strict=True)]
    else:
        by_size = [(antialias or mode in _AXES) and n == out for n, out in zip(source, size, strict=True)]
    return tuple(
        None if skipped and factor is not None and n * factor != out else factor
        for skipped, n, out, factor in zip(by_size, source, size, factors, strict=True)
    )


def _is_vectorised(input: Tensor, size: Sequence[int]) -> bool:
    """Tell which of its two kernels for CPUs PyTorch runs (``_use_vectorized_kernel_cond_2d`` of ATen, and 3d)."""
    if len(size) == 2 and sum(size) <= _SMALL:
        return True
    last = {2: torch.channels_last, 3: torch.channels_last_3d}.get(len(size))
    return last is not None and input.shape[1] >= _CHANNELS and input.is_contiguous(memory_format=last)


def _kernel(mode: Mode) -> str:
    if mode.startswith("nearest"):
        return mode
    return "cubic" if mode == "bicubic" else "linear"


# --- what computes it -------------------------------------------------------------------------------------------------


def _backend_of(backend: str, mode: Mode, antialias: bool, input: Tensor) -> str:
    """Check ``backend`` and let the environment choose one where ``backend`` is "auto"."""
    named = _backends.named("resize", backend, input)
    if not antialias and mode not in CORNERLESS:
        return named
    if backend in ("auto", "torch"):
        return backend
    if antialias or mode == "area":
        what = "antialias=True" if antialias else "mode='area'"
        raise ValueError(f"resize: {what} is computed by PyTorch alone, got backend={backend!r}. Use backend='auto'.")
    raise ValueError(
        f"resize: backend={backend!r} mixes samples, and mode={mode!r} takes them as they are. Use backend='auto'."
    )


def _is_left_to_torch(backend: str, antialias: bool, input: Tensor) -> bool:
    """Tell whether PyTorch's kernel is to run where it has one.

    Not where another one was asked for, and not where PyTorch, asked for determinism, would refuse or take a slow
    detour: its linear and cubic kernels add gradients by atomics on GPUs.
    """
    if backend not in ("auto", "torch"):
        return False
    return antialias or not (torch.are_deterministic_algorithms_enabled() and input.is_cuda)


def _native(
    mode: Mode,
    maps: tuple[AxisMap, ...],
    source: tuple[int, ...],
    size: tuple[int, ...],
) -> Native | None:
    """Return the ``F.interpolate`` call that reads the same source coordinates, if there is one.

    It is given the size alone: with a factor, some of PyTorch's kernels copy where the sizes are equal, or repeat each
    sample where one is twice the other, whatever the factor says.
    """

    def reads_as(name: Coordinates) -> bool:
        expected = axis_maps(name, source, size)
        # One output sample reads `offset` alone.
        return all(
            a.offset == b.offset and (out == 1 or a.scale == b.scale)
            for a, b, out in zip(maps, expected, size, strict=True)
        )

    if mode in CORNERLESS:
        name = _native_nearest(mode, reads_as)
        if name is None or not all(_finds_samples(name, n, out) for n, out in zip(source, size, strict=True)):
            return None
        return Native(size, None, name, None, None, False)
    if mode == "bicubic" and len(source) != 2:
        return None
    if reads_as("half_pixel"):
        return Native(size, None, mode, False, None, False)
    if reads_as("align_corners"):
        return Native(size, None, mode, True, None, False)
    return None


def _window(mode: Mode, maps: tuple[AxisMap, ...], source: tuple[int, ...], size: tuple[int, ...]) -> Window | None:
    """Return the larger ``F.interpolate`` call that reads the same source coordinates in a part of its output.

    An exact resize from features that reach beyond the image is one: it ends where the image does.
    """
    if mode in CORNERLESS or (mode == "bicubic" and len(source) != 2) or _check.is_compiling():
        return None  # sizes may be symbols while compiling
    names: tuple[Coordinates, ...] = ("align_corners", "half_pixel")
    for name in names:
        found = [_part(name, m, n, out) for m, n, out in zip(maps, source, size, strict=True)]
        parts = [part for part in found if part is not None]
        if len(parts) != len(found):
            continue
        starts, wholes = zip(*parts, strict=True)
        if math.prod(wholes) > _MOST_WASTE * math.prod(size):
            continue
        return Window(Native(wholes, None, mode, name == "align_corners", None, False), starts, size)
    return None


def _part(name: Coordinates, wanted: AxisMap, n: int, out: int) -> tuple[int, int] | None:
    """Return where in an axis resized by ``name`` outputs read as ``wanted``, and how long all of that axis is."""
    if wanted.scale <= 0 or (name == "align_corners" and n == 1):
        return None
    whole = round((n - 1) / wanted.scale) + 1 if name == "align_corners" else round(n / wanted.scale)
    if whole < out:
        return None
    own = AxisMap.from_convention(name, n, whole)
    start = round((wanted.offset - own.offset) / own.scale) if own.scale else 0
    if not 0 <= start <= whole - out or not own.after(AxisMap(1.0, start)).is_close(wanted, _SAME):
        return None
    return start, whole


def _by_its_factors(native: Native, input: Tensor) -> Native | Cropped:
    """Return what computes an antialiased resize by its factors, where ``native`` may ignore one."""
    factors = native.scale_factor
    if factors is None or native.recompute_scale_factor:
        return native
    size = floors(input.shape[2:], factors)
    stays = [n == out and f != 1 for n, out, f in zip(input.shape[2:], size, factors, strict=True)]
    return Cropped(size, factors, native.mode) if any(stays) else native


def _finds_samples(mode: str, n: int, out: int) -> bool:
    """Tell whether PyTorch's kernel of ``mode`` rounds no coordinate across the edge of a sample."""
    if n % out == 0 or any(out == 2**k * n for k in range(1, 6)):
        return True  # nothing is rounded
    return not _check.is_compiling() and _rounds_to_samples(mode, n, out)  # there sizes may be symbols


@lru_cache(maxsize=512)
def _rounds_to_samples(mode: str, n: int, out: int) -> bool:
    """Compute, for ``_finds_samples``, the coordinates that fall on edges.

    The kernels have ``floor(position * (n / out))`` in float32, or float64, with the positions ``x`` or, of
    "nearest-exact", ``x + 0.5``. All other coordinates keep a distance of at least half of 1 / ``out`` from an edge.
    """
    if n * out > 2**21:
        return False  # float32 may be wrong by more than that distance
    half = mode == "nearest-exact"
    step = 2 * out // math.gcd(2 * out, n)  # of twice the position, from edge to edge
    scale, scale32 = n / out, _float32(n / out)
    return all(
        twice / 2 * scale >= twice * n // (2 * out) and _float32(twice / 2 * scale32) >= twice * n // (2 * out)
        for twice in range(0, 2 * out, step)
        if twice % 2 == half
    )


def _float32(value: float) -> float:
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(math.ldexp(mantissa, 24)), exponent - 24)


def _native_nearest(mode: Mode, reads_as: Callable[[Coordinates], bool]) -> str | None:
    if mode == "nearest" and reads_as("asymmetric"):
        return "nearest"
    if reads_as("half_pixel" if mode == "nearest-exact" else "tf_half_pixel_for_nn"):
        return "nearest-exact"
    return None


# --- what is refused --------------------------------------------------------------------------------------------------


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


def _check_pixel_model(mode: Mode, align_corners: bool | None, coordinates: Any) -> None:
    if align_corners is not None and coordinates is not None:
        raise ValueError(
            f"resize: align_corners={align_corners} and coordinates={coordinates!r} both name the pixel model. "
            f"Keep one: align_corners=False is 'half_pixel', True is 'align_corners'."
        )
    if mode == "area" and coordinates is not None:
        raise ValueError(
            "resize: mode='area' averages bins and reads no coordinates. Drop coordinates, or use 'bilinear'."
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
