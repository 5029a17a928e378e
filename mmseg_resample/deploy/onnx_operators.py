"""What each ONNX operator does to tensors that depend on the image, in PyTorch's words. One function per operator.

A function takes a ``Call`` and returns the node's outputs, one tensor or several. It raises ``NotImplementedError``,
with the reason, for what it cannot compute as ONNX has it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .onnx_resize import ResizeOptions, onnx_resize

Value = Tensor | np.ndarray
"""A tensor that depends on the image, or an array that is known beforehand."""


@dataclass(frozen=True)
class Call:
    """One node and its inputs.

    Args:
        op: type of the operator.
        version: of the opset that the node is from.
        attributes: by name.
        inputs: None where one is left out.
        outputs: number of outputs.
    """

    op: str
    version: int
    attributes: dict[str, Any]
    inputs: tuple[Value | None, ...]
    outputs: int = 1

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def has(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] is not None

    def tensor(self, index: int) -> Tensor:
        """Return an input as a tensor."""
        return as_tensor(self.inputs[index])

    def tensors(self) -> list[Tensor]:
        return [as_tensor(value) for value in self.inputs if value is not None]

    def known(self, index: int, what: str) -> np.ndarray:
        """Return an input that has to be known before the network runs."""
        value = self.inputs[index]
        if not isinstance(value, np.ndarray):
            raise NotImplementedError(f"{what} that depend on the image")
        return value

    def numbers(self, index: int, name: str) -> list[int] | None:
        """Return whole numbers that are an attribute in old versions and an input in new ones; None without."""
        if name in self.attributes:
            value = self.attributes[name]
            return [int(n) for n in (value if isinstance(value, (list, tuple)) else [value])]
        if not self.has(index):
            return None
        return [int(n) for n in np.atleast_1d(self.known(index, name))]


Operator = Callable[[Call], Any]
OPERATORS: dict[str, Operator] = {}
"""Type of the operator to what computes it."""


def as_tensor(value: Any) -> Tensor:
    """Return a value as a tensor: an array shares its memory."""
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    return torch.from_numpy(array if array.flags.writeable and array.flags.c_contiguous else array.copy())


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Register a function for operators of these types."""

    def register(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


# --- element by element -----------------------------------------------------------------------------------------------

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    **{
        name: getattr(torch, name.lower())
        for name in ("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp")
    },
    **{
        name: getattr(torch, name.lower()) for name in ("Floor", "Log", "Neg", "Reciprocal", "Round", "Sigmoid", "Sign")
    },
    **{name: getattr(torch, name.lower()) for name in ("Sin", "Sinh", "Sqrt", "Tan", "Tanh", "IsNaN", "Relu")},
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Not": torch.logical_not,
    "BitwiseNot": torch.bitwise_not,
    "HardSwish": F.hardswish,
    "Mish": F.mish,
    "Identity": lambda x: x,
}
for _name, _function in _UNARY.items():
    OPERATORS[_name] = lambda call, function=_function: function(call.tensor(0))  # type: ignore[misc]

_ACTIVATIONS: dict[str, Callable[[Tensor, Call], Tensor]] = {
    "LeakyRelu": lambda x, call: F.leaky_relu(x, call.get("alpha", 0.01)),
    "Elu": lambda x, call: F.elu(x, call.get("alpha", 1.0)),
    "Celu": lambda x, call: F.celu(x, call.get("alpha", 1.0)),
    "Gelu": lambda x, call: F.gelu(x, approximate=call.get("approximate", "none")),
    "Swish": lambda x, call: x * torch.sigmoid(call.get("alpha", 1.0) * x),
    "ThresholdedRelu": lambda x, call: torch.where(x > call.get("alpha", 1.0), x, torch.zeros_like(x)),
    "HardSigmoid": lambda x, call: (call.get("alpha", 0.2) * x + call.get("beta", 0.5)).clamp(0, 1),
    "Shrink": lambda x, call: torch.where(
        x < -call.get("lambd", 0.5),
        x + call.get("bias", 0.0),
        torch.where(x > call.get("lambd", 0.5), x - call.get("bias", 0.0), torch.zeros_like(x)),
    ),
    "Selu": lambda x, call: (
        call.get("gamma", 1.05070102214813232421875)
        * torch.where(x > 0, x, call.get("alpha", 1.67326319217681884765625) * torch.expm1(x))
    ),
}
for _name, _activation in _ACTIVATIONS.items():
    OPERATORS[_name] = lambda call, function=_activation: function(call.tensor(0), call)  # type: ignore[misc]

