"""``ResizePolicy``: choose the pixel model of every resize of any network, without editing it.

A resize goes by its site: the module that calls it and how many that module has called before in the same forward
pass, under whatever name (``grids.sites``), so modules that hard-code their flag obey too. ``exact`` takes the map of
each site from audits on fake tensors, made when the policy is installed: one at a size that strides divide, one at a
size that they do not. Where these tell different maps, every input size is audited when it first comes.
"""

import copy
import fnmatch
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
import torch.fx
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from ..grids import FakeCopy, ForwardPass, Network, Site, follow, follow_exact, network_of
from ..grids.network import modes_restored
from ..grids.sites import ResizeCall, Size, current_pass, resizes_seen
from ..grids.track import LevelsError
from ..ops import AxisMap, PixelModel, _check
from ..ops.grid import axis_maps
from ..suggest import did_you_mean
from .exact_maps import ExactMaps, close, covers
from .intercept import COMPILES, installed_on, mark, marks_restored, running
from .padding import MODES as PADDING_MODES
from .padding import Padding, cover, cover_by_strides
from .rule import Rule

_EVEN, _ODD = (512, 512), (523, 677)  # along one axis or both, every stride has an odd number of samples
_EVEN_TOO = (736, 608)  # for networks that cannot take _ODD
_MOST_SIZES = 256  # whose maps a policy keeps
_MOST_DECISIONS = 10_000  # that a policy keeps; images of many sizes are many calls
_NONE: Any = object()
_LOGGER = logging.getLogger("mmseg_resample")


def is_active(arguments: Mapping[str, Any]) -> bool:
    """Tell whether these arguments of ``ResizePolicy`` change what is read; with ``dict(exact=False)`` none does."""
    return any(arguments.get(key) for key in ("exact", "rules", "pad"))


