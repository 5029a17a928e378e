"""``ResizePolicy``: choose the pixel model of every resize of any segmentor, without editing it.

Resizes are intercepted where they are called, ``F.interpolate``, so modules that hard-code their flag obey too
(``intercept``). A resize goes by its site: the module that calls it and how many that module has called before in the
same forward pass. ``exact`` takes the map of each site from audits on fake tensors, made when the model is built: one
at a size that strides divide, one at a size that they do not. Where these tell different maps, every input size is
audited when it first comes.
"""

import fnmatch
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, get_args

import torch
from mmengine.logging import print_log
from mmseg.models.segmentors import BaseSegmentor
from torch import nn

from ..ops import AxisMap, Coordinates, Mode, PixelGrid, PixelModel, _check
from ..ops.grid import axis_maps
from .audit import Audit, FakeCopy
from .intercept import COMPILES, Size, intercept, mark, marks_restored, running, take_bilinear, with_policy
from .track import Resize, Site, scopes

_EVEN, _ODD = (512, 512), (523, 677)  # along one axis or both, every stride has an odd number of samples
_EVEN_TOO = (736, 608)  # for networks that cannot take _ODD
_MOST_DECISIONS = 10_000  # that a policy keeps; images of many sizes are many calls
_OVERSHOOT = 1.5
_MODES = get_args(Mode)
_COORDINATES = (*get_args(Coordinates), "exact", "keep")


@dataclass(frozen=True)
class Rule:
    """What to do at the sites it matches; the first rule that matches decides.

    Args:
        path: module path as in ``named_modules``, with ``*`` and ``?``; ``.logits`` behind a head's path is its resize
            to the labels. Resizes of tensors without a position (positional embeddings) match only by their full path.
        mode: interpolation mode to match, with ``*``.
        source_size: size of what is resized to match, (h, w); None for any, along one axis or both.
        size: size that it is resized to, the same way.
        set_mode: mode to use instead; the flag stays.
        align_corners: flag to use instead.
        coordinates: convention to use instead of a flag, ``"exact"`` for the audited map, ``"keep"`` to leave the site
            as it is.

    Raises:
        ValueError: both a flag and coordinates, an unknown mode or convention, or a size that is none.
    """

    path: str = "*"
    mode: str = "*"
    source_size: Sequence[int | None] | None = None
    size: Sequence[int | None] | None = None
    set_mode: str | None = None
    align_corners: bool | None = None
    coordinates: str | None = None

    def __post_init__(self) -> None:
        if self.align_corners is not None and self.coordinates is not None:
            raise ValueError(
                f"ResizePolicy: a rule sets align_corners={self.align_corners} and coordinates={self.coordinates!r} "
                f"for {self.path!r}. Keep one of them."
            )
        if self.set_mode is not None:
            _check.one_of("ResizePolicy", "set_mode", self.set_mode, _MODES)
        if self.coordinates is not None:
            _check.one_of("ResizePolicy", "coordinates", self.coordinates, _COORDINATES)
        for name, size in (("source_size", self.source_size), ("size", self.size)):
            if size is not None and not (
                isinstance(size, Sequence) and all(n is None or (isinstance(n, int) and n > 0) for n in size)
            ):
                raise ValueError(
                    f"ResizePolicy: expected {name} of a rule as (h, w), each a positive integer or None for any, "
                    f"got {size!r}."
                )

    @classmethod
    def from_config(cls, rule: dict[str, Any]) -> "Rule":
        for key in rule:
            _check.one_of("ResizePolicy", "keys of a rule", key, tuple(entry.name for entry in fields(cls)))
        return cls(**rule)

    def matches(self, site: Site, mode: str, positioned: bool, source_size: Sequence[int], size: Sequence[int]) -> bool:
        by_path = fnmatch.fnmatchcase(site[0], self.path) if positioned else site[0] == self.path
        by_size = _fits(self.source_size, source_size) and _fits(self.size, size)
        return by_path and by_size and fnmatch.fnmatchcase(mode, self.mode)


