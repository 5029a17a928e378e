"""The content of the figures: the seeds, the differences, the displacement, ... each as a ``Plot`` of panels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.ticker import NullFormatter, NullLocator

from ..paired import SEEDS_FOR_SIGNIFICANCE
from ..words import counted
from .cells import signed, where
from .gather import tested_as
from .panels import BAND, INK, MUTED, SERIES, Panel, Plot, marker_size, series_colour, series_marker
from .results import THIRDS, Breakdown, Comparison, Report, Shift, TestedDifference, Transfer, VariantDisplacement

NAMES = ("studies", "seeds", "differences", "interactions", "deployment", "displacement", "trimap", "boundary", "audit")
"""Names of all figures that a report may have."""

_ON_CELL = "#101418"  # cells have their own colours, light ones in every theme
_DIVERGING = LinearSegmentedColormap.from_list("loss", ["#e8894a", "#f6c9a5", "#f7f7f7", "#a9cfe6", "#5aa2cf"])


def seeds(report: Report) -> Plot:
    """Plot every seed of every variant, over one range, or one length of it where panels lie far apart."""
    present = [[v for scores in c.scores.values() for v in scores.values()] for c in report.comparisons]
    span = 1.2 * max((max(v) - min(v) for v in present), default=0.0) or 1.0
    every = [value for values in present for value in values]
    whole = 1.2 * (max(every, default=0.0) - min(every, default=0.0))
    shared = whole <= 2 * span

    def panel(comparison: Comparison, values: Sequence[float]) -> Panel:
        def draw(axes: Axes) -> None:
            _seed_dots(axes, comparison)
            seen, length = (every, max(whole, span)) if shared else (values, span)
            middle = (max(seen) + min(seen)) / 2
            axes.set_ylim(middle - length / 2, middle + length / 2)
            axes.set_ylabel(f"{report.study['metric']} ({report.unit.score})")
            axes.grid(visible=False, axis="x")

        return Panel(where(comparison.combination, comparison.evaluation), draw)

    panels = [panel(c, v) for c, v in zip(report.comparisons, present, strict=True)]
    return Plot(
        "seeds",
        f"{report.study['metric']} of every seed",
        "A dot is one training; grey lines join those of a seed, bars are means."
        + (_one_range(panels) if shared else " Equal heights are equal differences in all panels."),
        panels,
    )


def _one_range(panels: Sequence[Panel]) -> str:
    return " All panels span the same range." if len(panels) > 1 else ""


def _seed_dots(axes: Axes, comparison: Comparison) -> None:
    scores = comparison.scores
    for seed in sorted({seed for of_variant in scores.values() for seed in of_variant}):
        axes.plot([of_variant.get(seed, math.nan) for of_variant in scores.values()], color=BAND, linewidth=0.9)
    for position, (name, of_variant) in enumerate(scores.items()):
        colour = series_colour(position)
        axes.plot(
            [position] * len(of_variant),
            list(of_variant.values()),
            linestyle="none",
            marker=series_marker(position),
            markersize=4.5,
            color=colour,
            alpha=0.8,
            zorder=3,
        )
        if of_variant:
            axes.hlines(
                comparison.means[name].mean, position - 0.24, position + 0.24, color=colour, linewidth=1.8, zorder=2
            )
    axes.set_xticks(range(len(scores)), [_short(name, 60 // len(scores)) for name in scores])
    axes.set_xlim(-0.5, len(scores) - 0.5)


@dataclass(frozen=True)
class _Row:
    """Line of a forest plot: seeds, Student's interval, and that with other images below it."""

    label: str
    values: Sequence[float]
    mean: float
    low: float
    high: float
    images: tuple[float, float] | None
    declared: bool
    finding: bool


def _row(label: str, tested: TestedDifference) -> _Row:
    d, images = tested.evidence.difference, tested.evidence.images
    ends = (images.student.low, images.student.high) if images is not None and d.n > 1 else None
    return _Row(label, d.values, d.mean, d.low, d.high, ends, tested.evidence.declared, tested.verdict.is_finding)


