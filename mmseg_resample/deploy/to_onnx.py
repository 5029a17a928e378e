"""From a network in PyTorch to an ONNX file that computes the same pixels at every size.

``torch.export`` first, then the operators that exporters lack or get wrong in terms of others (``lowering``), then
PyTorch's translation to ONNX. ``parity`` says whether the file computes what the network does.
"""

import logging
import math
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..grids import FakeCopy, Resize, follow
from ..grids.sites import Size
from ..ops import _check
from ..ops._plan import CORNERLESS
from ..ops.grid import axis_maps
from . import lowering, requires
from .deployed import DeployedNetwork
from .graph import describe, leave_out_defaults, lower_to_17
from .parity import sizes_to_compare

TRACED_SIZE = (103, 139)
"""Prime, and neither a multiple of 4 nor one more than that: no stride above 2 divides it or fits its corners."""

OPSETS = range(17, 24)
_COORDINATES = {"nearest": "asymmetric", "nearest-exact": "half_pixel", "area": "half_pixel"}


class ExportError(ValueError):
    """A network that cannot be exported as it was asked for; the message says what can."""


@dataclass(frozen=True)
class Options:
    """Options of an export.

    Args:
        size: (h, w) of the images that the file takes; None for any.
        opset: of ONNX, 17 to 23.
        form: of linear resizes of other maps than PyTorch's own, see ``lowering``.
    """

    size: Size | None = None
    opset: int = 18
    form: lowering.Form = "portable"

    def __post_init__(self) -> None:
        _check.one_of("export", "form", self.form, lowering.FORMS)
        if self.opset not in OPSETS:
            raise ValueError(f"export: expected an opset from {OPSETS[0]} to {OPSETS[-1]}, got {self.opset}.")

    @property
    def traced_size(self) -> Size:
        return self.size or TRACED_SIZE


def export(network: DeployedNetwork, options: Options, metadata: Mapping[str, Any] | None = None) -> Any:
    """Export a network to ONNX, with an output of labels and one of logits.

    Args:
        network: in evaluation mode; ``find_logits`` was called.
        options: how.
        metadata: JSON values to be kept in the file, beside what its resizes do.

    Returns:
        An ``onnx.ModelProto``: input ``image``, outputs ``labels`` and ``logits``.

    Raises:
        ExportError: resizes depend on the size of the input and none is given, or PyTorch cannot export the network.
        ModuleNotFoundError: onnx or onnxscript are missing.
    """
    onnx = requires.package("onnx", "export")
    requires.package("onnxscript", "export")
    if not hasattr(getattr(torch.export, "Dim", None), "DYNAMIC"):
        raise ExportError(
            f"export: expected a torch with torch.export.Dim.DYNAMIC, for open sizes, got {torch.__version__}. "
            f"Install a newer one."
        )
    _refuse_open_sizes(network.network, options)
    try:
        modules = dict(network.network.named_modules())
        resizes = [_described(r, modules.get(r.path)) for r in _resizes(network, options.traced_size) if r.maps]
        program = _traced(network, options)
        _refuse_conditions(program, options)
        with _quiet():
            lowered = program.run_decompositions(lowering.table(options.form))
            exported = torch.onnx.export(
                lowered,
                (),
                None,
                dynamo=True,
                opset_version=max(options.opset, 18),
                input_names=["image"],
                output_names=["labels", "logits"],
                verbose=False,
            )
    except ExportError:
        raise
    except Exception as error:  # whatever PyTorch raises of a network that it cannot trace
        at = "for any size" if options.size is None else f"at {options.size[0]}x{options.size[1]}"
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
        reason = re.sub(r"<([\w.]+) object at 0x\w+>", r"\1", reason)
        if "specialized it to be a constant" in str(error):
            reason = "in Python, it makes a number of the size of its image"
        raise ExportError(
            f"export: {type(network.network).__name__} cannot be exported {at} ({type(error).__name__}: {reason:.300})."
            + (" Give a size: it may work for one." if options.size is None else "")
        ) from error
    model: Any = exported.model_proto  # type: ignore[union-attr]
    _name_sizes(model, options)
    leave_out_defaults(model)
    if options.opset == 17:
        lower_to_17(model)
    describe(model, {**(metadata or {}), "resizes": resizes})
    onnx.checker.check_model(model, full_check=True)
    return model


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def _refuse_open_sizes(network: nn.Module, options: Options) -> None:
    policy: Any = network.__dict__.get("resize_policy")
    if policy is None or options.size is not None:
        return
    if policy.pad is not None:
        raise ExportError(
            f"export: the policy pads images (pad={policy.pad!r}) by amounts that depend on their size. Give a size."
        )
    if policy.size_dependent:
        sites = ", ".join(f"{path or 'the network'}, resize {call}" for path, call in policy.size_dependent)
        raise ExportError(f"export: exact maps depend on the size of the input at {sites}. Give a size.")


