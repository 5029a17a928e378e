"""Argument checks shared by the public ops, and the wording of their errors: ``op: expected X, got Y`` and the fix.

Checks of what is installed are made ``once``. ``opaque`` and ``constant`` tell compilers what to look into.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import wrap_torch_function
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..suggest import did_you_mean

_Function = TypeVar("_Function", bound=Callable[..., Any])

is_compiling = getattr(torch.compiler, "is_compiling", lambda: False)  # there from torch 2.2 on

# `torch.compiler.disable`, but the compiler, which takes a second, is imported with the first call. Optimizers have it.
opaque: Any = torch._disable_dynamo

# Modes and subclasses of tensors see a call of such an op as one call of it, as they see those of `F.interpolate`.
overridable: Callable[[_Function], _Function] = wrap_torch_function(  # type: ignore[assignment]
    lambda *args, **kwargs: (*args, *kwargs.values())
)


def opaque_before(version: str) -> Callable[[_Function], _Function]:
    """Return ``opaque`` for older versions of torch, and what changes nothing for others."""
    return opaque if torch.__version__ < version else lambda function: function


def one_of(op: str, name: str, value: Any, names: tuple[str, ...]) -> None:
    """Raise ValueError unless ``value`` is among ``names``: no Literal type, which torch 2.6 cannot compile."""
    if value not in names:
        raise ValueError(
            f"{op}: expected {name} to be one of {', '.join(map(repr, names))}, got {value!r}."
            f"{did_you_mean(str(value), names)}"
        )


def per_axis(op: str, name: str, value: Any, axes: int) -> tuple[Any, ...]:
    """Return ``value`` once per spatial axis: a scalar is repeated, a sequence must have the right length."""
    if (isinstance(value, Tensor) and value.ndim == 0) or not isinstance(value, Iterable):
        return (value,) * axes
    values = tuple(value)
    if len(values) != axes:
        raise ValueError(
            f"{op}: expected {name} to be one number or {axes} of them, one per spatial axis, "
            f"got {len(values)}: {values}. An input of {axes + 2} dimensions has {axes} spatial axes."
        )
    return values


def spatial_size(op: str, name: str, value: Any, axes: int) -> tuple[int, ...]:
    """Return ``value`` as one whole number >= 1 per spatial axis. Symbolic and traced sizes pass as they are."""
    sizes = per_axis(op, name, value, axes)
    for size in sizes:
        if isinstance(size, (torch.SymInt, Tensor)):
            continue
        if isinstance(size, bool) or not (isinstance(size, int) or hasattr(size, "__index__")):
            raise TypeError(f"{op}: expected {name} in whole pixels, got {value!r}. Use scale_factor for ratios.")
        if size < 1:
            raise ValueError(f"{op}: expected {name} >= 1 along every axis, got {value!r}.")
    return sizes


def are_symbolic(sizes: Iterable[Any]) -> bool:
    """Tell whether some of ``sizes`` are open in the graph that is being traced."""
    return any(isinstance(size, torch.SymInt) for size in sizes)


def floating(op: str, name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise TypeError(f"{op}: expected {name} of a floating dtype, got {tensor.dtype}. Convert it with .float().")


def is_transformed(tensor: Tensor | None) -> bool:
    """Tell whether a transform of ``torch.func``, such as ``grad`` or ``vmap``, follows ``tensor``."""
    if tensor is None or is_compiling():
        return False
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def is_plain(*tensors: Tensor) -> bool:
    """Tell whether nothing follows ``tensors`` but autograd: no compiler, tracer, transform or dispatch mode.

    What is made of such tensors may be kept for the next call, and computed outside of PyTorch.
    """
    if not hasattr(torch.compiler, "is_compiling") or is_compiling() or torch.jit.is_tracing():
        return False
    if any(type(tensor) not in (Tensor, torch.nn.Parameter) or is_transformed(tensor) for tensor in tensors):
        return False
    return _get_current_dispatch_mode() is None


def constant(function: _Function) -> _Function:
    """Mark ``function`` as ``torch.compiler.assume_constant_result`` does, without importing the compiler for it."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def once(function: _Function) -> _Function:
    """Keep the result; a compiler that traces an op calls ``function`` and goes on with the value that it returns."""
    cached = lru_cache(function)

    @constant
    @wraps(function)
    def call(*args: Any) -> Any:
        return cached(*args)

    return call  # type: ignore[return-value]
