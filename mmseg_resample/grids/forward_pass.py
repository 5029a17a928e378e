"""Run a network on fake tensors, and say which of its features are misregistered and by how much."""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from ..ops import AxisMap, PixelGrid
from .coverage import Uncovered, uncovered
from .layout import Untrackable, Vector
from .network import network_of
from .sites import Site, Size
from .track import TOLERANCE, Meeting, Output, Resize, Trace, Tracker

Maps = Mapping[Site, tuple[AxisMap, ...]]
_ROUNDS = 12  # corrections settle in two or three


@dataclass
class ForwardPass:
    """Effects of one forward pass on positions, at one input size.

    Args:
        size: input size (h, w).
        trace: every resize and meeting.
        levels: grids of the levels of features; None where one has no position.
        outputs: every output by its name.
        final: the prediction's meeting with the labels; None if there is none of the image's size, or its positions
            could not be followed.
        predicts: an output has the size of the input, so that it can be compared with labels.
        seconds: wall-clock time of the audit.
        maps: the resizes that ``follow_exact`` changed, and to what.
    """

    size: Size
    trace: Trace
    levels: list[PixelGrid | None]
    outputs: dict[str, Output]
    final: Meeting | None
    predicts: bool
    seconds: float
    maps: dict[Site, tuple[AxisMap, ...]] = field(default_factory=dict)

    @property
    def misregistered(self) -> list[Meeting]:
        """Meetings of features, without the labels, that are off by more than the tolerance; worst first."""
        found = [m for m in self.trace.meetings if m.worst > TOLERANCE and m.op != "labels"]
        return sorted(found, key=lambda m: -m.worst)

    @property
    def worst(self) -> float:
        """The largest misregistration anywhere, labels included, in input pixels."""
        return max((m.worst for m in self.trace.meetings), default=0.0)

    @property
    def unreachable(self) -> list[Resize]:
        """Resizes that no policy can change."""
        return [r for r in self.trace.resizes if not r.reachable]

    @property
    def uncovered(self) -> list[Uncovered]:
        """Resizes that read beyond the first or last sample of what they resize; the widest in pixels first."""
        found = [entry for resize in self.trace.resizes if (entry := uncovered(resize, self.size)) is not None]
        return sorted(found, key=lambda entry: -entry.pixels)

    @property
    def repeats(self) -> list[Uncovered]:
        """Those of ``uncovered`` that resize features, not pooled bins, which never reach the border."""
        return [entry for entry in self.uncovered if not entry.pooled]


def follow(
    model: nn.Module,
    size: Sequence[int],
    overrides: Maps | None = None,
    until: str | None = None,
    level_shifts: Sequence[Vector] = (),
) -> ForwardPass:
    """Follow positions through a model that was built under ``fake_tensors``, in the same block.

    Args:
        model: any module that takes images (N, C, H, W).
        size: input size (h, w).
        overrides: maps to assume for some resizes instead of what the model does.
        until: name of the output behind which the rest is left out; None for all.
        level_shifts: how far (y, x) each level is from where its layers put it; empty for what the policy at work says.
    """
    start = time.perf_counter()
    return _summarise(model, _run(model, tuple(size), overrides, until, level_shifts), tuple(size), start)


def follow_exact(
    model: nn.Module, size: Sequence[int], start: Maps | None = None, level_shifts: Sequence[Vector] = ()
) -> ForwardPass:
    """Follow positions with every resize replaced by the one that registers its output with what it meets.

    A resize that feeds several meetings is made exact for the first. ``ForwardPass.maps`` holds the maps that differ
    from what the model does, or from ``start``, and those of ``start``; ``ForwardPass.misregistered`` is what no resize
    within reach can repair.

    Args:
        model: any module that takes images (N, C, H, W).
        size: input size (h, w).
        start: maps to begin with: those of another size save a forward pass where they fit.
        level_shifts: as for ``follow``.
    """
    began = time.perf_counter()
    tracker = _run(model, tuple(size), start, level_shifts=level_shifts)
    return _corrected(model, tracker, tuple(size), began, dict(start or {}), level_shifts)


def follow_both(
    model: nn.Module, size: Sequence[int], level_shifts: Sequence[Vector] = ()
) -> tuple[ForwardPass, ForwardPass]:
    """Return what ``follow`` and ``follow_exact`` return, in one forward pass less."""
    began = time.perf_counter()
    tracker = _run(model, tuple(size), None, level_shifts=level_shifts)
    as_it_is = _summarise(model, tracker, tuple(size), began)
    return as_it_is, _corrected(model, tracker, tuple(size), began, {}, level_shifts)


