"""How a policy gets hold of the resizes of a model: its modules note where they are, its entrances begin a pass.

The modules of a model under a policy get classes whose methods note their path, and see what is called inside
(``grids.sites``). Nothing outside such a model changes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..derive import derived, make, recipe
from ..grids.network import Network
from ..grids.sites import ResizeCall, Site, are_seen, at_path, current_pass, new_pass, resizes_seen, resizes_unseen
from ..ops import AxisMap, PixelModel, _backends, _check, resize
from ..ops._plan import floors
from .recomputation import count_on_when_recomputed

if TYPE_CHECKING:
    from .resize_policy import ResizePolicy

COMPILES = torch.__version__ >= "2.7"
"""Older torch cannot compile a policy: its modules run between two graphs there."""


@contextmanager
def running(policy: "ResizePolicy", inputs: Any = None, training: bool = False) -> Iterator[None]:
    """Apply ``policy`` to what runs inside, on images ``inputs``, (N, C, H, W); nested uses start their own count."""
    size = tuple(inputs.shape[2:]) if isinstance(inputs, Tensor) else None
    with new_pass(partial(_obey, policy), size, training, policy, policy.level_shifts):
        yield


def _obey(
    policy: "ResizePolicy", site: Site, call: ResizeCall, args: Sequence[Any], kwargs: dict[str, Any]
) -> Tensor | None:
    change = policy.decide(site, call, current_pass().input_size)
    if change is not None and "points" in change:
        return _sample_elsewhere(change["points"], *args, **kwargs)
    input: Tensor = args[0] if args else kwargs["input" if "input" in kwargs else "self"]
    backend = "auto"
    if policy.fast_resize and kwargs.get("backend", "auto") == "auto":  # else `ops.resize` was asked for another
        backend = _backends.fastest_resize(input, (change or {}).get("mode", call.mode), call.size)
    if change is None and backend == "auto":
        return None
    change = change or {}
    arguments: dict[str, Any] = {"mode": call.mode, "align_corners": call.align_corners}
    if "coordinates" in change:
        arguments |= {"size": call.size, "align_corners": None}
    elif call.scale_factors is None:
        arguments |= {"size": call.size, "coordinates": call.coordinates}
    elif _follows(call):
        arguments |= {"scale_factor": call.scale_factors, "coordinates": call.coordinates}
    else:  # operators take a size beside factors that another size follows from
        arguments |= {"size": call.size, "align_corners": None, "coordinates": call.maps()}
    if "align_corners" in change:
        arguments |= {"coordinates": None}
    return resize(input, warning=False, backend=backend, **(arguments | change))


def _sample_elsewhere(
    changes: Sequence[AxisMap],
    input: Tensor,
    grid: Tensor,
    mode: Any = "bilinear",
    padding_mode: Any = None,
    align_corners: bool | None = None,
    **named: Any,
) -> Tensor:
    """Compute ``F.grid_sample`` with the samples that ``grid`` asks for, (y, x), changed to others.

    Beyond the outermost samples these are repeated, as in every exact resize.
    """
    columns = []
    for axis, (change, n) in enumerate(zip(reversed(changes), reversed(input.shape[2:]), strict=True)):
        samples = AxisMap.from_normalised(n, bool(align_corners))
        moved = samples.inverse().after(change).after(samples) if samples.scale else change
        columns.append(grid[..., axis] * moved.scale + moved.offset)
    mode = named.pop("interpolation_mode", mode)  # operators have numbers
    mode = mode if isinstance(mode, str) else ("bilinear", "nearest", "bicubic")[mode]
    return F.grid_sample(input, torch.stack(columns, -1), mode, "border", bool(align_corners))


def _follows(call: ResizeCall) -> bool:
    """Tell whether the factors of ``call`` give its size."""
    factors = call.scale_factors or ()
    if any(f is None for f in factors):
        return False
    return call.size == floors(call.source_size, factors)


def claim_bilinear_site(
    module: nn.Module, own: PixelModel | bool, source_size: Sequence[int], size: Sequence[int]
) -> PixelModel | None:
    """Count the next bilinear resize of ``module`` as a site and return its pixel model; the caller computes it.

    The policy at work decides, if there is one; ``own`` is the caller's, or its flag. None: it is not to be bilinear;
    nothing is counted, and the caller has to call ``F.interpolate`` after all.
    """
    flag, model = (own, None) if isinstance(own, bool) else (None, own)
    named: PixelModel = model or ("align_corners" if flag else "half_pixel")
    policy, now = installed_on(module), current_pass()
    if policy is None or now.handle is None:
        return named
    site = now.next_site
    call = ResizeCall("bilinear", flag, tuple(source_size), tuple(size), model)
    change = policy.decide(site, call, now.input_size) or {}
    if change.get("mode", "bilinear") != "bilinear":
        return None
    now.count()
    if "align_corners" in change:
        return "align_corners" if change["align_corners"] else "half_pixel"
    return change.get("coordinates", named)


def installed_on(module: nn.Module) -> "ResizePolicy | None":
    """Return the policy that was installed on a model that ``module`` is part of, if any."""
    return module.__dict__.get("_resample_policy")


def mark(model: nn.Module, policy: "ResizePolicy", network: Network) -> None:
    """Give the modules of ``model`` that could call resizes, in whatever mode, their paths and ``policy``."""
    count_on_when_recomputed()
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue  # what runs there calls no Python
        paths = network.paths(name, module)
        cls, own = _unmarked(type(module)), {m: _unmarked_own(module, m) for m in paths if m in module.__dict__}
        is_root = module is model
        if not is_root and not own and _calls_no_resize(cls, module, paths):
            continue
        entrances = tuple(m for m in network.entrances if hasattr(module, m)) if is_root else ()
        methods = tuple(sorted(set(paths) - set(own)))
        pads = (network.sees_image,) if is_root and policy.pad is not None else ()
        module.__class__ = _noting(cls, methods, entrances, pads)  # type: ignore[arg-type]
        module.__dict__.update({method: _Noting(module, method, function) for method, function in own.items()})
        module.__dict__.update(_resample_paths=paths, _resample_policy=policy)


def _calls_no_resize(cls: type, module: nn.Module, paths: dict[str, str]) -> bool:
    """Tell whether a module is one of PyTorch's, untouched, which resize nothing themselves."""
    if set(paths) != {"forward"} or issubclass(cls, (nn.Upsample, nn.Fold)):
        return False
    theirs = cls.__module__.startswith("torch.nn.modules.") or cls.__dict__.keys() <= {"__module__", "__doc__"}
    return theirs and not any(callable(value) for value in module.__dict__.values())