_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}
for _name, _pair in _BINARY.items():
    OPERATORS[_name] = lambda call, function=_pair: function(call.tensor(0), call.tensor(1))  # type: ignore[misc]


@operator("Div")
def divide(call: Call) -> Tensor:
    a, b = call.tensor(0), call.tensor(1)
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@operator("Pow")
def power(call: Call) -> Tensor:
    a, b = call.inputs[0], call.inputs[1]
    base = as_tensor(a)
    if isinstance(b, np.ndarray) and b.size == 1 and b.ndim == 0:
        return torch.pow(base, b.item()).to(base.dtype)
    return torch.pow(base, as_tensor(b)).to(base.dtype)


@operator("Mod")
def modulo(call: Call) -> Tensor:
    a, b = call.tensor(0), call.tensor(1)
    return torch.fmod(a, b) if call.get("fmod", 0) else torch.remainder(a, b)


@operator("Min", "Max", "Sum", "Mean")
def combine(call: Call) -> Tensor:
    first, *others = call.tensors()
    function = {"Min": torch.minimum, "Max": torch.maximum}.get(call.op, torch.add)
    for other in others:
        first = function(first, other)
    return first / call.tensor(0).new_tensor(1 + len(others)) if call.op == "Mean" and others else first


@operator("Where")
def where(call: Call) -> Tensor:
    return torch.where(call.tensor(0), call.tensor(1), call.tensor(2))


@operator("PRelu")
def prelu(call: Call) -> Tensor:
    x = call.tensor(0)
    return torch.where(x < 0, x * call.tensor(1), x)


@operator("Clip")
def clip(call: Call) -> Tensor:
    low, high = call.get("min"), call.get("max")
    if call.version >= 11:
        low, high = (call.known(i, "bounds").item() if call.has(i) else None for i in (1, 2))
    if low is None and high is None:
        return call.tensor(0)
    return torch.clamp(call.tensor(0), low, high)


@operator("IsInf")
def is_inf(call: Call) -> Tensor:
    x = call.tensor(0)
    found = torch.isinf(x)
    if not call.get("detect_negative", 1):
        found = found & (x > 0)
    return found if call.get("detect_positive", 1) else found & (x < 0)


@operator("Cast", "CastLike")
def cast(call: Call) -> Tensor:
    x = call.tensor(0)
    return x.to(call.tensor(1).dtype if call.op == "CastLike" else torch_dtype(call.get("to")))


def torch_dtype(number: int) -> torch.dtype:
    """Return the dtype that ONNX has under a number."""
    if number == 16:
        return torch.bfloat16
    from onnx.helper import tensor_dtype_to_np_dtype

    dtype = tensor_dtype_to_np_dtype(number)
    try:
        return torch.from_numpy(np.zeros(0, dtype)).dtype
    except TypeError as error:
        raise NotImplementedError(f"the dtype {dtype}") from error


@operator("Dropout")
def dropout(call: Call) -> Any:
    x = call.tensor(0)
    return (x, torch.ones_like(x, dtype=torch.bool)) if call.outputs > 1 else x


@operator("QuantizeLinear")
def quantize(call: Call) -> Tensor:
    x = call.tensor(0)
    scale, zero = (_along(call, i, x) for i in (1, 2))
    dtype = zero.dtype if zero is not None else torch.uint8
    limits = torch.iinfo(dtype)
    assert scale is not None
    whole = torch.round(x / scale) + (0 if zero is None else zero.to(x.dtype))
    return whole.clamp(limits.min, limits.max).to(dtype)


@operator("DequantizeLinear")
def dequantize(call: Call) -> Tensor:
    x = call.tensor(0)
    scale, zero = (_along(call, i, x) for i in (1, 2))
    assert scale is not None
    return (x.to(scale.dtype) - (0 if zero is None else zero.to(scale.dtype))) * scale


def _along(call: Call, index: int, x: Tensor) -> Tensor | None:
    """Return a scale or zero point of each channel such that it broadcasts."""
    if not call.has(index):
        return None
    if call.get("block_size", 0):
        raise NotImplementedError("quantisation in blocks")
    value = call.tensor(index)
    axis = call.get("axis", 1) % max(x.ndim, 1)
    return (
        value.reshape([-1 if d == axis else 1 for d in range(x.ndim)]) if value.ndim == 1 and len(value) > 1 else value
    )