def differences(report: Report) -> Plot:
    """Draw the forest plot of the paired differences, one panel per evaluation."""
    rows: dict[str, list[_Row]] = {}
    for comparison in report.comparisons:
        for name, tested in comparison.tested.items():
            if tested.evidence.difference.n:
                label = where(comparison.combination, f"{name} - {comparison.reference}")
                rows.setdefault(comparison.evaluation, []).append(_row(label, tested))
    panels, shared = _forest(rows, report.unit.difference, report.margin, "tested as ")
    return Plot(
        "differences",
        f"Paired differences in {report.study['metric']}",
        f"Thick: Student's 95 % interval over seeds. Thin: with other test images as well. Small dots: seeds. Blue: "
        f"declared; grey: exploratory. Filled: a finding of the verdict; hollow: none. Dashed: fewer than "
        f"{SEEDS_FOR_SIGNIFICANCE} seeds, so nothing here can be significant. Shaded: differences below the margin of "
        f"{report.unit.amount(report.margin)}.{shared}",
        panels,
    )


def interactions(report: Report) -> Plot:
    """Draw the forest plot of the interactions, one panel per evaluation."""
    rows: dict[str, list[_Row]] = {}
    for each in report.interactions:
        rows.setdefault(each.evaluation, []).append(_row(each.label, each.tested))
    panels, shared = _forest(rows, report.unit.difference, None, "tested as ")
    return Plot(
        "interactions",
        f"Interactions in {report.study['metric']}",
        "How much a paired difference changes along another axis. Thick: Student's 95 % interval over seeds; dashed: "
        f"fewer than {SEEDS_FOR_SIGNIFICANCE} seeds. Blue: declared; grey: exploratory. Filled: a finding.{shared}",
        panels,
    )


def studies(rows: Mapping[str, Sequence[tuple[str, TestedDifference]]], unit: str) -> Plot:
    """Draw the forest plot of the declared comparisons of several studies, one panel per study.

    Args:
        rows: study -> (label, what it came to).
        unit: of the differences, or an empty text if they have several.
    """
    drawn: dict[str, list[_Row]] = {}
    for study, of_study in rows.items():
        for label, tested in of_study:
            if tested.evidence.difference.n:
                drawn.setdefault(study, []).append(_row(label, tested))
    panels, shared = _forest(drawn, unit, None, "")
    return Plot(
        "studies",
        "Declared comparisons side by side",
        "Thick: Student's 95 % interval over seeds. Thin: with other test images as well. Filled: a finding of the "
        f"verdict; hollow: none. Dashed: fewer than {SEEDS_FOR_SIGNIFICANCE} seeds, so nothing there can be "
        f"significant. No correction is made across studies.{shared}",
        panels,
    )


def _forest(
    rows: Mapping[str, Sequence[_Row]], unit: str, margin: float | None, before: str
) -> tuple[list[Panel], str]:
    """Draw one panel per key, all with one range, and say what all rows share."""
    ends = [
        x for group in rows.values() for row in group for x in (*row.values, row.low, row.high, *(row.images or ()))
    ]
    reach = [x for x in (*ends, 0.0, margin or 0.0, -(margin or 0.0)) if not math.isnan(x)]
    padding = 0.06 * (max(reach) - min(reach)) or 1.0

    def panel(title: str, group: Sequence[_Row]) -> Panel:
        def draw(axes: Axes) -> None:
            if margin:
                axes.axvspan(-margin, margin, color=BAND, alpha=0.35, linewidth=0)
            axes.axvline(0, color=MUTED, linewidth=0.9)
            for position, row in enumerate(group):
                _forest_row(axes, position, row, note=len(counts) > 1)
            axes.set_ylim(len(group) - 0.35, -0.75)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.set_xlim(min(reach) - padding, max(reach) + padding)
            axes.set_xlabel(f"difference ({unit})" if unit else "difference")

        return Panel(f"{before}{title}", draw, 0.75 + 0.5 * len(group), 0.1)

    counts = {len(row.values) for group in rows.values() for row in group}
    panels = [panel(title, group) for title, group in rows.items()]
    return panels, "".join(
        [*(f" All rows: {counted(n, 'seed')}." for n in counts if len(counts) == 1), _one_range(panels)]
    )


