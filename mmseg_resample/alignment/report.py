"""Show a comparison: tables for a terminal, JSON for programs, displacement fields for the eye."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .audit import Audit
from .comparison import Comparison, describe, in_pixels
from .layout import Offset
from .track import TOLERANCE, Meeting, Resize

SCHEMA = 1


def render(comparison: Comparison, everything: bool = False) -> Group:
    """The audit as rich renderables: verdict, what each pixel model gives, meetings (worst first), resizes.

    Args:
        comparison: what to show.
        everything: list the registered meetings and every resize too.
    """
    parts: list[Any] = [
        Panel(describe(comparison), title=comparison.name, border_style="cyan"),
        _levels(comparison.now),
    ]
    parts.append(_variants(comparison))
    for table, empty in (
        (_meetings(comparison, everything), "Meetings that are misregistered"),
        (_resizes(comparison, everything), "Resizes that need a change"),
    ):
        parts.append(table if table.row_count else Text(f"{empty}: none at {_pair(comparison.now.size)}."))
    for title, entries in (
        ("could not be followed", comparison.now.trace.unknown),
        ("ends on purpose", comparison.now.trace.notes),
    ):
        for path, reason in sorted(set(entries)):
            parts.append(Text(f"{title}: {path or 'segmentor'}: {reason}", style="yellow" if "not" in title else "dim"))
    return Group(*parts)


def print_report(comparison: Comparison, console: Console, everything: bool = False) -> None:
    console.print(render(comparison, everything))


def _levels(audited: Audit) -> Table:
    table = Table(title="Backbone levels", title_justify="left", box=None, header_style="bold")
    for column in ("level", "size", "stride", "offset (centre of feature 0)"):
        table.add_column(column, justify="right" if column != "level" else "left")
    for i, level in enumerate(audited.levels):
        if level is None:
            table.add_row(str(i), "-", "-", "no position")
        else:
            table.add_row(str(i), _pair(level.size), _pair(level.stride), _pair(level.offset))
    return table


def _variants(comparison: Comparison) -> Table:
    table = Table(title="What each pixel model gives (px)", title_justify="left", box=None, header_style="bold")
    for column, justify in (
        ("input", "left"),
        ("resizes", "left"),
        ("levels meet", "right"),
        ("pooled bins meet", "right"),
        ("prediction y", "right"),
        ("prediction x", "right"),
    ):
        table.add_column(column, justify=justify, **_whole(column))  # type: ignore[arg-type]
    names = {"config": "as configured", "False": "align_corners=False", "True": "align_corners=True", "exact": "exact"}
    for i, size in enumerate(comparison.sizes):
        for key in ("config", "False", "True", "exact"):
            if key in comparison.audits:
                table.add_row(*_variant_row(_pair(size), names[key], comparison.audits[key][i]))
    if comparison.fitting is not None and comparison.fitting[0] not in comparison.sizes:
        size, audited = comparison.fitting
        table.add_row(*_variant_row(_pair(size), names["True"], audited))
    return table


def _variant_row(size: str, name: str, audited: Audit) -> Sequence[Any]:
    pooled, levels = 0.0, 0.0
    for meeting in audited.misregistered:
        if meeting.pooled:
            pooled = max(pooled, meeting.worst)
        else:
            levels = max(levels, meeting.worst)
    final = audited.final
    y, x = (None, None) if final is None else (final.y, final.x)
    return size, name, _coloured(f"{levels:.4g}", levels), _coloured(f"{pooled:.4g}", pooled), _offset(y), _offset(x)


def _meetings(comparison: Comparison, everything: bool) -> Table:
    audited = comparison.now
    kept = [m for m in audited.trace.meetings if everything or m.worst > TOLERANCE]
    hidden = len(audited.trace.meetings) - len(kept)
    caption = f"{hidden} more meetings are registered" if hidden else None
    table = Table(
        title=f"Where features meet, worst first, at {_pair(audited.size)} (px apart)",
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=None,
        header_style="bold",
    )
    for column in ("module", "op", "resized by", "y", "x", "times", "a resize can repair"):
        table.add_column(column, justify="right" if column in ("y", "x", "times") else "left", **_whole(column))
    left = {(m.path, m.op) for m in comparison.exact.trace.meetings if m.worst > TOLERANCE}
    for meeting, times in _grouped(kept):
        repairable = "" if meeting.worst <= TOLERANCE else "no" if (meeting.path, meeting.op) in left else "yes"
        table.add_row(
            meeting.path or "segmentor",
            meeting.op,
            _resized_by(audited, meeting),
            _offset(meeting.y),
            _offset(meeting.x),
            str(times),
            repairable,
        )
    return table


def _grouped(meetings: Sequence[Meeting]) -> list[tuple[Meeting, int]]:
    """Equal findings in one module once, with their number."""
    groups: dict[Any, list[Meeting]] = {}
    for meeting in meetings:
        groups.setdefault((meeting.path, meeting.op, in_pixels(meeting.y), in_pixels(meeting.x)), []).append(meeting)
    return sorted(((group[0], len(group)) for group in groups.values()), key=lambda pair: -pair[0].worst)


def _resized_by(audited: Audit, meeting: Meeting) -> str:
    if meeting.site is None:
        return "layers, no resize"
    resize = audited.trace.resizes[meeting.site]
    return f"{_pair(resize.source_size)} -> {_pair(resize.size)} {_model(resize)}"


def _model(resize: Resize) -> str:
    return resize.mode if resize.align_corners is None else f"{resize.mode} {resize.align_corners}"


def _resizes(comparison: Comparison, everything: bool) -> Table:
    audited = comparison.now
    changed = comparison.exact.maps
    kept = [r for r in audited.trace.resizes if everything or r.site in changed]
    hidden = len(audited.trace.resizes) - len(kept)
    table = Table(
        title="Resizes, and the exact map (source = scale * target + offset)" if changed else "Resizes",
        title_justify="left",
        caption=f"{hidden} more resizes need no change" if hidden else None,
        caption_justify="left",
        box=None,
        header_style="bold",
    )
    for column in ("module", "call", "sizes", "mode, flag", "source stride, offset", "result stride, offset", "exact"):
        table.add_column(column, **_whole(column))
    for resize in kept:
        exact = "; ".join(dict.fromkeys(f"{m.scale:.6g} i {m.offset:+.4g}" for m in changed.get(resize.site, ())))
        ignores = "  (hard-coded)" if resize.site in comparison.hard_coded else ""
        table.add_row(
            resize.path or "segmentor",
            str(resize.call),
            f"{_pair(resize.source_size)} -> {_pair(resize.size)}",
            _model(resize) + ignores,
            _grid(resize.source),
            _grid(resize.result),
            exact,
        )
    return table


def _whole(column: str) -> dict[str, Any]:
    """How a narrow column shows what does not fit: in more lines, never cut; names that tell rows apart in one line."""
    return {"overflow": "fold", "no_wrap": column in ("input", "resizes", "module")}


def _grid(grid: Any) -> str:
    return "no position" if grid is None else f"{_pair(grid.stride)}, {_pair(grid.offset)}"


def _pair(values: Sequence[float]) -> str:
    """``512x1024``; one number where both axes agree and are no size."""
    texts = [f"{value + 0:.4g}" if isinstance(value, float) else str(value) for value in values]
    return texts[0] if isinstance(values[0], float) and len(set(texts)) == 1 else "x".join(texts)


def _offset(offset: Offset | None) -> Text:
    return Text("-") if offset is None else _coloured(in_pixels(offset), abs(offset.largest))


def _coloured(text: str, pixels: float) -> Text:
    return Text(text, style="green" if pixels <= TOLERANCE else "yellow" if pixels <= 2 else "red")


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Everything that was found, for programs; grids and offsets in input pixels, axes in the order (y, x)."""
    fitting = comparison.fitting
    return {
        "schema": SCHEMA,
        "config": comparison.name,
        "verdict": describe(comparison),
        "sizes": comparison.sizes,
        "hard_coded": comparison.hard_coded,
        "label_offsets": [asdict(moved) for moved in comparison.labels],
        "true_is_exact_at": fitting[0] if fitting is not None and fitting[1].worst < TOLERANCE else None,
        "audits": {key: [_audit_json(a) for a in audits] for key, audits in comparison.audits.items()},
    }


