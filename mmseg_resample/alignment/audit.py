"""Audit a segmentor: run it on fake tensors, and say which of its features are misregistered and by how much."""

import copy
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from ..ops import AxisMap, PixelGrid
from .fake import fake_tensors
from .layout import Layout, Untrackable
from .track import TOLERANCE, Meeting, Site, Trace, Tracker

Maps = Mapping[Site, Sequence[AxisMap]]
_ROUNDS = 12  # corrections settle in two or three


@dataclass
class Audit:
    """What a network does to positions at one input size.

    Args:
        size: input size (h, w).
        trace: every resize and meeting.
        levels: grids of the backbone's outputs; None where one has no position.
        final: the prediction's meeting with the labels; None if its positions could not be followed.
        seconds: wall-clock time of the audit.
        maps: the resizes that ``audit_exact`` changed, and to what.
    """

    size: tuple[int, int]
    trace: Trace
    levels: list[PixelGrid | None]
    final: Meeting | None
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


def build_fake(cfg: Config) -> nn.Module:
    """The segmentor of a config, without weights. Call it under ``fake_tensors``."""
    init_default_scope(cfg.get("default_scope") or "mmseg")
    model_cfg = copy.deepcopy(cfg.model)
    model_cfg.pop("pretrained", None)
    return MODELS.build(model_cfg).eval()


def with_align_corners(cfg: Config, value: bool) -> Config:
    """A copy of ``cfg`` with ``align_corners=value`` in every head and wherever else the model has the key."""
    cfg = copy.deepcopy(cfg)
    for name in ("decode_head", "auxiliary_head"):
        heads = cfg.model.get(name) or []
        for head in heads if isinstance(heads, (list, tuple)) else [heads]:
            head["align_corners"] = value
    _replace_key(cfg.model, "align_corners", value)
    return cfg


def _replace_key(cfg: Any, key: str, value: Any) -> None:
    for entry in cfg.values() if isinstance(cfg, dict) else cfg if isinstance(cfg, (list, tuple)) else ():
        _replace_key(entry, key, value)
    if isinstance(cfg, dict) and key in cfg:
        cfg[key] = value


def audit(model: nn.Module, size: tuple[int, int], overrides: Maps | None = None) -> Audit:
    """Audit a segmentor built under ``fake_tensors``, in the same block.

    Args:
        model: an ``EncoderDecoder`` or a subclass of mmseg's ``BaseSegmentor``.
        size: input size (h, w).
        overrides: maps to assume for some resizes instead of what the model does.
    """
    start = time.perf_counter()
    return _summarise(_run(model, size, overrides), size, start)


def audit_exact(model: nn.Module, size: tuple[int, int]) -> Audit:
    """Audit with every resize replaced by the one that registers its output with what it meets.

    A resize that feeds several meetings is made exact for the first. ``Audit.maps`` holds the maps that differ from
    what the model does; ``Audit.misregistered`` is what no resize can repair.
    """
    maps: dict[Site, tuple[AxisMap, ...]] = {}
    start = time.perf_counter()
    for number in range(_ROUNDS):
        tracker = _run(model, size, maps)
        # Each for what it meets first; a later meeting that contradicts stays listed. Corrected again where what it
        # reads was moved since, but not for ever.
        corrections = _corrections(tracker)
        if number >= _ROUNDS // 2:
            corrections = {site: to for site, to in corrections.items() if site not in maps}
        if not corrections:
            break
        maps |= corrections
    return _summarise(tracker, size, start, maps)


