"""How resizes are caught where they are called, and how a policy knows where in the model that is.

``F.interpolate`` is replaced, once per process, by a function that asks the policy at work in its thread. The modules
of a model under a policy get classes whose methods note their path; a segmentor gets one that runs under its policy.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, wraps
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..derive import derived
from ..ops import Coordinates, PixelModel, resize
from .track import scopes

if TYPE_CHECKING:
    from .policy import ResizePolicy

Size = tuple[int, ...]

COMPILES = torch.__version__ >= "2.7"
"""Older torch cannot compile a policy: it runs between two graphs there."""

_UNSEEN = {"predict_by_feat", "postprocess_result"}  # own resizes that no audit sees: inner losses, original images


@dataclass
class _Running(threading.local):
    """The policy at work in this thread, if any, on images of what size, if that is known, where in the model it is,
    and what each place has called so far."""

    policy: "ResizePolicy | None" = None
    input_size: Size | None = None
    path: str = ""
    calls: Counter[str] = field(default_factory=Counter)


_running = _Running()


@contextmanager
def running(policy: "ResizePolicy", inputs: Any = None) -> Iterator[None]:
    """Apply ``policy`` to what runs inside, on images ``inputs``, (N, C, H, W); nested uses start their own count."""
    size = tuple(inputs.shape[2:]) if isinstance(inputs, Tensor) else None
    outer = (_running.policy, _running.input_size, _running.path, _running.calls)
    _running.policy, _running.input_size, _running.path, _running.calls = policy, size, "", Counter()
    try:
        yield
    finally:
        _running.policy, _running.input_size, _running.path, _running.calls = outer


def take_bilinear(align_corners: bool, source_size: Sequence[int], size: Sequence[int]) -> PixelModel | None:
    """The pixel model of the bilinear resize that would come next, for a caller who computes it himself.

    The policy at work decides, if there is one, and counts the resize as called. None: it is not to be bilinear;
    the caller has to call ``F.interpolate`` after all.
    """
    own: Coordinates = "align_corners" if align_corners else "half_pixel"
    if _running.policy is None:
        return own
    site = (_running.path, _running.calls[_running.path])
    change = _running.policy.decide(site, "bilinear", align_corners, source_size, size, _running.input_size) or {}
    if change.get("mode", "bilinear") != "bilinear":
        return None
    _running.calls[_running.path] += 1
    if "align_corners" in change:
        return "align_corners" if change["align_corners"] else "half_pixel"
    return change.get("coordinates", own)


def mark(model: nn.Module, policy: "ResizePolicy", owners: set[str]) -> None:
    """Give the modules of ``model`` that call resizes, those at the paths ``owners``, their paths and ``policy``."""
    for name, module in model.named_modules():
        paths = scopes(name, module)
        needed = not owners.isdisjoint(paths.values()) or not _UNSEEN.isdisjoint(paths)
        if needed and "_resample_paths" not in module.__dict__:
            module.__class__ = _scoped(type(module), tuple(sorted(paths)))  # type: ignore[arg-type]
            module.__dict__["_resample_paths"] = paths
        if "_resample_paths" in module.__dict__:
            module.__dict__["_resample_policy"] = policy


@contextmanager
def marks_restored(model: nn.Module) -> Iterator[None]:
    """Undo, afterwards, what ``mark`` does inside, and give every module the class that it had."""
    classes = {m: type(m) for m in model.modules() if "_resample_paths" not in m.__dict__}
    policies = {m: m.__dict__["_resample_policy"] for m in model.modules() if m not in classes}
    try:
        yield
    finally:
        for module, cls in classes.items():
            module.__class__ = cls
            module.__dict__.pop("_resample_paths", None)
            module.__dict__.pop("_resample_policy", None)
        for module, policy in policies.items():
            module.__dict__["_resample_policy"] = policy


@cache
def _scoped(cls: type[nn.Module], methods: tuple[str, ...]) -> type[nn.Module]:
    """``cls`` with methods that note where in the model they are. Copies and pickles of an instance keep it."""

    def noting(method: str) -> Callable[..., Any]:
        original = getattr(cls, method)

        @wraps(original)
        def run(self: Any, *args: Any, **kwargs: Any) -> Any:
            if _running.policy is None:  # called by itself, or again while activations are recomputed for a gradient
                with running(self._resample_policy):
                    return run(self, *args, **kwargs)
            outer, _running.path = _running.path, self._resample_paths[method]
            try:
                return original(self, *args, **kwargs)
            finally:
                _running.path = outer

        return run

    body = {method: noting(method) for method in methods}
    return derived(cls, (cls,), body, (_scoped, (methods,)))


@cache
def intercept() -> None:
    """Route ``F.interpolate`` through the policy at work, once per process; without one it is as fast as ever."""
    original = F.interpolate

    def routed(
        input: Tensor,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
        antialias: bool = False,
    ) -> Tensor:
        arguments = (input, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
        policy = _running.policy
        if policy is None or mode == "area":
            return original(*arguments)
        site = (_running.path, _running.calls[_running.path])
        _running.calls[_running.path] += 1
        target = _target_size(input, size, scale_factor)
        change = None
        if not antialias:
            change = policy.decide(site, mode, align_corners, input.shape[2:], target, _running.input_size)
        if change is None:
            return original(*arguments)
        call: dict[str, Any] = {"mode": mode, "align_corners": align_corners}
        if "coordinates" in change:
            call |= {"size": target, "align_corners": None}
        elif size is not None:
            call |= {"size": size}
        else:
            call |= {"scale_factor": scale_factor, "recompute_scale_factor": recompute_scale_factor}
        _running.policy = None  # what resize calls is no site of the model
        try:
            return resize(input, warning=False, **(call | change))
        finally:
            _running.policy = policy

    if not COMPILES:
        routed = torch.compiler.disable(routed)

    def interpolate(*args: Any, **kwargs: Any) -> Tensor:
        return routed(*args, **kwargs)

    # torch.jit.script reads the source of what is wrapped, and looks its names up in the globals of the wrapper.
    replacement = FunctionType(interpolate.__code__, vars(F), closure=interpolate.__closure__)
    F.interpolate = wraps(original)(replacement)
    F.interpolate.policy_decides = lambda: _running.policy is not None  # type: ignore[attr-defined]  # ops.resize asks


def _target_size(input: Tensor, size: Any, scale_factor: Any) -> tuple[int, ...]:
    axes = input.ndim - 2
    if size is not None:
        return tuple(size) if isinstance(size, Sequence) else (size,) * axes
    factors = scale_factor if isinstance(scale_factor, Sequence) else (scale_factor,) * axes
    return tuple(int(n * float(f)) for n, f in zip(input.shape[2:], factors, strict=True))


class _PolicyMixin:
    """A segmentor that runs under its policy, however it is called; every crop of a sliding window counts anew."""

    resize_policy: "ResizePolicy"

    def forward(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        with running(self.resize_policy, inputs):
            return super().forward(inputs, *args, **kwargs)  # type: ignore[misc]

    def loss(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        with running(self.resize_policy, inputs):
            return super().loss(inputs, *args, **kwargs)  # type: ignore[misc]

    def predict(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        with running(self.resize_policy, inputs):
            return super().predict(inputs, *args, **kwargs)  # type: ignore[misc]

    def extract_feat(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        with running(self.resize_policy, inputs):
            return super().extract_feat(inputs, *args, **kwargs)  # type: ignore[misc]

    def encode_decode(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        with running(self.resize_policy, inputs):
            return super().encode_decode(inputs, *args, **kwargs)  # type: ignore[misc]


@cache
def with_policy(cls: type[nn.Module]) -> type[nn.Module]:
    """``cls``, a segmentor, whose instances run under the policy that is their ``resize_policy``."""
    return derived(cls, (_PolicyMixin, cls), {}, (with_policy, ()))