class ResizePolicy:
    """Rules over the resizes of a model.

    Args:
        exact: register every resize with what it meets, wherever no rule says otherwise.
        rules: configs of ``Rule``, first match decides.
        pad: pad each image by the fewest rows and columns with which the features reach all of it, by ``"replicate"``,
            ``"reflect"`` or ``"constant"``. Labels, losses and predictions stay those of the image. Without ``exact``
            these are whole strides, and every flag stays: features reach the border, but are registered no better.
        pad_margin: pixels on every side that features shall reach beyond the image, so that what a network's own zero
            padding does to its outermost features stays outside.
        level_shifts: how far, (y, x) in input pixels, the evidence of each of the backbone's levels is from where its
            layers put it, as ``mmseg-resample audit --weights`` measures it. With ``exact`` alone, which registers
            levels where their weights look then.
        sizes: input sizes (h, w) at which the model is audited. One is enough for a model that takes no other. None:
            the one that the model names as its own, else 512x512, and 523x677 or, where the model cannot take that,
            736x608; the size that it was made for where it takes none of these.
        fast_resize: on CPUs, compute linear and cubic resizes of images by ``ops.resize`` with ``backend="products"``,
            or ``"numba"`` in channels-last order, wherever that is faster than PyTorch's kernel by shape and layout:
            values equal to rounding. Not on GPUs, in half precision, compiled, traced or exported.

    Raises:
        ValueError: neither ``exact`` nor rules nor ``pad`` nor ``fast_resize``, or a rule that contradicts itself.

    Where exact maps depend on the input size in a way that no convention describes (``size_dependent`` lists those
    sites), and with ``pad``, the model is audited at every size that it meets, a fraction of a second each. Compiled
    models and unpickled ones keep what the modules do there.
    """

    def __init__(
        self,
        exact: bool = False,
        rules: Sequence[dict[str, Any]] = (),
        sizes: Sequence[Sequence[int]] | None = None,
        pad: str | None = None,
        pad_margin: int = 0,
        fast_resize: bool = False,
        level_shifts: Sequence[Sequence[float]] = (),
    ) -> None:
        if not (fast_resize or is_active(dict(exact=exact, rules=rules, pad=pad))):
            raise ValueError(
                "ResizePolicy: expected exact=True, rules, pad or fast_resize=True, got none: there is nothing to do."
            )
        if pad is not None:
            _check.one_of("ResizePolicy", "pad", pad, PADDING_MODES)
        if pad_margin < 0 or (pad_margin and pad is None):
            raise ValueError(
                f"ResizePolicy: expected pad_margin of 0 or more pixels, and pad with it, got {pad_margin} and "
                f"pad={pad!r}."
            )
        if level_shifts and not exact:
            raise ValueError(
                "ResizePolicy: level_shifts says where exact=True finds features, and nothing else. Add exact=True."
            )
        if not all(isinstance(each, Sequence) and len(each) == 2 for each in level_shifts):
            raise ValueError(
                f"ResizePolicy: expected level_shifts to hold one (y, x) for each level of the backbone, got "
                f"{level_shifts!r}."
            )
        self.level_shifts = tuple((float(y), float(x)) for y, x in level_shifts)
        self.exact, self.pad, self.pad_margin, self.fast_resize = exact, pad, pad_margin, fast_resize
        self.rules = tuple(Rule.from_config(rule) for rule in rules)
        if exact:
            self.rules += (Rule(coordinates="exact"),)
        self.sizes = None if sizes is None else [(int(h), int(w)) for h, w in sizes]
        if self.sizes is not None and not self.sizes:
            raise ValueError("ResizePolicy: expected sizes to hold at least one (h, w) to audit at, got none.")
        self._network = Network()
        self._forget()
        self._warned: set[Any] = set()

    def _forget(self) -> None:
        """Drop what is known of a model."""
        self._known = ExactMaps()
        self._in_training: ExactMaps | None = None  # where other resizes are called then
        self._at: dict[Size, ExactMaps] = {}
        self._paddings: dict[Size, Padding] = {}
        self._paddings_in_training: dict[Size, Padding] = {}  # the same, of what is returned then
        self._audit: _Audited | None = None
        self._decisions: dict[Any, dict[str, Any] | None] = {}
        self._places: frozenset[str] | None = None  # paths that were seen to resize

    def install(self, model: nn.Module) -> None:
        """Audit ``model`` and put its resizes under this policy, in place.

        Its state dict, class names and results at other resizes stay as they are. Resizes that no policy can reach are
        warned of.

        Raises:
            ValueError: the model cannot be audited, or this policy is at work on another one.
        """
        if self._places is not None and installed_on(model) is not self:
            raise ValueError(
                "ResizePolicy.install: this policy is installed on another model, whose maps it holds. Make one for "
                "each."
            )
        self._forget()
        self._network = network_of(model)
        refused = self._network.refuses_padding(model) if self.pad is not None else None
        if refused:
            raise ValueError(f"ResizePolicy: pad={self.pad!r} is refused: {refused}. Leave pad out.")
        audited = _Audited(model, self)
        after = self._audits(model, audited)
        self._known = ExactMaps.of(after)
        every = len(after) == 1 or self.pad is not None  # whether its maps hold at others is told when those come
        moves = bool(self.rules) or self.pad is not None
        self._audit = audited if moves and (every or self._known.varying) else None
        if every:
            self._at = {each.size: ExactMaps.of([each]) for each in after}
        self._paddings = audited.paddings.copy()
        self._in_training = self._audits_in_training(audited, after)
        self._places = self._network.unaudited(model) | self._known.places
        if self._in_training is not None:
            self._places |= self._in_training.places
        mark(model, self, self._network)
        model.resize_policy = self  # type: ignore[assignment]
        self._warn_of_idle_rules(model)
        graphs = [repr(name) for name, module in model.named_modules() if isinstance(module, torch.fx.GraphModule)]
        if graphs:
            self._warn("graphs", f"copies and pickles of torch.fx graphs ({', '.join(graphs)}) lose the policy.")
        if self.unreachable:
            places = ", ".join(sorted({repr(path) for path, _ in self.unreachable}))
            self._warn(
                "unreachable",
                f"resizes in {places} cannot be reached and stay as they are: they run below PyTorch's Python "
                f"functions (TorchScript, C++), low-pass (antialias), write into a given tensor, or belong to a model "
                f"that has a policy of its own.",
            )

    def _audits(self, model: nn.Module, audited: "_Audited") -> list[ForwardPass]:
        if self.sizes is not None:
            return [self._audit_named(audited, size) for size in dict.fromkeys(self.sizes)]
        named, made_for = self._network.size(model), self._network.made_for(model)
        found: list[ForwardPass] = []
        refusals: list[str] = []
        for size in (named or _EVEN, _ODD, _EVEN_TOO, made_for):
            if len(found) == 2 or size is None or (size == made_for and found):
                break
            try:
                found.append(audited(size))
            except LevelsError:
                raise
            except Exception as error:  # whatever a network raises at a size that it cannot take
                refusals.append(f"{size[0]}x{size[1]}: {type(error).__name__}: {error}")
        if not found and any(rule.coordinates == "exact" for rule in self.rules):
            raise ValueError(
                f"ResizePolicy: the model takes none of the sizes that were tried ({'; '.join(refusals)}). Name those "
                f"that it takes: sizes=[(h, w)]{'' if self.pad is None else ', or leave pad out'}."
            )
        if not found:
            self._warn(
                "sizes", f"the model could not be audited ({'; '.join(refusals)}); rules apply to all its calls."
            )
        return found

    @staticmethod
    def _audit_named(audited: "_Audited", size: Size) -> ForwardPass:
        try:
            return audited(size)
        except LevelsError:
            raise
        except Exception as error:  # whatever a network raises at a size that it cannot take
            raise ValueError(
                f"ResizePolicy: the model cannot be audited at {size[0]}x{size[1]}, which sizes names "
                f"({type(error).__name__}: {error}). Name sizes that it takes."
            ) from error

    def _audits_in_training(self, audited: "_Audited", in_evaluation: list[ForwardPass]) -> ExactMaps | None:
        """Return what is exact in training mode, where that calls other resizes; None where it calls the same."""
        if not in_evaluation:
            return None
        try:
            if audited.calls_in_training(in_evaluation[0].size) == _calls(in_evaluation[0]):
                return None
            known = ExactMaps.of([audited(result.size, training=True) for result in in_evaluation])
        except Exception as error:
            self._warn("training", f"could not be audited in training mode ({error}); resizes may be others there.")
            return None
        if known.varying:
            places = ", ".join(sorted({repr(path) for path, _ in known.varying}))
            self._warn("training", f"in training mode, resizes in {places} depend on the input size, and stay.")
        return known

    def _warn_of_idle_rules(self, model: nn.Module) -> None:
        paths = self._network.all_paths(model)
        for rule in self.rules:
            if not any(fnmatch.fnmatchcase(path, rule.path) for path in paths):
                hint = did_you_mean(rule.path, paths)
                self._warn(rule.path, f"no module is at {rule.path!r}; that rule changes nothing.{hint}")

    def _known_at(self, size: Size | None) -> ExactMaps:
        if self._in_training is not None and current_pass().training:
            return self._in_training
        if self._audit is None or size is None or _is_traced(size):
            return self._known
        if size not in self._at:
            self._audit_at(size, self._audit)
        return self._at[size]

    def _audit_at(self, size: Size, audited: "_Audited") -> None:
        try:
            known, padding = ExactMaps.of([audited(size)]), audited.paddings.get(size, Padding())
        except Exception as error:
            stays = "resizes whose maps depend on it stay" + (", without padding" if self.pad is not None else "")
            self._warn(size, f"{size} could not be audited ({error}); {stays}.")
            known, padding = self._known, Padding()
        self._keep(self._at, size, known)
        self._keep(self._paddings, size, padding)

    def padding(self, size: Sequence[int], training: bool = False) -> Padding:
        """Return what images of ``size`` (h, w) are padded by, and what the outputs are cropped to in either mode."""
        height, width = size
        if self.pad is not None and _check.are_symbolic(size):
            raise ValueError(
                f"ResizePolicy: pad={self.pad!r} depends on the input size, which is open in this graph. Export it for "
                f"one size."
            )
        found = (self._paddings_in_training if training else self._paddings).get((height, width))
        return self._find_padding((height, width), training) if found is None else found

    @_check.opaque
    def _find_padding(self, size: Size, training: bool) -> Padding:
        if training:
            padding = self.padding(size)
            if self._audit is not None:
                with suppress(Exception):  # whatever a network raises that is not trained without labels
                    padding = self._audit.in_training(size)
                self._keep(self._paddings_in_training, size, padding)
            return padding
        if self.pad is None or self._audit is None:
            return Padding()
        self._audit_at(size, self._audit)
        return self._paddings[size]

    @staticmethod
    def _keep(kept: dict[Size, Any], size: Size, value: Any) -> None:
        if len(kept) >= _MOST_SIZES and size not in kept:
            kept.pop(next(iter(kept)), None)
        kept[size] = value

    @contextmanager
    def running(self) -> Iterator[None]:
        """Apply the policy to what runs inside; nested uses start their own count."""
        with running(self), resizes_seen():
            yield

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Install on ``model`` for the block alone: a policy for a model that was built without one."""
        own = model.__dict__.get("resize_policy")
        with marks_restored(model):
            self.install(model)  # refused, it leaves what is known of another model
            try:
                with self.running():
                    yield
            finally:
                model.__dict__.pop("resize_policy", None)
                if own is not None:
                    model.resize_policy = own
                if own is not self:
                    self._forget()

    def may_resize(self, path: str) -> bool:
        """Tell whether the module at ``path`` was seen to resize, or resizes where no audit looks."""
        return self._places is None or path in self._places

    @property
    def size_dependent(self) -> list[Site]:
        """Sites whose exact map depends on the input size in a way that no convention describes."""
        return sorted(self._known.varying)

    @property
    def unreachable(self) -> list[Site]:
        """Resizes that no policy can change, as the audits number them."""
        in_training = set() if self._in_training is None else self._in_training.unreachable
        return sorted(self._known.unreachable | in_training)

    def report(self) -> dict[str, Any]:
        """Return what is done where: exact maps by site, sites without a position, resizes out of reach."""
        return {
            "exact": dict(self._known.exact),
            "without position": sorted(self._known.unpositioned),
            "out of reach": self.unreachable,
        }

    def decide(self, site: Site, call: ResizeCall, input_size: Size | None = None) -> dict[str, Any] | None:
        """Return what ``ops.resize`` shall do differently from ``call`` at ``site``; None to leave it as it is.

        ``input_size`` is that of the model's images, where it is known.
        """
        known = self._known_at(input_size)
        if _is_traced((*call.source_size, *call.size, *(input_size or ()))):
            return self._decide(known, site, call, input_size)
        key = (site, call, None if self._audit is None else input_size, known is self._in_training)
        known_decision = self._decisions.get(key, _NONE)  # another thread may clear them at any moment
        if known_decision is not _NONE:
            return known_decision
        if len(self._decisions) > _MOST_DECISIONS:
            self._decisions.clear()
        change = self._decisions[key] = self._decide(known, site, call, input_size)
        return change

    def _decide(self, known: ExactMaps, site: Site, call: ResizeCall, input_size: Size | None) -> dict[str, Any] | None:
        for rule in self.rules:
            if call.mode == "grid_sample" and rule.coordinates != "exact":
                continue  # its coordinates are not chosen by a flag
            if not rule.matches(site, call.mode, site not in known.unpositioned, call.source_size, call.size):
                continue
            if rule.coordinates == "keep":
                break
            if rule.coordinates == "exact":
                return self._make_exact(known, site, call, rule.set_mode, input_size)
            change: dict[str, Any] = {}
            if rule.set_mode is not None:
                change["mode"] = rule.set_mode
            if rule.coordinates is not None:
                change["coordinates"] = rule.coordinates
            elif rule.align_corners not in (None, call.align_corners):
                change["align_corners"] = rule.align_corners
            return self._within_padding(call, change, input_size) or None
        return self._within_padding(call, {}, input_size) or None

    def _padding_of(self, input_size: Size | None) -> Padding | None:
        return None if input_size is None or self.pad is None else self._paddings.get(input_size)

    def _within_padding(self, call: ResizeCall, change: dict[str, Any], input_size: Size | None) -> dict[str, Any]:
        """Let a resize to the image read what it would as a part of one to the padded image."""
        padding = self._padding_of(input_size)
        if not padding or self._network.crops or call.size != input_size or call.source_size == input_size:
            return change
        own = "align_corners" if change.get("align_corners", call.align_corners) else "half_pixel"
        maps = axis_maps(change.get("coordinates", own), call.source_size, padding.size(call.size))
        window = tuple(m.after(AxisMap(1.0, before)) for m, before in zip(maps, padding.before, strict=True))
        return {**change, "coordinates": window} if call.mode in ("bilinear", "bicubic") else change

    def _make_exact(
        self, known: ExactMaps, site: Site, call: ResizeCall, set_mode: str | None, input_size: Size | None
    ) -> dict[str, Any] | None:
        if known.points and call.mode == "grid_sample":
            return self._move_points(known, site, call)
        interpolates = not call.mode.startswith("nearest") and call.mode != "grid_sample"
        if site in known.exact and call.mode == known.modes[site]:
            pixel_model: PixelModel | None = known.exact[site]
        elif not interpolates or site in known.varying:
            return None  # labels and masks are not what the audit saw; other sizes have other maps
        else:
            padding = self._padding_of(input_size)
            padded = padding.size(call.size) if padding else call.size
            pixel_model = self._network.pixel_model(site, call.source_size, padded, known.levels)
        if pixel_model is None:
            return self._within_padding(call, {}, input_size) or None
        # The nearest sample is up to half a sample off whatever the map: features are interpolated instead. Constant
        # coordinates of a grid_sample, which the audit found to be a misplaced grid, are replaced.
        change = {"mode": set_mode or (call.mode if interpolates else "bilinear"), "coordinates": pixel_model}
        if _check.are_symbolic((*call.source_size, *call.size)):  # which an exporter has asked about
            own = "align_corners" if call.align_corners else "half_pixel"
            as_it_is = set_mode is None and interpolates and call.coordinates is None and pixel_model == own
            return None if as_it_is else change
        maps = axis_maps(pixel_model, call.source_size, call.size)
        audited = (site, call.source_size, call.size) in known.calls
        if not audited and not all(covers(m, n, o) for m, n, o in zip(maps, call.source_size, call.size, strict=True)):
            what = f"the resize {call.source_size} -> {call.size} at {site}"
            self._warn(site, f"{what} is not the one that was audited there; it stays as it is.")
            return self._within_padding(call, {}, input_size) or None
        if set_mode is None and interpolates and close(maps, call.maps()):
            return None
        return change

    def _move_points(self, known: ExactMaps, site: Site, call: ResizeCall) -> dict[str, Any] | None:
        if (site, call.source_size, call.size) not in known.calls:  # as PointRend's at random points, in training
            what = f"the sampling at {call.size[0]} points at {site}"
            self._warn(site, f"{what} is not at pixels that were audited; it stays as it is.")
            return None
        moved = known.modes.get(site) == "point_sample" and site in known.exact
        return {"points": known.exact[site]} if moved else None

    def _warn(self, about: Any, message: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            _LOGGER.warning("ResizePolicy: %s", message)


def _is_traced(sizes: Sequence[Any]) -> bool:
    """Tell whether nothing can be kept by these sizes: they are open, or a compiler looks on."""
    return (COMPILES and torch.compiler.is_dynamo_compiling()) or _check.are_symbolic(sizes)


class _Audited:
    """A copy of a model without memory, under the rules of a policy alone; called with a size, it is audited.

    Exact maps are found for what the other rules leave, with the padding that the policy wants.

    Attributes:
        paddings: what images are padded by, at the sizes that were audited.
    """

    def __init__(self, model: nn.Module, policy: ResizePolicy) -> None:
        rules = copy.copy(policy)
        rules._forget()
        rules.pad = None if policy.pad is None else "constant"  # possible at every size, and moves nothing else
        self._rules, self.paddings = rules, rules._paddings
        self._crops = network_of(model).crops
        self._pad = None if policy.pad is None else cover if policy.exact else cover_by_strides
        self._margin = policy.pad_margin
        self._copy = FakeCopy(model)
        self._copy.run(lambda fake: mark(fake, rules, network_of(model)))

    def __deepcopy__(self, memo: Any) -> "_Audited":
        return self  # as the fake copy, whose paddings these are

    def __call__(self, size: Size, training: bool = False) -> ForwardPass:
        if training or self._pad is None:
            if training:
                self.in_training(size)
            return self._follow_exact(size, training)
        maps: dict[Site, tuple[AxisMap, ...]] = {}

        def follow_padded(padding: Padding) -> ForwardPass:
            nonlocal maps
            self.paddings[size] = padding
            found = self._follow_exact(size, start=maps)
            maps = found.maps
            return found

        padding, found = self._pad(follow_padded, self._crops, self._margin)
        self.paddings[size] = padding
        return found

    def _follow_exact(
        self, size: Size, training: bool = False, start: dict[Site, tuple[AxisMap, ...]] | None = None
    ) -> ForwardPass:
        return self._copy.run(lambda fake: _in_mode(fake, training, lambda: follow_exact(fake, size, start)))

    def in_training(self, size: Size) -> Padding:
        """Return the padding of images of ``size``, with the outputs that the model has in training mode."""
        known = self._rules._paddings_in_training
        if size not in known:
            padding = self.paddings.get(size, Padding())
            if padding and self._crops:
                known[size] = Padding()
                try:
                    plain = self._copy.run(lambda fake: _in_mode(fake, True, lambda: follow(fake, size)))
                finally:
                    del known[size]
                padding = replace(padding, outputs=plain.outputs)
            known[size] = padding
        return known[size]

    def calls_in_training(self, size: Size) -> list[Any]:
        """Return the resizes that are called in training mode."""
        self.in_training(size)
        return _calls(self._copy.run(lambda fake: _in_mode(fake, True, lambda: follow(fake, size))))


def _in_mode(model: nn.Module, training: bool, function: Callable[[], ForwardPass]) -> ForwardPass:
    with modes_restored(model) as modules:
        for module in modules:  # statistics and noise move nothing, and want batches of several images
            module.training = training and not isinstance(module, (nn.modules.batchnorm._NormBase, _DropoutNd))
        return function()


def _calls(result: ForwardPass) -> list[Any]:
    return [(r.site, r.mode, r.source_size, r.size) for r in result.trace.resizes]
