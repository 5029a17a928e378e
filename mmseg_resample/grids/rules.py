"""What each aten operator does to positions. One rule per operator; ``track.py`` calls them.

A rule takes ``(tracker, args, out)``: the tracker knows the layouts of tensors, ``args`` are the operator's arguments
by name, ``out`` is its output. It returns the layout of the output, or a list of layouts for several outputs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from ..ops import AxisMap, Coordinates
from ..ops._plan import heeded_factors
from ..ops.grid import SNAP
from .fake import has_values
from .layout import ZERO, Atom, Dim, Layout, Taps, Untrackable, Vector
from .points import Choice, Columns, Numbers

if TYPE_CHECKING:
    from .track import Tracker

Args = dict[str, Any]
Rule = Callable[["Tracker", Args, Any], Any]

_SIMPLE = 1024  # largest denominator of a ratio of sizes
_ROUNDED = 0.1  # of a bin; by less than that its centre may be off

RULES: dict[str, Rule] = {}
"""Operator name without overload, such as ``"aten::convolution"``, to its rule."""

ENDS: set[str] = set()
"""Operators whose output has no position by their nature: constants, sums over all positions."""


def rule(*names: str, ends: bool = False) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for name in names:
            key = name if "::" in name else f"aten::{name}"
            assert key not in RULES, key
            RULES[key] = function
            if ends:
                ENDS.add(key)
        return function

    return register


def _per_axis(value: Any, axes: int) -> list[Any]:
    values = list(value) if isinstance(value, Sequence) else [value]
    return values * axes if len(values) == 1 else values


# --- the same positions -----------------------------------------------------------------------------------------------


@rule(
    *(
        "_safe_softmax",
        "_to_copy",
        "alias",
        "clone",
        "contiguous",
        "detach",
        "dropout",
        "native_dropout",
        "lift_fresh",
        "view_as_real",
    ),
    *(
        "_softmax",
        "_log_softmax",
        "softmax",
        "log_softmax",
        "rrelu_with_noise",
        "_prelu_kernel",
        "hardswish_",
    ),
    *("native_layer_norm", "native_group_norm", "native_batch_norm", "_native_batch_norm_legit_no_training"),
    *("_native_batch_norm_legit", "_native_batch_norm_legit_functional", "_batch_norm_with_update", "cudnn_batch_norm"),
    *("_batch_norm_no_update", "bernoulli_", "bernoulli", "batch_norm", "layer_norm", "group_norm", "normal_"),
    *("_fused_rms_norm", "rms_norm", "nan_to_num", "_conj", "batch_norm_with_update"),
    *("hardswish", "log_sigmoid_forward", "channel_shuffle", "native_channel_shuffle"),
)
def same(t: "Tracker", args: Args, out: Any) -> Layout:
    first = next(value for value in args.values() if isinstance(value, Tensor))
    return t.of(first)


@rule(
    *("empty", "empty_like", "zeros", "zeros_like", "ones", "ones_like", "full", "full_like", "arange", "linspace"),
    *("rand", "randn", "rand_like", "randn_like", "new_empty", "new_zeros", "new_ones", "new_full", "scalar_tensor"),
    *("empty_strided", "new_empty_strided", "eye", "zero_", "fill_", "fill", "one_hot", "tril_indices", "randint"),
    *(
        "embedding",
        "randperm",
        "resize_",
        "set_",
        "_local_scalar_dense",
        "meshgrid",
        "uniform_",
        "equal",
        "tril",
        "triu",
    ),
    ends=True,
)
def no_positions(t: "Tracker", args: Args, out: Any) -> None:
    return None


@rule("scatter_", "scatter")
def scatter(t: "Tracker", args: Args, out: Tensor) -> Layout:
    layout, numbers = t.of(args["self"]), t.points.numbers(args["index"])
    if not isinstance(args.get("src"), Tensor) or not t.of(args["src"]).spatial:
        return layout
    dim = args["dim"] % out.ndim
    chosen = _chosen(layout.dims[dim], numbers)
    if chosen is None:
        raise Untrackable("an index that says where positions go")
    placed = layout.with_dim(dim, chosen)
    t.meet("scatter", [placed, t.of(args["src"])], base=placed)
    return layout


def _chosen(dim: Dim, numbers: Numbers | None) -> Dim | None:
    """Return what of a dimension an index picks that numbers its points; None where it numbers others."""
    if numbers is None or not numbers.counts_points or len(dim.parts) != 1:
        return None
    return replace(dim, choice=numbers.choice) if dim.extent == math.prod(numbers.choice.sizes) else None


@rule("cumsum", "kthvalue", "median", "cummax", "cummin")
def along(t: "Tracker", args: Args, out: Any) -> Any:
    """Forget positions along one dimension, where values decide what goes where or all before it are summed up."""
    first = out[0] if isinstance(out, (list, tuple)) else out
    layout = t.of(args["self"])
    if args.get("dim") is None:  # of all values
        return None
    index = args["dim"] % max(len(layout.dims), 1)
    if layout.dims[index].spatial:
        t.note("values decide what goes where", args["self"])
    kept = first.ndim == len(layout.dims)
    layout = layout.with_dim(index, Dim.plain(first.shape[index] if kept else 1))
    layout = layout if kept else layout.select(index, 0)
    return [layout] * len(out) if isinstance(out, (list, tuple)) else layout


@rule("sort", "topk")
def choose(t: "Tracker", args: Args, out: Sequence[Tensor]) -> list[Layout]:
    layouts: list[Layout] = along(t, args, out)
    dim = t.of(args["self"]).dims[args["dim"]]
    if len(dim.parts) == 1 and dim.spatial and dim.choice is None:
        t.points.choose(out[1], [atom.size for atom in dim.parts[0]], args["dim"])
    return layouts


@rule("copy_", "copy")
def copy_(t: "Tracker", args: Args, out: Tensor) -> Layout:
    return t.of(args["src"]).expand(out.shape)


# --- views ------------------------------------------------------------------------------------------------------------


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten", "view_copy", "_reshape_copy")
def view(t: "Tracker", args: Args, out: Tensor) -> Layout:
    return t.of(args["self"]).reshape(out.shape)


@rule("permute")
def permute(t: "Tracker", args: Args, out: Tensor) -> Layout:
    return t.of(args["self"]).permute([d % out.ndim for d in args["dims"]])


@rule("transpose", "swapaxes", "transpose_", "t", "numpy_T", "mT", "adjoint", "t_")
def transpose(t: "Tracker", args: Args, out: Tensor) -> Layout:
    a, b = (args["dim0"], args["dim1"]) if "dim0" in args else (-1, -2)
    order = list(range(out.ndim))
    if out.ndim > 1:
        order[a], order[b] = order[b], order[a]
    return t.of(args["self"]).permute(order)


@rule("unsqueeze", "unsqueeze_")
def unsqueeze(t: "Tracker", args: Args, out: Tensor) -> Layout:
    return t.of(args["self"]).insert(args["dim"] % out.ndim)


@rule("squeeze", "squeeze_")
def squeeze(t: "Tracker", args: Args, out: Tensor) -> Layout:
    layout = t.of(args["self"])
    which = args.get("dim")
    given = range(len(layout.dims)) if which is None else _per_axis(which, 1)
    dropped = {d % max(len(layout.dims), 1) for d in given if layout.shape and layout.shape[d] == 1}
    for index in sorted(dropped, reverse=True):
        layout = layout.select(index, 0)
    return layout


@rule("expand", "repeat", "expand_as", "broadcast_to", "tile")
def expand(t: "Tracker", args: Args, out: Tensor) -> Layout:
    return t.of(args["self"]).expand(out.shape)


@rule("slice")
def slice_(t: "Tracker", args: Args, out: Tensor) -> Layout:
    layout = t.of(args["self"])
    dim = args["dim"] % out.ndim
    start = 0 if args["start"] is None else int(args["start"])
    stop = layout.shape[dim] if args["end"] is None else min(int(args["end"]), layout.shape[dim])
    return layout.slice(dim, start, stop, int(args["step"]))


@rule("narrow")
def narrow(t: "Tracker", args: Args, out: Tensor) -> Layout:
    return t.of(args["self"]).slice(args["dim"] % out.ndim, args["start"], args["start"] + args["length"], 1)


@rule("select")
def select(t: "Tracker", args: Args, out: Tensor) -> Layout:
    return t.of(args["self"]).select(args["dim"] % (out.ndim + 1), args["index"])


@rule("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk", "unsafe_split_with_sizes", "tensor_split")
def split(t: "Tracker", args: Args, out: Sequence[Tensor]) -> list[Layout]:
    layout, dim, start, pieces = t.of(args["self"]), args["dim"] % out[0].ndim, 0, []
    for piece in out:
        pieces.append(layout.slice(dim, start, start + piece.shape[dim], 1))
        start += piece.shape[dim]
    return pieces


@rule("unbind")
def unbind(t: "Tracker", args: Args, out: Sequence[Tensor]) -> list[Layout]:
    layout, dim = t.of(args["self"]), args["dim"] % (out[0].ndim + 1)
    return [layout.select(dim, i) for i in range(len(out))]


@rule("flip")
def flip(t: "Tracker", args: Args, out: Tensor) -> Layout:
    layout = t.of(args["self"])
    for d in args["dims"]:
        index = d % out.ndim
        dim = layout.dims[index]
        if dim.spatial:
            atom = dim.single("a flip")
            layout = layout.with_dim(index, Dim.of(atom.windows(atom.size, atom.size - 1, -1)))
    return layout


@rule("roll")
def roll(t: "Tracker", args: Args, out: Tensor) -> Layout:
    """Put the wrapped rows a whole axis further on; rolling back, as shifted windows do, restores everything."""
    layout = t.of(args["self"])
    for shift, d in zip(_per_axis(args["shifts"], 1), _per_axis(args["dims"], 1), strict=True):
        index = d % out.ndim
        dim = layout.dims[index]
        if dim.spatial:
            atom = dim.single("a roll")
            layout = layout.with_dim(index, Dim.of(atom.windows(atom.size, -int(shift), 1)))
    return layout


@rule("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d", "pad")
def pad(t: "Tracker", args: Args, out: Tensor) -> Layout:
    layout = t.of(args["self"])
    amounts = args["pad"] if "pad" in args else args["padding"]
    t.pad(args["self"], out, amounts)
    for i in range(len(amounts) // 2):
        index, before = out.ndim - 1 - i, int(amounts[2 * i])
        dim = layout.dims[index]
        if out.shape[index] == dim.size and not before:
            continue
        if not dim.spatial:
            layout = layout.with_dim(index, Dim.plain(out.shape[index]))
            continue
        if len(dim.parts) != 1 or len(dim.parts[0]) != 1:  # tokens
            layout = layout.with_dim(index, _lengthened(dim, before, int(amounts[2 * i + 1])))
            continue
        atom = dim.single("padding")
        layout = layout.with_dim(index, Dim.of(atom.windows(out.shape[index], -before, 1)))
    return layout


def _lengthened(dim: Dim, before: int, after: int) -> Dim:
    """Put tokens without a position before and behind those of ``dim``."""
    dim.refuse_choice("padding")
    if before < 0 or after < 0:
        dim = dim.slice(max(-before, 0), dim.size - max(-after, 0), 1)
    added = [[(Atom(n),)] if n > 0 else [] for n in (before, after)]
    return Dim((*added[0], *dim.parts, *added[1]))


@rule("unfold")
def unfold(t: "Tracker", args: Args, out: Tensor) -> Layout:
    """Cut a dimension into windows of ``size`` elements, as ``Tensor.unfold`` does; these are a new last dimension."""
    layout, index = t.of(args["self"]), args["dimension"] % (out.ndim - 1)
    dim = layout.dims[index]
    windows, window = Dim.plain(out.shape[index]), Dim.plain(out.shape[-1])
    if dim.spatial:
        atom = dim.single("an unfolding")
        windows = Dim.of(atom.windows(windows.size, 0, args["step"], window.size))
        window = Dim.of(_around_zero(window.size, atom.step))
    return layout.with_dims([*layout.dims[:index], windows, *layout.dims[index + 1 :], window])


# --- features that meet -----------------------------------------------------------------------------------------------


@rule("cat", "concat", "hstack", "stack")
def cat(t: "Tracker", args: Args, out: Tensor) -> Layout:
    tensors = [x for x in args["tensors"] if x.numel()]
    if not tensors:
        return Layout.plain(out.shape)
    layouts = [t.of(x) for x in tensors]
    index = args["dim"] % out.ndim
    if len(layouts[0].dims) < out.ndim:  # stack
        layouts = [layout.insert(index) for layout in layouts]
    elif _is_batch(layouts, index):
        return _batch(layouts)
    phases = _phases(layouts, index)
    if phases is not None:
        return layouts[0].evened(layouts).with_dim(index, phases)
    if not any(layout.dims[index].spatial for layout in layouts):
        unsized = [layout.with_dim(index, Dim.plain(1)) for layout in layouts]
        return t.meet("cat", unsized).with_dim(index, Dim.plain(out.shape[index]))
    dims = [layout.dims[index] for layout in layouts]
    for dim in dims:
        dim.refuse_choice("a concatenation")
    base = next(layout for layout in layouts if layout.spatial)
    return base.with_dim(index, _continued(dims) or Dim(tuple(part for dim in dims for part in dim.parts)))


def _is_batch(layouts: Sequence[Layout], index: int) -> bool:
    """Tell whether tensors are put together along their batch axis: the first, where channels are another one."""
    plain = [i for i, dim in enumerate(layouts[0].dims) if not any(layout.dims[i].spatial for layout in layouts)]
    return index == 0 and len(plain) > 1 and 0 in plain and any(layout.spatial for layout in layouts)


def _batch(layouts: Sequence[Layout]) -> Layout:
    """Put images of equal positions into one batch: they do not meet."""
    placed = [layout for layout in layouts if layout.spatial]
    if len(placed) < len(layouts) or any(layout.dims[1:] != placed[0].dims[1:] for layout in placed):
        raise Untrackable("a batch of tensors whose positions differ")
    base = min(placed, key=lambda layout: (sum(layout.native), layout.site is not None))
    return base.with_dim(0, Dim(tuple(part for layout in layouts for part in layout.dims[0].parts)))


def _phases(layouts: Sequence[Layout], index: int) -> Dim | None:
    """Return the channels of the phases of one grid, each apart from the first by less than a step; None elsewhere.

    What ``x[..., 0::2, 0::2]`` and ``x[..., 1::2, 0::2]`` hold lies between each other, and does not meet.
    """
    first = layouts[0]
    if len(layouts) < 2 or any(layout.dims[index].placed or not layout.spatial for layout in layouts):
        return None
    parts: list[tuple[Atom, ...]] = []
    apart = False
    for layout in layouts:
        shift = [0.0, 0.0]
        for dim, own in zip(first.dims, layout.dims, strict=True):
            if dim.spatial or own.spatial:
                try:
                    a, b = dim.single("a phase"), own.single("a phase")
                except Untrackable:
                    return None
                if a.step != b.step:
                    return None
                for axis in (0, 1):
                    shift[axis] += b.origin[axis] - a.origin[axis]
                    if abs(shift[axis]) >= max(abs(a.step[axis]), layout.native[axis]) and a.step[axis]:
                        return None
        finer = all(
            s == 0 or (n > 0 and abs(s / n - round(s / n)) < 1e-6) for s, n in zip(shift, layout.native, strict=True)
        )
        # What came through one resize has no reason to lie apart but its phases.
        if layout.native != first.native or not (finer or layout.site == first.site is not None):
            return None
        apart |= any(abs(s) > 1e-6 for s in shift)
        parts.append((Atom(layout.dims[index].size, ZERO, (shift[0], shift[1])),))
    return Dim(tuple(parts)) if apart else None


def _continued(dims: Sequence[Dim]) -> Dim | None:
    """Return one loop if the pieces of an axis are put together again in their order, else None."""
    try:
        atoms = [dim.single("a piece") for dim in dims]
    except Untrackable:
        return None
    first = atoms[0]
    position = 0
    for atom in atoms:
        if atom.step != first.step or math.dist(atom.origin, first.at(position)) > 1e-6:
            return None
        position += atom.size
    return Dim.of(replace(first, size=position))


def pointwise(t: "Tracker", name: str, args: Args, out: Any) -> Layout:
    """Elementwise arithmetic of broadcast operands."""
    tensors = [x for value in args.values() for x in (value if isinstance(value, (list, tuple)) else [value])]
    layouts = [t.of(x) for x in tensors if isinstance(x, Tensor)]
    first = out[0] if isinstance(out, (list, tuple)) else out
    return t.meet(name, layouts).expand(first.shape)


@rule("index_select", "index", "_unsafe_index")
def index(t: "Tracker", args: Args, out: Tensor) -> Layout:
    """Follow constant indices in even steps, like a slice; others pick who knows what."""
    layout = t.of(args["self"])
    if "indices" in args:
        given = [(i, x) for i, x in enumerate(args["indices"]) if x is not None]
    else:
        given = [(args["dim"] % len(layout.dims), args["index"])]
    if all(not layout.dims[i].placed for i, x in given) and len(given) == 1 and given[0][1].ndim == 1:
        return layout.with_dim(given[0][0], Dim.plain(len(given[0][1])))
    if len(given) != 1 or given[0][1].ndim != 1 or out.ndim != len(layout.dims):
        raise Untrackable("an index of several dimensions")
    dim, picks = given[0]
    chosen = _constants(picks)
    if chosen is None or not chosen:
        raise Untrackable("an index that is data picks positions")
    step = chosen[1] - chosen[0] if len(chosen) > 1 else 1
    if step == 0 or chosen != list(range(chosen[0], chosen[0] + step * len(chosen), step)):
        raise Untrackable("an index picks positions unevenly")
    atom = layout.dims[dim].single("an index")
    return layout.with_dim(dim, Dim.of(atom.windows(len(chosen), chosen[0] % atom.size, step)))


def _constants(index: Tensor) -> list[int] | None:
    """Return the values of an index; None where nobody knows them before the network runs."""
    if not has_values(index) or index.is_floating_point():
        return None
    with _disable_current_modes():
        values = index.nonzero().flatten() if index.dtype == torch.bool else index
        return [int(i) for i in values.tolist()]


@rule("gather")
def gather(t: "Tracker", args: Args, out: Tensor) -> Layout:
    """Forget positions along the dimension of the index, which may pick any; the others stay where they are."""
    layout, dim = t.of(args["self"]), args["dim"] % out.ndim
    if any(n != m for d, (n, m) in enumerate(zip(out.shape, args["self"].shape, strict=True)) if d != dim):
        raise Untrackable("an index that is smaller than what it picks from")
    chosen = _chosen(layout.dims[dim], t.points.numbers(args["index"]))
    if chosen is not None and chosen.size == out.shape[dim]:
        return layout.with_dim(dim, chosen)
    if layout.dims[dim].spatial:
        t.note("an index picks positions", args["self"])
    return layout.with_dim(dim, Dim.plain(out.shape[dim]))


# --- reductions and products ------------------------------------------------------------------------------------------


@rule(
    *("mean", "sum", "amax", "amin", "max", "min", "prod", "std", "var", "logsumexp", "norm", "linalg_vector_norm"),
    *("any", "all", "argmax", "argmin", "var_mean", "std_mean", "count_nonzero"),
    ends=True,
)
def reduce(t: "Tracker", args: Args, out: Any) -> Any:
    first = out[0] if isinstance(out, (list, tuple)) else out
    layout = t.of(args["self"])
    which = args.get("dim")
    rank = len(layout.dims)
    reduced = set(range(rank)) if which is None or which == [] else {d % max(rank, 1) for d in _per_axis(which, 1)}
    keep = first.ndim == rank
    for index in sorted(reduced, reverse=True):
        layout = layout.mix(index, first.shape[index] if keep else 1)
        if not keep:
            layout = layout.select(index, 0)
    return [layout] * len(out) if isinstance(out, (list, tuple)) else layout


@rule("mm", "addmm", "bmm", "baddbmm", "matmul", "mv", "addmv", "dot", "linear", "addbmm", ends=True)
def product(t: "Tracker", args: Args, out: Tensor) -> Layout:
    """Keep the positions of the left factor in rows, those of the right in columns: attention sits at its queries."""
    left = args["mat1"] if "mat1" in args else args["batch1"] if "batch1" in args else args["self"]
    right = next(args[name] for name in ("mat2", "batch2", "other", "vec", "tensor", "weight") if name in args)
    a, b = t.of(left), t.of(right)
    if "weight" in args:  # linear: the weight is stored transposed
        b = b.permute((1, 0))
    if not b.spatial:
        if not _keeps(a, len(a.dims) - 1):
            t.note("a matrix mixes positions", left)
        a = a.mix(len(a.dims) - 1, a.dims[-1].size)
    dims = [*a.dims[:-1]] + ([b.dims[-1]] if len(b.dims) > 1 else [])
    return (a if any(d.spatial for d in a.dims[:-1]) else b).with_dims(dims)


def _keeps(layout: Layout, index: int) -> bool:
    """Tell whether all image axes that a dimension moves along are left when it is mixed."""
    others = [dim for i, dim in enumerate(layout.dims) if i != index]
    return all(any(dim.moves_along(axis) for dim in others) for axis in (0, 1) if layout.dims[index].moves_along(axis))


@rule(
    *("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu"),
    *("_scaled_dot_product_attention_math", "_scaled_dot_product_fused_attention_overrideable"),
    *("_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention"),
    ends=True,
)
def attention(t: "Tracker", args: Args, out: Any) -> Any:
    query, value = t.of(args["query"]), t.of(args["value"])
    layout = query.with_dims([*query.dims[:-1], value.dims[-1]])
    return [layout, *[None] * (len(out) - 1)] if isinstance(out, (list, tuple)) else layout


# --- windows ----------------------------------------------------------------------------------------------------------


def _windows(layout: Layout, out: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, axes: int) -> Layout:
    kernels, paddings, dilations = (_per_axis(v, axes) for v in (kernel, padding, dilation))
    strides = kernels if stride is None or list(_per_axis(stride, 1)) == [] else _per_axis(stride, axes)
    first = out.ndim - axes
    for i, (k, s, p, d) in enumerate(zip(kernels, strides, paddings, dilations, strict=True)):
        layout = layout.window(first + i, out.shape[first + i], int(k), int(s), p, int(d))
    return layout


def _overhangs(layout: Layout, args: Args, out: Tensor, axes: int) -> bool:
    """Tell whether a window with its centre inside the features reaches over both ends, or one that was added does.

    Padding has no position: such windows look at the middle of what there is, not at their centre.
    """
    kernels, paddings = (_per_axis(args.get(key, 0), axes) for key in ("kernel_size", "padding"))
    strides = kernels if not _per_axis(args["stride"], 1) else _per_axis(args["stride"], axes)
    for i, (k, s, p) in enumerate(zip(kernels, strides, paddings, strict=True)):
        n, size = layout.shape[out.ndim - axes + i], out.shape[out.ndim - axes + i]
        if layout.dims[out.ndim - axes + i].spatial and (k > n or (size - 1) * s + k > n + 2 * p):
            return True
    return False


@rule("convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution", "thnn_conv2d", "_slow_conv2d_forward")
def convolution(t: "Tracker", args: Args, out: Tensor) -> Layout:
    source = args["input"] if "input" in args else args["self"]
    layout = t.of(source)
    channels = out.ndim - len(args["weight"].shape[2:]) - 1
    groups = int(args.get("groups", 1))
    if not _keeps(layout, channels):
        t.note("a convolution mixes positions as channels", source)
    if groups == 1 or not layout.dims[channels].placed:
        layout = layout.mix(channels, out.shape[channels])
    elif not groups == layout.dims[channels].size == out.shape[channels]:
        raise Untrackable("a grouped convolution of channels that lie apart")
    axes = args["weight"].ndim - 2
    kernel = args["weight"].shape[2:]
    if not args.get("transposed"):
        return _windows(layout, out, kernel, args["stride"], args["padding"], args.get("dilation", 1), axes)
    strides, paddings, dilations = (_per_axis(args[k], axes) for k in ("stride", "padding", "dilation"))
    for i in range(axes):
        # Input x writes outputs x * s - p + [0, d (k - 1)]: output y is centred where x = (y + p - d (k - 1) / 2) / s.
        offset = (paddings[i] - dilations[i] * (kernel[i] - 1) / 2) / strides[i]
        index = out.ndim - axes + i
        taps = _writers(kernel[i], strides[i], paddings[i], dilations[i])
        layout = layout.resample(index, out.shape[index], AxisMap(1 / strides[i], offset), taps)
    return layout


def _writers(kernel: int, stride: int, padding: int, dilation: int) -> Taps | None:
    """Return the inputs that write each phase of a transposed convolution; None if some phase is written by none."""
    taps: list[list[tuple[int, float]]] = []
    for phase in range(stride):
        inputs = [(phase + padding - dilation * k) / stride for k in range(kernel)]
        whole = [int(x) for x in inputs if x == int(x)]
        if not whole:
            return None
        taps.append([(x, 1 / len(whole)) for x in whole])
    return taps


@rule(
    *("max_pool2d_with_indices", "max_pool2d", "avg_pool2d", "avg_pool1d", "max_pool1d", "mkldnn_max_pool2d"),
    *("max_pool1d_with_indices",),
)
def pool(t: "Tracker", args: Args, out: Any) -> Any:
    first = out[0] if isinstance(out, (list, tuple)) else out
    axes = len(args["kernel_size"])
    source = t.of(args["self"])
    if _overhangs(source, args, first, axes):
        t.note("a pooling hangs over the border: the positions of its outermost outputs are nominal", args["self"])
    layout = _windows(
        source, first, args["kernel_size"], args["stride"], args.get("padding", 0), args.get("dilation", 1), axes
    )
    return [layout] * len(out) if isinstance(out, (list, tuple)) else layout


@rule(
    "_adaptive_avg_pool2d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "adaptive_avg_pool1d",
    "adaptive_max_pool1d",
    ends=True,
)
def adaptive_pool(t: "Tracker", args: Args, out: Any) -> Any:
    """Centre bins of n / P samples as half-pixel does. One bin is the whole image, which has no position of its own."""
    first = out[0] if isinstance(out, (list, tuple)) else out
    layout = t.of(args["self"])
    axes = len(args["output_size"])
    for index in range(first.ndim - axes, first.ndim):
        n, bins = layout.shape[index], first.shape[index]
        if bins == 1:
            layout = layout.with_dim(index, Dim.plain(1))
        elif bins != n:
            axis_map, off = _bin_centres(n, bins)
            if off > 0.01 and layout.dims[index].spatial:
                t.note(
                    f"bins end on whole samples: their centres are nominal, up to {off:.2g} samples off", args["self"]
                )
            each = [(i, bins / n) for i in range(n // bins)]
            layout = layout.resample(index, bins, axis_map, [each] if n % bins == 0 else None)
            layout = _coarsened(layout, index)
    return [layout] * len(out) if isinstance(out, (list, tuple)) else layout


def _bin_centres(n: int, bins: int) -> tuple[AxisMap, float]:
    """Return where the bins of adaptive pooling are centred, and how far the worst is from there, in samples.

    Their edges are rounded to whole samples. Small bins that come out alike are placed where they are, others where
    they would be without rounding.
    """
    starts = [i * n // bins for i in range(bins)]
    ends = [-(-(i + 1) * n // bins) for i in range(bins)]
    centres = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)]
    nominal = AxisMap.from_convention("half_pixel", n, bins)
    off = max(abs(nominal(i) - centre) for i, centre in enumerate(centres))
    alike = AxisMap((centres[-1] - centres[0]) / (bins - 1), centres[0])
    if off > _ROUNDED * n / bins and all(abs(alike(i) - centre) < 1e-9 for i, centre in enumerate(centres)):
        return alike, 0.0
    return nominal, off


def _coarsened(layout: Layout, index: int) -> Layout:
    """Make the evidence as coarse as the samples are apart, which averaging over bins does."""
    step = layout.dims[index].single("a pooling").step
    y, x = (max(n, abs(s)) for n, s in zip(layout.native, step, strict=True))
    return replace(layout, native=(y, x), pooled=True)


@rule("im2col")
def im2col(t: "Tracker", args: Args, out: Tensor) -> Layout:
    """Put the samples of a window into channels, each where it lies; a convolution over them mixes to the centre."""
    layout = t.of(args["self"])
    taps: list[Atom] = [layout.dims[-3].single("an unfolding")]
    counts = []
    for i in range(2):
        index = len(layout.dims) - 2 + i
        n, k = layout.shape[index], args["kernel_size"][i]
        p, s, d = args["padding"][i], args["stride"][i], args["dilation"][i]
        counts.append((n + 2 * p - d * (k - 1) - 1) // s + 1)
        dim = layout.dims[index]
        taps.append(Atom(k))
        if dim.spatial:
            step = dim.single("an unfolding").step
            taps[-1] = _around_zero(k, (step[0] * d, step[1] * d))
        layout = layout.window(index, counts[i], k, s, p, d)
        layout = layout.with_dim(index, layout.dims[index].without_phases())  # each tap has its own
    return layout.with_dim(len(layout.dims) - 3, Dim.of(*taps)).reshape(out.shape)


def _around_zero(size: int, step: Vector) -> Atom:
    """Return a loop over a window's samples, seen from its centre."""
    return Atom(size, step, (-step[0] * (size - 1) / 2, -step[1] * (size - 1) / 2))