# --- normalisations ---------------------------------------------------------------------------------------------------


@operator("BatchNormalization")
def batch_norm(call: Call) -> Tensor:
    if call.get("training_mode", 0) or call.outputs > 1:
        raise NotImplementedError("batch normalisation in training mode")
    x, weight, bias, mean, var = (call.tensor(i) for i in range(5))
    return F.batch_norm(x, mean, var, weight, bias, False, 0.0, call.get("epsilon", 1e-5))


@operator("InstanceNormalization")
def instance_norm(call: Call) -> Tensor:
    x = call.tensor(0)
    return F.group_norm(x, x.shape[1], call.tensor(1), call.tensor(2), call.get("epsilon", 1e-5))


@operator("GroupNormalization")
def group_norm(call: Call) -> Tensor:
    x, groups = call.tensor(0), call.get("num_groups")
    weight, bias = call.tensor(1), call.tensor(2)
    if call.version < 21 and len(weight) != x.shape[1]:
        weight, bias = (each.repeat_interleave(x.shape[1] // groups) for each in (weight, bias))
    return F.group_norm(x, groups, weight, bias, call.get("epsilon", 1e-5))


@operator("LayerNormalization")
def layer_norm(call: Call) -> Tensor:
    if call.outputs > 1:
        raise NotImplementedError("statistics of a layer normalisation")
    x = call.tensor(0)
    shape = x.shape[call.get("axis", -1) % x.ndim :]
    weight = call.tensor(1).expand(shape)
    return F.layer_norm(
        x, shape, weight, call.tensor(2).expand(shape) if call.has(2) else None, call.get("epsilon", 1e-5)
    )


@operator("LpNormalization")
def lp_norm(call: Call) -> Tensor:
    x, axis = call.tensor(0), call.get("axis", -1)
    return x / torch.linalg.vector_norm(x, ord=call.get("p", 2), dim=axis, keepdim=True)


@operator("LRN")
def local_response_norm(call: Call) -> Tensor:
    return F.local_response_norm(
        call.tensor(0), call.get("size"), call.get("alpha", 1e-4), call.get("beta", 0.75), call.get("bias", 1.0)
    )


@operator("Softmax", "LogSoftmax", "Hardmax")
def softmax(call: Call) -> Tensor:
    x = call.tensor(0)
    axis = call.get("axis", -1 if call.version >= 13 else 1) % max(x.ndim, 1)
    if call.op == "Hardmax":
        raise NotImplementedError("hardmax")
    function = torch.softmax if call.op == "Softmax" else torch.log_softmax
    if call.version >= 13 or math.prod(x.shape[axis + 1 :]) == 1:
        return function(x, axis)
    flat = x.reshape(math.prod(x.shape[:axis]), -1)  # all axes from this one on are one
    return function(flat, 1).reshape(x.shape)


# --- shapes -----------------------------------------------------------------------------------------------------------


@operator("Reshape")
def reshape(call: Call) -> Tensor:
    x = call.tensor(0)
    shape = call.numbers(1, "shape") or []
    if not call.get("allowzero", 0):
        shape = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    return x.reshape(shape)


@operator("Flatten")
def flatten(call: Call) -> Tensor:
    x, axis = call.tensor(0), call.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Transpose")
def transpose(call: Call) -> Tensor:
    x = call.tensor(0)
    return x.permute(call.get("perm") or list(range(x.ndim))[::-1])


@operator("Squeeze")
def squeeze(call: Call) -> Tensor:
    x, axes = call.tensor(0), call.numbers(1, "axes")
    which = [i for i, n in enumerate(x.shape) if n == 1] if axes is None else [axis % x.ndim for axis in axes]
    for axis in sorted(which, reverse=True):
        x = x.squeeze(axis)
    return x


@operator("Unsqueeze")
def unsqueeze(call: Call) -> Tensor:
    x, axes = call.tensor(0), call.numbers(1, "axes") or []
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operator("Expand")
def expand(call: Call) -> Tensor:
    x = call.tensor(0)
    return x.expand(torch.broadcast_shapes(x.shape, call.numbers(1, "shape") or []))


@operator("Tile")
def tile(call: Call) -> Tensor:
    return call.tensor(0).repeat(call.numbers(1, "repeats") or [])


@operator("Concat")
def concat(call: Call) -> Tensor:
    return torch.cat(call.tensors(), call.get("axis"))


@operator("Split")
def split(call: Call) -> tuple[Tensor, ...]:
    x, axis = call.tensor(0), call.get("axis", 0)
    sizes = call.numbers(1, "split")
    if sizes is None:
        size = -(-x.shape[axis] // call.outputs)
        sizes = [size] * (call.outputs - 1) + [x.shape[axis] - size * (call.outputs - 1)]
    return torch.split(x, sizes, axis)


@operator("Slice")
def slice_(call: Call) -> Tensor:
    x = call.tensor(0)
    starts, ends = call.numbers(1, "starts") or [], call.numbers(2, "ends") or []
    axes = call.numbers(3, "axes") or list(range(len(starts)))
    steps = call.numbers(4, "steps") or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis %= x.ndim
        begin, stop, by = slice(start, None if step < 0 and end < -x.shape[axis] else end, step).indices(x.shape[axis])
        count = len(range(begin, stop, by))
        if by > 0:
            x = x[(slice(None),) * axis + (slice(begin, begin + count * by if count else begin, by),)]
            continue
        last = begin + (count - 1) * by
        x = x[(slice(None),) * axis + (slice(last, begin + 1),)] if count else x.narrow(axis, 0, 0)
        x = x.flip(axis)
        if by < -1:
            x = x[(slice(None),) * axis + (slice(None, None, -by),)]
    return x


@operator("Pad")
def pad(call: Call) -> Tensor:
    x = call.tensor(0)
    mode = call.get("mode", "constant")
    amounts = call.numbers(1, "pads") or []
    axes = call.numbers(3, "axes") or list(range(x.ndim))
    value = call.get("value", 0.0)
    if call.version >= 11 and call.has(2):
        value = call.known(2, "values").item()
    before, after = [0] * x.ndim, [0] * x.ndim
    for j, axis in enumerate(axes):
        before[axis % x.ndim], after[axis % x.ndim] = amounts[j], amounts[j + len(axes)]
    for axis in range(x.ndim):  # cropped first
        start, stop = max(-before[axis], 0), x.shape[axis] - max(-after[axis], 0)
        if (start, stop) != (0, x.shape[axis]):
            x = x.narrow(axis, start, stop - start)
    before, after = [max(n, 0) for n in before], [max(n, 0) for n in after]
    return padded(x, before, after, mode, value)


def padded(x: Tensor, before: Sequence[int], after: Sequence[int], mode: str, value: float = 0.0) -> Tensor:
    """Pad every axis by ``before`` and ``after``."""
    used = [axis for axis in range(x.ndim) if before[axis] or after[axis]]
    if not used:
        return x
    if mode == "constant":
        pairs = [n for axis in range(x.ndim - 1, min(used) - 1, -1) for n in (before[axis], after[axis])]
        return F.pad(x, pairs, value=value)
    names = {"edge": "replicate", "reflect": "reflect", "wrap": "circular"}
    if mode not in names or (min(used) < 2 and x.ndim < 5) or not 3 <= x.ndim <= 5:
        raise NotImplementedError(f"padding mode {mode!r} of axes {used} of {x.ndim}")
    pairs = [n for axis in range(x.ndim - 1, 1, -1) for n in (before[axis], after[axis])]
    return F.pad(x, pairs, mode=names[mode])


@operator("DepthToSpace")
def depth_to_space(call: Call) -> Tensor:
    x, r = call.tensor(0), call.get("blocksize")
    if call.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, r)
    n, c, h, w = x.shape  # channels are (block, channel): as PyTorch has them after a permutation of channels
    order = x.reshape(n, r, r, c // (r * r), h, w).permute(0, 3, 1, 2, 4, 5).reshape(n, c, h, w)
    return F.pixel_shuffle(order, r)


@operator("SpaceToDepth")
def space_to_depth(call: Call) -> Tensor:
    x, r = call.tensor(0), call.get("blocksize")
    n, c, h, w = x.shape
    out = F.pixel_unshuffle(x, r)
    return out.reshape(n, c, r, r, h // r, w // r).permute(0, 2, 3, 1, 4, 5).reshape(n, c * r * r, h // r, w // r)


# --- indices ----------------------------------------------------------------------------------------------------------


@operator("Gather")
def gather(call: Call) -> Tensor:
    x, axis = call.tensor(0), call.get("axis", 0)
    axis %= x.ndim
    picks = call.inputs[1]
    n = x.shape[axis]
    if isinstance(picks, np.ndarray) and picks.ndim == 0:
        return x.select(axis, int(picks) % n)
    index = as_tensor(picks).long()
    index = torch.where(index < 0, index + n, index)
    out = x.index_select(axis, index.reshape(-1))
    return out if index.ndim == 1 else out.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


@operator("GatherElements")
def gather_elements(call: Call) -> Tensor:
    x, axis, index = call.tensor(0), call.get("axis", 0), call.tensor(1).long()
    index = torch.where(index < 0, index + x.shape[axis], index)
    narrowed = x
    for d, size in enumerate(index.shape):
        if d != axis % x.ndim and size < x.shape[d]:
            narrowed = narrowed.narrow(d, 0, size)
    return torch.gather(narrowed, axis, index)


@operator("GatherND")
def gather_nd(call: Call) -> Tensor:
    x, index, batch = call.tensor(0), call.tensor(1).long(), call.get("batch_dims", 0)
    if batch:
        raise NotImplementedError("batch_dims of GatherND")
    return x[tuple(index.unbind(-1))]


@operator("ScatterND")
def scatter_nd(call: Call) -> Tensor:
    if call.get("reduction", "none") != "none":
        raise NotImplementedError("a reduction of ScatterND")
    out, index = call.tensor(0).clone(), call.tensor(1).long()
    out[tuple(index.unbind(-1))] = call.tensor(2)
    return out


@operator("ScatterElements", "Scatter")
def scatter_elements(call: Call) -> Tensor:
    if call.get("reduction", "none") != "none":
        raise NotImplementedError("a reduction of ScatterElements")
    x, axis, index = call.tensor(0), call.get("axis", 0), call.tensor(1).long()
    return torch.scatter(x, axis, torch.where(index < 0, index + x.shape[axis], index), call.tensor(2))


@operator("TopK")
def top_k(call: Call) -> tuple[Tensor, Tensor]:
    k = call.numbers(1, "k")
    assert k is not None
    return tuple(torch.topk(call.tensor(0), k[0], call.get("axis", -1), bool(call.get("largest", 1))))  # type: ignore[return-value]


@operator("CumSum")
def cumulative_sum(call: Call) -> Tensor:
    if call.get("exclusive", 0) or call.get("reverse", 0):
        raise NotImplementedError("an exclusive or reversed sum")
    return torch.cumsum(call.tensor(0), int(call.known(1, "axes").item()))


@operator("OneHot")
def one_hot(call: Call) -> Tensor:
    depth = int(call.known(1, "depths").item())
    off, on = call.known(2, "values")
    index = call.tensor(0).long()
    axis = call.get("axis", -1) % (index.ndim + 1)
    hot = torch.arange(depth).reshape([-1 if d == axis else 1 for d in range(index.ndim + 1)]) == torch.remainder(
        index, depth
    ).unsqueeze(axis)
    return torch.where(hot, as_tensor(on), as_tensor(off))


@operator("Trilu")
def trilu(call: Call) -> Tensor:
    k = int(call.known(1, "diagonals").item()) if call.has(1) else 0
    return torch.triu(call.tensor(0), k) if call.get("upper", 1) else torch.tril(call.tensor(0), k)


# --- reductions and products ------------------------------------------------------------------------------------------

_REDUCTIONS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep),
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keep),
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep),
    "ReduceSumSquare": lambda x, axes, keep: (x * x).sum(axes, keep),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
}


