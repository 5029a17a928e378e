"""The drawing of figures, as one file, or panel by panel into a page; ``figures`` has their content.

Panels are small: side by side on a screen or on paper, one below the other on a phone, never scaled down.
"""

import io
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from mmseg_resample.files import atomic_write

INK, MUTED, GRID, BAND = "#24292f", "#6b7480", "#dfe3e8", "#c9d1d9"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9")
"""Colours of Okabe and Ito, distinct in every kind of colour vision; the shapes of the markers differ as well."""
MARKERS = ("o", "s", "^", "D", "v", "P")
GLYPHS = ("●", "■", "▲", "◆", "▼", "✚")
"""The markers as text, for legends."""

PALETTE = 256
"""Colours of a PNG: a third of the bytes, and the eye sees no difference."""

_COLOURS = {INK: "ink", MUTED: "muted", GRID: "grid", BAND: "band"} | {c: f"series-{i}" for i, c in enumerate(SERIES)}
# In inches. A panel is as wide as a phone, at 96 pixels each.
_WIDTH, _RIGHT, _ABOVE, _BELOW, _HEADER, _FOOTER = 3.75, 0.1, 0.26, 0.44, 0.4, 0.4
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.linewidth": 0.7,
    "svg.fonttype": "none",
    "axes.unicode_minus": False,
}


@dataclass(frozen=True)
class Panel:
    """Pair of axes and what is drawn in them.

    Attributes:
        title: short.
        draw: draws it.
        height: in inches; the width is that of a phone.
        margin: for what is left of the axes, in inches.
    """

    title: str
    draw: Callable[[Axes], None]
    height: float = 2.5
    margin: float = 0.6


@dataclass(frozen=True)
class Plot:
    """Figure of one or more panels.

    Attributes:
        name: of its files.
        title: what it shows.
        caption: how to read it.
        panels: in reading order.
        legend: names of the series, in the order of their colours.
    """

    name: str
    title: str
    caption: str
    panels: Sequence[Panel]
    legend: Sequence[str] = ()


def save(plot: Plot, directory: Path) -> list[Path]:
    """Write all panels as one figure, ``<name>.png`` and ``<name>.svg``; the same plot gives the same bytes.

    The PNG has a palette of its own colours.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    columns = min(3, len(plot.panels))
    rows = [plot.panels[start : start + columns] for start in range(0, len(plot.panels), columns)]
    heights = [max(panel.height for panel in row) for row in rows]
    with _styled(plot.name):
        size = columns * _WIDTH, sum(heights) + _HEADER + (_FOOTER if plot.legend else 0)
        figure = Figure(figsize=size, dpi=150)
        figure.text(0.1 / size[0], 1 - 0.1 / size[1], plot.title, fontsize=10, va="top")
        for number, panel in enumerate(plot.panels):
            row, column = divmod(number, columns)
            top = size[1] - _HEADER - sum(heights[:row])
            _draw(_axes(figure, panel, column * _WIDTH, top), panel)
        if plot.legend:
            handles = [_handle(index, name) for index, name in enumerate(plot.legend)]
            figure.legend(handles=handles, loc="lower left", ncols=min(6, len(handles)), frameon=False)
        for suffix in ("png", "svg"):
            path = directory / f"{plot.name}.{suffix}"
            with atomic_write(path) as partial:
                figure.savefig(partial, format=suffix, facecolor="white", metadata=_undated(suffix))
                if suffix == "png":
                    reduce_colours(partial)
            paths.append(path)
    return paths


def reduce_colours(path: Path) -> None:
    """Give an opaque PNG a palette of the ``PALETTE`` colours that cover its own ones best, in place."""
    with Image.open(path) as image:
        colours = image.convert("RGB")
    # Median cuts share the palette by area, of which white takes most: edges of text and thin lines would change.
    method = Image.Quantize.MAXCOVERAGE
    reduced = colours.quantize(PALETTE, method=method, dither=Image.Dither.NONE)
    reduced.save(path, format="png", optimize=True)


def inline_svg(plot: Plot) -> list[str]:
    """Render every panel as an ``<svg>`` element; colours are variables of the page, the given ones their defaults."""
    return [_inline(panel, f"{plot.name}-{index}") for index, panel in enumerate(plot.panels)]


def _inline(panel: Panel, key: str) -> str:
    with _styled(key):
        figure = Figure(figsize=(_WIDTH, panel.height))
        _draw(_axes(figure, panel, 0.0, panel.height), panel)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=_undated("svg"))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    # Ids are global in a page.
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{key}-", text)
    text = re.sub(r"#[0-9a-f]{6}\b", lambda match: _variable(match[0]), text)
    text = re.sub(r"'DejaVu Sans'(, [^;\"]*)?", "var(--font, sans-serif)", text)
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', text)
    assert size is not None, "matplotlib states the size of its figures"
    text = text.replace(size[0], f'role="img" aria-label="{_attribute(panel.title)}"', 1)
    return re.sub(r"\n\s*", "\n", text).strip()


def _styled(salt: str) -> AbstractContextManager[None]:
    style: Any = {**_STYLE, "svg.hashsalt": salt}  # ids in the file are a function of what is drawn
    return mpl.rc_context(style)


def _variable(colour: str) -> str:
    return f"var(--{_COLOURS[colour]}, {colour})" if colour in _COLOURS else colour


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def _undated(suffix: str) -> dict[str, Any]:
    """Return metadata that keeps date and version out of the file."""
    return {"Software": None} if suffix == "png" else {"Date": None, "Creator": None}


def _axes(figure: Figure, panel: Panel, left: float, top: float) -> Axes:
    """Add the axes of a panel by its upper left corner, in inches: a layout engine would draw everything twice."""
    width, height = figure.get_size_inches()
    x, y = left + panel.margin, top - panel.height + _BELOW
    return figure.add_axes(
        (
            x / width,
            y / height,
            (_WIDTH - panel.margin - _RIGHT) / width,
            (panel.height - _BELOW - _ABOVE) / height,
        )
    )


def _draw(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title)
    panel.draw(axes)


def _handle(index: int, name: str) -> Line2D:
    return Line2D(
        [], [], color=series_colour(index), marker=series_marker(index), markersize=5, linewidth=1.5, label=name
    )


def series_colour(index: int) -> str:
    return SERIES[index % len(SERIES)]


def series_marker(index: int) -> str:
    return MARKERS[index % len(MARKERS)]


def marker_size(index: int) -> float:
    """Return the size of the markers of a series: where series coincide, those below still show."""
    return max(2.8, 5.6 - 0.9 * index)