def _forest_row(axes: Axes, y: int, row: _Row, note: bool) -> None:
    """Draw a row; its number of seeds stands beside it where ``note`` is set."""
    n = len(row.values)
    decided = n >= SEEDS_FOR_SIGNIFICANCE
    colour = SERIES[0] if row.declared else MUTED
    if row.images is not None:
        axes.plot(row.images, [y + 0.13] * 2, color=colour, linewidth=0.9, linestyle="-" if decided else (0, (3, 2)))
    if n > 1:
        axes.plot([row.low, row.high], [y] * 2, color=colour, linewidth=2.2, linestyle="-" if decided else (0, (2, 1)))
    axes.plot(row.values, [y - 0.12] * n, linestyle="none", marker="o", markersize=2.4, color=MUTED, alpha=0.8)
    face = colour if row.finding else "none"
    seeds = f"  ({counted(n, 'seed')})" if note else ""
    axes.plot([row.mean], [y], marker="D", markersize=5, markerfacecolor=face, markeredgecolor=colour)
    axes.annotate(
        f"{row.label}:  {signed(row.mean)}{seeds}",
        (0, y - 0.42),
        xycoords=("axes fraction", "data"),
        fontsize=7.5,
        va="center",
        color=INK,
    )


def deployment(report: Report) -> Plot | None:
    """Draw a matrix {trained with} x {tested with} for each axis that an evaluation changes."""
    panels = []
    for axis in report.study["axes"]:
        cells: dict[tuple[str, str], dict[tuple[str, str], tuple[float, float]]] = {}
        for variants, tested, mean, change in _tested(report):
            rest = [(variants[other], tested[other]) for other in variants if other != axis]
            key = " ".join(a if a == b else f"{a}→{b}" for a, b in rest)
            cells.setdefault((axis, key), {})[variants[axis], tested[axis]] = mean, change
        for (_, key), found in cells.items():
            if any(trained != as_ for trained, as_ in found):
                panels.append(_matrix(report, axis, key, found))
    if not panels:
        return None
    return Plot(
        "deployment",
        f"{report.study['metric']} ({report.unit.score}) by what was trained and what was tested",
        f"Each row is one set of weights. Large: mean over seeds. Small, and colour: change against the evaluation "
        f"{next(iter(report.study['evaluations']))} of the same weights, in {report.unit.difference}. An arrow in a "
        f"title: trained as → tested as.",
        panels,
    )


def _tested(report: Report) -> list[tuple[Mapping[str, str], Mapping[str, str], float, float]]:
    """List (trained as, tested as, mean, change against the first evaluation)."""
    first = next(iter(report.study["evaluations"]))
    found: list[tuple[Mapping[str, str], Mapping[str, str], float, float]] = []
    for comparison in report.comparisons:
        for name, summary in comparison.means.items():
            compare = report.study["compare"]
            variants = {a: name if a == compare else comparison.combination[a] for a in report.study["axes"]}
            mean = summary.mean
            transfer = _transfer(report, variants, comparison.evaluation)
            if comparison.evaluation == first:
                found.append((variants, tested_as(report.study, variants, first), mean, 0.0))
            elif transfer is not None:
                found.append((variants, transfer.tested, mean, transfer.difference.mean))
    return found


def _transfer(report: Report, variants: Mapping[str, str], evaluation: str) -> Transfer | None:
    found = (t for t in report.transfers if t.evaluation == evaluation and dict(t.variants) == dict(variants))
    return next(found, None)