@operator(*_REDUCTIONS)
def reduce(call: Call) -> Tensor:
    x, axes = call.tensor(0), call.numbers(1, "axes")
    if not axes:
        if call.get("noop_with_empty_axes", 0):
            return x
        axes = list(range(x.ndim))
    out = _REDUCTIONS[call.op](x, axes, bool(call.get("keepdims", 1)))
    return out if x.is_floating_point() else out.to(x.dtype)


@operator("ReduceProd")
def reduce_product(call: Call) -> Tensor:
    x, axes = call.tensor(0), call.numbers(1, "axes")
    keep = bool(call.get("keepdims", 1))
    for axis in sorted((axis % x.ndim for axis in axes or range(x.ndim)), reverse=True):
        x = x.prod(axis, keep)
    return x


@operator("ArgMax", "ArgMin")
def arg_extreme(call: Call) -> Tensor:
    x, axis, keep = call.tensor(0), call.get("axis", 0), bool(call.get("keepdims", 1))
    function = torch.argmax if call.op == "ArgMax" else torch.argmin
    if call.get("select_last_index", 0):
        return x.shape[axis] - 1 - function(x.flip(axis), axis, keep)
    return function(x, axis, keep)


@operator("MatMul")
def matmul(call: Call) -> Tensor:
    return torch.matmul(call.tensor(0), call.tensor(1))