def _corrected(
    model: nn.Module,
    tracker: Tracker,
    size: Size,
    began: float,
    maps: dict[Site, tuple[AxisMap, ...]],
    level_shifts: Sequence[Vector],
) -> ForwardPass:
    """Correct what ``tracker`` found under ``maps``, until nothing is left to correct."""
    for number in range(_ROUNDS):
        # Each for what it meets first; a later meeting that contradicts stays listed. Corrected again where what it
        # reads was moved since, at most `_ROUNDS // 2` times.
        corrections = _corrections(tracker)
        if number >= _ROUNDS // 2:
            corrections = {site: to for site, to in corrections.items() if site not in maps}
        if not corrections:
            break
        maps |= corrections
        tracker = _run(model, size, maps, level_shifts=level_shifts)
    return _summarise(model, tracker, size, began, maps)


def _corrections(tracker: Tracker) -> dict[Site, tuple[AxisMap, ...]]:
    """Return, for each resize that misplaced an operand, the maps that put it onto the grid it first met."""
    found: dict[Site, tuple[AxisMap, ...]] = {}
    seen: set[int] = set()
    for site, operand, base in tracker.pairs:
        if site in seen:
            continue
        seen.add(site)
        resize = tracker.trace.resizes[site]
        if resize.source is None or resize.result is None or not resize.maps or not resize.reachable:
            continue
        try:
            by_axis = _registering(resize.source, resize.result, operand.grid(), base.grid())
        except Untrackable:
            continue
        axes = _axes(resize)
        if axes is None:
            continue
        maps = tuple(own if axis is None else by_axis[axis] for axis, own in zip(axes, resize.maps, strict=True))
        if not all(a.is_close(b, 1e-9) for a, b in zip(maps, resize.maps, strict=True)):
            found[resize.site] = maps
    return found


def _axes(resize: Resize) -> tuple[int | None, ...] | None:
    """Return the image axis of each map, 0 for y, 1 for x, None for one of depth; None where they cannot be told."""
    assert resize.source is not None and resize.result is not None
    sizes = tuple(zip(resize.source_size, resize.size, strict=True))
    y, x = zip(resize.source.size, resize.result.size, strict=True)
    if sizes[-2:] == (y, x):
        return (*(None,) * (len(sizes) - 2), 0, 1)
    if x == y or len(sizes) != 1:
        return None
    return {y: (0,), x: (1,)}.get(sizes[0])


def _registering(source: PixelGrid, result: PixelGrid, operand: PixelGrid, base: PixelGrid) -> tuple[AxisMap, ...]:
    """Return the maps from ``source`` such that what became ``operand`` by way of ``result`` becomes ``base``.

    Layers between the resize and the meeting keep their effect: a step of the operand is ``operand.stride /
    result.stride`` steps of the result, its start lies a fixed number of them further on.
    """
    maps = []
    for axis in range(2):
        stride = result.stride[axis] * base.stride[axis] / operand.stride[axis]
        lead = (operand.offset[axis] - result.offset[axis]) / result.stride[axis]
        offset = base.offset[axis] - stride * lead
        maps.append(AxisMap(stride / source.stride[axis], (offset - source.offset[axis]) / source.stride[axis]))
    return tuple(maps)


def _run(
    model: nn.Module,
    size: Size,
    overrides: Maps | None,
    until: str | None = None,
    level_shifts: Sequence[Vector] = (),
) -> Tracker:
    network = network_of(model)
    tracker = Tracker(overrides, level_shifts)
    extractor = network.levels(model)
    paths = tracker.modules(model, network, [extractor] if extractor else [])
    with warnings.catch_warnings(), torch.no_grad(), tracker, paths:
        warnings.filterwarnings("ignore", message=".*align_corners")  # the audit says more, and policies change it
        image = network.image(model, size)
        tracker.start(image)
        for name, tensor in network.run(model, image):
            tracker.end(name, tensor, size)
            if name == until:
                break
    return tracker


def _summarise(
    model: nn.Module,
    tracker: Tracker,
    size: Size,
    start: float,
    maps: dict[Site, tuple[AxisMap, ...]] | None = None,
) -> ForwardPass:
    network = network_of(model)
    judged = [m for m in tracker.trace.meetings if m.op == "labels" and network.prediction in (None, m.path)]
    grids = [output.grid for output in tracker.returned.values()]
    features = [grid for grid in grids if grid is None or grid.size != size]
    levels = tracker.outputs.get(network.levels(model) or "", features)  # its forward may never be called
    return ForwardPass(
        size,
        tracker.trace,
        levels,
        tracker.returned,
        judged[0] if judged else None,
        tracker.predicts,
        time.perf_counter() - start,
        maps or {},
    )