@contextmanager
def marks_restored(model: nn.Module) -> Iterator[None]:
    """Undo, afterwards, what ``mark`` does inside, and give every module the class and the marks that it had."""
    before = {m: (type(m), {k: v for k, v in m.__dict__.items() if _is_mark(k, v)}) for m in model.modules()}
    try:
        yield
    finally:
        for module, (cls, marks) in before.items():
            module.__class__ = cls
            for key, value in list(module.__dict__.items()):
                if _is_mark(key, value):
                    del module.__dict__[key]
                    if isinstance(value, _Noting):
                        module.__dict__[key] = value.function
            module.__dict__.update(marks)


def _is_mark(key: str, value: Any) -> bool:
    return key in ("_resample_paths", "_resample_policy") or isinstance(value, _Noting)


class _Noting:
    """A function that was set on an instance in place of its method, and where in the model it is.

    Args:
        module: the instance.
        method: name of the method.
        function: what was set.
    """

    def __init__(self, module: nn.Module, method: str, function: Callable[..., Any]) -> None:
        self.module, self.method, self.function = module, method, function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _run_in_place(self.module, self.method, self.function, args, kwargs)


def _unmarked(cls: type) -> type:
    original, steps = recipe(cls)
    kept = tuple(step for step in steps if step[0] is not _noting)
    return cls if kept == steps else make(original, kept)


def _unmarked_own(module: nn.Module, method: str) -> Callable[..., Any]:
    own = module.__dict__[method]
    return own.function if isinstance(own, _Noting) else own


@cache
def _noting(
    cls: type[nn.Module], methods: tuple[str, ...], entrances: tuple[str, ...], pads: tuple[str, ...]
) -> type[nn.Module]:
    """Derive from ``cls`` a class whose ``methods`` note where in the model they are, whose ``entrances`` begin a
    forward pass, and whose ``pads`` get the padded image. Copies and pickles of an instance keep it."""
    body = {method: _in_place(getattr(cls, method), method) for method in methods}
    for method in pads:
        body[method] = _padding(body.get(method) or getattr(cls, method))
    for entrance in entrances:
        body[entrance] = _entering(body.get(entrance) or getattr(cls, entrance))
    return derived(cls, (cls,), body, (_noting, (methods, entrances, pads)))


def _in_place(original: Callable[..., Any], method: str) -> Callable[..., Any]:
    @wraps(original)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _run_in_place(self, method, original, (self, *args), kwargs)

    return run if COMPILES else torch.compiler.disable(run)


def _run_in_place(module: Any, method: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    if current_pass().handle is None:  # called by itself
        with running(module._resample_policy, training=module.training):
            return _run_in_place(module, method, function, args, kwargs)
    path = module._resample_paths[method]
    if module._resample_policy.may_resize(path) or _check.is_compiling():
        with at_path(path), resizes_seen():
            return function(*args, **kwargs)
    if not are_seen():
        return function(*args, **kwargs)
    with resizes_unseen():
        return function(*args, **kwargs)


def _entering(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        policy = self._resample_policy
        with running(policy, _image(args, kwargs), self.training):
            if not policy.may_resize(""):
                return original(self, *args, **kwargs)
            with resizes_seen():  # methods of parts that note no path, a head's `predict`, run as the model's own
                return original(self, *args, **kwargs)

    return run


def _image(args: Any, kwargs: Any) -> Tensor | None:
    """Return the first tensor (N, C, H, W), else the first tensor; by loops, which every compiler takes."""
    first = None
    for x in (*args, *kwargs.values()):
        if isinstance(x, Tensor):
            if x.ndim == 4:
                return x
            first = x if first is None else first
    return first


def _padding(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        policy = self._resample_policy
        image = _image(args, kwargs)
        if image is None or image.ndim != 4:
            return original(self, *args, **kwargs)
        size = image.shape[2:]
        padding = policy.padding(size, self.training)

        def padded(x: Any) -> Any:  # a depth map beside the image too
            images = isinstance(x, Tensor) and x.ndim == 4 and x.shape[2:] == size and x.is_floating_point()
            return padding.apply(x, policy.pad) if images else x

        args = tuple(padded(x) for x in args)
        kwargs = {key: padded(x) for key, x in kwargs.items()}
        return padding.crop(original(self, *args, **kwargs))

    return run