def _fits(pattern: Sequence[int | None] | None, size: Sequence[int]) -> bool:
    if pattern is None:
        return True
    return len(pattern) == len(size) and all(p in (None, n) for p, n in zip(pattern, size, strict=True))


class ResizePolicy:
    """Rules over the resizes of a model.

    Args:
        exact: register every resize with what it meets, wherever no rule says otherwise.
        rules: configs of ``Rule``, first match decides.
        sizes: two or more input sizes (h, w) at which the model is audited. None: 512x512, and 523x677 or, where the
            model cannot take that, 736x608. Give sizes that the model can take if it cannot take these.

    Raises:
        ValueError: neither ``exact`` nor rules, or a rule that contradicts itself.

    Where exact maps depend on the input size in a way that no convention describes (``report`` lists those sites), the
    model is audited at every size that it meets, a fraction of a second each. That needs a segmentor, whose images
    tell the size: other models, compiled ones and unpickled ones keep what the modules do there.
    """

    def __init__(
        self,
        exact: bool = False,
        rules: Sequence[dict[str, Any]] = (),
        sizes: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if not exact and not rules:
            raise ValueError("ResizePolicy: expected exact=True or rules, got neither: there is nothing to do.")
        self.rules = tuple(Rule.from_config(rule) for rule in rules)
        if exact:
            self.rules += (Rule(coordinates="exact"),)
        self.sizes = None if sizes is None else [(int(h), int(w)) for h, w in sizes]
        if self.sizes is not None and len(set(self.sizes)) < 2:
            raise ValueError(f"ResizePolicy: expected two different sizes to audit at, got {self.sizes}.")
        self._known = _Known()
        self._at: dict[Size, _Known] = {}
        self._audit: Callable[[Size], Audit] | None = None
        self._warned: set[Any] = set()
        self._decisions: dict[Any, dict[str, Any] | None] = {}

    def install(self, model: nn.Module) -> None:
        """Audit ``model`` and make its resizes findable. Its state dict, class names and results stay as they are."""
        audited = FakeCopy(model)
        after = self._audits(audited)
        self._known = _Known.of(after)
        self._audit = audited.audit_exact if self._known.varying else None
        self._at.clear()
        self._decisions.clear()
        owners = {resize.path for result in after for resize in result.trace.resizes}
        mark(model, self, owners)
        intercept()
        self._warn_of_idle_rules(model)

    def _audits(self, audited: "FakeCopy") -> list[Audit]:
        if self.sizes is not None:
            return [audited.audit_exact(size) for size in self.sizes]
        first = audited.audit_exact(_EVEN)
        try:
            return [first, audited.audit_exact(_ODD)]
        except Exception:  # whatever a network raises at a size that it cannot take
            return [first, audited.audit_exact(_EVEN_TOO)]

    def _warn_of_idle_rules(self, model: nn.Module) -> None:
        paths = {path for name, module in model.named_modules() for path in scopes(name, module).values()}
        for rule in self.rules:
            if not any(fnmatch.fnmatchcase(path, rule.path) for path in paths):
                near = get_close_matches(rule.path, paths, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                self._warn(rule.path, f"no module is at {rule.path!r}; that rule changes nothing.{hint}")

    def _known_at(self, size: Size | None) -> "_Known":
        if self._audit is None or size is None or (COMPILES and torch.compiler.is_compiling()):
            return self._known
        if size not in self._at:
            try:
                self._at[size] = _Known.of([self._audit(size)])
            except Exception as error:
                self._warn(size, f"{size} could not be audited ({error}); resizes whose maps depend on it stay.")
                self._at[size] = self._known
        return self._at[size]

    def running(self) -> AbstractContextManager[None]:
        """Apply the policy to what runs inside; nested uses start their own count."""
        return running(self)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Install on ``model`` and apply inside the block: a policy for a model that was built without one."""
        own = getattr(model, "resize_policy", None)
        with marks_restored(model):
            try:
                if isinstance(model, BaseSegmentor):
                    if own is None:  # every forward pass counts anew
                        model.__class__ = with_policy(type(model))  # type: ignore[arg-type, assignment]
                    model.resize_policy = self  # type: ignore[assignment]
                self.install(model)
                with self.running():
                    yield
            finally:
                model.__dict__.pop("resize_policy", None)
                if own is not None:
                    model.resize_policy = own  # type: ignore[assignment]

    def report(self) -> dict[str, Any]:
        """What is done where: exact maps by site, sites without a position, sites whose map is that of a size."""
        return {
            "exact": dict(self._known.exact),
            "without position": sorted(self._known.unpositioned),
            "by input size": sorted(self._known.varying),
        }

    def decide(
        self,
        site: Site,
        mode: str,
        align_corners: bool | None,
        source_size: Sequence[int],
        size: Sequence[int],
        input_size: Size | None = None,
    ) -> dict[str, Any] | None:
        """What ``ops.resize`` shall do differently from the call at ``site``; None to leave it as it is.

        ``input_size`` is that of the segmentor's images, where it is known.
        """
        known = self._known_at(input_size)
        if COMPILES and torch.compiler.is_compiling():  # sizes may be symbols
            return self._decide(known, site, mode, align_corners, source_size, size)
        call = (site, mode, align_corners, tuple(source_size), tuple(size))
        key = (call, None if self._audit is None else input_size)
        if key not in self._decisions:
            if len(self._decisions) > _MOST_DECISIONS:
                self._decisions.clear()
            self._decisions[key] = self._decide(known, *call)
        return self._decisions[key]

    take_bilinear = staticmethod(take_bilinear)

    def _decide(
        self,
        known: "_Known",
        site: Site,
        mode: str,
        align_corners: bool | None,
        source_size: Sequence[int],
        size: Sequence[int],
    ) -> dict[str, Any] | None:
        for rule in self.rules:
            if not rule.matches(site, mode, site not in known.unpositioned, source_size, size):
                continue
            if rule.coordinates == "keep":
                return None
            if rule.coordinates == "exact":
                return self._make_exact(known, site, mode, align_corners, source_size, size, rule.set_mode)
            change: dict[str, Any] = {}
            if rule.set_mode is not None:
                change["mode"] = rule.set_mode
            if rule.coordinates is not None:
                change["coordinates"] = rule.coordinates
            elif rule.align_corners not in (None, align_corners):
                change["align_corners"] = rule.align_corners
            return change or None
        return None

    def _make_exact(
        self,
        known: "_Known",
        site: Site,
        mode: str,
        align_corners: bool | None,
        source_size: Sequence[int],
        size: Sequence[int],
        set_mode: str | None,
    ) -> dict[str, Any] | None:
        if site in known.exact and mode == known.modes[site]:
            pixel_model: PixelModel | None = known.exact[site]
        elif mode.startswith("nearest"):
            return None  # labels, masks: not what the audit saw
        else:
            pixel_model = known.elsewhere(site, source_size, size)
        if pixel_model is None:
            return None
        maps = axis_maps(pixel_model, source_size, size)
        audited = (site, tuple(source_size), tuple(size)) in known.calls
        if not audited and not all(_covers(m, n, out) for m, n, out in zip(maps, source_size, size, strict=True)):
            what = f"the resize {tuple(source_size)} -> {tuple(size)} at {site}"
            self._warn(site, f"{what} is not the one that was audited there; it stays as it is.")
            return None
        own = axis_maps("align_corners" if align_corners else "half_pixel", source_size, size)
        if set_mode is None and not mode.startswith("nearest") and _close(maps, own):
            return None
        # The nearest sample is up to half a sample off whatever the map: features are interpolated instead.
        return {"mode": set_mode or ("bilinear" if mode.startswith("nearest") else mode), "coordinates": pixel_model}

    def _warn(self, about: Any, message: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            print_log(f"ResizePolicy: {message}", "current", logging.WARNING)


@dataclass
class _Known:
    """What audits tell about the resizes of a model, of one size or of all.

    Args:
        exact: the exact map of each site.
        modes: interpolation modes that the audits saw there.
        unpositioned: sites that resize something without a position.
        varying: sites that have other maps at other sizes.
        levels: grids of the backbone's outputs.
        calls: what the audits saw, as (site, size of what is resized, size that it is resized to).
    """

    exact: dict[Site, PixelModel] = field(default_factory=dict)
    modes: dict[Site, str] = field(default_factory=dict)
    unpositioned: set[Site] = field(default_factory=set)
    varying: set[Site] = field(default_factory=set)
    levels: list[PixelGrid] = field(default_factory=list)
    calls: set[tuple[Site, Size, Size]] = field(default_factory=set)

    @classmethod
    def of(cls, audits: Sequence[Audit]) -> "_Known":
        """For every resize of something with a position, what describes its exact map in all ``audits``."""
        known = cls(levels=[level for level in audits[0].levels if level is not None])
        found: dict[Site, list[Resize]] = {}
        for result in audits:
            for resize_ in result.trace.resizes:
                if resize_.maps:
                    found.setdefault(resize_.site, []).append(resize_)
                    known.calls.add((resize_.site, tuple(resize_.source_size), tuple(resize_.size)))
        for site, resizes in found.items():
            if any(r.source is None for r in resizes):
                known.unpositioned.add(site)
                continue
            if resizes[0].mode.startswith("nearest") and not any(site in result.maps for result in audits):
                continue  # right on average as it is
            pixel_model = _common_pixel_model(resizes) if len(resizes) == len(audits) else None
            known.modes[site] = resizes[0].mode
            if pixel_model is None:
                known.varying.add(site)
            else:
                known.exact[site] = pixel_model
        return known

    def elsewhere(self, site: Site, source_size: Sequence[int], size: Sequence[int]) -> PixelModel | None:
        """Exact maps for resizes that the audit did not see: images, and the logits of losses on inner levels."""
        if site[0] == "postprocess":  # logits at the input's size to the original image: undo the pipeline's resize
            return "half_pixel"
        if not site[0].endswith(".logits") or site in self.varying:
            return None
        stride = round(size[0] / source_size[0])
        for level in self.levels:
            if all(s == stride for s in level.stride):
                return level.map_to(PixelGrid.image(tuple(size)))
        return None


def _common_pixel_model(resizes: list[Resize]) -> PixelModel | None:
    """What describes a site's maps at every size: the same maps, or the same convention."""
    first = resizes[0]
    if all(_close(r.maps, first.maps) for r in resizes):
        return first.maps
    conventions: tuple[Coordinates, ...] = ("half_pixel", "align_corners", "asymmetric")
    for name in conventions:
        if all(_close(r.maps, axis_maps(name, r.source_size, r.size)) for r in resizes):
            return name
    return None


def _covers(map: AxisMap, source_size: int, size: int) -> bool:
    """Whether ``map`` reads about as many samples as there are: one of another stride reads half or twice as many.

    Doubling what was rounded up overshoots: of 683 pixels stride 32 has 22 samples, doubled to stride 4 176, not 171.
    """
    read = map.scale * size
    return abs(source_size - read) <= 1 + 1e-6 or 1 / _OVERSHOOT < source_size / read < _OVERSHOOT


def _close(a: Sequence[AxisMap], b: Sequence[AxisMap]) -> bool:
    return all(abs(x.scale - y.scale) + abs(x.offset - y.offset) < 1e-6 for x, y in zip(a, b, strict=True))