def _matrix(report: Report, axis: str, key: str, cells: Mapping[tuple[str, str], tuple[float, float]]) -> Panel:
    names = report.study["axes"][axis]
    rows = [name for name in names if any(trained == name for trained, _ in cells)]
    columns = [name for name in names if any(tested == name for _, tested in cells)]
    largest = max((abs(t.difference.mean) for t in report.transfers if t.difference.n), default=1.0) or 1.0

    def draw(axes: Axes) -> None:
        changes = np.array([[cells.get((r, c), (math.nan, math.nan))[1] for c in columns] for r in rows])
        axes.imshow(changes, cmap=_DIVERGING, norm=Normalize(-largest, largest), aspect="auto")
        for (i, j), change in np.ndenumerate(changes):
            mean = cells.get((rows[i], columns[j]), (math.nan, math.nan))[0]
            if math.isnan(mean):
                axes.text(j, i, "not tested", ha="center", va="center", fontsize=6.5, color=MUTED)
                continue
            axes.text(j, i - 0.13, f"{mean:.2f}", ha="center", va="center", fontsize=9, color=_ON_CELL)
            note = signed(change) if change or rows[i] != columns[j] else ""
            axes.text(j, i + 0.22, note, ha="center", va="center", fontsize=7, color=_ON_CELL)
        axes.set_xticks(range(len(columns)), [_short(name, 44 // len(columns)) for name in columns])
        axes.set_yticks(range(len(rows)), [_short(name, 14) for name in rows])
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xlabel("tested with")
        axes.set_ylabel("trained with")

    return Panel(f"{axis}{', ' if key else ''}{key}", draw, 0.8 + 0.5 * len(rows), 1.0)


def displacement(report: Report) -> Plot:
    """Plot profiles over the position in the image, all with one range."""
    names = report.variants
    panels = []
    reach = [0.0]
    for axis, sign in (("x", "right"), ("y", "below")):
        groups: dict[str, list[VariantDisplacement]] = {}
        for each in report.displaced:
            groups.setdefault(where(each.combination, each.evaluation), []).append(each)
            profile = getattr(each, axis).profile
            reach += [float(v) for v in profile[~np.isnan(profile)]]
        panels += [_profile(title, group, axis, sign, names) for title, group in groups.items()]
    limit = 1.08 * max(abs(v) for v in reach) or 1.0
    return Plot(
        "displacement",
        "Displacement of the predictions from the labels",
        "Mean over seeds, thin lines are seeds. Positive: the prediction lies right of the label, or below it. A level "
        "line is a shift, a sloping one a drift. All panels span the same range.",
        [_with_limits(panel, limit) for panel in panels],
        names,
    )


def _profile(title: str, group: Sequence[VariantDisplacement], axis: str, sign: str, names: Sequence[str]) -> Panel:
    def draw(axes: Axes) -> None:
        axes.axhline(0, color=MUTED, linewidth=0.9)
        for each in group:
            index = names.index(each.variant)
            profile = getattr(each, axis).profile
            position = (np.arange(profile.shape[1]) + 0.5) / profile.shape[1]
            axes.plot(position, profile.T, color=series_colour(index), linewidth=0.6, alpha=0.45)
            axes.plot(
                position,
                _mean_rows(profile),
                color=series_colour(index),
                marker=series_marker(index),
                markersize=marker_size(index),
            )
        axes.set_xlim(0, 1)
        side = "left to right" if axis == "x" else "top to bottom"
        axes.set_xlabel(f"position in the image, {side} (fraction)")
        axes.set_ylabel(f"d{axis} (px, + = {sign})")

    return Panel(f"d{axis}: {title}", draw)


def _mean_rows(profile: np.ndarray) -> np.ndarray:
    """Average over the seeds that are not NaN."""
    present = ~np.isnan(profile)
    count = present.sum(0)
    total = np.where(present, profile, 0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def _with_limits(panel: Panel, limit: float) -> Panel:
    def draw(axes: Axes) -> None:
        panel.draw(axes)
        axes.set_ylim(-limit, limit)

    return replace(panel, draw=draw)


def curves(report: Report, name: str, title: str, found: Sequence[Breakdown], ylabel: str, caption: str) -> Plot:
    """Plot a metric over the width of a band in pixels; fractions of the diagonal are in the table."""
    names = report.variants

    def panel(curve: Breakdown) -> Panel:
        def draw(axes: Axes) -> None:
            widths = sorted((w for w in curve.scores if w.endswith("px")), key=pixels)
            x = [pixels(width) for width in widths]
            for variant in {v: None for width in widths for v in curve.scores[width]}:
                index = names.index(variant)
                by_seed = {seed for width in widths for seed in curve.scores[width][variant]}
                for seed in sorted(by_seed):
                    y = [curve.scores[width][variant].get(seed, math.nan) for width in widths]
                    axes.plot(x, y, color=series_colour(index), linewidth=0.6, alpha=0.45)
                means = [curve.means[width][variant].mean for width in widths]
                axes.plot(
                    x, means, color=series_colour(index), marker=series_marker(index), markersize=marker_size(index)
                )
            axes.set_xscale("log")
            axes.set_xticks(x, [f"{width:g}" for width in x])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlabel("width of the band (px)")
            axes.set_ylabel(ylabel)

        return Panel(where(curve.combination, curve.evaluation), draw)

    panels = [panel(curve) for curve in found if any(width.endswith("px") for width in curve.scores)]
    return Plot(name, title, caption, panels, names)


def audit(report: Report) -> Plot | None:
    """Plot the displacement that the audit predicts for each third of the image, and the measured one."""
    names = report.variants
    groups: dict[tuple[str, str], list[VariantDisplacement]] = {}
    for axis in ("x", "y"):
        for each in report.displaced:
            if getattr(each, axis).absorbed is not None:
                groups.setdefault((axis, where(each.combination, each.evaluation)), []).append(each)
    if not groups:
        return None
    reach = [0.0]
    for (axis, _), group in groups.items():
        for each in group:
            shift = getattr(each, axis)
            reach += [*(shift.absorbed or ()), *(shift.shift_absorbed or ())]
            reach += [value for third in shift.thirds for value in third]
    limit = 1.12 * max(abs(value) for value in reach) or 1.0
    return Plot(
        "audit",
        "The audit's prediction and the measured displacement",
        "Bar: what the audit predicts, from training having learned to undo all that it met (long line) to the "
        "constant part alone (short line). Marker: measured, mean and 95 % interval over seeds. No weights and no data "
        "went into the prediction. All panels span the same range.",
        [_predicted(axis, title, group, names, limit) for (axis, title), group in groups.items()],
        names,
    )


def _predicted(
    axis: str, title: str, group: Sequence[VariantDisplacement], names: Sequence[str], limit: float
) -> Panel:
    def draw(axes: Axes) -> None:
        axes.axvline(0, color=MUTED, linewidth=0.9)
        ticks, labels = [], []
        for block, each in enumerate(group):
            shift: Shift = getattr(each, axis)
            index = names.index(each.variant)
            assert shift.absorbed is not None and shift.shift_absorbed is not None
            for third in range(3):
                y = 4 * block + third
                start, end = shift.absorbed[third], shift.shift_absorbed[third]
                axes.plot([start, end], [y, y], color=BAND, linewidth=7, solid_capstyle="butt")
                axes.plot([start, start], [y - 0.36, y + 0.36], color=MUTED, linewidth=1.6)
                axes.plot([end, end], [y - 0.2, y + 0.2], color=MUTED, linewidth=0.8)
                mean = shift.third_means[third]
                if not math.isnan(mean.mean):
                    axes.plot([mean.low, mean.high], [y, y], color=series_colour(index), linewidth=1.2)
                    axes.plot(
                        [mean.mean],
                        [y],
                        color=series_colour(index),
                        marker=series_marker(index),
                        markersize=marker_size(index),
                    )
                ticks.append(y)
                labels.append(f"{_short(each.variant, 10)} {THIRDS[axis][third]}")
        axes.set_yticks(ticks, labels)
        axes.set_ylim(4 * len(group) - 1.3, -0.8)
        axes.set_xlim(-limit, limit)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"d{axis} (px)")

    return Panel(f"d{axis}: {title}", draw, 0.8 + 0.62 * len(group), 1.1)


def pixels(width: str) -> float:
    """Parse ``3px`` as 3."""
    return float(width.removesuffix("px"))


def _short(text: str, length: int) -> str:
    return text if len(text) <= max(length, 4) else f"{text[: max(length, 4) - 1]}…"
