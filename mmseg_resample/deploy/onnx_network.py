"""``OnnxNetwork``: any ONNX graph as an ``nn.Module``, node by node in PyTorch, so that audits read it like a network.

Whatever does not depend on the image (weights, shapes and what is computed from them) is a numpy array, computed by
ONNX's reference implementation, also where the image is a fake tensor: its shape is known. The rest are tensors. Nodes
run under the path of the module that they were exported from, where the exporter left it, so that resizes have the
sites that they have in PyTorch.

Exporters write a resize in several ways. Those that are no ``Resize`` are recognised and run as the resize that they
are: two products with constant matrices, or two gathers by constant indices, one per axis, are one call.
"""

import ast
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..grids.network import Network, network_of
from ..grids.sites import Site, Size, at_path, current_pass
from ..ops import AxisMap, resize
from . import requires
from .graph import OWN_DOMAINS
from .onnx_operators import OPERATORS, Call, Value, as_tensor
from .onnx_resize import nearest_by_index
from .recognise import Options, options_of_indices, options_of_matrix

_SCOPES = "pkg.torch.onnx.name_scopes"  # written by PyTorch's exporter: the modules around a node, then the node
_SIDE = 512  # of an image, along an axis of any length
_SMALL = 64  # values of sizes, paddings and slices
_IDENTITY = AxisMap(1.0, 0.0)
_KERNELS = ("bins", "linear", "cubic", "nearest")
_RESIZES = ("upsample", "interpolate", "resample", "resize")  # in the names that exporters give to resizes
_FREEZES = ("Resize", "Upsample", "ConvTranspose", "DepthToSpace", "GridSample")


@dataclass(frozen=True)
class Node:
    """One node of a graph.

    Args:
        index: its place among the nodes.
        op: type of the operator; those outside ONNX's own have their domain in front.
        name: of the node, or of its first output.
        path: of the module it was exported from; its name where nobody knows.
        origin: what PyTorch's exporter made it of, such as ``"upsample_bilinear2d"``; empty where nobody knows.
        version: of its opset.
        attributes: by name; graphs are lists of nodes with the names of their outputs.
        inputs: names of values; empty where left out.
        outputs: the same.
        proto: the node itself.
    """

    index: int
    op: str
    name: str
    path: str
    origin: str
    version: int
    attributes: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    proto: Any = field(repr=False, compare=False)


@dataclass(frozen=True)
class Subgraph:
    """Graph in an attribute: a branch of an ``If``."""

    nodes: tuple[Node, ...]
    constants: dict[str, np.ndarray]
    outputs: tuple[str, ...]