@rule("col2im")
def col2im(t: "Tracker", args: Args, out: Tensor) -> Layout:
    """Put windows back: what their samples lie at if they tell, else around the windows' centres."""
    layout = t.of(args["self"])
    k, s, p, d = (args[name] for name in ("kernel_size", "stride", "padding", "dilation"))
    counts = [(out.shape[-2 + i] + 2 * p[i] - d[i] * (k[i] - 1) - 1) // s[i] + 1 for i in range(2)]
    channels = out.shape[-3]
    layout = layout.reshape([*layout.shape[:-2], channels, *k, *counts])
    first = len(layout.dims) - 4  # of the taps along y
    for i in range(2):
        tap, window = layout.dims[first + i], layout.dims[first + 2 + i]
        if not window.spatial:
            resized = Dim.plain(out.shape[-2 + i])
        elif tap.placed:
            inner, outer = tap.single("a folding"), window.single("a folding")
            if any(abs(a * s[i] - b * d[i]) > 1e-6 for a, b in zip(inner.step, outer.step, strict=True)):
                raise Untrackable("a folding of windows that were moved")
            step = (outer.step[0] / s[i], outer.step[1] / s[i])
            at = Atom(1, step, outer.origin).at(p[i])
            resized = Dim.of(Atom(out.shape[-2 + i], step, (at[0] + inner.origin[0], at[1] + inner.origin[1])))
        else:
            offset = (p[i] - d[i] * (k[i] - 1) / 2) / s[i]
            taps = _writers(k[i], s[i], p[i], d[i])
            around = layout.resample(first + 2 + i, out.shape[-2 + i], AxisMap(1 / s[i], offset), taps)
            resized = around.dims[first + 2 + i]
        layout = layout.with_dim(first + i, Dim.plain(1)).with_dim(first + 2 + i, resized)
    return layout.select(first, 0).select(first, 0)


# --- resizes ----------------------------------------------------------------------------------------------------------


@rule("pixel_shuffle")
def pixel_shuffle(t: "Tracker", args: Args, out: Tensor) -> Layout:
    """Put phases where they lie if channels tell, as behind ``pixel_unshuffle``, else around their sample."""
    layout = t.of(args["self"])
    *front, channels, height, width = out.shape
    r = args["upscale_factor"]
    if layout.dims[-3].placed:
        rank = len(front)
        apart = layout.reshape([*front, channels, r, r, height // r, width // r])
        order = [*range(rank + 1), rank + 3, rank + 1, rank + 4, rank + 2]
        return apart.permute(order).reshape(out.shape)
    layout = layout.with_dim(out.ndim - 3, Dim.plain(channels))
    for index in (out.ndim - 2, out.ndim - 1):
        n = layout.shape[index]
        half_pixel = AxisMap.from_convention("half_pixel", n, out.shape[index])
        layout = layout.resample(index, out.shape[index], half_pixel, [[(0, 1.0)]] * r)
    return layout


@rule("pixel_unshuffle")
def pixel_unshuffle(t: "Tracker", args: Args, out: Tensor) -> Layout:
    """Put phases into channels, each where it lies."""
    layout, r = t.of(args["self"]), args["downscale_factor"]
    *front, channels, height, width = layout.shape
    rank = len(front)
    apart = layout.reshape([*front, channels, height // r, r, width // r, r])
    return apart.permute([*range(rank + 1), rank + 2, rank + 4, rank + 1, rank + 3]).reshape(out.shape)


def _interpolation(name: str) -> Rule:
    """Make the rule of ``aten::upsample_*``, whose names of scales differ by the number of axes."""
    kind = name.removeprefix("_").removeprefix("upsample_").rstrip("123d").rstrip("_")
    mode = {
        "nearest_exact": "nearest-exact",
        "bilinear2d_aa": "bilinear antialiased",
        "bicubic2d_aa": "bicubic antialiased",
    }.get(kind, kind)

    def interpolation(t: "Tracker", args: Args, out: Tensor) -> Layout:
        source = t.of(args["self"])
        axes = out.ndim - 2
        flag = args.get("align_corners")
        factors = args.get("scale_factors")
        if factors is None:
            names = ["scales"] if axes == 1 else ["scales_d", "scales_h", "scales_w"][-axes:]
            factors = [args.get(n) for n in names]
        plain, antialias = mode.removesuffix(" antialiased"), mode.endswith(" antialiased")
        factors = heeded_factors(plain, args["self"], out.shape[2:], factors, antialias)
        maps: list[AxisMap] = []
        taps: list[Taps | None] = []
        for axis in range(axes):
            n, size = source.shape[2 + axis], out.shape[2 + axis]
            if mode.startswith("nearest"):
                axis_map, reads = _nearest(mode, n, size, factors[axis])
                maps.append(axis_map)
                taps.append(reads)
            else:
                convention: Coordinates = "align_corners" if flag else "half_pixel"
                maps.append(AxisMap.from_convention(convention, n, size, None if flag else factors[axis]))
                taps.append(None)
        return t.resize(args["self"], out, mode, flag, maps, taps)

    return interpolation


def _nearest(mode: str, n: int, size: int, factor: float | None) -> tuple[AxisMap, Taps]:
    """Return where the samples that ``F.interpolate`` takes lie on average, and which ones a period of outputs reads.

    The simplest ratio that reads the same samples tells it: 17 samples resized to 33 are read at floor(j / 2).
    """
    scale = np.float32(n / size) if factor is None else np.float32(1 / factor)  # as PyTorch's kernels have it
    first = Fraction(0 if mode == "nearest" else 1, 2)
    index = np.arange(size, dtype=np.float32) + np.float32(first)
    reads = np.minimum(np.floor(index * scale), n - 1).astype(np.int64).tolist()
    ratio = _simplest_ratio(index, reads)
    if ratio is None:  # a tie that was rounded either way
        return _on_average(reads, float(scale))
    return _on_average([math.floor((i + first) * ratio) for i in range(ratio.denominator)], float(ratio))


def nearest_on_average(mode: str, n: int, size: int, axis_map: AxisMap | None = None) -> AxisMap:
    """Return the map on which the samples of a nearest resize lie on average.

    Args:
        mode: ``"nearest"`` or ``"nearest-exact"``.
        n: samples that are resized.
        size: samples of the result.
        axis_map: the coordinates that ``ops.resize`` is given; None for those of ``F.interpolate``.
    """
    found, _ = _nearest(mode, n, size, None) if axis_map is None else _nearest_at(mode, axis_map, size)
    return found


def _on_average(reads: Sequence[int], step: float) -> tuple[AxisMap, Taps]:
    """Return the map ``step`` apart that goes through the samples of a period on average, and these as taps."""
    offset = (sum(reads) - step * sum(range(len(reads)))) / max(len(reads), 1)
    return AxisMap(step, offset), [[(read, 1.0)] for read in reads]


def _simplest_ratio(index: np.ndarray, reads: Sequence[int]) -> Fraction | None:
    """Return the fraction s of least denominator with floor(index * s) = reads; None if none is simple."""
    twice = [(round(2 * float(i)), int(r)) for i, r in zip(index, reads, strict=True) if i > 0]
    low = max((Fraction(2 * r, i) for i, r in twice), default=Fraction(0))
    high = min((Fraction(2 * r + 2, i) for i, r in twice), default=Fraction(1))
    if low >= high:
        return None
    for denominator in range(1, _SIMPLE + 1):
        numerator = max(-(-low.numerator * denominator // low.denominator), 1)
        if Fraction(numerator, denominator) < high:
            return Fraction(numerator, denominator)
    return None


for _axes, _modes in (
    (1, ("upsample_linear1d", "upsample_nearest1d", "_upsample_nearest_exact1d")),
    (2, ("upsample_bilinear2d", "upsample_bicubic2d", "upsample_nearest2d", "_upsample_nearest_exact2d")),
    (2, ("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")),
    (3, ("upsample_trilinear3d", "upsample_nearest3d", "_upsample_nearest_exact3d")),
):
    for _name in _modes:
        rule(_name)(_interpolation(_name))


@rule("mmseg_resample::resample", "mmseg_resample::numba_resample")
def resample(t: "Tracker", args: Args, out: Tensor) -> Layout:
    maps = [AxisMap(s, o) for s, o in zip(args["scale"], args["offset"], strict=True)]
    axes = out.ndim - 2
    names = {"linear": ("linear", "bilinear", "trilinear")[axes - 1], "cubic": "bicubic"}
    kernel: str = args["kernel"]
    taps: list[Taps] | None = None
    if kernel.startswith("nearest"):
        found = [_nearest_at(kernel, axis_map, out.shape[2 + i]) for i, axis_map in enumerate(maps)]
        maps, taps = [axis_map for axis_map, _ in found], [reads for _, reads in found]
    return t.resize(args["input"], out, names.get(kernel, kernel), None, maps, taps)


def _nearest_at(kernel: str, axis_map: AxisMap, size: int) -> tuple[AxisMap, Taps]:
    """Return the same of the samples that ``ops.resize`` takes at ``axis_map``, those beyond the border too."""
    period = min(Fraction(axis_map.scale).limit_denominator(_SIMPLE).denominator, size)
    half = 0.5 if kernel == "nearest-exact" else 0.0
    return _on_average([math.floor(axis_map(i) + half + SNAP) for i in range(period)], axis_map.scale)


@rule("grid_sampler_2d", "grid_sampler", "cudnn_grid_sampler", "_grid_sampler_2d_cpu_fallback", ends=True)
def grid_sample(t: "Tracker", args: Args, out: Tensor) -> Layout:
    """Place samples at a constant grid like a resize; those of a flow, displaced from a base grid, where the flow lies.

    Where coordinates are data, nobody knows what is sampled.
    """
    source, grid = t.of(args["input"]), t.of(args["grid"])
    flag = bool(args["align_corners"])
    if t.is_displaced(args["grid"]) and grid.spatial:
        return t.sampled(args["input"], out, flag, grid.with_dims([*source.dims[:2], *grid.dims[1:3]]))
    at = t.points.columns(args["grid"])
    points = _points_of_grid(at, source.shape[2:], flag, out) if at is not None and source.spatial else None
    if points is not None:
        return t.point_sample(args["input"], out, flag, *points)
    maps = _maps_of_grid(args["grid"], source.shape[2:], flag) if source.spatial and not grid.spatial else None
    if maps is not None:
        return t.resize(args["input"], out, "grid_sample", flag, maps)
    t.note("not judged: sampled at coordinates that are data", args["input"])
    plain = source.with_dims([*source.dims[:2], *map(Dim.plain, out.shape[2:])])
    return t.sampled(args["input"], out, flag, plain)


def _points_of_grid(
    at: Columns, sizes: Sequence[int], align_corners: bool, out: Tensor
) -> tuple[Choice, list[AxisMap]] | None:
    """Return the points at normalised coordinates (x, y), and the maps (y, x) from their grid; None for others."""
    choice = at[0].choice
    if [(numbers.choice, numbers.first, numbers.stop) for numbers in at] != [(choice, 1, 2), (choice, 0, 1)]:
        return None
    if len(choice.sizes) != 2 or sorted(out.shape[2:]) != [1, choice.count]:
        return None
    return choice, [
        AxisMap.from_normalised(n, align_corners).after(AxisMap(numbers.scale, numbers.offset))
        for n, numbers in zip(sizes, reversed(at), strict=True)
    ]


def _maps_of_grid(grid: Tensor, sizes: Sequence[int], align_corners: bool) -> list[AxisMap] | None:
    """Return the maps (y, x) of a grid of constants (N, H, W, 2); None if it is none, or bends."""
    if not has_values(grid) or not grid.numel():
        return None
    maps = []
    with _disable_current_modes():
        for axis, n in enumerate(sizes):
            lines = grid[..., 1 - axis].detach().double().movedim(1 + axis, -1)
            samples = AxisMap.from_normalised(n, align_corners)
            reads = lines * samples.scale + samples.offset
            count = reads.shape[-1]
            first = float(reads.flatten()[0])
            step = float(reads.flatten()[count - 1] - first) / (count - 1) if count > 1 else 1.0
            even = first + step * torch.arange(count, dtype=reads.dtype, device=reads.device)
            if step == 0 or float((reads - even).abs().max()) > 1e-3:
                return None
            # Rounding of coordinates in single precision is no misregistration.
            maps.append(AxisMap(round(step, 6), round(first, 4)))
    return maps
