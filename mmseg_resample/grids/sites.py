"""Where in a network a resize is called: one path and one count, for audits and for policies alike.

PyTorch hands every call of its public functions to a ``TorchFunctionMode``, under whatever name a network holds the
function: ``F.interpolate`` imported by value or bound in a partial, an operator called directly, a resize of ``ops``.
So whoever asks sees the same calls in the same order. What runs below such functions, as TorchScript does, is seen by
the dispatcher alone; it gets no number that a policy could know, and is listed as out of reach.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode, _get_current_function_mode, _pop_mode_temporarily

from ..ops import AxisMap, Coordinates, PixelModel, flow_warp, resize
from ..ops._plan import floors, heeded_factors
from ..ops.grid import axis_maps

Size = tuple[int, ...]
Site = tuple[str, int]
"""Path of the module that calls a resize, and how many it has called before in the same forward pass. The number is
below 0 where no policy can reach the call."""


@dataclass(frozen=True)
class ResizeCall:
    """A call of a resize, whichever function was called.

    Args:
        mode: interpolation mode; ``"grid_sample"`` where the coordinates are data.
        align_corners: the flag, where the call has one.
        source_size: spatial size of what is resized.
        size: spatial size that it is resized to.
        coordinates: the pixel model, where the call names it.
        scale_factors: output over input size, where that fixes the step.
    """

    mode: str
    align_corners: bool | None
    source_size: Size
    size: Size
    coordinates: PixelModel | None = None
    scale_factors: tuple[float | None, ...] | None = None

    def maps(self) -> tuple[AxisMap, ...]:
        """Return what the call reads, one map per axis; for the nearest modes what they round."""
        name: Coordinates = "align_corners" if self.align_corners else "half_pixel"
        if self.mode == "nearest":
            name = "asymmetric"
        factors = None if self.align_corners else self.scale_factors
        return axis_maps(self.coordinates or name, self.source_size, self.size, factors)


Handler = Callable[[Site, ResizeCall, Sequence[Any], dict[str, Any]], Tensor | None]
"""Computes the resize of a site, given its arguments, in another way; None leaves the call as it is."""


@dataclass
class Pass:
    """One forward pass: where in the network it is, and how many resizes each place has called.

    Args:
        handle: what computes resizes instead of the functions that are called, if anything does.
        input_size: spatial size of the images, where it is known.
        training: the network is in training mode, where it may call other resizes.
        owner: the policy that ``handle`` obeys.
        foreign: it runs inside the pass of another policy, which does not reach it.
        level_shifts: how far, (y, x) in input pixels, the evidence of each level of features is from where its layers
            put it; empty where weights are not looked at.
        path: module that is running.
        calls: resizes so far, by path.
    """

    handle: Handler | None = None
    input_size: Size | None = None
    training: bool = False
    owner: Any = None
    foreign: bool = False
    level_shifts: Sequence[tuple[float, float]] = ()
    path: str = ""
    calls: dict[str, int] = field(default_factory=dict)

    def count(self) -> Site:
        """Count one resize, and return its site."""
        site = self.next_site
        self.calls[self.path] = site[1] + 1
        return site

    @property
    def next_site(self) -> Site:
        """Site of the next resize."""
        return (self.path, self.calls.get(self.path, 0))


class _Here(threading.local):
    """State of a thread: the pass that runs, whether its calls are seen, and the site that is being computed.

    ``below`` is whether an operator is being computed for the dispatcher, by Python code that is not the network's.
    ``audited`` is whether a tracker follows positions.
    """

    def __init__(self) -> None:
        self.now = Pass()
        self.seen = False
        self.below = False
        self.audited = False
        self.site: Site | None = None


_here = _Here()


def current_pass() -> Pass:
    """Return the forward pass that runs in this thread; outside of any, one that nobody asks."""
    return _here.now


def current_site() -> Site | None:
    """Return the site that is being computed in this thread; None where no call that resizes was seen."""
    return _here.site


def are_seen() -> bool:
    """Tell whether calls that resize are seen in this thread."""
    return _here.seen


def is_audited() -> bool:
    """Tell whether a tracker follows positions in this thread: results are looked at for where they lie alone."""
    return _here.audited


@contextmanager
def audited() -> Iterator[None]:
    """Mark what runs inside as followed by a tracker."""
    outer, _here.audited = _here.audited, True
    try:
        yield
    finally:
        _here.audited = outer


@contextmanager
def new_pass(
    handle: Handler | None = None,
    input_size: Size | None = None,
    training: bool = False,
    owner: Any = None,
    level_shifts: Sequence[tuple[float, float]] = (),
) -> Iterator[None]:
    """Count anew inside. Nested passes have counts of their own."""
    outer = _here.now
    inside = outer.foreign or outer.owner not in (None, owner)
    foreign = inside and handle is not None  # an audit in the middle of a pass has nothing to do with it
    with _in_pass(Pass(handle, input_size, training, owner, foreign, level_shifts)):
        yield


@contextmanager
def _in_pass(now: Pass) -> Iterator[None]:
    outer, site = _here.now, _here.site
    _here.now, _here.site = now, None
    try:
        yield
    finally:
        _here.now, _here.site = outer, site


def repeatable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function``, which runs now and again when the pass is over, such that it counts on from here each time.

    Activation checkpointing calls such functions again for the gradients.
    """
    if _here.now.handle is None:
        return function
    start, first = replace(_here.now, calls=_here.now.calls.copy()), True

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal first
        if first:
            first = False
            return function(*args, **kwargs)
        with _in_pass(replace(start, calls=start.calls.copy())), resizes_seen():
            return function(*args, **kwargs)

    return run