class Graph:
    """An ONNX graph as it is needed to run it; copies of a network share it.

    Attributes:
        nodes: in the order in which they run.
        constants: arrays by the name of the value.
        inputs: name to (shape, dtype); a dimension that is not fixed is None.
        outputs: names.
        users: name of a value to the nodes that read it.
    """

    def __init__(self, model: Any, wrapper: str = "") -> None:
        import onnx
        from onnx import inliner, numpy_helper

        if len(model.functions):
            model = inliner.inline_local_functions(model)
        self.wrapper = wrapper
        self.opsets = {entry.domain: entry.version for entry in model.opset_import}
        self.version = self.opsets.get("", self.opsets.get("ai.onnx", 1))
        self._evaluators: dict[int, tuple[Any, Any]] = {}
        self.constants = {t.name: _array(numpy_helper.to_array(t)) for t in model.graph.initializer}
        self.nodes = tuple(self._nodes(model.graph.node, self.constants))
        self.outputs = tuple(output.name for output in model.graph.output)
        self.inputs: dict[str, tuple[tuple[int | None, ...], np.dtype[Any]]] = {}
        for given in model.graph.input:
            if given.name not in self.constants:
                kind = given.type.tensor_type
                shape = tuple(d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim)
                self.inputs[given.name] = (shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        self.users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in set(_reads(node)):
                self.users.setdefault(name, []).append(node)

    def __deepcopy__(self, memo: Any) -> "Graph":
        return self  # nobody changes it

    def _nodes(self, protos: Any, constants: dict[str, np.ndarray]) -> Iterator[Node]:
        from onnx import helper, numpy_helper

        for index, proto in enumerate(protos):
            own = proto.domain in OWN_DOMAINS
            name = proto.name or next(iter(proto.output), "") or proto.op_type
            attributes: dict[str, Any] = {}
            for attribute in proto.attribute:
                value = helper.get_attribute_value(attribute)
                if attribute.type == attribute.GRAPH:
                    inner = {t.name: _array(numpy_helper.to_array(t)) for t in value.initializer}
                    nodes = tuple(self._nodes(value.node, inner))
                    value = Subgraph(nodes, inner, tuple(output.name for output in value.output))
                elif isinstance(value, bytes):
                    value = value.decode()
                attributes[attribute.name] = value
            path, origin = _path(proto, name)
            if origin and self.wrapper:
                path = "" if path == self.wrapper else path.removeprefix(f"{self.wrapper}.")
            node = Node(
                index,
                proto.op_type if own else f"{proto.domain}.{proto.op_type}",
                name,
                path,
                origin,
                self.version if own else self.opsets.get(proto.domain, 1),
                attributes,
                tuple(proto.input),
                tuple(proto.output),
                proto,
            )
            if node.op == "Constant":
                constants[node.outputs[0]] = _array(self.evaluate(node, []))
            else:
                yield node

    def evaluate(self, node: Node, inputs: Sequence[np.ndarray | None]) -> Any:
        """Compute a node of arrays by ONNX's reference implementation; the output, or a tuple of several."""
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        key = id(node.proto)
        if key not in self._evaluators:
            given, returned = (
                [helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(names) if name]
                for names in (node.inputs, node.outputs)
            )
            alone = helper.make_graph([node.proto], "node", given, returned)
            self._evaluators[key] = node.proto, ReferenceEvaluator(alone, opsets=self.opsets)  # kept, as its id is
        feeds = {name: value for name, value in zip(node.inputs, inputs, strict=True) if name}
        found = self._evaluators[key][1].run(None, feeds)
        return found[0] if len(found) == 1 else tuple(found)


def module_paths(model: Any) -> set[str]:
    """Return the modules that the nodes of a graph were exported from, where the file says so."""
    found = (_path(proto, "") for proto in model.graph.node)
    return {path for path, origin in found if origin and not path.startswith("_empty_nn_module_stack")}


def _array(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array if array.flags.writeable else array.copy()


def _path(proto: Any, name: str) -> tuple[str, str]:
    """Return the module that a node was exported from and what it was there, or its name and nothing."""
    scopes = next((entry.value for entry in proto.metadata_props if entry.key == _SCOPES), None)
    try:
        modules = ast.literal_eval(scopes or "")
    except (SyntaxError, ValueError):
        return name, ""
    if not isinstance(modules, list) or len(modules) < 2:
        return name, ""
    return str(modules[-2]), str(modules[-1])


def _reads(node: Node) -> Iterator[str]:
    """Yield the names of what a node reads, its branches included."""
    yield from filter(None, node.inputs)
    for value in node.attributes.values():
        if isinstance(value, Subgraph):
            yield from value.outputs
            for inner in value.nodes:
                yield from _reads(inner)


@dataclass(frozen=True)
class Pending:
    """A resize along one axis that waits for the one along the other, so that both are one call.

    Args:
        x: what is resized.
        axis: 2 or 3.
        size: samples that it gets along it.
        options: what could compute it.
        index: the samples, where it is a gather.
        node: the product or the gather.
    """

    x: Tensor
    axis: int
    size: int
    options: Options
    index: np.ndarray | None
    node: Node


@dataclass(frozen=True)
class Executed:
    """A site, and the nodes that computed it.

    Args:
        site: path and number.
        first: the first of the nodes.
        last: the last of them.
        kernel: ``"bins"``, ``"linear"``, ``"cubic"`` or ``"nearest"``, with what tells two of a kind apart.
    """

    site: Site
    first: Node
    last: Node
    kernel: str


class _Levels(nn.Module):
    """The levels of features, on their way through: a place at which audits look at them."""

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        return levels


class OnnxNetwork(nn.Module):
    """An ONNX graph that maps an image to features or predictions.

    Args:
        model: the graph, an ``onnx.ModelProto``.
        skip_unsupported: leave out nodes that cannot be computed, and what depends on them; ``unsupported`` lists them.
        wrapper: name of the network in the module that was exported, which paths are to go without.

    Attributes:
        graph: the graph.
        unsupported: (path, operator and reason) of what the last forward pass left out.
        executed: the resizes of the last forward pass, where an audit or a policy counts them.
        known: small arrays of the last forward pass, by name: sizes, paddings and the like.

    Raises:
        ImportError: the package onnx is missing.
    """

    def __init__(self, model: Any, skip_unsupported: bool = False, wrapper: str = "") -> None:
        super().__init__()
        self.graph = Graph(model, wrapper)
        self.skip_unsupported = skip_unsupported
        self.levels = _Levels()
        self.unsupported: list[tuple[str, str]] = []
        self.executed: list[Executed] = []
        self.known: dict[str, np.ndarray] = {}
        self._tables: dict[Any, Options] = {}

    def forward(self, image: Tensor, **others: Tensor) -> dict[str, Tensor]:
        """Run the graph; other inputs than the first go by their names.

        Args:
            image: the graph's first input, in its own layout of axes.
            **others: further inputs.

        Returns:
            The outputs by name.

        Raises:
            NotImplementedError: an operator, or a use of one, that nothing here computes.
        """
        self.unsupported, self.executed = [], []
        self.known = {name: value for name, value in self.graph.constants.items() if value.size <= _SMALL}
        self._unreached: Counter[str] = Counter()
        first, *_ = self.graph.inputs
        values: dict[str, Any] = {**self.graph.constants, first: image, **others}
        uses = Counter(name for node in self.graph.nodes for name in set(_reads(node)))
        uses.update(self.graph.outputs)
        levels = _LevelsOf(self.graph, tuple(image.shape))
        for node in self.graph.nodes:
            self._run(node, values)
            for name in node.outputs:
                value = values.get(name)
                if isinstance(value, Tensor):
                    levels.add(node, name, value)
                elif isinstance(value, np.ndarray) and value.size <= _SMALL:
                    self.known[name] = value
            for name in set(_reads(node)):
                uses[name] -= 1
                if not uses[name] and name not in self.graph.constants:
                    values.pop(name, None)
        self.levels(levels.found())
        found = {name: self._value(values, name) for name in self.graph.outputs if name in values}
        return {name: as_tensor(value) for name, value in found.items()}

    def _run(self, node: Node, values: dict[str, Any]) -> None:
        """Compute a node and put its outputs among ``values``; none where an input is missing."""
        if any(name and name not in values for name in node.inputs):
            return
        try:
            out = self._outputs(node, values)
        except NotImplementedError as error:
            self._skip(node, str(error) or "not implemented", error)
            return
        except Exception as error:  # whatever PyTorch or the reference raise
            self._skip(node, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}", error)
            return
        for name, value in zip(node.outputs, out if isinstance(out, tuple) else (out,), strict=False):
            if name and value is not None:
                values[name] = value

    def _skip(self, node: Node, reason: str, error: Exception) -> None:
        said = f"{node.op}: {reason}"
        if not self.skip_unsupported:
            raise NotImplementedError(
                f"OnnxNetwork: node {node.name!r} cannot be computed ({said}). "
                f"Export the network with operators that ONNX Runtime and PyTorch share."
            ) from error
        self.unsupported.append((node.path, said))

    def _outputs(self, node: Node, values: dict[str, Any]) -> Any:
        if node.op == "If":
            return self._branch(node, values)
        pending = self._pending(node, values)
        if pending is not None:
            return pending
        inputs = [self._value(values, name) if name else None for name in node.inputs]
        if node.op in ("Shape", "Size") and isinstance(inputs[0], Tensor):
            shape = np.array(inputs[0].shape, np.int64)
            if node.op == "Size":
                return np.array(shape.prod(), np.int64)
            return shape[node.attributes.get("start", 0) : node.attributes.get("end")]
        if not any(isinstance(value, Tensor) for value in inputs):
            found = self.graph.evaluate(node, [value for value in inputs if not isinstance(value, Tensor)])
            return tuple(map(_array, found)) if isinstance(found, tuple) else _array(found)
        function = OPERATORS.get(node.op)
        if function is None:
            raise NotImplementedError("no such operator here")
        call = Call(node.op, node.version, node.attributes, tuple(inputs), len(node.outputs))
        site = self._next(node)
        with at_path(node.path):
            out = function(call)
        if node.op in ("Resize", "Upsample", "GridSample"):
            self._note(site, node, node, _kernel(node))
        return out

    def _branch(self, node: Node, values: dict[str, Any]) -> Any:
        """Run the branch of an ``If`` whose condition is known."""
        condition = self._value(values, node.inputs[0])
        if isinstance(condition, Tensor):
            raise NotImplementedError("a condition that depends on the image")
        branch: Subgraph = node.attributes["then_branch" if condition.item() else "else_branch"]
        inside = {**values, **branch.constants}
        for inner in branch.nodes:
            self._run(inner, inside)
        return tuple(self._value(inside, name) if name in inside else None for name in branch.outputs)

    # --- resizes along one axis after the other -----------------------------------------------------------------------

    def _value(self, values: dict[str, Any], name: str) -> Value:
        """Return a value; a resize that waits has to run now."""
        value = values[name]
        if isinstance(value, Pending):
            value = values[name] = self._resized(value, None)
        return value

    def _pending(self, node: Node, values: dict[str, Any]) -> Any:
        """Return a resize along one axis, or its result together with the axis before; None for other nodes."""
        found = self._table(node, values)
        if found is None:
            return None
        source, axis, size, options, index = found
        before = values[source]
        if isinstance(before, Pending):
            common = {k: m for k, m in options.items() if k in before.options}
            alone = len(self.graph.users[source]) == 1 and source not in self.graph.outputs
            if before.axis != axis and common and alone:
                own = Pending(before.x, axis, size, common, index, node)
                return self._resized(replace(before, options={k: before.options[k] for k in common}), own)
            before = self._value(values, source)
        return Pending(before, axis, size, options, index, node)

    def _table(self, node: Node, values: dict[str, Any]) -> tuple[str, int, int, Options, np.ndarray | None] | None:
        """Read a node as a resize along an axis: (source, axis, size, what computes it, indices)."""
        if node.op not in ("MatMul", "Gather") or len(node.inputs) < 2:
            return None
        left, right = (values[name] for name in node.inputs[:2])
        if node.op == "Gather":
            axis, n = node.attributes.get("axis", 0) % 4, _shape(left)
            if len(n) != 4 or axis < 2 or not isinstance(right, np.ndarray) or right.ndim != 1:
                return None
            index = np.where(right < 0, right + n[axis], right)
            options = options_of_indices(index, n[axis])
            return (node.inputs[0], axis, len(index), options, index) if options else None
        constant, other = (right, left) if isinstance(right, np.ndarray) else (left, right)
        if not isinstance(constant, np.ndarray) or isinstance(other, np.ndarray) or constant.dtype.kind != "f":
            return None
        shape = _shape(other)
        if constant.ndim < 2 or constant.size != constant.shape[-1] * constant.shape[-2] or len(shape) != 4:
            return None
        matrix = constant.reshape(constant.shape[-2:])
        matrix, axis = (matrix.T, 3) if constant is right else (matrix, 2)
        key = (matrix.shape, hash(matrix.tobytes()))
        if key not in self._tables:
            self._tables[key] = options_of_matrix(matrix)
        source = node.inputs[0] if constant is right else node.inputs[1]
        return (source, axis, len(matrix), self._tables[key], None) if self._tables[key] else None

    def _resized(self, first: Pending, second: Pending | None) -> Tensor:
        """Run a resize along one axis or both."""
        x, last = first.x, (second or first).node
        kernel = next(kernel for kernel in _KERNELS if kernel in first.options)
        if kernel == "bins" and "linear" in first.options and any(word in last.origin for word in _RESIZES):
            kernel = "linear"  # by a half, both are the same
        if second is None and first.index is not None and _is_even(first.index):
            with at_path(last.path):
                return x.index_select(first.axis, torch.from_numpy(first.index))
        maps = [_IDENTITY, _IDENTITY]
        size = [int(n) for n in x.shape[2:]]
        indices = [np.arange(n) for n in size]
        for part in (first, second):
            if part is not None:
                maps[part.axis - 2], size[part.axis - 2] = part.options[kernel], part.size
                if part.index is not None:
                    indices[part.axis - 2] = part.index
        site = self._next(last)
        with at_path(last.path):
            if kernel == "bins" and not _repeats(x, size):
                return F.adaptive_avg_pool2d(x, (size[0], size[1]))
            if kernel == "nearest":
                out = nearest_by_index(x, indices, maps)
            else:
                mode = "bicubic" if kernel == "cubic" else "bilinear"
                out = resize(x, size, mode=mode, coordinates=maps, warning=False)  # type: ignore[arg-type]
        self._note(site, first.node, last, kernel if kernel != "bins" else "linear")
        return out

    def _next(self, node: Node) -> Site:
        return (node.path, current_pass().calls.get(node.path, 0))

    def _note(self, site: Site, first: Node, last: Node, kernel: str) -> None:
        """Note which nodes computed the site that was counted since."""
        if current_pass().calls.get(site[0], 0) == site[1]:  # no policy could reach it
            site = (site[0], -1 - self._unreached[site[0]])
            self._unreached[site[0]] += 1
        self.executed.append(Executed(site, first, last, kernel))


def _kernel(node: Node) -> str:
    """Return the kernel of a ``Resize``, with all that makes values differ at the same positions."""
    get = node.attributes.get
    mode = {"bilinear": "linear", "trilinear": "linear"}.get(get("mode", "nearest"), get("mode", "nearest"))
    if node.op == "GridSample":
        return "grid_sample"
    if mode == "cubic":
        mode += "" if get("cubic_coeff_a", -0.75) == -0.75 else f" a={get('cubic_coeff_a'):g}"
        mode += " exclude_outside" if get("exclude_outside", 0) else ""
    return mode + (" antialias" if get("antialias", 0) else "")


def _shape(value: Any) -> tuple[int, ...]:
    if isinstance(value, Pending):
        shape = list(value.x.shape)
        shape[value.axis] = value.size
        return tuple(shape)
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _is_even(index: np.ndarray) -> bool:
    """Tell whether indices are those of a slice."""
    steps = np.diff(index)
    return len(index) < 2 or bool((steps == steps[0]).all() and steps[0] > 0)


def _repeats(x: Tensor, size: Sequence[int]) -> bool:
    """Tell whether every axis that is resized has one sample, which is repeated: no pooling has to be shown."""
    return all(n == 1 or n == out for n, out in zip(x.shape[2:], size, strict=True))


class _LevelsOf:
    """Collects the levels of features: before anything is resized, the last tensor of each size that is used again."""

    def __init__(self, graph: Graph, image: tuple[int, ...]) -> None:
        self._graph, self._image, self._frozen = graph, image, False
        self._last: dict[tuple[int, ...], tuple[str, Tensor]] = {}
        self._kept: set[tuple[int, ...]] = set()
        self._sizes: dict[str, tuple[int, ...]] = {}

    def add(self, node: Node, name: str, tensor: Tensor) -> None:
        if node.op in _FREEZES:
            self._frozen = True
        if self._frozen or tensor.ndim != 4 or not tensor.is_floating_point():
            return
        size = tuple(tensor.shape[2:])
        if max(size) == 1 or math.prod(size) >= math.prod(self._image[2:]) or tensor.shape[1] == 1:
            return
        self._last[size] = (name, tensor)

    def found(self) -> list[Tensor]:
        """Return the levels, finest first; what is only passed on to a coarser one is none."""
        chosen = []
        levels = sorted(self._last.values(), key=lambda pair: -math.prod(pair[1].shape[2:]))
        for i, (name, tensor) in enumerate(levels):
            users = self._graph.users.get(name, [])
            if i + 1 == len(levels) or not users or not all(map(_shrinks, users)):
                chosen.append(tensor)
        return chosen


def _shrinks(node: Node) -> bool:
    return any(stride > 1 for stride in node.attributes.get("strides") or ())


# --- how audits run it ------------------------------------------------------------------------------------------------


class OnnxRun(Network):
    """Knowledge of audits about ONNX graphs: each has an image of its own, and outputs of any layout."""

    def levels(self, model: nn.Module) -> str | None:
        return "levels"

    def size(self, model: nn.Module) -> Size | None:
        height, width = image_input(model).sides  # type: ignore[arg-type]
        return None if height is None and width is None else (height or _SIDE, width or _SIDE)

    def image(self, model: nn.Module, size: Size) -> Tensor:
        given = image_input(model)  # type: ignore[arg-type]
        dtype = torch.from_numpy(np.zeros(0, given.dtype)).dtype
        return torch.empty(given.batch, given.channels, *size, dtype=dtype)

    def run(self, model: nn.Module, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        size = tuple(image.shape[2:])
        channels_last = image_input(model).channels_last  # type: ignore[arg-type]
        for name, output in model(image.permute(0, 2, 3, 1) if channels_last else image).items():
            shape = tuple(output.shape)
            if output.ndim == 3 and shape[1:] == size:  # labels
                output = output.unsqueeze(1)
            elif output.ndim == 4 and shape[1:3] == size and shape[2:] != size:
                output = output.permute(0, 3, 1, 2)
            elif output.ndim == 2 and shape == size:
                output = output[None, None]
            yield name, output


network_of.register(OnnxNetwork)(lambda model: OnnxRun())


@dataclass(frozen=True)
class ImageInput:
    """The input of a graph that takes the image.

    Args:
        name: of the input.
        batch: images, as many as the graph takes.
        channels: of the image.
        sides: height and width; None where the graph takes any.
        dtype: of the image.
        channels_last: its axes are (N, H, W, C).
    """

    name: str
    batch: int
    channels: int
    sides: tuple[int | None, int | None]
    dtype: Any
    channels_last: bool

    @property
    def size(self) -> Size | None:
        """The one size (h, w) that the graph takes; None if it takes several."""
        height, width = self.sides
        return None if height is None or width is None else (height, width)


def image_input(network: OnnxNetwork) -> ImageInput:
    """Return the input that takes the image.

    Raises:
        ValueError: the graph has no input, several, or one that is no image.
    """
    inputs = network.graph.inputs
    if len(inputs) != 1:
        listed = ", ".join(inputs) or "none"
        raise ValueError(
            f"audit: expected a graph with one input, the image (N, C, H, W), got {len(inputs)}: {listed}."
        )
    (name, (shape, dtype)), *_ = inputs.items()
    if len(shape) != 4:
        raise ValueError(
            f"audit: expected an image (N, C, H, W) or (N, H, W, C) as the input {name!r}, got {len(shape)} axes: "
            f"{shape}."
        )
    few = [n is not None and n <= 4 for n in shape]
    channels_last = few[3] and not few[1]
    sides = (shape[1], shape[2]) if channels_last else (shape[2], shape[3])
    channels = shape[3 if channels_last else 1] or 3
    return ImageInput(name, shape[0] or 1, channels, sides, dtype, channels_last)


def load(path: str | Path) -> Any:
    """Read an ONNX file.

    Raises:
        ImportError: the package onnx is missing.
        ValueError: it is no ONNX file, or its weights, kept in another file, are missing.
    """
    onnx = requires.package("onnx", "an audit of an ONNX file")
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{file}: no such file.")
    try:
        model = onnx.load(str(file), load_external_data=False)
    except Exception as error:  # of protobuf, whichever implementation
        raise ValueError(f"{file} is no ONNX file ({type(error).__name__}: {error}).") from error
    if not len(model.graph.node):
        raise ValueError(f"{file} is no ONNX file: it holds no graph.")
    try:
        onnx.load_external_data_for_model(model, str(file.absolute().parent))
    except Exception as error:  # missing, too short, or outside the folder
        raise ValueError(
            f"{file}: its weights lie in another file, which cannot be read ({error}). Put it beside this one."
        ) from error
    return model