@operator("Gemm")
def gemm(call: Call) -> Tensor:
    a, b = call.tensor(0), call.tensor(1)
    a, b = (a.t() if call.get("transA", 0) else a), (b.t() if call.get("transB", 0) else b)
    out = torch.mm(a, b)
    if call.get("alpha", 1.0) != 1:
        out = out * call.get("alpha")
    if not call.has(2) or call.get("beta", 1.0) == 0:
        return out
    return out + call.tensor(2) * call.get("beta", 1.0)


@operator("Einsum")
def einsum(call: Call) -> Tensor:
    return torch.einsum(call.get("equation"), call.tensors())


# --- windows ----------------------------------------------------------------------------------------------------------


def _amounts(call: Call, sizes: Sequence[int], extents: Sequence[int], strides: Sequence[int]) -> tuple[Any, Any]:
    """Return the padding of windows that span ``extents``: before and behind each axis."""
    axes, auto = len(sizes), call.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [max((-(-n // s) - 1) * s + e - n, 0) for n, e, s in zip(sizes, extents, strides, strict=True)]
        small, large = [n // 2 for n in total], [n - n // 2 for n in total]
        return (small, large) if auto == "SAME_UPPER" else (large, small)
    pads = [0] * (2 * axes) if auto == "VALID" else list(call.get("pads") or [0] * (2 * axes))
    return pads[:axes], pads[axes:]


def _bias(call: Call) -> Tensor | None:
    return call.tensor(2) if call.has(2) else None


@operator("Conv")
def convolution(call: Call) -> Tensor:
    x, weight = call.tensor(0), call.tensor(1)
    axes = x.ndim - 2
    strides, dilations = call.get("strides") or [1] * axes, call.get("dilations") or [1] * axes
    extents = [d * (k - 1) + 1 for d, k in zip(dilations, weight.shape[2:], strict=True)]
    before, after = _amounts(call, x.shape[2:], extents, strides)
    if before != after:
        x, before = padded(x, [0, 0, *before], [0, 0, *after], "constant"), [0] * axes
    function = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    return function(x, weight, _bias(call), strides, before, dilations, call.get("group", 1))


@operator("ConvTranspose")
def transposed_convolution(call: Call) -> Tensor:
    x, weight = call.tensor(0), call.tensor(1)
    axes = x.ndim - 2
    strides, dilations = call.get("strides") or [1] * axes, call.get("dilations") or [1] * axes
    more = call.get("output_padding") or [0] * axes
    kernel = weight.shape[2:]
    whole = [
        s * (n - 1) + m + d * (k - 1) + 1
        for s, n, m, d, k in zip(strides, x.shape[2:], more, dilations, kernel, strict=True)
    ]
    auto = call.get("auto_pad", "NOTSET")
    wanted = call.get("output_shape")
    if wanted is None and auto.startswith("SAME"):
        wanted = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    if wanted is not None:
        total = [size - out for size, out in zip(whole, wanted[-axes:], strict=True)]
        if min(total) < 0:
            raise NotImplementedError(f"output_shape {wanted}, larger than the windows reach")
        half, rest = [n // 2 for n in total], [n - n // 2 for n in total]
        before, after = (half, rest) if auto == "SAME_UPPER" else (rest, half)
    else:
        pads = call.get("pads") or [0] * (2 * axes)
        before, after = pads[:axes], pads[axes:]
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
    groups = call.get("group", 1)
    # PyTorch pads both sides alike; what it writes more behind is `more`.
    extra = [b - a + m for a, b, m in zip(after, before, more, strict=True)]
    if all(0 <= e < max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        return function(x, weight, _bias(call), strides, list(before), extra, groups, dilations)
    out = function(x, weight, _bias(call), strides, [0] * axes, list(more), groups, dilations)
    for axis in range(axes):
        out = out.narrow(2 + axis, before[axis], whole[axis] - before[axis] - after[axis])
    return out


@operator("MaxPool", "AveragePool", "LpPool")
def pool(call: Call) -> Tensor:
    if call.op == "LpPool" or call.outputs > 1:
        raise NotImplementedError("indices of a pooling" if call.outputs > 1 else "LpPool")
    x, kernel = call.tensor(0), call.get("kernel_shape")
    axes = len(kernel)
    strides, dilations = call.get("strides") or [1] * axes, call.get("dilations") or [1] * axes
    extents = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    before, after = _amounts(call, x.shape[2:], extents, strides)
    ceil = bool(call.get("ceil_mode", 0))
    fits = before == after and all(2 * p <= k for p, k in zip(before, kernel, strict=True))
    if call.op == "MaxPool":
        function = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1]
        if fits:
            return function(x, kernel, strides, before, dilations, ceil)
        low = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
        x = padded(x, [0, 0, *before], [0, 0, *_reached(x, extents, strides, before, after, ceil)], "constant", low)
        return function(x, kernel, strides, 0, dilations)
    if any(d != 1 for d in dilations):
        raise NotImplementedError("dilations of an average")
    average: Callable[..., Tensor] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]
    included = bool(call.get("count_include_pad", 0))
    if fits and not ceil:
        return average(x, kernel, strides, before, False, included)
    reached = _reached(x, extents, strides, before, after, ceil)
    # What is averaged: samples, and padding if that counts, but never what only windows reach that are one too many.
    counted = torch.ones([1, 1, *x.shape[2:]], dtype=x.dtype)
    counted = padded(counted, [0, 0, *before], [0, 0, *after], "constant", 1.0 if included else 0.0)
    rest = [r - a for r, a in zip(reached, after, strict=True)]
    counted = F.pad(counted, [n for r in reversed(rest) for n in (0, r)])
    x = padded(x, [0, 0, *before], [0, 0, *after], "constant")
    x = F.pad(x, [n for r in reversed(rest) for n in (0, r)]) if any(rest) else x
    sums = average(x, kernel, strides)
    share = average(counted, kernel, strides)
    return sums / share


def _reached(
    x: Tensor, extents: Sequence[int], strides: Sequence[int], before: Sequence[int], after: Sequence[int], ceil: bool
) -> list[int]:
    """Return the padding behind each axis up to which the last window reaches."""
    found = []
    for n, e, s, b, a in zip(x.shape[2:], extents, strides, before, after, strict=True):
        free = n + b + a - e
        count = (-(-free // s) if ceil else free // s) + 1
        if ceil and (count - 1) * s >= n + b:  # a window of padding alone is none
            count -= 1
        found.append((count - 1) * s + e - n - b)
    return found


@operator("GlobalAveragePool", "GlobalMaxPool")
def global_pool(call: Call) -> Tensor:
    x = call.tensor(0)
    axes = list(range(2, x.ndim))
    return x.mean(axes, True) if call.op == "GlobalAveragePool" else x.amax(axes, True)


@operator("GridSample")
def grid_sample(call: Call) -> Tensor:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(call.get("mode", "linear"), call.get("mode", "linear"))
    padding = call.get("padding_mode", "zeros")
    return F.grid_sample(call.tensor(0), call.tensor(1), mode, padding, bool(call.get("align_corners", 0)))


@operator("AffineGrid")
def affine_grid(call: Call) -> Tensor:
    size = call.numbers(1, "size") or []
    return F.affine_grid(call.tensor(0), size, bool(call.get("align_corners", 0)))


# --- resizes ----------------------------------------------------------------------------------------------------------


@operator("Resize", "Upsample")
def resize(call: Call) -> Tensor:
    options = ResizeOptions.of(call.attributes, 9 if call.op == "Upsample" else call.version)
    if call.op == "Upsample" or call.version < 11:
        scales = call.get("scales")
        scales = call.known(1, "scales") if scales is None else np.asarray(scales, np.float32)
        return onnx_resize(call.tensor(0), options, scales=scales)
    roi, scales, sizes = (
        call.known(i, what) if call.has(i) else None for i, what in enumerate(("regions", "scales", "sizes"), 1)
    )
    roi, scales, sizes = (None if value is None or not value.size else value for value in (roi, scales, sizes))
    return onnx_resize(call.tensor(0), options, roi, scales, sizes)