@contextmanager
def at_path(path: str) -> Iterator[None]:
    """Name the module that runs inside."""
    now = _here.now
    outer, now.path = now.path, path
    try:
        yield
    finally:
        now.path = outer


@contextmanager
def below_python() -> Iterator[None]:
    """See nothing inside: an operator is being computed, whose decomposition may call others."""
    outer, _here.below = _here.below, True
    try:
        yield
    finally:
        _here.below = outer


@contextmanager
def resizes_seen() -> Iterator[None]:
    """See every call that resizes inside, and give each its site."""
    if _here.seen:
        yield
        return
    _here.seen = True
    try:
        with _Interception():
            yield
    finally:
        _here.seen = False


@contextmanager
def resizes_unseen() -> Iterator[None]:
    """Let calls inside go unseen, at the speed that they have without a policy: nothing there is known to resize."""
    if not _here.seen or not isinstance(_get_current_function_mode(), _Interception):
        yield
        return
    _here.seen = False
    try:
        with _pop_mode_temporarily():
            yield
    finally:
        _here.seen = True


class _Interception(TorchFunctionMode):
    """Sees the calls of PyTorch's and our public functions, and counts those that resize."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        read = None if _here.below else _READERS.get(func)
        call = None if read is None else _read(read, args, kwargs)
        if call is None:
            return func(*args, **kwargs)
        now = _here.now
        site = now.count()
        # Nothing is seen in here, nor counted, unless by a pass that begins here.
        _here.site, _here.seen = None if now.foreign else site, False
        try:
            changed = None if now.handle is None else now.handle(site, call, args, kwargs)
            return func(*args, **kwargs) if changed is None else changed
        finally:
            _here.site, _here.seen = None, True


# --- what is called, read off the arguments ---------------------------------------------------------------------------
# Readers return None for calls that are no sites: they average bins, low-pass, write into a tensor, or are refused.


def _read(read: Callable[..., ResizeCall | None], args: Any, kwargs: Any) -> ResizeCall | None:
    try:
        return read(*args, **kwargs)
    except (AttributeError, IndexError, TypeError, ValueError):
        return None  # arguments that the function itself refuses, and can say why


def _read_interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> ResizeCall | None:
    axes = input.ndim - 2
    if mode == "area" or antialias or (size is None) == (scale_factor is None):
        return None
    source = tuple(input.shape[2:])
    if size is not None:
        return ResizeCall(mode, align_corners, source, _sizes(size, axes))
    factors = _per_axis(scale_factor, axes)
    target = floors(source, factors)
    step = None if recompute_scale_factor else tuple(map(float, factors))
    return ResizeCall(mode, align_corners, source, target, scale_factors=step and _heeded(mode, input, target, step))


def _read_resize(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    *,
    coordinates: Any = None,
    antialias: bool = False,
    recompute_scale_factor: bool | None = None,
    **_: Any,
) -> ResizeCall | None:
    flag = None if mode.startswith("nearest") else align_corners
    call = _read_interpolate(input, size, scale_factor, mode, flag, recompute_scale_factor, antialias)
    if call is None or coordinates is None:
        return call
    model: Any = coordinates if isinstance(coordinates, str) else _per_axis(coordinates, input.ndim - 2)
    step = None if call.scale_factors is None else tuple(map(float, _per_axis(scale_factor, input.ndim - 2)))
    return ResizeCall(call.mode, None, call.source_size, call.size, model, step)


def _reader_of_operator(name: str) -> Callable[..., ResizeCall | None]:
    """Return a reader of ``aten::upsample_*``, whose overloads take a size, or a size or factors."""
    kind = name.removeprefix("_").removeprefix("upsample_")
    mode = kind[:-2].replace("_", "-")
    flagged = not mode.startswith("nearest")

    def read(input: Any = None, output_size: Any = None, *rest: Any, **named: Any) -> ResizeCall | None:
        input = named.pop("self", input)
        if named.get("out") is not None:
            return None
        flag = (rest[0] if rest else named.get("align_corners")) if flagged else None
        scales = rest[1:] if flagged else rest
        factors = named.get("scale_factors", scales[0] if scales else None)
        if output_size is None:
            return _read_interpolate(input, None, factors, mode, flag)
        axes = input.ndim - 2
        if not isinstance(factors, Sequence):
            keys = ["scales"] if axes == 1 else ["scales_d", "scales_h", "scales_w"][-axes:]
            factors = [scales[i] if i < len(scales) else named.get(key) for i, key in enumerate(keys)]
        size = _sizes(output_size, axes)
        known = _heeded(mode, input, size, factors) if any(f is not None for f in factors) else None
        return ResizeCall(mode, flag, tuple(input.shape[2:]), size, scale_factors=known)

    return read


def _heeded(mode: str, input: Tensor, size: Sequence[int], factors: Sequence[float | None]) -> tuple[float | None, ...]:
    """Leave out factors that the kernel ignores; not of nearest modes, whose calls keep them in another mode."""
    return tuple(factors) if mode.startswith("nearest") else heeded_factors(mode, input, size, factors)


def _read_grid_sample(input: Tensor, grid: Tensor, *_: Any, **named: Any) -> ResizeCall:
    return ResizeCall("grid_sample", None, tuple(input.shape[2:]), tuple(grid.shape[1:-1]))


def _read_flow_warp(input: Tensor, flow: Tensor, **_: Any) -> ResizeCall:
    return ResizeCall("grid_sample", None, tuple(input.shape[2:]), tuple(flow.shape[2:]))


def _sizes(value: Any, axes: int) -> tuple[int, ...]:
    if len(_per_axis(value, axes)) != axes:
        raise ValueError(f"expected {axes} sizes, got {value}")
    return tuple(int(n) if isinstance(n, Tensor) else n for n in _per_axis(value, axes))


def _per_axis(value: Any, axes: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple, torch.Size)) else (value,) * axes


_OPERATORS = [
    *("upsample_linear1d", "upsample_nearest1d", "_upsample_nearest_exact1d"),
    *("upsample_bilinear2d", "upsample_bicubic2d", "upsample_nearest2d", "_upsample_nearest_exact2d"),
    *("upsample_trilinear3d", "upsample_nearest3d", "_upsample_nearest_exact3d"),
]


def _readers() -> dict[Any, Callable[..., ResizeCall | None]]:
    found: dict[Any, Callable[..., ResizeCall | None]] = {
        F.interpolate: _read_interpolate,
        resize: _read_resize,
        F.grid_sample: _read_grid_sample,
        torch.grid_sampler: _read_grid_sample,
        torch.grid_sampler_2d: _read_grid_sample,
        flow_warp: _read_flow_warp,
    }
    for name in _OPERATORS:
        read, packet = _reader_of_operator(name), getattr(torch.ops.aten, name)
        found |= {getattr(torch._C._nn, name): read, packet: read, packet.default: read, packet.vec: read}
    for name in ("grid_sampler", "grid_sampler_2d"):
        packet = getattr(torch.ops.aten, name)
        found |= {packet: _read_grid_sample, packet.default: _read_grid_sample}
    return found


_READERS = _readers()
