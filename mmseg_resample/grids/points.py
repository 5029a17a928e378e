"""Points of a grid that a network chooses as it runs, and the numbers that it holds of them.

PointRend refines the pixels that it is least sure of. Which ones they are is data; that they are pixels of a grid is
not: their numbers, and the coordinates that it computes from these, say of each point where it lies in the grid.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakIdKeyDictionary

from .fake import has_values


@dataclass(frozen=True, eq=False)
class Choice:
    """Points of a grid that values choose.

    Args:
        sizes: lengths of the loops by which the points of the grid are numbered, major first.
        count: how many of them are chosen.
    """

    sizes: tuple[int, ...]
    count: int


@dataclass(frozen=True)
class Numbers:
    """Numbers that a tensor holds of chosen points: ``scale * i + offset`` for index ``i`` of some of the grid's loops.

    Args:
        choice: the points.
        first: the first of those loops.
        stop: the one behind the last.
        scale: what a step of the index adds.
        offset: what index 0 has.
    """

    choice: Choice
    first: int
    stop: int
    scale: float = 1.0
    offset: float = 0.0

    @property
    def counts_points(self) -> bool:
        """Tell whether the numbers are those of the points themselves."""
        return (self.first, self.stop, self.scale, self.offset) == (0, len(self.choice.sizes), 1.0, 0.0)

    def divided(self, by: float, rest: bool) -> "Numbers | None":
        """Return the whole quotients, or the rests, of a division by the length of the innermost loops."""
        for split in range(self.first + 1, self.stop):
            if math.prod(self.choice.sizes[split : self.stop]) == by and (self.scale, self.offset) == (1.0, 0.0):
                return replace(self, first=split) if rest else replace(self, stop=split)
        return None


Columns = tuple[Numbers, ...]
"""Numbers in the last dimension of a tensor, one after the other, such as coordinates (x, y)."""


class ChosenPoints:
    """Notes of what tensors hold of chosen points: numbers, each of all elements, or columns of them."""

    def __init__(self) -> None:
        self._held: Any = WeakIdKeyDictionary()
        self._written: dict[int, tuple[Any, dict[tuple[int, tuple[int, ...]], Numbers]]] = {}

    def choose(self, indices: Tensor, sizes: Sequence[int], dim: int) -> None:
        """Note that ``indices``, along ``dim``, number points of a grid with loops of ``sizes``."""
        self._held[indices] = Numbers(Choice(tuple(sizes), indices.shape[dim]), 0, len(sizes))

    def numbers(self, tensor: Any) -> Numbers | None:
        """Return what all elements of ``tensor`` hold, if it is the same of each one's point."""
        held = self._of(tensor)
        return held if isinstance(held, Numbers) else None

    def columns(self, tensor: Any) -> Columns | None:
        """Return what the last dimension of ``tensor`` holds."""
        held = self._of(tensor)
        return held if isinstance(held, tuple) else None

    def _of(self, tensor: Any) -> Numbers | Columns | None:
        if not isinstance(tensor, Tensor):
            return None
        held: Numbers | Columns | None = self._held.get(tensor)
        return self._around_what_was_written(tensor) if held is None else held

    def follow(self, name: str, named: dict[str, Any], out: Any) -> None:
        """Note what the output of an operator holds, given what its operands do."""
        if not self._held or not isinstance(out, Tensor):
            return
        source: Any = named.get("self")
        if name == "aten::copy_":
            self._write(out, self.numbers(named["src"]))
            return
        if name.endswith("_") and isinstance(source, Tensor):
            self._write(source, None)  # who computes in place, is not followed
        if name == "aten::stack":
            if named["dim"] % out.ndim == out.ndim - 1:
                self._hold(out, tuple(self.numbers(x) for x in named["tensors"]))
            return
        held = self._of(source)
        if held is None:  # a number less or times what is held
            source = named.get("other")
            held = self.numbers(source)
        if held is None:
            return
        if isinstance(held, Numbers):
            self._hold(out, _through(name, named, source, held))
        elif name == "aten::select" and named["dim"] % source.ndim == source.ndim - 1:
            self._hold(out, held[named["index"]])
        elif out.shape[-1] == len(held) and name not in _MOVES:
            self._hold(out, tuple(_through(name, named, source, numbers) for numbers in held))

    def _hold(self, tensor: Tensor, held: "Numbers | tuple[Numbers | None, ...] | None") -> None:
        if all(held) if isinstance(held, tuple) else held:
            self._held[tensor] = held

    def _write(self, part: Tensor, numbers: Numbers | None) -> None:
        """Note what was written into a tensor, which may be a column of another."""
        self._held.pop(part, None)
        if part.layout != torch.strided:
            return
        storage = part.untyped_storage()
        if numbers is None:
            self._written.pop(storage._cdata, None)
        else:  # the storage is kept, so that no other takes its number
            _, columns = self._written.setdefault(storage._cdata, (storage, {}))
            columns[int(part.storage_offset()), tuple(part.stride())] = numbers

    def _around_what_was_written(self, whole: Tensor) -> Columns | None:
        if not self._written or whole.layout != torch.strided or not whole.ndim:
            return None
        _, written = self._written.get(whole.untyped_storage()._cdata, (None, {}))
        start, (*strides, step) = int(whole.storage_offset()), whole.stride()
        found = [written.get((start + i * step, tuple(strides))) for i in range(whole.shape[-1])] if written else []
        return tuple(found) if found and all(found) else None  # type: ignore[arg-type]


