"""An audit for the eye: where the samples of each level are, and where the network takes them to be.

The worst findings and the prediction, two corners of the image each, all at one scale: a dot is the centre of a
feature, a ring is where the network puts it. At the right, the same distances along the image for each pixel model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from ..ops import PixelGrid
from .audit import Audit
from .forward_pass import ForwardPass
from .layout import Offset
from .report import grouped
from .track import TOLERANCE, Meeting
from .words import VARIANTS, in_pixels

THEMES: Mapping[str, Mapping[str, str]] = {
    "light": dict(
        page="#ffffff", ink="#1f2328", muted="#66707b", image="#f2f5f8", outside="#ffffff", frame="#f4b860",
        registered="#1a7f5a", shifted="#d1481f", config="#0072b2", true="#cc5a9e", exact="#1a7f5a",
    ),
    "dark": dict(
        page="#12161b", ink="#e3e8ee", muted="#9aa5b1", image="#1d242c", outside="#12161b", frame="#8a5a1c",
        registered="#35cf9f", shifted="#ff8f4a", config="#4fb0f0", true="#eba3cb", exact="#35cf9f",
    ),
}  # fmt: skip
"""Colours by theme."""

_MOST = 4
"""Columns: the worst findings and the prediction."""


@dataclass(frozen=True)
class _Finding:
    """A feature map that the network puts elsewhere than it is."""

    grid: PixelGrid
    meeting: Meeting
    offsets: tuple[Offset, Offset]

    @property
    def registered(self) -> bool:
        return self.meeting.worst <= TOLERANCE

    @property
    def is_prediction(self) -> bool:
        return self.meeting.op == "labels"

    @property
    def title(self) -> str:
        stride = "x".join(dict.fromkeys(f"{s:.4g}" for s in self.grid.stride))
        if self.is_prediction:
            return f"Prediction: stride {stride} on labels"
        place = (self.meeting.path or "model").split(".")[0]
        return f"Stride {stride} on finer features\n({self.meeting.op} in {place})"

    @property
    def verdict(self) -> str:
        if self.registered:
            return "registered"
        y, x = (in_pixels(offset) for offset in self.offsets)
        kind = "drift" if self.meeting.drifts else "constant"
        return f"{x if x == y else f'y {y}, x {x}'} px, {kind}"


def plot(audit: Audit, path: Path, theme: str = "light") -> None:
    """Draw ``audit`` to the image ``path``; its ending says which format.

    Args:
        audit: of a network.
        path: PNG, SVG, PDF or whatever else matplotlib writes.
        theme: ``"light"`` or ``"dark"``.

    Raises:
        ValueError: there is no such theme.
    """
    if theme not in THEMES:
        raise ValueError(f"Audit.plot: expected theme to be one of {', '.join(map(repr, THEMES))}, got {theme!r}.")
    colours = THEMES[theme]
    settings: dict[Any, Any] = {
        **dict.fromkeys(("text.color", "axes.labelcolor"), colours["ink"]),
        **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), colours["muted"]),
        **dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), colours["page"]),
        "font.size": 9,
        "legend.frameon": False,
        "svg.hashsalt": "mmseg_resample",  # the same picture is the same file
        "svg.fonttype": "none",
    }
    with rc_context(settings):
        figure = _figure(audit, colours)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        figure.savefig(path, dpi=150, metadata=metadata)


def _figure(audit: Audit, colours: Mapping[str, str]) -> Figure:
    findings = _findings(audit.now)
    height, width = audit.sizes[0]
    figure = Figure(figsize=(14.5, 7.0))
    patch = _patch_size([finding.grid for finding in findings], (height, width))
    side_by_side = len(findings) < 3  # else one above the other
    rows, columns = (1, 2 * len(findings)) if side_by_side else (2, len(findings))
    if findings:
        places = dict(left=0.035, right=0.72, top=0.77, bottom=0.1, wspace=0.08, hspace=0.07)
        grid = figure.add_gridspec(rows, columns, **places)  # type: ignore[arg-type]
    for number, finding in enumerate(findings):
        for corner, name in enumerate(("top left corner", "bottom right corner")):
            place = (0, 2 * number + corner) if side_by_side else (corner, number)
            axes = figure.add_subplot(grid[place])
            _draw_corner(axes, finding, (height, width), patch, corner, colours)
            if side_by_side:
                axes.set_xlabel(name)
                axes.set_anchor("NW")
            elif number == 0:
                axes.set_ylabel(name)
            if corner == 0:
                _write_title(axes, finding, colours)
    _draw_curves(figure, audit, colours)
    figure.text(0.035, 0.95, f"{audit.name} at {height}x{width}", fontsize=13, weight="bold", va="center")
    about = "No feature map has a position that a resize could misplace."
    if findings:
        about = (
            f"Where features are, and where the network takes them to be: {patch:.0f} px of each corner, at one scale."
        )
    hidden = len(grouped(audit.now.misregistered)) - sum(not (f.registered or f.is_prediction) for f in findings)
    if hidden > 0:
        about += f" {hidden} more finding{'s are' if hidden > 1 else ' is'} in the tables."
    figure.text(0.035, 0.91, about, color=colours["muted"], va="center")
    figure.legend(handles=_legend(colours), loc="lower left", bbox_to_anchor=(0.025, 0.005), ncols=4)
    return figure


def _write_title(axes: Any, finding: _Finding, colours: Mapping[str, str]) -> None:
    colour = colours["registered" if finding.registered else "shifted"]
    above = dict(xy=(0, 1), xycoords="axes fraction", textcoords="offset points", va="bottom")
    axes.annotate(finding.verdict, xytext=(0, 5), fontsize=10, weight="bold", color=colour, **above)
    axes.annotate(finding.title, xytext=(0, 20), **above)


def _findings(audited: ForwardPass) -> list[_Finding]:
    """Choose what to draw: the worst meeting of each level that is resized, and the prediction."""
    found: dict[Any, _Finding] = {}
    registered = [m for m in audited.trace.meetings if m.op != "labels" and m.worst <= TOLERANCE]
    for meeting, _ in [*grouped(audited.misregistered), *grouped(registered)]:
        finding = None if meeting.pooled else _finding(audited, meeting)
        if finding is not None:
            found.setdefault(finding.grid.stride, finding)
    worst = sorted(found.values(), key=lambda finding: (-finding.meeting.worst, -finding.grid.stride[0]))
    final = audited.final
    prediction = None if final is None else _finding(audited, final)
    kept = worst[: _MOST - (prediction is not None)]
    return kept if prediction is None else [*kept, prediction]


def _finding(audited: ForwardPass, meeting: Meeting) -> _Finding | None:
    if meeting.site is None or meeting.y is None or meeting.x is None:
        return None
    resize = audited.trace.resizes[meeting.site]
    if resize.source is None or min(resize.source.stride) <= 0:
        return None
    return _Finding(resize.source, meeting, (meeting.y, meeting.x))


def _patch_size(grids: Sequence[PixelGrid], image: Sequence[int]) -> float:
    """Return how many pixels of a corner are drawn: two samples of the coarsest level, and what lies between."""
    coarsest = max((max(grid.stride) for grid in grids), default=16.0)
    return min(max(2.2 * coarsest, 40.0), 160.0, float(min(image)))


def _draw_corner(
    axes: Any, finding: _Finding, image: Sequence[int], patch: float, corner: int, colours: Mapping[str, str]
) -> None:
    """Draw the first or the last ``patch`` pixels of both axes, true to scale."""
    margin = 0.12 * patch
    ends = [(-0.5, patch - 0.5) if corner == 0 else (n - 0.5 - patch, n - 0.5) for n in image]  # pixel centres
    (top, bottom), (left, right) = ends
    out = (0.0, margin) if corner else (margin, 0.0)
    axes.set(xlim=(left - out[0], right + out[1]), ylim=(bottom + out[1], top - out[0]), aspect="equal")
    axes.set_xticks([]), axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fc=colours["image"], ec="none", zorder=0))
    _shade_uncovered(axes, finding.grid, image, ends, colours)
    _draw_border(axes, image, colours)
    centres = [_centres(finding.grid, axis, ends[axis]) for axis in (0, 1)]
    shifts = [
        np.interp(c, [0, (n - 1) / 2, n - 1], [o.first, o.middle, o.last])
        for c, n, o in zip(centres, image, finding.offsets, strict=True)
    ]
    ys, xs = (each.ravel() for each in np.meshgrid(*centres, indexing="ij"))
    dy, dx = (each.ravel() for each in np.meshgrid(*shifts, indexing="ij"))
    off = np.hypot(dy, dx) > TOLERANCE
    colour = colours["shifted" if off.any() else "registered"]
    dots = np.stack([xs, ys], axis=1)
    rings = dots - np.stack([dx, dy], axis=1)
    axes.add_collection(LineCollection(np.stack([dots, rings], axis=1)[off], colors=colour, linewidths=1.0, zorder=2))
    position, figure = axes.get_position(), axes.figure
    inches = min(position.width * figure.get_figwidth(), position.height * figure.get_figheight())
    points = 72 * inches / (patch + margin)  # per pixel of the image
    size = (2 * points * float(np.clip(0.11 * finding.grid.stride[0], 0.007 * patch, 0.026 * patch))) ** 2
    axes.scatter(*rings.T, 2.1 * size, facecolor=colours["image"], edgecolor=colour, linewidths=1.2, zorder=3)
    axes.scatter(*dots.T, size, facecolor=colours["ink"], edgecolor="none", zorder=4)


def _centres(grid: PixelGrid, axis: int, span: tuple[float, float]) -> np.ndarray:
    centres = grid.offset[axis] + grid.stride[axis] * np.arange(grid.size[axis])
    return centres[(centres > span[0] - grid.stride[axis] / 2) & (centres < span[1] + grid.stride[axis] / 2)]


def _shade_uncovered(
    axes: Any, grid: PixelGrid, image: Sequence[int], ends: Sequence[tuple[float, float]], colours: Mapping[str, str]
) -> None:
    """Shade the pixels beyond the first and last sample: what is resized from it to there repeats the outermost."""
    covered = []
    for axis, pixels in enumerate(image):
        first, last = (grid.offset[axis] + grid.stride[axis] * i for i in (0, grid.size[axis] - 1))
        begin, end = max(-0.5, first - 0.5), min(last + 0.5, pixels - 0.5)
        covered.append(np.clip((begin, end), *ends[axis]))
    (top, bottom), (left, right) = ends
    (y0, y1), (x0, x1) = covered
    for x, y, width, height in (
        (left, top, right - left, y0 - top),
        (left, y1, right - left, bottom - y1),
        (left, y0, x0 - left, y1 - y0),
        (x1, y0, right - x1, y1 - y0),
    ):
        if min(width, height) > 0:
            axes.add_patch(Rectangle((x, y), width, height, fc=colours["frame"], alpha=0.45, ec="none", zorder=1))


def _draw_border(axes: Any, image: Sequence[int], colours: Mapping[str, str]) -> None:
    height, width = image
    axes.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, ec=colours["muted"], lw=1.5, zorder=1.5))


def _draw_curves(figure: Figure, audit: Audit, colours: Mapping[str, str]) -> None:
    """Draw how far off the worst meeting and the prediction are along x, for every pixel model, at one scale."""
    models = _models(audit, colours)
    width = audit.sizes[0][1]
    panels = []
    for title, of in (("Levels, worst meeting", _worst_along_x), ("Prediction on labels", _final_along_x)):
        offsets = [of(audited) for _, audited, *_ in models]
        if any(o is not None and abs(o.largest) > TOLERANCE for o in offsets) or (
            of is _final_along_x and any(offsets)
        ):
            panels.append((title, offsets))
    limit = max((abs(o.largest) for _, offsets in panels for o in offsets if o is not None), default=0.0)
    limit = 1.15 * max(limit, 1.0)
    if panels:
        grid = figure.add_gridspec(len(panels), 1, left=0.775, right=0.98, top=0.77, bottom=0.14, hspace=0.4)
    for row, (title, offsets) in enumerate(panels):
        axes = figure.add_subplot(grid[row, 0])
        axes.axhline(0, color=colours["muted"], lw=0.8, zorder=0)
        for (_, _, colour, style), offset in zip(models, offsets, strict=True):
            if offset is not None:
                where = [0, (width - 1) / 2, width - 1]
                axes.plot(where, [offset.first, offset.middle, offset.last], color=colour, ls=style, lw=2.2)
        axes.set(xlim=(0, width - 1), ylim=(-limit, limit), ylabel="px off, along x")
        axes.set_xticks([0, (width - 1) / 2, width - 1], ["left", "middle", "right"])
        axes.set_title(title, loc="left", fontsize=10, weight="bold", color=colours["ink"])
        axes.spines[["top", "right"]].set_visible(False)
    handles = [Line2D([], [], color=colour, ls=style, lw=2.2) for _, _, colour, style in models]
    names = [name for name, *_ in models]
    figure.legend(handles, names, loc="lower right", ncols=len(models), bbox_to_anchor=(0.99, 0.005))


def _models(audit: Audit, colours: Mapping[str, str]) -> list[tuple[str, ForwardPass, str, Any]]:
    """List the pixel models: name, forward pass, colour, line style."""
    flags: list[str] = [key for key in ("False", "True") if key in audit.passes]
    shown = {key: audit.passes[key][0] for key in flags or ["config"]} | {"exact": audit.exact}
    names = VARIANTS | {"config": "as it stands"}
    looks = {"config": ("config", "-"), "False": ("config", "-"), "True": ("true", "--"), "exact": ("exact", ":")}
    return [(names[key], audited, colours[looks[key][0]], looks[key][1]) for key, audited in shown.items()]


def _worst_along_x(audited: ForwardPass) -> Offset | None:
    meetings = [m for m in audited.trace.meetings if m.op != "labels" and not m.pooled and m.x is not None]
    return max(meetings, key=lambda m: abs(m.x.largest)).x if meetings else None  # type: ignore[union-attr]


def _final_along_x(audited: ForwardPass) -> Offset | None:
    return None if audited.final is None else audited.final.x


def _legend(colours: Mapping[str, str]) -> list[Any]:
    def marker(face: str, edge: str) -> Line2D:
        return Line2D([], [], ls="", marker="o", mfc=face, mec=edge)

    handles = [
        marker(colours["ink"], colours["ink"]),
        marker(colours["image"], colours["shifted"]),
        marker(colours["image"], colours["registered"]),
        Patch(facecolor=colours["frame"], alpha=0.45),
    ]
    names = ["centre of a feature", "where the network puts it", "... rightly", "beyond the last feature"]
    for handle, name in zip(handles, names, strict=True):
        handle.set_label(name)
    return handles