def _audit_json(audited: Audit) -> dict[str, Any]:
    return {
        "size": audited.size,
        "seconds": round(audited.seconds, 3),
        "worst": audited.worst,
        "levels": [None if level is None else asdict(level) for level in audited.levels],
        "final": None if audited.final is None else asdict(audited.final),
        "meetings": [asdict(m) for m in audited.trace.meetings],
        "resizes": [asdict(r) for r in audited.trace.resizes],
        "exact_maps": [
            {"path": path, "call": call, "maps": [asdict(m) for m in maps]}
            for (path, call), maps in audited.maps.items()
        ],
        "unknown": audited.trace.unknown,
        "notes": audited.trace.notes,
    }


def plot(comparison: Comparison, path: Path, panels: int = 6) -> None:
    """Draw the displacement field of the prediction and of the worst meetings over the image plane.

    An arrow starts at a position of the feature it is compared with and ends where the evidence lies.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    titles = {"config": "as configured", "False": "align_corners=False", "True": "align_corners=True", "exact": "exact"}
    fields = [
        (f"prediction, {titles[key]}", comparison.audits[key][0].final)
        for key in ("False", "True", "config", "exact")
        if key in comparison.audits and not (key == "config" and "True" in comparison.audits)
    ]
    fields += [(f"{m.op} in {m.path or 'segmentor'}", m) for m, _ in _grouped(comparison.now.misregistered)[:panels]]
    drawn = [(title, m) for title, m in fields if m is not None and m.y is not None and m.x is not None]
    height, width = comparison.sizes[0]
    columns = min(3, max(1, len(drawn)))
    rows = -(-len(drawn) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.4 * columns, (4.0 * height / width + 0.7) * rows), squeeze=False, layout="constrained"
    )
    largest = max((m.worst for _, m in drawn), default=1.0) or 1.0
    for axis in axes.flat[len(drawn) :]:
        axis.axis("off")
    for axis, (title, meeting) in zip(axes.flat, drawn, strict=False):
        assert meeting.y is not None and meeting.x is not None
        n = 9
        t = np.linspace(0, 1, n)
        dy, dx = (np.interp(t, [0, 0.5, 1], [o.first, o.middle, o.last]) for o in (meeting.y, meeting.x))
        xs, ys = np.meshgrid(t * (width - 1), t * (height - 1))
        u, v = np.broadcast_to(dx[None, :], (n, n)), np.broadcast_to(dy[:, None], (n, n))
        # One scale per panel, so that small fields can be read; the colour compares panels.
        axis.quiver(
            xs,
            ys,
            u,
            v,
            np.hypot(u, v),
            angles="xy",
            scale_units="xy",
            scale=max(meeting.worst, 1e-6) / (0.09 * width),
            cmap="viridis",
            clim=(0, largest * np.sqrt(2)),
            width=0.005,
        )
        if meeting.worst <= TOLERANCE:
            axis.plot(xs, ys, ".", color="tab:green", ms=3)
        axis.set(xlim=(-0.06 * width, 1.06 * width), ylim=(1.06 * height, -0.06 * height), aspect="equal")
        axis.set_title(f"{title}\ny {in_pixels(meeting.y)}, x {in_pixels(meeting.x)} px", fontsize=9, loc="left")
        axis.tick_params(labelsize=7)
    figure.suptitle(f"{comparison.name} at {height}x{width}: from where the evidence is read", fontsize=10)
    figure.savefig(path, dpi=150)
    plt.close(figure)