_KEPT = frozenset(
    f"aten::{name}"
    for name in (
        *("_to_copy", "alias", "clone", "contiguous", "detach", "view", "_unsafe_view", "unsqueeze", "squeeze"),
        *("expand", "slice", "select", "reshape", "permute", "transpose"),
    )
)
"""Operators whose elements are those of what they take."""

_MOVES = frozenset(f"aten::{name}" for name in ("permute", "transpose", "slice", "select"))
"""Those of them that may put other elements into the last dimension."""


def _through(name: str, named: dict[str, Any], source: Any, held: Numbers) -> Numbers | None:
    """Return what elementwise arithmetic with a constant makes of numbers; None where it is another operator."""
    if name in _KEPT:
        return held
    operator = _ARITHMETIC.get(name)
    left = source is named.get("self")
    constant = _constant(named.get("other") if left else named.get("self"))
    return None if operator is None or constant is None else operator(held, constant, named, left)


def _add(held: Numbers, constant: float, named: dict[str, Any], left: bool, sign: int = 1) -> Numbers:
    alpha = sign * named.get("alpha", 1)
    if left:
        return replace(held, offset=held.offset + alpha * constant)
    return replace(held, scale=held.scale * alpha, offset=constant + alpha * held.offset)


def _subtract(held: Numbers, constant: float, named: dict[str, Any], left: bool) -> Numbers:
    return _add(held, constant, named, left, -1)


def _subtract_from(held: Numbers, constant: float, named: dict[str, Any], left: bool) -> Numbers:
    return _add(held, constant, named, not left, -1)


def _multiply(held: Numbers, constant: float, named: dict[str, Any], left: bool) -> Numbers:
    return replace(held, scale=held.scale * constant, offset=held.offset * constant)


def _divide(held: Numbers, constant: float, named: dict[str, Any], left: bool) -> Numbers | None:
    if not left or not constant:
        return None
    if named.get("rounding_mode") is not None:
        return held.divided(constant, rest=False)
    return _multiply(held, 1 / constant, named, left)


def _floor_divide(held: Numbers, constant: float, named: dict[str, Any], left: bool) -> Numbers | None:
    return held.divided(constant, rest=False) if left else None


def _remainder(held: Numbers, constant: float, named: dict[str, Any], left: bool) -> Numbers | None:
    return held.divided(constant, rest=True) if left else None


_ARITHMETIC: dict[str, Callable[[Numbers, float, dict[str, Any], bool], Numbers | None]] = {
    "aten::add": _add,
    "aten::sub": _subtract,
    "aten::rsub": _subtract_from,
    "aten::mul": _multiply,
    "aten::div": _divide,
    "aten::floor_divide": _floor_divide,
    **dict.fromkeys(("aten::remainder", "aten::fmod"), _remainder),
}


def _constant(value: Any) -> float | None:
    """Return a number that is known before the network runs."""
    if isinstance(value, Tensor):
        if not has_values(value) or value.ndim:
            return None
        with _disable_current_modes():
            return float(value)
    return float(value) if isinstance(value, (int, float)) else None
