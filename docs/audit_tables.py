"""Cells and notes that the tables of audits share: ``families.py`` and ``networks.py``."""

from collections.abc import Sequence

from mmseg_resample.grids import TOLERANCE, Audit, ForwardPass
from mmseg_resample.ops import PixelGrid


def levels_cell(levels: Sequence[PixelGrid | None]) -> str:
    """Write ``4 @ 1.5, 8 @ 3.5``: stride and offset of each level."""
    return ", ".join("none" if g is None else f"{axis(g.stride)} @ {axis(g.offset)}" for g in levels)


def size_cell(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def axis(values: Sequence[float]) -> str:
    """Write one number where both axes agree, ``2x4`` elsewhere."""
    return "x".join(dict.fromkeys(f"{v + 0:.4g}" for v in values))


def number(pixels: float) -> str:
    return "0" if pixels <= TOLERANCE else f"{pixels:.3g}"


def worst(audited: ForwardPass, pooled: bool = False) -> float:
    """Return how far features meet apart, either without what was pooled over bins or of that alone."""
    return max((m.worst for m in audited.misregistered if m.pooled == pooled), default=0.0)


def unfollowed(audit: Audit) -> list[tuple[str, str]]:
    return sorted(set(audit.now.trace.unknown))


def first_line(error: Exception, length: int = 160) -> str:
    """Write the type of an error and the beginning of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:length] if lines else ''}"
