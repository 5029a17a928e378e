"""What an ONNX file resizes otherwise than the network that it was exported from.

The file says how the network was trained: our exporter writes every resize, in the order in which they run. What the
graph does with it may look different: PyTorch's ``half_pixel`` is a ``Resize``, or two products with constant matrices;
an exact map is a padded ``Resize`` with aligned corners of which a part is kept; a nearest resize is two gathers. So
resizes are compared by what they do: which sample of the features that go in each output reads, the padding before and
the slice behind included (``Form``). Padding and slices that the network has itself are left out of that where the
sizes say so: of the two ways to see a resize, the one whose sizes are those of the training counts.

A resize of the network is looked for first among those of the graph that come from the same module, then by its place
in the order and its sizes, so that one that is gone, or new, moves no other. Sizes that were written at another size of
the image match by their ratio. What is left on both sides, and lies between the same neighbours, is a resize to another
size. Averages over bins are no resize; one that halves is the same as a linear resize, and counts as that where one is
missing.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..grids import TOLERANCE, Resize, Trace
from ..grids.rules import nearest_on_average
from ..ops import AxisMap, PixelModel
from ..ops.grid import axis_maps
from .graph import METADATA
from .onnx_network import Executed, Graph, Node

_KERNELS = {"linear": "linear", "bilinear": "linear", "trilinear": "linear", "bicubic": "cubic", "cubic": "cubic"}
_DIFFERS, _GONE, _NEW = "differs", "gone", "new"
_CONVENTIONS = ("half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric", "tf_half_pixel_for_nn")
_FAR = 1e9
_IDENTITY = AxisMap(1.0, 0.0)


@dataclass(frozen=True)
class Trained:
    """A resize as the network was trained with it.

    Args:
        path: of the module that calls it.
        call: how many that module had called before.
        mode: of ``ops.resize``, ``"grid_sample"``, or ``"attention"``.
        coordinates: a convention's name, or one map per axis; None where these are data.
        source_size: spatial size of what is resized, at the size that was exported; empty where it was not written.
        size: spatial size of the result, likewise.
    """

    path: str
    call: int
    mode: str
    coordinates: PixelModel | None
    source_size: tuple[int, ...] = ()
    size: tuple[int, ...] = ()

    @property
    def kernel(self) -> str:
        return _KERNELS.get(self.mode, self.mode)


@dataclass(frozen=True)
class Difference:
    """A resize that a file computes otherwise than the network was trained with it.

    Args:
        kind: ``"differs"``, ``"gone"`` or ``"new"``.
        path: of the module; of the node where no module is known.
        number: of the resize among those of the module, from 1.
        trained: how it was trained, in words; empty for one that is new.
        computed: how the file computes it; empty for one that is gone.
        first: pixels of the input image by which the first output reads elsewhere, the farther of both axes.
        last: pixels by which the last one does.
    """

    kind: str
    path: str
    number: int
    trained: str
    computed: str
    first: float = 0.0
    last: float = 0.0

    def __str__(self) -> str:
        where = f"{self.path or 'model'}, resize {self.number}"
        if self.kind == _GONE:
            return f"{where}: trained {self.trained}, this file has no such resize"
        if self.kind == _NEW:
            return f"{where}: not in the trained network, this file computes {self.computed}"
        said = f"{where}: trained {self.trained}, this file computes {self.computed}"
        if max(abs(self.first), abs(self.last)) <= TOLERANCE:
            return f"{said}: at the same positions"
        if abs(self.first - self.last) <= TOLERANCE:
            return f"{said}: {self.first:+.3g} px everywhere"
        return f"{said}: drifts {self.first + 0:.3g} .. {self.last + 0:.3g} px"

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {**asdict(self), "text": str(self)}


@dataclass(frozen=True)
class Form:
    """A way to see a resize of the graph: with or without the padding before it and the slice behind it.

    Args:
        source_size: spatial size of what goes in.
        size: spatial size of what comes out.
        maps: what each output reads of what goes in, one map per axis; for nearest resizes on average.
    """

    source_size: tuple[int, ...]
    size: tuple[int, ...]
    maps: tuple[AxisMap, ...]


@dataclass(frozen=True)
class Computed:
    """A resize of the graph.

    Args:
        path: of the module that its node was exported from.
        scoped: the file says so; else the path is a node's name.
        number: of the resize among those of that path, from 1.
        kernel: ``"linear"``, ``"cubic"``, ``"nearest"`` or ``"grid_sample"``, with what tells two of a kind apart.
        name: the convention in its node's words, where it has one.
        stride: input pixels between the samples of what is resized, per axis; empty where it has no position.
        forms: the ways to see it.
        readers: how many nodes read what it gives.
    """

    path: str
    scoped: bool
    number: int
    kernel: str
    name: str
    stride: tuple[float, ...]
    forms: tuple[Form, ...]
    readers: int = 1


def trained_resizes(metadata: Mapping[str, str]) -> list[Trained] | None:
    """Return how the network was trained, from a file's metadata; None where it does not say.

    Raises:
        ValueError: it says so in a way that cannot be read.
    """
    if METADATA not in metadata:
        return None
    try:
        entries = json.loads(metadata[METADATA]).get("resizes")
        return None if entries is None else [_trained(entry) for entry in entries]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"audit: expected metadata {METADATA!r} as mmseg_resample exports it, JSON with a list of resizes, got "
            f"{metadata[METADATA][:80]!r} ({type(error).__name__}: {error}). Export the network again."
        ) from error


def wrapper(trained: Sequence[Trained], paths: Iterable[str]) -> str:
    """Return the name under which an exporter put the network into another module; empty where it did not.

    Args:
        trained: the network's resizes.
        paths: modules that the nodes of the graph were exported from.
    """
    own, found = {each.path for each in trained if each.path}, set(paths)
    if not own:  # all of it is called by the network itself
        first = {path.partition(".")[0] for path in found}
        return first.pop() if len(first) == 1 else ""
    outer = Counter(each.removesuffix(f".{path}") for path in own for each in found if each.endswith(f".{path}"))
    (name, times), *_ = outer.most_common(1) or [("", 0)]
    return name if times > len(own & found) else ""


def exported_size(trained: Sequence[Trained]) -> tuple[int, ...] | None:
    """Return the likely size of the images that a network was exported at: that of its last resize."""
    return next((each.size for each in reversed(trained) if len(each.size) == 2), None)


def _trained(entry: Mapping[str, Any]) -> Trained:
    coordinates: Any = entry.get("coordinates")
    if coordinates is not None and not isinstance(coordinates, str):
        coordinates = tuple(AxisMap(float(scale), float(offset)) for scale, offset in coordinates)
    sizes = (tuple(map(int, entry.get(key) or ())) for key in ("source_size", "size"))
    return Trained(str(entry["path"]), int(entry["call"]), str(entry["mode"]), coordinates, *sizes)


def differences(
    trained: Sequence[Trained],
    trace: Trace,
    executed: Sequence[Executed],
    graph: Graph,
    constants: Mapping[str, Any],
    as_exported: bool = False,
) -> list[Difference]:
    """Compare how a network was trained with what a graph does, at the size of ``trace``.

    Args:
        trained: the network's resizes, in the order in which they run.
        trace: an audit of the graph.
        executed: the nodes behind its resizes.
        graph: the graph.
        constants: values of sizes, paddings and slices at that size.
        as_exported: it is the size that was exported. Else it is taken to be, where half of the resizes have the sizes
            that they had.
    """
    # Attention is no resize in a graph, or several: what it reads cannot be compared.
    attends = [f".{each.path}." for each in trained if each.mode == "attention"]
    trained = [each for each in trained if each.mode != "attention"]
    found = [
        each
        for each in computed_resizes(trace, executed, graph, constants)
        if not any(path in f".{each.path}." for path in attends)
    ]
    pairs = match(trained, found)
    if not as_exported:
        both = [(trained[i], found[j]) for i, j in pairs if i is not None and j is not None and trained[i].size]
        same = [_other_sizes(a, best_form(a, b)) == 0 for a, b in both]
        as_exported = bool(same) and 2 * sum(same) >= len(same)
    judged = []
    spare = [(trained[i], found[j].readers - 1) for i, j in pairs if i is not None and j is not None]
    for i, j in pairs:
        if j is None and i is not None and not _may_vanish(trained[i]) and not _merged(trained[i], spare):
            judged.append((i, Difference(_GONE, trained[i].path, trained[i].call + 1, _said(trained[i]), "")))
        elif i is None and j is not None and not _may_appear(found[j]):
            said = f"{found[j].kernel} {found[j].name}".strip()
            judged.append((j, Difference(_NEW, found[j].path, found[j].number, "", said)))
        elif i is not None and j is not None:
            differs = compare(trained[i], found[j], as_exported)
            if differs is not None:
                judged.append((i, differs))
    return [difference for _, difference in judged]


def compare(trained: Trained, computed: Computed, as_exported: bool) -> Difference | None:
    """Compare a resize with what the graph makes of it; None where it reads the same.

    Its size is compared too where images are as large as they were when it was exported.
    """
    form = best_form(trained, computed)
    if trained.kernel == "grid_sample" or computed.kernel == "grid_sample":
        same = trained.kernel == computed.kernel
        said = "" if same else computed.kernel
        return None if same else Difference(_DIFFERS, trained.path, trained.call + 1, _said(trained), said)
    other_size = as_exported and trained.source_size == form.source_size and trained.size != form.size
    wanted = trained_maps(trained, form.source_size, trained.size if other_size else form.size)
    first = last = 0.0
    strides = computed.stride or (1.0,) * len(form.size)
    for axis, (want, have) in enumerate(zip(wanted, form.maps, strict=True)):
        n, size, stride = form.source_size[axis], form.size[axis], strides[axis]
        if n == 1:
            continue  # whatever is read is the one sample
        ends = [(_inside(have(i), n) - _inside(want(i), n)) * stride for i in (0, size - 1)]
        free = [(have(i) - want(i)) * stride for i in (0, size - 1)]
        if max(map(abs, ends)) <= TOLERANCE and _reads_apart(want, have, n, size, stride):
            ends = free  # the same sample at both ends, but not between
        elif max(map(abs, ends)) > TOLERANCE:
            ends = free
        first, last = max(first, ends[0], key=abs), max(last, ends[1], key=abs)
    resized = any(n != 1 for n in form.source_size)
    moves = max(abs(first), abs(last)) > TOLERANCE
    kernels = _kernel_name(trained.kernel), _kernel_name(computed.kernel)
    other_kernel = kernels[0] != kernels[1] and resized and not _on_samples(form)
    if not moves and not other_kernel and not other_size:
        return None
    said, computes = _said(trained, other_kernel), _computed_said(computed, form, other_kernel)
    if other_size:
        said, computes = (
            f"{text} to {'x'.join(map(str, size))}" for text, size in ((said, trained.size), (computes, form.size))
        )
    return Difference(
        _DIFFERS,
        trained.path,
        trained.call + 1,
        said,
        computes,
        first,
        last,
    )


def _inside(at: float, n: int) -> float:
    return min(max(at, 0.0), n - 1.0)


def _reads_apart(want: AxisMap, have: AxisMap, n: int, size: int, stride: float) -> bool:
    """Tell whether some output reads elsewhere, beyond the border or not."""
    return any(abs(_inside(have(i), n) - _inside(want(i), n)) * stride > TOLERANCE for i in range(size))


def _on_samples(form: Form) -> bool:
    """Tell whether every output reads one sample, which every kernel does alike."""
    return all(abs(m.scale - round(m.scale)) < 1e-6 and abs(m.offset - round(m.offset)) < 1e-6 for m in form.maps)


def _kernel_name(kernel: str) -> str:
    return "nearest" if kernel.startswith("nearest") else kernel


def trained_maps(trained: Trained, source_size: Sequence[int], size: Sequence[int]) -> tuple[AxisMap, ...]:
    """Return what a trained resize reads at these sizes; for nearest modes on average."""
    nearest = trained.kernel.startswith("nearest")
    if nearest and isinstance(trained.coordinates, str | None):  # the mode says where F.interpolate reads
        return tuple(nearest_on_average(trained.mode, n, out) for n, out in zip(source_size, size, strict=True))
    maps = axis_maps(trained.coordinates or "half_pixel", source_size, size)
    if not nearest:
        return maps
    axes = zip(source_size, size, maps, strict=True)
    return tuple(nearest_on_average(trained.mode, n, out, axis_map) for n, out, axis_map in axes)


def _said(trained: Trained, kernel: bool = False) -> str:
    if trained.coordinates is None:
        return trained.mode
    if isinstance(trained.coordinates, str):
        nearest = trained.kernel.startswith("nearest")
        return trained.mode if nearest else f"{trained.mode} {trained.coordinates}" if kernel else trained.coordinates
    maps = "; ".join(dict.fromkeys(f"{m.scale:.6g} i {m.offset:+.4g}" for m in trained.coordinates))
    return f"{trained.mode} {maps}" if kernel else maps


def _computed_said(computed: Computed, form: Form, kernel: bool) -> str:
    name = computed.name
    if computed.kernel.startswith("nearest"):
        return f"nearest {name}".strip() if name else f"nearest {_maps_said(form)}"
    if not name or form is not computed.forms[0]:
        name = next((n for n in _CONVENTIONS if _fits(n, form)), None) or _maps_said(form)  # type: ignore[arg-type]
    return f"{computed.kernel} {name}" if kernel else name


def _fits(name: Any, form: Form) -> bool:
    named = axis_maps(name, form.source_size, form.size)
    return all(a.is_close(b, 1e-5) for a, b in zip(named, form.maps, strict=True))


def _maps_said(form: Form) -> str:
    return "; ".join(dict.fromkeys(f"{m.scale:.6g} i {m.offset:+.4g}" for m in form.maps))


def _may_vanish(trained: Trained) -> bool:
    """Tell whether an exporter may write a resize as something else: one that repeats one sample, or does nothing.

    What is sampled at data is no resize of a graph that computes the samples by other operators.
    """
    if trained.coordinates is None or set(trained.source_size) == {1}:
        return True
    if not trained.size or trained.size != trained.source_size:
        return False
    return _is_identity(trained_maps(trained, trained.source_size, trained.size))


def _merged(trained: Trained, spare: list[tuple[Trained, int]]) -> bool:
    """Tell whether an exporter may have made one of two equal resizes of the same features, and take a reader of it.

    Args:
        trained: the one that is gone.
        spare: resizes that are there, each with how many of its readers may read it for another.
    """
    for index, (other, readers) in enumerate(spare):
        if readers > 0 and replace(other, path=trained.path, call=trained.call) == trained:
            spare[index] = (other, readers - 1)
            return True
    return False


def _may_appear(computed: Computed) -> bool:
    """Tell whether a resize of the graph does nothing, repeats one sample, or samples at data.

    Gathers are how nearest resizes are exported, and how a network picks rows and columns by itself.
    """
    gathers = computed.kernel.startswith("nearest") and not computed.name
    return (
        gathers
        or computed.kernel == "grid_sample"
        or any(
            set(form.source_size) == {1} or (form.source_size == form.size and _is_identity(form.maps))
            for form in computed.forms
        )
    )


def _is_identity(maps: Sequence[AxisMap]) -> bool:
    return all(axis_map.is_close(_IDENTITY) for axis_map in maps)


# --- which is which ---------------------------------------------------------------------------------------------------


def match(trained: Sequence[Trained], found: Sequence[Computed]) -> list[tuple[int | None, int | None]]:
    """Pair resizes in their order, at the least cost; None where one has no counterpart.

    Those of one module belong together, those of like sizes do. A resize that differs in both is rather gone.
    """
    rows, columns = len(trained), len(found)
    gap = 1.0
    cost = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(rows + 1):
        for j in range(columns + 1):
            if i or j:
                ways = [_FAR]
                if i:
                    ways.append(cost[i - 1][j] + gap)
                if j:
                    ways.append(cost[i][j - 1] + gap)
                if i and j:
                    ways.append(cost[i - 1][j - 1] + _mismatch(trained[i - 1], found[j - 1]))
                cost[i][j] = min(ways)
    pairs: list[tuple[int | None, int | None]] = []
    i, j = rows, columns
    while i or j:
        if i and j and cost[i][j] == cost[i - 1][j - 1] + _mismatch(trained[i - 1], found[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif i and cost[i][j] == cost[i - 1][j] + gap:
            i -= 1
            pairs.append((i, None))
        else:
            j -= 1
            pairs.append((None, j))
    return pairs[::-1]


def _mismatch(trained: Trained, computed: Computed) -> float:
    """Return how unlike two resizes are: 0 for the same, above 2 for those that are rather one gone and one new."""
    path = 0.0 if trained.path == computed.path else 1.4 if computed.scoped else 0.3
    sizes = min(_other_sizes(trained, form) for form in computed.forms)
    kernel = 0.0 if _kernel_name(trained.kernel) == _kernel_name(computed.kernel) else 0.3
    number = 0.0 if trained.call + 1 == computed.number else 0.1
    return path + sizes + kernel + number


def _other_sizes(trained: Trained, form: Form) -> float:
    if not trained.size or not trained.source_size or len(trained.size) != len(form.size):
        return 0.1
    if (trained.source_size, trained.size) == (form.source_size, form.size):
        return 0.0
    if trained.source_size == form.source_size:
        return 0.05  # bins, which are as many at every size
    ratio = max(
        abs((a / b) / (c / d) - 1)
        for a, b, c, d in zip(trained.size, trained.source_size, form.size, form.source_size, strict=True)
    )
    return 0.1 if ratio < 0.1 else 0.2 if ratio < 0.3 else 0.7


def best_form(trained: Trained, computed: Computed) -> Form:
    """Return the way to see a resize whose sizes are those of the training; among equals the nearest in positions."""

    def unlike(form: Form) -> tuple[float, float]:
        sizes = _other_sizes(trained, form)
        if trained.coordinates is None or len(form.maps) != len(form.size):
            return sizes, 0.0
        wanted = trained_maps(trained, form.source_size, form.size)
        apart = max(
            abs(want(i) - have(i))
            for want, have, size in zip(wanted, form.maps, form.size, strict=True)
            for i in (0, size - 1)
        )
        return sizes, apart

    return min(computed.forms, key=unlike)


# --- what the graph does ----------------------------------------------------------------------------------------------


def computed_resizes(
    trace: Trace, executed: Sequence[Executed], graph: Graph, constants: Mapping[str, Any]
) -> Iterator[Computed]:
    """Yield the resizes of a graph, in the order in which they run."""
    nodes = {each.site: each for each in executed}
    for resize in trace.resizes:
        each = nodes.get(resize.site)
        if each is None:
            continue
        stride = resize.source.stride if resize.source is not None else ()
        first = each.first
        name = first.attributes.get("coordinate_transformation_mode", "half_pixel") if first.op == "Resize" else ""
        if first.op == "Upsample" or (first.op == "Resize" and first.version < 11):
            name = "asymmetric"
        if each.kernel == "nearest" and name:
            name += f", {first.attributes.get('nearest_mode', 'round_prefer_floor')}"
        number = resize.call + 1 if resize.reachable else -resize.call
        forms = tuple(_forms(resize, each, graph, constants))
        kernel = each.kernel
        if kernel == "grid_sample" and resize.maps:  # at a grid of constants
            kernel = _KERNELS.get(first.attributes.get("mode", "linear"), "nearest")
        readers = _readers(each.last, graph)
        yield Computed(resize.path, bool(first.origin), number, kernel, name, stride, forms, readers)


def _forms(resize: Resize, each: Executed, graph: Graph, constants: Mapping[str, Any]) -> Iterable[Form]:
    """Return the resize as it is, and with the padding before and the slices behind it."""
    plain = Form(resize.source_size, resize.size, resize.maps)
    if not resize.maps:
        return [plain]
    axes = len(resize.size)
    before = _padding(each.first, graph, constants, axes)
    slices = _kept(each.last, graph, constants, resize.size)
    forms = [plain]
    for pads in {before, ((0, 0),) * axes}:
        for kept in {slices, tuple(range(n) for n in resize.size)}:
            size = tuple(len(part) for part in kept)
            if (any(map(any, pads)) or size != resize.size) and min(size):
                source = tuple(n - a - b for n, (a, b) in zip(resize.source_size, pads, strict=True))
                maps = tuple(
                    AxisMap(m.scale * part.step, m(part.start) - a)
                    for m, part, (a, _) in zip(resize.maps, kept, pads, strict=True)
                )
                forms.append(Form(source, size, maps))
    return forms


def _padding(node: Node, graph: Graph, constants: Mapping[str, Any], axes: int) -> tuple[tuple[int, int], ...]:
    """Return how much of the edge is repeated before a resize, before and behind each axis."""
    none = ((0, 0),) * axes
    made = next((other for other in graph.nodes if node.inputs[0] in other.outputs), None)
    if made is None or made.op != "Pad" or made.attributes.get("mode") != "edge":
        return none
    pads = made.attributes.get("pads")
    pads = constants.get(made.inputs[1]) if pads is None and len(made.inputs) > 1 else pads
    if pads is None:
        return none
    amounts, rank = [int(n) for n in pads], axes + 2
    which = _numbers(made, 3, "axes", constants) or list(range(rank))
    found = {int(axis) % rank: (amounts[j], amounts[j + len(amounts) // 2]) for j, axis in enumerate(which)}
    return tuple(found.get(2 + axis, (0, 0)) for axis in range(axes))


def _kept(node: Node, graph: Graph, constants: Mapping[str, Any], size: Sequence[int]) -> tuple[range, ...]:
    """Return which outputs of a resize the slices behind it keep."""
    kept = [range(n) for n in size]
    name = node.outputs[0]
    while True:
        users = graph.users.get(name, [])
        if len(users) != 1 or users[0].op != "Slice" or name in graph.outputs:
            return tuple(kept)
        given = [_numbers(users[0], i, key, constants) for i, key in enumerate(("starts", "ends", "axes", "steps"), 1)]
        starts, ends = given[:2]
        if starts is None or ends is None:
            return tuple(kept)
        axes = given[2] if given[2] is not None else list(range(len(starts)))
        steps = given[3] if given[3] is not None else [1] * len(starts)
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            index = axis % (len(size) + 2) - 2
            if index < 0 or step < 1:
                return tuple(kept)
            kept[index] = kept[index][start:end:step]
        name = users[0].outputs[0]


def _readers(node: Node, graph: Graph) -> int:
    """Count what reads a resize, behind slices that keep a part, and concatenations, which can be made one too."""
    name = node.outputs[0]
    users = graph.users.get(name, [])
    while len(users) == 1 and users[0].op in ("Slice", "Concat") and name not in graph.outputs:
        name = users[0].outputs[0]
        users = graph.users.get(name, [])
    return len(users) + (name in graph.outputs)


def _numbers(node: Node, index: int, name: str, constants: Mapping[str, Any]) -> list[int] | None:
    value = node.attributes.get(name)
    if value is None and index < len(node.inputs) and node.inputs[index]:
        value = constants.get(node.inputs[index])
    return None if value is None else [int(n) for n in value]
