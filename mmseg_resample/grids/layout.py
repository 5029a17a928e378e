"""Where every element of a tensor sits in the input image: the pixel grid, for tensors of any shape.

A feature map (N, C, H, W) has a ``PixelGrid``. Networks also fold it into tokens, windows, heads and phases, and back.
A ``Layout`` follows that: each dimension of the tensor is a product of loops (``Atom``), each of which moves the
position by a fixed step, so that views, permutations and strided slices keep the position of every element exactly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from ..ops import AxisMap, PixelGrid
from .points import Choice

Vector = tuple[float, float]
"""(y, x) in input pixels."""

ZERO: Vector = (0.0, 0.0)


class Untrackable(Exception):
    """Positions after an operation that cannot be expressed; the message says why."""


Taps = Sequence[Sequence[tuple[int, float]]]
"""For each output of a period, the samples that it reads with their weights."""

_LONGEST = 1024  # outputs of a period of phases


@dataclass(frozen=True)
class Atom:
    """One loop: index ``i`` of ``size`` adds ``origin + i * step`` to the position. Plain loops have step zero.

    What repeats samples (nearest, transposed convolutions) reads where that says on average alone. Output ``i`` reads
    ``phases[i % len(phases)]`` steps further on, which matters to what takes every second of them.
    """

    size: int
    step: Vector = ZERO
    origin: Vector = ZERO
    phases: tuple[float, ...] = ()

    @property
    def spatial(self) -> bool:
        return self.step != ZERO

    @property
    def placed(self) -> bool:
        return self.step != ZERO or self.origin != ZERO

    def at(self, index: float) -> Vector:
        return (self.origin[0] + index * self.step[0], self.origin[1] + index * self.step[1])

    def phase(self, index: int) -> float:
        """Return how many steps from ``at(index)`` the sample really lies."""
        return self.phases[index % len(self.phases)] if self.phases else 0.0

    def windows(self, size: int, start: int, stride: int, kernel: int = 1, dilation: int = 1) -> "Atom":
        """Average ``kernel`` samples, ``dilation`` apart, the first of output ``i`` at ``start + i * stride``."""
        first = range(start, start + stride * len(self.phases), stride) if stride else ()
        phases = [sum(self.phase(i + k * dilation) for k in range(kernel)) / kernel / stride for i in first]
        step = (self.step[0] * stride, self.step[1] * stride)
        return self._placed(size, step, start + dilation * (kernel - 1) / 2, phases, stride)

    def resampled(self, size: int, axis_map: AxisMap, taps: Taps | None = None) -> "Atom":
        """Read at ``axis_map``: interpolating, or the samples ``taps`` of each output of a period."""
        scale = Fraction(axis_map.scale).limit_denominator(_LONGEST)
        exact = abs(float(scale) - axis_map.scale) < 1e-9
        if taps is None and self.phases and exact:
            reads = [axis_map(i) for i in range(scale.denominator)]
            taps = [((math.floor(r), 1 - r % 1), (math.floor(r) + 1, r % 1)) for r in reads]
        phases: list[float] = []
        period = len(taps or ()) * max(len(self.phases), 1)
        if taps and (exact or len(taps) >= size) and min(period, size) <= _LONGEST:
            further = round(axis_map.scale * len(taps))  # samples per period
            for i in range(min(period, size)):
                samples = [(x + i // len(taps) * further, weight) for x, weight in taps[i % len(taps)]]
                reads_at = sum(weight * (x + self.phase(x)) for x, weight in samples)
                phases.append((reads_at - axis_map(i)) / axis_map.scale)
        step = (self.step[0] * axis_map.scale, self.step[1] * axis_map.scale)
        return self._placed(size, step, axis_map.offset, phases, axis_map.scale, part=period > size)

    def _placed(
        self, size: int, step: Vector, first: float, phases: Sequence[float], stride: float, part: bool = False
    ) -> "Atom":
        """Return a loop that starts at sample ``first``; what all phases share is its own."""
        slope = 1.0
        part = part or len(phases) > size
        if part and phases and size > 1:  # where its own samples lie on average, and how far apart
            own, middle = phases[:size], (size - 1) / 2
            slope += sum((i - middle) * phase for i, phase in enumerate(own)) * 12 / (size * (size * size - 1))
            phases = [(phase - (slope - 1) * i) / slope for i, phase in enumerate(own)]
        mean = sum(phases) / max(len(phases), 1)
        apart = tuple(phase - mean for phase in phases)
        return Atom(
            size,
            (step[0] * slope, step[1] * slope),
            self.at(first + mean * slope * stride),
            apart if max(map(abs, apart), default=0) > 1e-6 else (),
        )


@dataclass(frozen=True)
class Dim:
    """A dimension: one part after another (class tokens, then patches), each the product of its atoms, major first.

    Of ``choice``, if there is one, it holds the chosen points alone; its parts are those of all points.
    """

    parts: tuple[tuple[Atom, ...], ...]
    choice: Choice | None = None

    @classmethod
    def of(cls, *atoms: Atom) -> "Dim":
        return cls((atoms,))

    @classmethod
    def plain(cls, size: int) -> "Dim":
        return cls.of(Atom(size))

    @cached_property
    def size(self) -> int:
        return self.extent if self.choice is None else self.choice.count

    @cached_property
    def extent(self) -> int:
        """Number of indices, of which all, or those chosen, are elements."""
        return sum(self._sizes)

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(math.prod(atom.size for atom in part) for part in self.parts)

    @cached_property
    def spatial(self) -> bool:
        return any(atom.spatial for part in self.parts for atom in part)

    @cached_property
    def placed(self) -> bool:
        """Tell whether the index says something of the position: a loop over it, or phases that lie apart."""
        return any(atom.spatial or atom.origin != ZERO for part in self.parts for atom in part)

    @cached_property
    def mean(self) -> Vector:
        """Mean over the indices of what the dimension adds to a position."""
        total = [0.0, 0.0]
        for part, size in zip(self.parts, self._sizes, strict=True):
            for atom in part:
                centre = atom.at((atom.size - 1) / 2 + sum(map(atom.phase, range(atom.size))) / max(atom.size, 1))
                total = [t + c * size for t, c in zip(total, centre, strict=True)]
        return (total[0] / max(self.extent, 1), total[1] / max(self.extent, 1))

    def moves_along(self, axis: int) -> bool:
        return any(atom.step[axis] for part in self.parts for atom in part)

    def at(self, index: int, phases: bool = False) -> Vector:
        """Return what an index adds to the position: where it lies on average over phases, or by itself."""
        part = self.parts[0]
        for part, size in zip(self.parts, self._sizes, strict=True):  # noqa: B007  (the one that holds the index)
            if index < size:
                break
            index -= size
        y = x = 0.0
        for atom in reversed(part):
            index, i = divmod(index, atom.size)
            dy, dx = atom.at(i + atom.phase(i) if phases else i)
            y, x = y + dy, x + dx
        return (y, x)

    def index_at(self, axis: int, where: float) -> int:
        """Return the index with loops along ``axis`` at ``where`` of their length, others in the middle."""
        start = 0
        part = self.parts[0]
        for part, size in zip(self.parts, self._sizes, strict=True):
            if any(atom.spatial for atom in part):
                break
            start += size
        flat = 0
        for atom in part:
            flat = flat * atom.size + math.floor((where if atom.step[axis] else 0.5) * (atom.size - 1))
        return start + flat

    def moved(self, by: Vector) -> "Dim":
        """Move every position."""
        return replace(
            self,
            parts=tuple(
                (replace(part[0], origin=(part[0].origin[0] + by[0], part[0].origin[1] + by[1])), *part[1:])
                for part in self.parts
            ),
        )

    def along(self, axes: Sequence[int]) -> "Dim":
        """Keep what the dimension adds to positions along some axes."""

        def kept(vector: Vector) -> Vector:
            return (vector[0] if 0 in axes else 0.0, vector[1] if 1 in axes else 0.0)

        atoms = [[replace(a, step=kept(a.step), origin=kept(a.origin)) for a in part] for part in self.parts]
        return replace(self, parts=tuple(tuple(part) for part in atoms))

    def slice(self, start: int, stop: int, step: int) -> "Dim":
        size = len(range(start, stop, step))
        if not self.placed:
            return Dim.plain(size)
        self.refuse_choice("a slice")
        if len(self.parts) > 1:
            return self._slice_parts(start, stop, step)
        (part,) = self.parts
        if size == 1:
            return Dim.of(Atom(1, ZERO, self.at(start, phases=True)))
        if len(part) > 1 and step == 1:  # whole steps of the outermost loop
            inner = math.prod(atom.size for atom in part[1:])
            if start % inner == 0 and size % inner == 0:
                outer = part[0]
                return Dim.of(*_canonical([Atom(size // inner, outer.step, outer.at(start // inner)), *part[1:]]))
        atom = self.single("a slice")
        return Dim.of(*_canonical([atom.windows(size, start, step)]))

    def _slice_parts(self, start: int, stop: int, step: int) -> "Dim":
        if step != 1:
            raise Untrackable("a strided slice through several parts")
        kept: list[tuple[Atom, ...]] = []
        begin = 0
        for part, size in zip(self.parts, self._sizes, strict=True):
            low, high = max(start - begin, 0), min(stop - begin, size)
            if low < high:
                kept.extend(Dim((part,)).slice(low, high, 1).parts if high - low < size else [part])
            begin += size
        return Dim(tuple(kept))

    def averaged(self) -> "Dim":
        """Spread samples that are repeated evenly, as phases of one loop; return other dimensions as they are."""
        (part, *more) = self.parts
        if len(part) != 2 or more or not part[0].spatial or part[1].placed or self.choice is not None:
            return self
        times = part[1].size
        axis_map = AxisMap(1 / times, (1 / times - 1) / 2)
        return Dim.of(part[0].resampled(self.size, axis_map, [[(0, 1.0)]] * times))

    def without_phases(self) -> "Dim":
        """Say of samples that are repeated where they lie on average alone."""
        return replace(self, parts=tuple(tuple(replace(atom, phases=()) for atom in part) for part in self.parts))

    def single(self, what: str) -> Atom:
        """Return the only atom of a dimension along which an op moves a window."""
        self.refuse_choice(what)
        (part, *more) = self.averaged().parts
        if more or len(part) != 1:
            raise Untrackable(f"{what} along a dimension that folds several axes")
        return part[0]

    def refuse_choice(self, what: str) -> None:
        """Raise where neighbours are not known: among points that values choose."""
        if self.choice is not None:
            raise Untrackable(f"{what} along chosen points")


def _canonical(atoms: Sequence[Atom]) -> tuple[Atom, ...]:
    """Merge neighbours that make one loop; drop loops of one step that add nothing."""
    merged: list[Atom] = []
    for atom in atoms:
        if atom.size == 1:
            atom = replace(atom, step=ZERO)
            if atom.origin == ZERO:
                continue
        if merged:
            outer = merged[-1]
            inner_span = (atom.step[0] * atom.size, atom.step[1] * atom.size)
            origin = (outer.origin[0] + atom.origin[0], outer.origin[1] + atom.origin[1])
            if outer.size == 1:
                merged[-1] = replace(atom, origin=origin)
                continue
            if atom.size == 1:
                merged[-1] = replace(outer, origin=origin)
                continue
            if outer.step == inner_span and not outer.phases:
                phases = atom.phases if not atom.phases or atom.size % len(atom.phases) == 0 else ()
                merged[-1] = Atom(outer.size * atom.size, atom.step, origin, phases)
                continue
        merged.append(atom)
    return tuple(merged) or (Atom(1),)


@dataclass(frozen=True)
class Layout:
    """Positions of a tensor's elements.

    Args:
        dims: one per dimension of the tensor.
        native: spacing (y, x), in input pixels, of the finest evidence in the tensor; upsampling does not refine it.
            Infinite where the tensor has no position (weights, globally pooled features).
        pooled: averaged over adaptive bins, whose centres are half-pixel by construction.
        site: the resize that put the elements where they are, by its number in the trace; None where layers did.
    """

    dims: tuple[Dim, ...]
    native: Vector = (math.inf, math.inf)
    pooled: bool = False
    site: int | None = None

    @classmethod
    def plain(cls, shape: Sequence[int]) -> "Layout":
        return cls(tuple(Dim.plain(int(size)) for size in shape))

    @classmethod
    def image(cls, shape: Sequence[int]) -> "Layout":
        """Place (N, C, H, W) at the positions of the network's input."""
        *front, height, width = (int(size) for size in shape)
        dims = [Dim.plain(size) for size in front]
        return cls((*dims, Dim.of(Atom(height, (1.0, 0.0))), Dim.of(Atom(width, (0.0, 1.0)))), (1.0, 1.0))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(dim.size for dim in self.dims)

    @cached_property
    def spatial(self) -> bool:
        return any(dim.spatial for dim in self.dims)

    @cached_property
    def relates(self) -> bool:
        """Tell whether two dimensions run over the same positions, as in a map of attention.

        Windows and elements nest.
        """
        loops = [[atom for part in dim.parts for atom in part if atom.size > 1] for dim in self.dims if dim.spatial]
        return any(_overlap(a, b) for i, dim in enumerate(loops) for other in loops[:i] for a in dim for b in other)

    def at(self, index: Sequence[int]) -> Vector:
        parts = [dim.at(i) for dim, i in zip(self.dims, index, strict=True)]
        return (sum(p[0] for p in parts), sum(p[1] for p in parts))

    def with_dims(self, dims: Sequence[Dim]) -> "Layout":
        result = replace(self, dims=tuple(dims))
        return result if result.spatial else Layout(tuple(dims))

    def with_dim(self, index: int, dim: Dim) -> "Layout":
        dims = list(self.dims)
        dims[index] = dim
        return self.with_dims(dims)

    def moved(self, by: Vector) -> "Layout":
        """Move every position; where there is none, nothing."""
        moved = self
        for axis, distance in enumerate(by):
            index = next((i for i, dim in enumerate(self.dims) if dim.moves_along(axis)), None)
            if index is not None and distance:
                along = (distance, 0.0) if axis == 0 else (0.0, distance)
                moved = moved.with_dim(index, moved.dims[index].moved(along))
        return moved

    def grid(self) -> PixelGrid:
        """Return the pixel grid of (..., H, W).

        Raises:
            Untrackable: there is no position, or the last two dimensions are not one image axis each.
        """
        if not self.spatial:
            raise Untrackable("a grid of what has no position")
        placed = [dim for dim in self.dims if dim.placed]
        if len(placed) == 1 and placed[0].choice is not None and len(placed[0].parts[0]) == 2:
            y, x = placed[0].parts[0]  # that of all points, whichever are chosen
        else:
            y, x = (dim.single("a grid") for dim in self.dims[-2:])
        if y.step[1] or x.step[0]:
            raise Untrackable("a grid whose axes are swapped")
        origin = self.at([0] * len(self.dims))
        return PixelGrid((y.step[0] or 1.0, x.step[1] or 1.0), origin, (y.size, x.size))

    # --- views --------------------------------------------------------------------------------------------------------

    def permute(self, order: Sequence[int]) -> "Layout":
        return self.with_dims([self.dims[i] for i in order])

    def reshape(self, sizes: Sequence[int]) -> "Layout":
        """Regroup the loops into dimensions of ``sizes``, splitting and merging them as needed."""
        flat: list[Atom | Dim] = []
        for dim in self.dims:
            if len(dim.parts) > 1 or dim.choice is not None:
                flat.append(dim)  # moves as one piece
                continue
            for atom in dim.parts[0]:
                if flat and isinstance(flat[-1], Atom):
                    flat[-1:] = _canonical([flat[-1], atom])
                else:
                    flat.append(atom)
        flat = [piece for piece in flat if piece != Atom(1)]
        dims = [_take(flat, size) for size in sizes]
        if flat:
            dims[-1:] = [dims[-1].moved(_leftover(flat))]
        return self.with_dims(dims)

    def slice(self, index: int, start: int, stop: int, step: int) -> "Layout":
        dim = self.dims[index]
        start, stop, _ = slice(start, stop, step).indices(dim.size)
        if (start, stop, step) == (0, dim.size, 1):
            return self
        return self.with_dim(index, dim.slice(start, stop, step))

    def select(self, index: int, at: int) -> "Layout":
        """Drop a dimension by fixing its index; what it adds to the position stays."""
        dim = self.dims[index]
        rest = list(self.dims[:index] + self.dims[index + 1 :])
        kept = next((i for i, other in enumerate(rest) if other.spatial), None)
        if dim.spatial and kept is not None:
            dim.refuse_choice("a selection")
            rest[kept] = rest[kept].moved(dim.at(at % dim.size, phases=True))
        return self.with_dims(rest)

    def mix(self, index: int, size: int) -> "Layout":
        """Replace a dimension by ``size`` mixtures of all its entries, as a sum over channels does.

        Along an image axis that other dimensions still move along (phases that were folded into channels), the
        mixtures lie at the mean of what was mixed, and the evidence is as coarse as the samples are apart now. Along
        one that none moves along any more, there is no position. A row of an attention map stays at its query.
        """
        mixed = self.dims[index]
        result = self.with_dim(index, Dim.plain(size))
        if not mixed.placed or self.relates:
            return result
        dims, native = list(result.dims), list(result.native)
        for axis in (0, 1):
            left = [i for i, dim in enumerate(dims) if dim.moves_along(axis)]
            if not left:
                continue
            by = (mixed.mean[0], 0.0) if axis == 0 else (0.0, mixed.mean[1])
            dims[left[-1]] = dims[left[-1]].moved(by)
            if mixed.moves_along(axis) or by != ZERO:
                steps = [abs(atom.step[axis]) for part in dims[left[-1]].parts for atom in part if atom.step[axis]]
                native[axis] = max(native[axis], min(steps))
        moved = result.with_dims(dims)
        return replace(moved, native=(native[0], native[1])) if moved.spatial else moved

    def spanned(self, index: int, other: "Layout", axes: Sequence[int]) -> "Layout":
        """Take positions along ``axes`` from ``other``, which moves along them in dimension ``index``."""
        if not axes:
            return self.with_dim(index, other.dims[index])
        fixed = [sum(dim.at(0)[axis] for dim in other.dims) - other.dims[index].at(0)[axis] for axis in (0, 1)]
        by = (fixed[0] if 0 in axes else 0.0, fixed[1] if 1 in axes else 0.0)
        kept = [axis for axis in (0, 1) if axis not in axes]
        dims = [dim.along(kept) for dim in self.dims]
        dims[index] = other.dims[index].along(axes).moved(by)
        return self.with_dims(dims)

    def evened(self, others: Sequence["Layout"]) -> "Layout":
        """Forget which samples are repeated where that differs between the tensors that are put together here."""
        result = self
        for i, dim in enumerate(self.dims):
            aligned = [other.dims[j] for other in others if (j := i + len(other.dims) - len(self.dims)) >= 0]
            if len({atom.phases for own in aligned if own.spatial for part in own.parts for atom in part}) > 1:
                result = result.with_dim(i, dim.without_phases())
        return result

    def insert(self, index: int, size: int = 1) -> "Layout":
        return self.with_dims([*self.dims[:index], Dim.plain(size), *self.dims[index:]])

    def expand(self, shape: Sequence[int]) -> "Layout":
        """Broadcast to ``shape``: new and repeated entries have no position of their own."""
        dims = [Dim.plain(1)] * (len(shape) - len(self.dims)) + list(self.dims)
        return self.with_dims(
            [dim if dim.size == size else Dim.plain(int(size)) for dim, size in zip(dims, shape, strict=True)]
        )

    # --- resampling along one dimension -------------------------------------------------------------------------------

    def window(self, index: int, size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> "Layout":
        """Move a convolution or pooling along one dimension, to ``size`` outputs. ``padding`` is the leading one."""
        dim = self.dims[index]
        if not dim.spatial:
            return self.with_dim(index, Dim.plain(size))
        if (kernel, stride, padding, size) == (1, 1, 0, dim.size):
            return self
        moved_atom = dim.single("a window").windows(size, int(-padding), stride, kernel, dilation)
        native = tuple(max(n, abs(s)) if s else n for n, s in zip(self.native, moved_atom.step, strict=True))
        moved = self.with_dim(index, Dim.of(*_canonical([moved_atom])))
        return replace(moved, native=native) if moved.spatial else moved  # type: ignore[arg-type]

    def resample(self, index: int, size: int, axis_map: AxisMap, taps: Taps | None = None) -> "Layout":
        """Resize along one dimension: output ``i`` is where the source would have ``axis_map(i)``.

        ``taps`` tells what each output of a period reads, where that is so on average alone.
        """
        dim = self.dims[index]
        if not dim.spatial:
            return self.with_dim(index, Dim.plain(size))
        atom = dim.single("a resize").resampled(size, axis_map, taps)
        resized = self.with_dim(index, Dim.of(atom))
        if abs(axis_map.scale) <= 1 or not resized.spatial:
            return resized
        # What shrinks leaves evidence out.
        native = tuple(max(n, abs(s)) if s else n for n, s in zip(self.native, atom.step, strict=True))
        return replace(resized, native=native)  # type: ignore[arg-type]


def _overlap(a: Atom, b: Atom) -> bool:
    """Tell whether the coarser of two loops steps within the length of the finer, along an axis of the image."""
    for axis in (0, 1):
        (fine, size), (coarse, _) = sorted([(abs(a.step[axis]), a.size), (abs(b.step[axis]), b.size)])
        if fine and coarse < fine * (size - 1):
            return True
    return False


def _take(flat: list[Atom | Dim], size: int) -> Dim:
    """Consume loops from the front until they make ``size``."""
    taken: list[Atom] = []
    while size > 1:
        piece = flat.pop(0)
        if isinstance(piece, Dim):
            if taken or piece.size != size:
                raise Untrackable("a reshape through a dimension of several parts")
            return piece
        if size % piece.size == 0:
            taken.append(piece)
            size //= piece.size
        elif piece.size % size == 0:
            inner = piece.size // size
            taken.append(Atom(size, (piece.step[0] * inner, piece.step[1] * inner), piece.origin))
            if piece.phases and inner % len(piece.phases):
                raise Untrackable("a reshape that cuts through the phases of what was repeated")
            flat.insert(0, Atom(inner, piece.step, ZERO, piece.phases))
            size = 1
        else:
            raise Untrackable(f"a reshape that cuts an axis of {piece.size} into pieces of {size}")
    return Dim.of(*_canonical(taken)) if taken else Dim.plain(1)


def _leftover(flat: list[Atom | Dim]) -> Vector:
    """Return what loops of one step, behind the last dimension, still add."""
    if any(not isinstance(piece, Atom) or piece.size > 1 for piece in flat):
        raise Untrackable("a reshape between different numbers of elements")
    origins = [piece.origin for piece in flat if isinstance(piece, Atom)]
    return (sum(o[0] for o in origins), sum(o[1] for o in origins))


@dataclass(frozen=True)
class Offset:
    """Disagreement of two tensors along one image axis, in input pixels: at the first, middle and last position."""

    first: float
    middle: float
    last: float

    @property
    def largest(self) -> float:
        """The value of largest magnitude, with its sign."""
        return max((self.first, self.middle, self.last), key=abs)

    @property
    def shift(self) -> float:
        """The constant part: what a convolution can learn to undo."""
        return (self.first + self.last) / 2

    @property
    def drift(self) -> float:
        """The part that changes from the first to the last position, which it cannot."""
        return self.last - self.first


def offset_between(a: Layout, b: Layout) -> tuple[Offset | None, Offset | None]:
    """Position in ``a`` minus position in ``b``, per image axis (y, x); None where one of them has no position."""
    rank = max(len(a.dims), len(b.dims))
    pairs = list(zip(_padded(a, rank), _padded(b, rank), strict=True))

    def along(axis: int) -> Offset | None:
        if not all(any(dim.moves_along(axis) for dim in layout.dims) for layout in (a, b)):
            return None
        values = []
        for where in (0.0, 0.5, 1.0):
            difference = 0.0
            for dim_a, dim_b in pairs:
                if dim_a.choice is not dim_b.choice and dim_a.placed and dim_b.placed:
                    raise Untrackable("points that were chosen apart")
                if dim_a.placed != dim_b.placed:  # phases or taps meet what is the same for all of them
                    difference += dim_a.mean[axis] - dim_b.mean[axis]
                    continue
                larger = dim_a if (dim_a.extent, dim_a.spatial) >= (dim_b.extent, dim_b.spatial) else dim_b
                index = larger.index_at(axis, where)
                at_a, at_b = (dim.at(min(index, dim.extent - 1))[axis] for dim in (dim_a, dim_b))
                difference += at_a - at_b
            values.append(difference)
        return Offset(*values)

    return along(0), along(1)


def _padded(layout: Layout, rank: int) -> tuple[Dim, ...]:
    dims = (dim.averaged() for dim in layout.dims)
    return (*[Dim.plain(1)] * (rank - len(layout.dims)), *dims)
