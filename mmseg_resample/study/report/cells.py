"""The format of numbers and names in a report: in cells of tables, labels of figures, and sentences."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..image_bootstrap import NestedBootstrap
from ..paired import PairedDifference, Summary
from ..words import counted


@dataclass(frozen=True)
class Unit:
    """Unit of a metric.

    Attributes:
        score: of a value: ``%`` or ``px``.
        difference: of a difference, in words.
    """

    score: str
    difference: str

    def amount(self, value: float) -> str:
        """Format a difference without its sign."""
        number = f"{abs(value):.2f}"
        return f"{number} {self.difference.removesuffix('s') if number == '1.00' else self.difference}"


def unit(metric: str) -> Unit:
    """Return the unit of a metric: pixels for displacements, percent for all else."""
    name = metric.rsplit("/", 1)[-1]
    return Unit("px", "px") if name.startswith(("dx", "dy")) else Unit("%", "points")


def interval(low: float, high: float) -> str:
    """Format as ``[-0.10, +0.20]``."""
    return f"[{signed(low)}, {signed(high)}]"


def signed(value: float) -> str:
    """Format with two decimals and a sign; what rounds to zero has none."""
    text = f"{value:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text


def p_value(p: float) -> str:
    """Format as ``p = 0.031``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def where(combination: Mapping[str, str], last: str) -> str:
    """Format as ``size=128, own``."""
    return ", ".join([*(f"{axis}={name}" for axis, name in combination.items()), last])


def interaction_label(
    variant: str, reference: str, along: Mapping[str, tuple[str, str]], combination: Mapping[str, str]
) -> str:
    """Format as ``true - false, size 129 against 128``."""
    return ", ".join([f"{variant} - {reference}", *changes(along), *(f"{a}={n}" for a, n in combination.items())])


def changes(along: Mapping[str, tuple[str, str]]) -> list[str]:
    """Format each axis as ``size 129 against 128``."""
    return [f"{axis} {to} against {start}" for axis, (start, to) in along.items()]


def mean_cell(summary: Summary | None) -> str:
    """Format mean and standard deviation; empty where there is no score."""
    if summary is None or math.isnan(summary.mean):
        return ""
    return f"{summary.mean:.2f}" if math.isnan(summary.sd) else f"{summary.mean:.2f} ± {summary.sd:.2f}"


def interval_cell(difference: PairedDifference) -> str:
    """Format mean and 95 % interval; one seed, and seeds that all differ by the same, have no interval."""
    if not difference.n:
        return ""
    if difference.identical:
        return f"{signed(difference.mean)} ({counted(difference.n, 'seed')} alike)"
    ends = f" {interval(difference.low, difference.high)}" if difference.n > 1 else " (1 seed)"
    return f"{signed(difference.mean)}{ends}"


def images_cell(images: NestedBootstrap | None, n: int) -> str:
    """Format the 95 % interval with other test images, of ``n`` seeds; empty where there is none."""
    return "" if images is None or n < 2 else interval(images.student.low, images.student.high)


def seeds_cell(difference: PairedDifference | None) -> str:
    """Format the interval, and below it every seed."""
    if difference is None:
        return ""
    values = [" ".join(signed(value) for value in difference.values)] if difference.n > 1 else []
    return "\n".join([interval_cell(difference), *values])


def pixels_cell(displacement: Summary) -> str:
    """Format mean and 95 % interval of a displacement."""
    if math.isnan(displacement.mean):
        return "not measurable"
    ends = "" if math.isnan(displacement.low) else f" {interval(displacement.low, displacement.high)}"
    return f"{signed(displacement.mean)}{ends}"


def p_cell(p: float) -> str:
    """Format as ``0.031``; empty for NaN."""
    return "" if math.isnan(p) else p_value(p).removeprefix("p = ").removeprefix("p ")


def count_cell(seeds: int | None) -> str:
    """Format a number of seeds."""
    return "unknown" if seeds is None else str(seeds)


def time_cell(seconds: float) -> str:
    """Format in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def pairs_cell(values: Mapping[str, Any]) -> str:
    """Format as ``amp bfloat16, compile True``."""
    return ", ".join(f"{key} {value}" for key, value in values.items())
