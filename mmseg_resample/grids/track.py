"""Follow pixel grids through a network: every resize and every place where features meet, without weights or data."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from ..ops import AxisMap, PixelGrid
from .layout import Atom, Dim, Layout, Offset, Taps, Untrackable, Vector, offset_between
from .network import Network, methods_replaced, named_tensors
from .points import Choice, ChosenPoints
from .rules import ENDS, RULES, pointwise
from .sites import Site, Size, at_path, audited, below_python, current_pass, current_site, new_pass, resizes_seen

_DISPLACE = frozenset(f"aten::{name}" for name in ("add", "sub", "add_", "sub_", "rsub"))
"""Operators that add a displacement to coordinates."""

_CARRY = _DISPLACE | {
    f"aten::{name}"
    for name in (
        *("mul", "div", "mul_", "div_", "neg", "clamp", "clamp_", "tanh", "view", "_unsafe_view", "permute"),
        *("expand", "squeeze", "unsqueeze", "slice", "select", "cat", "stack", "clone", "_to_copy", "alias", "detach"),
        *("transpose", "flip", "split", "split_with_sizes", "unbind", "pixel_shuffle", "copy_"),
    )
}
"""Operators behind which displaced coordinates still are that."""

TOLERANCE = 1e-3  # input pixels; less than that is registered


@dataclass(frozen=True)
class Resize:
    """A resize: who called it, and where its samples came to lie.

    Args:
        path: module that called it, as in ``named_modules``.
        call: how many resizes that module had called before in this forward pass; below 0 where no policy can reach it.
        mode: interpolation mode; ``"grid_sample"`` where the caller computes the coordinates, ``"point_sample"`` where
            these are points of a grid.
        align_corners: the flag; None for modes that have none and for explicit maps.
        maps: the affine map per spatial axis; empty for ``grid_sample`` at data.
        source: grid of the input, None where it has no position (globally pooled features).
        result: grid of the output under ``maps``.
        source_size: spatial size of the input.
        size: spatial size of the output; for ``point_sample`` that of the points' grid.
        pooled: the input was averaged over adaptive bins.
        points: spatial size of the sampled points; None where all of ``size`` are computed.
        asked: the maps that the caller's coordinates of these points amount to.
        padding: samples of the input, per axis before the first and behind the last, that padding put there.
    """

    path: str
    call: int
    mode: str
    align_corners: bool | None
    maps: tuple[AxisMap, ...]
    source: PixelGrid | None
    result: PixelGrid | None
    source_size: tuple[int, ...]
    size: tuple[int, ...]
    pooled: bool = False
    points: tuple[int, ...] | None = None
    asked: tuple[AxisMap, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()

    @property
    def site(self) -> Site:
        return (self.path, self.call)

    @property
    def called_with(self) -> tuple[int, ...]:
        """Spatial size of what the call returns."""
        return self.size if self.points is None else self.points

    @property
    def reachable(self) -> bool:
        """Tell whether a policy sees the call."""
        return self.call >= 0


@dataclass(frozen=True)
class Meeting:
    """Two features combined element by element, and how far apart the positions of their elements are.

    Args:
        path: module in which they meet.
        op: ``"add"``, ``"mul"``, ``"cat"``, ... or ``"labels"`` for the final prediction.
        y: position of the worst operand minus the one the result is counted on, along y; None where one has none.
        x: the same along x.
        shape: shape of the result.
        site: the resize, by its index in ``Trace.resizes``, that put the operand there; None where layers did, which
            no resize can repair.
        spacing: distance, in input pixels, between the samples of the operand's evidence before it was resized.
        pooled: the operand was averaged over adaptive bins (pyramid pooling), which only half-pixel resizes register.
    """

    path: str
    op: str
    y: Offset | None
    x: Offset | None
    shape: tuple[int, ...]
    site: int | None = None
    spacing: float = 1.0
    pooled: bool = False

    @property
    def worst(self) -> float:
        """Largest misregistration along either axis, in input pixels."""
        return max((abs(o.largest) for o in (self.y, self.x) if o is not None), default=0.0)

    @property
    def drifts(self) -> bool:
        """Tell whether the first and the last position are apart by different amounts along an axis."""
        return any(abs(o.drift) >= TOLERANCE for o in (self.y, self.x) if o is not None)


@dataclass
class Trace:
    """Record of what a forward pass did to positions.

    Args:
        resizes: every resize, in order.
        meetings: every place where two features with positions met, in order.
        notes: where positions end on purpose (module, reason): attention over positions, global pooling, ...
        unknown: operators without a rule, or used in a way that cannot be followed (module, operator and reason).
    """

    resizes: list[Resize] = field(default_factory=list)
    meetings: list[Meeting] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    unknown: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Output:
    """Positions of the elements of an output of a network.

    Args:
        grid: that of its rows and columns; None where it has none.
        rows: the axis of its rows, which that of its columns follows.
        spatial: it has positions, be it none that a grid describes.
        shape: of it.
    """

    grid: PixelGrid | None
    rows: int
    spatial: bool
    shape: tuple[int, ...]


class LevelsError(ValueError):
    """A number of shifts that is not the number of levels, at whatever size."""


class Tracker(TorchDispatchMode):
    """Propagates layouts through every aten operator that runs under it.

    >>> with FakeTensorMode(allow_non_fake_inputs=True), Tracker() as tracker:
    ...     image = torch.empty(1, 3, 512, 1024)
    ...     tracker.start(image)
    ...     logits = model(image)
    >>> tracker.of(logits).grid()

    Args:
        overrides: for a site, module path and number of its call, the maps to assume instead of what is called.
        level_shifts: how far (y, x) to move what the modules given to ``modules`` return; empty for what the policy at
            work says.

    Attributes:
        trace: what has been recorded.
        outputs: grids of what the modules given to ``modules`` returned, by name; the last time.
        returned: what the model returned, by name.
        predicts: some of that has the size of the image.
        pairs: for each operand that a resize misplaced: the resize, the operand's layout and the one it met.
    """

    def __init__(
        self, overrides: Mapping[Site, Sequence[AxisMap]] | None = None, level_shifts: Sequence[Vector] = ()
    ) -> None:
        super().__init__()
        self._level_shifts = level_shifts
        self.trace = Trace()
        self.outputs: dict[str, list[PixelGrid | None]] = {}
        self.returned: dict[str, Output] = {}
        self.predicts = False
        self.pairs: list[tuple[int, Layout, Layout]] = []
        self._overrides = overrides or {}
        self._layouts: Any = WeakIdKeyDictionary()
        self._displaced: Any = WeakIdKeyDictionary()
        self._padding: Any = WeakIdKeyDictionary()
        self.points = ChosenPoints()
        self._unreached: Counter[str] = Counter()
        self._written: dict[int, tuple[Any, int, tuple[int, ...], Layout]] = {}

    def start(self, image: Tensor) -> None:
        """Declare (N, C, H, W) to be the image: stride 1, offset 0."""
        self._layouts[image] = Layout.image(image.shape)

    def of(self, tensor: Tensor) -> Layout:
        layout = self._layouts.get(tensor)
        if layout is None and self._written:
            layout = self._around_what_was_written(tensor)
        return Layout.plain(tensor.shape) if layout is None else layout

    def _note_write(self, part: Tensor, before: Layout) -> None:
        """Remember that positions were written into a part of something that is still used as a whole."""
        storage, layout = part.untyped_storage(), self.of(part)
        if not layout.spatial or layout == before or part.numel() * part.element_size() == storage.nbytes():
            return
        if before.spatial or storage._cdata in self._written:
            self.trace.unknown.append((self.path, "a write of other positions into a part of a tensor"))
            return
        # The storage is kept, so that no other takes its number.
        self._written[storage._cdata] = (storage, int(part.storage_offset()), tuple(part.stride()), layout)

    def _around_what_was_written(self, whole: Tensor) -> Layout | None:
        """Return the layout of a tensor into a part of which positions were written, as padding has it."""
        if whole.layout != torch.strided or whole.untyped_storage()._cdata not in self._written:
            return None
        _, offset, stride, layout = self._written[whole.untyped_storage()._cdata]
        rest = offset - int(whole.storage_offset())
        if whole.stride() == stride and rest >= 0:
            for index in sorted(range(whole.ndim), key=lambda i: -stride[i]):
                start, rest = divmod(rest, stride[index]) if stride[index] else (0, rest)
                dim = layout.dims[index]
                try:
                    atom = dim.single("a write") if dim.spatial else None
                except Untrackable:
                    break
                size = whole.shape[index]
                layout = layout.with_dim(
                    index, Dim.plain(size) if atom is None else Dim.of(Atom(size, atom.step, atom.at(-start)))
                )
            else:
                if rest == 0:
                    return layout
        self.trace.unknown.append((self.path, "a write into a part of a tensor"))
        return None

    def __enter__(self) -> "Tracker":
        with ExitStack() as stack:
            stack.enter_context(new_pass())
            stack.enter_context(resizes_seen())
            stack.enter_context(audited())
            super().__enter__()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    @contextmanager
    def modules(self, model: nn.Module, network: Network, watched: Sequence[str] = ()) -> Iterator[None]:
        """Know which of ``model``'s modules is running, and note the grids that the ``watched`` ones return."""
        entered = [
            (module, method, self._entering(path, getattr(module, method), watched))
            for name, module in model.named_modules()
            for method, path in network.paths(name, module).items()
        ]
        with methods_replaced(entered):
            yield

    def _entering(self, name: str, forward: Callable[..., Any], watched: Sequence[str]) -> Callable[..., Any]:
        def tracked(*args: Any, **kwargs: Any) -> Any:
            with at_path(name):
                out = forward(*args, **kwargs)
            if name in watched:
                levels = [x for _, x in named_tensors(out)]
                shifts = self._level_shifts or current_pass().level_shifts
                if shifts and name in self.outputs:
                    raise LevelsError(f"level_shifts: {name} runs more than once, and levels of which run is not said.")
                self._move(levels, shifts)
                self.outputs[name] = [self.grid(x) for x in levels]
            return out

        return tracked

    def _move(self, levels: Sequence[Tensor], shifts: Sequence[Vector]) -> None:
        """Put the levels of features where their weights look."""
        if shifts and len(shifts) != len(levels):
            raise LevelsError(
                f"level_shifts: expected one (y, x) for each of the {len(levels)} levels of the backbone, got "
                f"{len(shifts)}. `mmseg-resample audit --weights own` lists them."
            )
        moved: Any = WeakIdKeyDictionary()  # a level may be listed twice
        for level, by in zip(levels, shifts, strict=False):
            moved.setdefault(level, self.of(level).moved(by))
        for level, layout in moved.items():
            self._layouts[level] = layout

    def grid(self, tensor: Tensor) -> PixelGrid | None:
        """Return the grid of ``tensor``; None where it has none that a grid describes."""
        return _grid(self._rows_last(tensor)[0])

    def _rows_last(self, tensor: Tensor) -> tuple[Layout, int]:
        """Return the layout of ``tensor``, that of (N, H, W, C) as (N, C, H, W), and the axis of its rows."""
        layout = self.of(tensor)
        if len(layout.dims) == 4 and layout.dims[1].spatial and not layout.dims[3].spatial:
            return layout.permute((0, 3, 1, 2)), 1
        return layout, len(layout.dims) - 2

    def end(self, name: str, tensor: Tensor, size: Size) -> None:
        """Note an output of the network, and compare it with the labels if it has their ``size``: (N, C, H, W),
        (N, H, W, C) or, of binary networks and of labels, (N, H, W)."""
        layout, rows = self._rows_last(tensor)
        self.returned[name] = Output(_grid(layout), rows, layout.spatial, tuple(tensor.shape))
        if len(layout.dims) in (3, 4) and layout.shape[-2:] == size:
            self.predicts = True
            self.meet("labels", [layout, Layout.image(layout.shape)], name)

    @property
    def path(self) -> str:
        return current_pass().path

    # --- called by the rules ------------------------------------------------------------------------------------------

    def meet(self, op: str, layouts: Sequence[Layout], path: str | None = None, base: Layout | None = None) -> Layout:
        """Record how far apart the operands are; the result counts on ``base``.

        By default that is the finest, among equals one that is not resized.
        """
        placed = [layout for layout in layouts if layout.spatial]
        if not placed:
            return max(layouts, key=lambda layout: len(layout.dims))
        base = base or min(placed, key=lambda layout: (sum(layout.native), layout.site is not None))
        worst: Meeting | None = None
        rank = max(len(layout.dims) for layout in layouts)
        shape = tuple(
            max(layout.shape[i - rank + len(layout.dims)] for layout in layouts if i >= rank - len(layout.dims))
            for i in range(rank)
        )
        for layout in placed:
            if layout is base or layout.relates != base.relates:  # a weight of each row is no feature
                continue
            y, x = offset_between(layout, base)
            if y is None and x is None:
                continue
            meeting = Meeting(path or self.path, op, y, x, shape, layout.site, max(layout.native), layout.pooled)
            if layout.site is not None and meeting.worst > TOLERANCE:
                self.pairs.append((layout.site, layout, base))
            if worst is None or meeting.worst > worst.worst:
                worst = meeting
        if worst is not None:
            self.trace.meetings.append(worst)
        result = base.expand(shape).evened(placed)
        for layout in placed:  # a row of one operand and a column of another span a plane
            if len(layout.dims) < rank:
                continue
            for index, dim in enumerate(layout.dims):
                if dim.spatial and not result.dims[index].spatial and dim.size == shape[index]:
                    axes = [a for a in (0, 1) if dim.moves_along(a) and not any(d.moves_along(a) for d in result.dims)]
                    result = result.spanned(index, layout, axes)
        return result

    def resize(
        self,
        source: Tensor,
        out: Tensor,
        mode: str,
        align_corners: bool | None,
        maps: Sequence[AxisMap],
        taps: Sequence[Taps | None] | None = None,
    ) -> Layout:
        """Record a resize by ``maps``; ``taps`` are what it reads, where ``maps`` hold on average alone."""
        if self._site() in self._overrides:
            maps, taps = self._overrides[self._site()], None
        layout = self.of(source)
        result = layout
        for i, axis_map in enumerate(maps):
            reads = taps[i] if taps is not None else None
            result = result.resample(out.ndim - len(maps) + i, out.shape[i - len(maps)], axis_map, reads)
        return self._record_resize(source, out, mode, align_corners, tuple(maps), layout, result)

    def _site(self) -> Site:
        """Return the site of the resize that runs, or one that no policy knows."""
        return current_site() or (self.path, -1 - self._unreached[self.path])

    def sampled(self, source: Tensor, out: Tensor, align_corners: bool, layout: Layout) -> Layout:
        return self._record_resize(source, out, "grid_sample", align_corners, (), self.of(source), layout)

    def point_sample(
        self, source: Tensor, out: Tensor, align_corners: bool, choice: Choice, asked: Sequence[AxisMap]
    ) -> Layout:
        """Record a sampling at chosen points of a grid, which ``asked`` takes to samples: a resize of these alone."""
        maps = tuple(self._overrides.get(self._site(), asked))
        layout = result = self.of(source)
        for i, axis_map in enumerate(maps):
            result = result.resample(2 + i, choice.sizes[i], axis_map)
        (y,), (x,) = result.dims[2].parts, result.dims[3].parts
        sampled = [Dim.plain(1), Dim.plain(1)]
        sampled[tuple(out.shape[2:]).index(choice.count)] = Dim(((*y, *x),), choice)
        result = result.with_dims([*result.dims[:2], *sampled])
        return self._record_resize(
            source, out, "point_sample", align_corners, maps, layout, result, choice.sizes, tuple(asked)
        )

    def is_displaced(self, tensor: Tensor) -> bool:
        """Tell whether a tensor is a table of constants plus data: the coordinates of a grid plus a flow."""
        return tensor in self._displaced

    def pad(self, source: Tensor, out: Tensor, amounts: Sequence[int]) -> None:
        """Remember what padding (last axis first) put around a map: what reads that reads beyond the features."""
        axes = out.ndim - 2
        before = self._padding.get(source, ((0, 0),) * axes)
        added = [(int(a), int(b)) for a, b in zip(amounts[::2], amounts[1::2], strict=True)][:axes]
        added += [(0, 0)] * (axes - len(added))
        self._padding[out] = tuple(
            (max(a + c, 0), max(b + d, 0)) for (a, b), (c, d) in zip(before, reversed(added), strict=True)
        )

    def note(self, reason: str, tensor: Tensor) -> None:
        if self.of(tensor).spatial:
            self.trace.notes.append((self.path, reason))

    def _record_resize(
        self,
        source: Tensor,
        out: Tensor,
        mode: str,
        align_corners: bool | None,
        maps: tuple[AxisMap, ...],
        before: Layout,
        after: Layout,
        grid_size: tuple[int, ...] | None = None,
        asked: tuple[AxisMap, ...] = (),
    ) -> Layout:
        returned = tuple(out.shape[2:])
        self.trace.resizes.append(
            Resize(
                *self._site(),
                mode,
                align_corners,
                maps,
                _grid(before),
                _grid(after),
                tuple(source.shape[2:]),
                grid_size or returned,
                before.pooled,
                returned if grid_size else None,
                asked,
                self._padding.get(source, ()),
            )
        )
        self._unreached[self.path] += current_site() is None
        moves = (
            mode in ("grid_sample", "point_sample")
            or source.shape != out.shape
            or any((m.scale, m.offset) != (1, 0) for m in maps)
        )
        if not after.spatial or (before.site is not None and not moves):
            return after  # a resize to the same size leaves what a resize before it did for that one to correct
        return replace(after, site=len(self.trace.resizes) - 1)

    # --- the dispatch mode --------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        written = [(x, self.of(x)) for x in _written(func, args, kwargs or {})]
        out = self._follow(func, args, kwargs)
        for part, before in written:
            self._note_write(part, before)
        return out

    def _follow(self, func: Any, args: Any, kwargs: Any) -> Any:
        with below_python():
            out = func(*args, **(kwargs or {}))
        if not any(isinstance(x, Tensor) for x in (out if isinstance(out, (list, tuple)) else [out])):
            return out
        name = func._schema.name
        named = _named(func, args, kwargs or {})
        self.points.follow(name, named, out)
        rule: Callable[..., Any] | None = RULES.get(name)
        if rule is None and _is_pointwise(func):
            rule = partial(pointwise, name=name.removeprefix("aten::").rstrip("_"))
        if rule is None:
            if any(self.of(x).spatial for x in _tensors(named.values())):
                self.trace.unknown.append((self.path, f"{name}: no rule"))
            return out
        said = len(self.trace.notes) + len(self.trace.unknown)
        try:
            layouts = rule(self, args=named, out=out)
        except (Untrackable, ArithmeticError, LookupError, TypeError, ValueError) as reason:
            self.trace.unknown.append((self.path, f"{name}: {reason}"))
            return out
        outputs = out if isinstance(out, (list, tuple)) else [out]
        per_output = layouts if isinstance(layouts, list) else [layouts]
        displaced = self._displaces(name, named)
        for tensor, layout in zip(outputs, per_output, strict=False):
            if displaced and isinstance(tensor, Tensor):
                self._displaced[tensor] = True
            if isinstance(tensor, Tensor) and layout is not None and layout.spatial:
                assert layout.shape == tuple(tensor.shape), f"{name}: {layout.shape} is not {tuple(tensor.shape)}"
                self._layouts[tensor] = layout
        placed = any(layout is not None and layout.spatial for layout in per_output)
        quiet = said == len(self.trace.notes) + len(self.trace.unknown) and name not in ENDS
        if (
            quiet
            and not placed
            and any(x.numel() for x in outputs)
            and any(self.of(x).spatial for x in _tensors(named.values()))
        ):
            self.trace.unknown.append((self.path, f"{name}: positions end here"))
        return out

    def _displaces(self, name: str, named: dict[str, Any]) -> bool:
        """Tell whether an operator adds data to a table of constants, or goes on with what did."""
        operands = list(_tensors(named.values()))
        if name in _DISPLACE and len(operands) == 2:
            placed = [self.of(x).spatial for x in operands]
            table = operands[placed.index(False)] if True in placed and False in placed else None
            if table is not None and table.numel() > 1 and not isinstance(table, nn.Parameter):
                return True
        return name in _CARRY and bool(operands) and any(x in self._displaced for x in operands)


def _grid(layout: Layout) -> PixelGrid | None:
    if not layout.spatial:
        return None
    try:
        return layout.grid()
    except Untrackable:
        return None


@cache
def _is_pointwise(func: Any) -> bool:
    """Tagged as such, or the in-place form of one that is."""
    if torch.Tag.pointwise in func.tags:
        return True
    packet = getattr(torch.ops.aten, func._schema.name.removeprefix("aten::").rstrip("_"), None)
    overloads = [getattr(packet, name) for name in packet.overloads()] if packet is not None else []
    return any(torch.Tag.pointwise in overload.tags for overload in overloads)


def _named(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the operator's arguments by name, defaults included."""
    names, defaults = _signature(func)
    given = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
    return {name: given[name] for name in names if name in given}


@cache
def _signature(func: Any) -> tuple[list[str], dict[str, Any]]:
    """Return the names of an operator's arguments, and the defaults of those that have one."""
    arguments = func._schema.arguments
    return [a.name for a in arguments], {a.name: a.default_value for a in arguments if a.has_default_value()}


def _written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors that an operator writes into."""
    if not func._schema.is_mutable:
        return []
    named = _named(func, args, kwargs)
    names = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return [named[name] for name in names if isinstance(named.get(name), Tensor)]


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