def _resizes(network: DeployedNetwork, size: Size) -> list[Resize]:
    copied = FakeCopy(network.network)
    return copied.run(lambda fake: follow(fake, size, until=network.output)).trace.resizes


def _described(resize: Resize, owner: nn.Module | None) -> dict[str, Any]:
    """Say what every runtime has to do at a site."""
    coordinates: Any = _COORDINATES.get(resize.mode)
    if resize.mode not in CORNERLESS:
        coordinates = "align_corners" if resize.align_corners else "half_pixel"
        named = axis_maps(coordinates, resize.source_size, resize.size)
        if resize.align_corners is None or not all(
            a.is_close(b, 1e-9) for a, b in zip(named, resize.maps, strict=True)
        ):
            coordinates = [[m.scale, m.offset] for m in resize.maps]
    return {
        "path": resize.path,
        "call": resize.call,
        "mode": "attention" if getattr(owner, "attends", False) else resize.mode,
        "coordinates": coordinates,
        "source_size": list(resize.source_size),
        "size": list(resize.size),
    }


def _traced(network: DeployedNetwork, options: Options) -> torch.export.ExportedProgram:
    open_ = torch.export.Dim.DYNAMIC
    # Of one image and of two, tracers take the first for a number that is always 1.
    image = torch.zeros(1 if options.size else 2, network.channels, *options.traced_size)
    shapes = None if options.size else ({0: open_, 2: open_, 3: open_},)
    with torch.no_grad(), _quiet(), _whole_factors_kept(), _SizesForFactors():
        return torch.export.export(network, (image,), dynamic_shapes=shapes, strict=False)


class _SizesForFactors(TorchFunctionMode):
    """Resizes by whole factors as resizes to a size: PyTorch makes a number of an open size times a factor."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return _to_a_size(*args, **kwargs) if func is F.interpolate else func(*args, **kwargs)


def _to_a_size(input: Tensor, size: Any = None, scale_factor: Any = None, *rest: Any, **named: Any) -> Tensor:
    factors = scale_factor if isinstance(scale_factor, Sequence) else (scale_factor,) * (input.ndim - 2)
    if scale_factor is not None and all(float(f).is_integer() for f in factors):
        size = [n * int(f) for n, f in zip(input.shape[2:], factors, strict=True)]
        scale_factor = None
        named.pop("recompute_scale_factor", None)
        rest = rest[:2]  # mode and flag; what follows is that one, and antialias
    return F.interpolate(input, size, scale_factor, *rest, **named)


@contextmanager
def _whole_factors_kept() -> Iterator[None]:
    """Let mmseg's ``Upsample`` (of HRNet, UNet) pass its factor on to ``F.interpolate``, where it is whole.

    It computes the size in Python, which makes a number of an open one.
    """
    wrappers: Any = sys.modules.get("mmseg.models.utils.wrappers")
    if wrappers is None:
        yield
        return
    forward = wrappers.Upsample.forward

    def by_factor(self: Any, x: Tensor) -> Tensor:
        if self.size or not float(self.scale_factor).is_integer():
            return forward(self, x)
        return wrappers.resize(x, None, self.scale_factor, self.mode, self.align_corners)

    wrappers.Upsample.forward = by_factor
    try:
        yield
    finally:
        wrappers.Upsample.forward = forward


def _refuse_conditions(program: torch.export.ExportedProgram, options: Options) -> None:
    """Refuse a graph for every size that took a branch by what a size equals or divides: ONNX has no such conditions.

    Other conditions that PyTorch notes decide nothing, such as which of two sizes is larger, or whether they are equal.
    ``parity`` sees the rest.
    """
    if options.size is not None:
        return
    noted = getattr(program, "_guards_code", None) or ()
    conditions = [each for each in noted if "%" in each or re.search(r"== \d+$", each)]
    for size in sizes_to_compare(options.traced_size, fixed=False):
        names = {"L": {"image": _Sized((2, 3, *size))}, "max": max, "min": min, "math": math, "torch": torch}
        for condition in conditions:
            try:
                holds = eval(condition, {"__builtins__": {}}, names)  # PyTorch's own words, of these sizes alone
            except (NameError, TypeError, AttributeError, SyntaxError, ArithmeticError):
                continue  # a condition on something else
            if not holds:
                raise ExportError(
                    f"export: the network computes otherwise at {size[0]}x{size[1]} than at {options.traced_size[0]}x"
                    f"{options.traced_size[1]}, by what its sizes equal or divide. Give a size."
                )


class _Sized:
    """Stands for a tensor in the conditions of a graph: they ask for its size."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape

    def size(self) -> tuple[int, ...]:
        return self._shape


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep exporters from telling of packages that are not needed."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(before)


def _name_sizes(model: Any, options: Options) -> None:
    """Call what is open ``batch``, ``height`` and ``width``."""
    if options.size is not None:
        return
    names = {0: "batch", -2: "height", -1: "width"}
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        for index, name in names.items():
            dims[index].dim_param = name
