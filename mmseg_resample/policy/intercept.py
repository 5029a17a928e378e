"""How a policy gets hold of the resizes of a model: its modules note where they are, its entrances begin a pass.

The modules of a model under a policy get classes whose methods note their path, and see what is called inside
(``grids.sites``). Nothing outside such a model changes.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..derive import derived
from ..grids.network import Network
from ..grids.sites import ResizeCall, Site, at_path, current_pass, new_pass, resizes_seen
from ..ops import PixelModel, resize

if TYPE_CHECKING:
    from .resize_policy import ResizePolicy

COMPILES = torch.__version__ >= "2.7"
"""Older torch cannot compile a policy: its modules run between two graphs there."""


@contextmanager
def running(policy: "ResizePolicy", inputs: Any = None) -> Iterator[None]:
    """Apply ``policy`` to what runs inside, on images ``inputs``, (N, C, H, W); nested uses start their own count."""
    size = tuple(inputs.shape[2:]) if isinstance(inputs, Tensor) else None
    with new_pass(partial(_obey, policy), size):
        yield


def _obey(policy: "ResizePolicy", site: Site, call: ResizeCall, input: Tensor) -> Tensor | None:
    change = policy.decide(site, call, current_pass().input_size)
    if change is None:
        return None
    arguments: dict[str, Any] = {"mode": call.mode, "align_corners": call.align_corners}
    if "coordinates" in change:
        arguments |= {"size": call.size, "align_corners": None}
    elif call.scale_factors is None:
        arguments |= {"size": call.size, "coordinates": call.coordinates}
    else:
        arguments |= {"scale_factor": call.scale_factors, "coordinates": call.coordinates}
    if "align_corners" in change:
        arguments |= {"coordinates": None}
    return resize(input, warning=False, **(arguments | change))


def claim_bilinear_site(
    module: nn.Module, align_corners: bool, source_size: Sequence[int], size: Sequence[int]
) -> PixelModel | None:
    """Count the next bilinear resize of ``module`` as a site and return its pixel model; the caller computes it.

    The policy at work decides, if there is one. None: it is not to be bilinear; nothing is counted, and the caller has
    to call ``F.interpolate`` after all.
    """
    own: PixelModel = "align_corners" if align_corners else "half_pixel"
    policy, now = installed_on(module), current_pass()
    if policy is None or now.handle is None:
        return own
    site = (now.path, now.calls[now.path])
    call = ResizeCall("bilinear", align_corners, tuple(source_size), tuple(size))
    change = policy.decide(site, call, now.input_size) or {}
    if change.get("mode", "bilinear") != "bilinear":
        return None
    now.count()
    if "align_corners" in change:
        return "align_corners" if change["align_corners"] else "half_pixel"
    return change.get("coordinates", own)


def installed_on(module: nn.Module) -> "ResizePolicy | None":
    """Return the policy that was installed on a model that ``module`` is part of, if any."""
    return module.__dict__.get("_resample_policy")


def mark(model: nn.Module, policy: "ResizePolicy", network: Network, owners: Collection[str]) -> None:
    """Give the modules of ``model`` that call resizes, those at the paths ``owners``, their paths and ``policy``."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue  # what runs there calls no Python
        paths = network.paths(name, module)
        is_root = module is model
        needed = is_root or not set(owners).isdisjoint(paths.values()) or not network.unaudited.isdisjoint(paths)
        if needed and "_resample_paths" not in module.__dict__:
            entrances = tuple(m for m in network.entrances if hasattr(module, m)) if is_root else ()
            module.__class__ = _noting(type(module), tuple(sorted(paths)), entrances)  # type: ignore[arg-type]
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
def _noting(cls: type[nn.Module], methods: tuple[str, ...], entrances: tuple[str, ...]) -> type[nn.Module]:
    """Derive from ``cls`` a class whose ``methods`` note where in the model they are, and whose ``entrances`` begin a
    forward pass. Copies and pickles of an instance keep it."""
    body = {method: _in_place(getattr(cls, method), method) for method in methods}
    for entrance in entrances:
        body[entrance] = _entering(body.get(entrance) or getattr(cls, entrance))
    return derived(cls, (cls,), body, (_noting, (methods, entrances)))


def _in_place(original: Callable[..., Any], method: str) -> Callable[..., Any]:
    @wraps(original)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        if current_pass().handle is None:  # called by itself, or again while activations are recomputed for a gradient
            with running(self._resample_policy):
                return run(self, *args, **kwargs)
        with at_path(self._resample_paths[method]), resizes_seen():
            return original(self, *args, **kwargs)

    return run if COMPILES else torch.compiler.disable(run)


def _entering(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        image = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
        with running(self._resample_policy, image):
            return original(self, *args, **kwargs)

    return run
