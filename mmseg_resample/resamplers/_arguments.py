"""Checks of constructor arguments that several resamplers share, and their wording."""

from numbers import Integral
from typing import Any

from ..ops import AxisMap


def need_channels(owner: str, name: str, value: int | None, multiple_of: int = 1) -> int:
    """Return ``value``, which a neck or head fills in.

    Raises:
        TypeError: it is no integer.
        ValueError: it is missing or no multiple of ``multiple_of``.
    """
    if value is None:
        raise ValueError(
            f"{owner}: expected {name}, got None. A neck or head fills it in; alone, pass the channels of "
            f"{'x' if name == 'in_channels' else 'like'}."
        )
    if not isinstance(value, Integral):
        raise TypeError(f"{owner}: expected {name} to be an integer, got {value!r}.")
    if multiple_of < 1 or value % multiple_of:
        raise ValueError(f"{owner}: expected {name} to be a multiple of {multiple_of}, got {value}.")
    return value


def need_whole(owner: str, name: str, value: int) -> int:
    """Raises ValueError unless ``value`` is a whole number >= 1."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{owner}: expected {name} to be a whole number >= 1, got {value!r}.")
    return value


def need_odd(owner: str, name: str, value: int) -> int:
    """Raises ValueError unless ``value`` is odd and >= 1: a window has a centre."""
    if not isinstance(value, int) or value < 1 or value % 2 == 0:
        raise ValueError(f"{owner}: expected {name} to be odd and >= 1, got {value!r}.")
    return value


def parse_coordinates(coordinates: Any) -> Any:
    """Build explicit maps from dicts: configs hold no objects."""
    if coordinates is None or isinstance(coordinates, (str, AxisMap)):
        return coordinates
    if isinstance(coordinates, dict):
        return AxisMap(**coordinates)
    return tuple(AxisMap(**entry) if isinstance(entry, dict) else entry for entry in coordinates)