class FakeCopy:
    """A copy of a model that has no memory, to be audited whenever an input size comes up.

    Args:
        model: a segmentor, as in ``audit``. What it is made into later does not reach the copy.
    """

    def __init__(self, model: nn.Module) -> None:
        fakes = [t for m in model.modules() for t in _tensors(m) if isinstance(t, FakeTensor)]
        self._mode: FakeTensorMode = fakes[0].fake_mode if fakes else FakeTensorMode(allow_non_fake_inputs=True)
        with _disable_current_modes():
            if fakes:  # being built for an audit itself: tensors without values may be shared
                fake = copy.deepcopy(model, {id(t): t for t in fakes})
            else:
                with FakeCopyMode(self._mode):
                    fake = copy.deepcopy(model)
        self._model: nn.Module | None = fake.eval()

    def __deepcopy__(self, memo: Any) -> "FakeCopy":
        return self  # nobody changes it

    def __reduce__(self) -> Any:
        return _unpickled, ()  # fake tensors cannot be pickled

    def audit_exact(self, size: tuple[int, ...]) -> Audit:
        """``audit_exact`` of the copy, from wherever it is called."""
        if self._model is None:
            raise RuntimeError("the model was unpickled: build it from its config")
        height, width = size
        logger = logging.getLogger("torch._subclasses.fake_tensor")  # prints what it raises
        with _disable_current_modes(), fake_tensors(self._mode), torch.inference_mode(False), _silenced(logger):
            return audit_exact(self._model, (height, width))


def _unpickled() -> FakeCopy:
    lost = FakeCopy.__new__(FakeCopy)
    lost._model = None
    return lost


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    for held in (module._parameters, module._buffers, module.__dict__):
        yield from (value for value in held.values() if isinstance(value, torch.Tensor))


@contextmanager
def _silenced(logger: logging.Logger) -> Iterator[None]:
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _corrections(tracker: Tracker) -> dict[Site, tuple[AxisMap, ...]]:
    """For each resize that misplaced an operand, the maps that put it onto the grid it first met."""
    found: dict[Site, tuple[AxisMap, ...]] = {}
    seen: set[int] = set()
    for site, operand, base in tracker.pairs:
        if site in seen:
            continue
        seen.add(site)
        resize = tracker.trace.resizes[site]
        if resize.source is None or resize.result is None or not resize.maps:
            continue
        try:
            maps = _registering(resize.source, resize.result, operand.grid(), base.grid())
        except Untrackable:
            continue
        close = all(
            abs(a.scale - b.scale) + abs(a.offset - b.offset) < 1e-9 for a, b in zip(maps, resize.maps, strict=True)
        )
        if not close:
            found[resize.site] = maps
    return found


def _registering(source: PixelGrid, result: PixelGrid, operand: PixelGrid, base: PixelGrid) -> tuple[AxisMap, ...]:
    """Maps from ``source`` such that what became ``operand`` by way of ``result`` becomes ``base``.

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


def _run(model: Any, size: tuple[int, int], overrides: Maps | None) -> Tracker:
    tracker = Tracker(overrides)
    policy = getattr(model, "resize_policy", None)
    running = policy.running() if policy is not None else nullcontext()
    with tracker, tracker.modules(model, watched=("backbone",)), running, torch.no_grad():
        first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        image = torch.empty(1, first.in_channels if first is not None else 3, *size)
        tracker.start(image)
        meta = dict(img_shape=size, ori_shape=size, pad_shape=size, padding_size=[0, 0, 0, 0])
        labels = Layout.image(image.shape)
        features = model.extract_feat(image)
        model.extract_feat = lambda _: features
        try:
            logits = model.encode_decode(image, [meta])
        finally:
            del model.extract_feat
        tracker.meet("labels", [tracker.of(logits), labels], "decode_head")
        for head in _auxiliary_heads(model):
            logits = head.predict(features, [meta], model.test_cfg)
            tracker.meet("labels", [tracker.of(logits), labels], "auxiliary_head")
    return tracker


def _auxiliary_heads(model: Any) -> list[Any]:
    if not getattr(model, "with_auxiliary_head", False):
        return []
    heads = model.auxiliary_head
    return list(heads) if isinstance(heads, nn.ModuleList) else [heads]


def _summarise(
    tracker: Tracker, size: tuple[int, int], start: float, maps: dict[Site, tuple[AxisMap, ...]] | None = None
) -> Audit:
    final = next((m for m in tracker.trace.meetings if (m.op, m.path) == ("labels", "decode_head")), None)
    levels = tracker.outputs.get("backbone", [])
    return Audit(size, tracker.trace, levels, final, time.perf_counter() - start, maps or {})
