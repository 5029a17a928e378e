"""``Rule``: which resizes of a model get another mode, flag or pixel model."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

from ..grids import Site
from ..ops import Coordinates, Mode, _check

_MODES = get_args(Mode)
_COORDINATES = (*get_args(Coordinates), "exact", "keep")


@dataclass(frozen=True)
class Rule:
    """Change at the sites that it matches; the first rule that matches decides.

    Args:
        path: module path as in ``named_modules``, with ``*`` and ``?``; ``.logits`` behind a head's path is its resize
            to the labels. Resizes of tensors without a position (positional embeddings) match only by their full path.
        mode: interpolation mode to match, with ``*``.
        source_size: size of what is resized to match, (h, w); None for any, along one axis or both.
        size: size that it is resized to, the same way.
        set_mode: mode to use instead; the flag stays.
        align_corners: flag to use instead.
        coordinates: convention to use instead of a flag, ``"exact"`` for the audited map, ``"keep"`` to leave the site
            as it is.

    Raises:
        ValueError: both a flag and coordinates, an unknown mode or convention, or a size that is none.
    """

    path: str = "*"
    mode: str = "*"
    source_size: Sequence[int | None] | None = None
    size: Sequence[int | None] | None = None
    set_mode: str | None = None
    align_corners: bool | None = None
    coordinates: str | None = None

    def __post_init__(self) -> None:
        if self.align_corners is not None and self.coordinates is not None:
            raise ValueError(
                f"ResizePolicy: a rule sets align_corners={self.align_corners} and coordinates={self.coordinates!r} "
                f"for {self.path!r}. Keep one of them."
            )
        if self.set_mode is not None:
            _check.one_of("ResizePolicy", "set_mode", self.set_mode, _MODES)
        if self.coordinates is not None:
            _check.one_of("ResizePolicy", "coordinates", self.coordinates, _COORDINATES)
        for name, size in (("source_size", self.source_size), ("size", self.size)):
            if size is not None and not (
                isinstance(size, Sequence) and all(n is None or (isinstance(n, int) and n > 0) for n in size)
            ):
                raise ValueError(
                    f"ResizePolicy: expected {name} of a rule as (h, w), each a positive integer or None for any, "
                    f"got {size!r}."
                )

    @classmethod
    def from_config(cls, rule: dict[str, Any]) -> "Rule":
        """Make a rule of a config, whose keys have to be its arguments."""
        for key in rule:
            _check.one_of("ResizePolicy", "keys of a rule", key, tuple(entry.name for entry in fields(cls)))
        return cls(**rule)

    def matches(self, site: Site, mode: str, positioned: bool, source_size: Sequence[int], size: Sequence[int]) -> bool:
        """Tell whether the rule is for this call; ``positioned`` is whether what it resizes has a position."""
        by_path = _matches(site[0], self.path) if positioned else site[0] == self.path
        by_size = _fits(self.source_size, source_size) and _fits(self.size, size)
        return by_path and by_size and _matches(mode, self.mode)


@_check.constant  # compilers cannot see through fnmatch
def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern)


def _fits(pattern: Sequence[int | None] | None, size: Sequence[int]) -> bool:
    if pattern is None:
        return True
    return len(pattern) == len(size) and all(p in (None, n) for p, n in zip(pattern, size, strict=True))
