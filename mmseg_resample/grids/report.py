"""An audit as tables for a terminal, and as JSON for programs."""

import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .audit import Audit
from .forward_pass import ForwardPass
from .layout import Offset
from .track import TOLERANCE, Meeting, Resize
from .words import VARIANTS, describe, in_pixels

SCHEMA = 1


def render(audit: Audit, everything: bool = False) -> Group:
    """Show the audit as rich renderables: verdict, what each pixel model gives, meetings (worst first), resizes.

    Args:
        audit: what to show.
        everything: list the registered meetings and every resize too.
    """
    parts: list[Any] = [
        Panel(describe(audit), title=audit.name, border_style="cyan"),
        *(Text(remark, style="red") for remark in audit.remarks),
        *(
            Text(f"Advice: {each.text}" + (f" ({', '.join(each.reports)})" if each.reports else ""))
            for each in audit.advice
        ),
        _levels(audit),
    ]
    parts.append(_variants(audit))
    for table, empty in (
        (_meetings(audit, everything), "Meetings that are misregistered"),
        (_resizes(audit, everything), "Resizes that need a change"),
    ):
        parts.append(table if table.row_count else Text(f"{empty}: none at {_pair(audit.now.size)}."))
    for title, entries in (
        ("could not be followed", audit.now.trace.unknown),
        ("note", audit.now.trace.notes),
    ):
        for path, reason in sorted(set(entries)):
            parts.append(Text(f"{title}: {path or 'model'}: {reason}", style="dim" if title == "note" else "yellow"))
    return Group(*parts)


def print_report(audit: Audit, console: Console, everything: bool = False) -> None:
    """Print the tables; ``everything`` lists what is registered, too."""
    console.print(render(audit, everything))


def to_text(audit: Audit) -> str:
    """Return the tables as plain text."""
    console = Console(width=120, file=io.StringIO())
    print_report(audit, console)
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def _levels(audit: Audit) -> Table:
    title = "Levels, and the centre of feature 0 (px)" if audit.weights else "Levels"
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    columns = ["level", "size", "stride", "offset (centre of feature 0)"]
    if audit.weights:
        columns[3:] = ["by its layers", "by its weights (y, x)", "half-pixel"]
    for column in columns:
        table.add_column(column, justify="right" if column != "level" else "left")
    for i, level in enumerate(audit.now.levels):
        measured = audit.weights[i] if i < len(audit.weights) else None
        if level is None:
            table.add_row(str(i), "-", "-", "no position")
        elif measured is None:
            table.add_row(str(i), _pair(level.size), _pair(level.stride), _pair(level.offset))
        else:
            evidence = ", ".join(f"{o:.1f} ± {e:.1f}" for o, e in zip(measured.offset, measured.error, strict=True))
            half = _pair([(s - 1) / 2 for s in level.stride])
            table.add_row(str(i), _pair(level.size), _pair(level.stride), _pair(measured.grid.offset), evidence, half)
    return table


def _variants(audit: Audit) -> Table:
    table = Table(title="What each pixel model gives (px)", title_justify="left", box=None, header_style="bold")
    for column, justify in (
        ("input", "left"),
        ("resizes", "left"),
        ("levels meet", "right"),
        ("pooled bins meet", "right"),
        ("prediction y", "right"),
        ("prediction x", "right"),
        ("beyond features", "right"),
    ):
        table.add_column(column, justify=justify, **_whole(column))  # type: ignore[arg-type]
    names = VARIANTS
    if audit.policy is not None:
        names = {key: name if key == "config" else f"{name}, no policy" for key, name in names.items()}
        names["exact"] = "exact"
    for i, size in enumerate(audit.sizes):
        for key in ("config", "False", "True", "exact"):
            if key in audit.passes:
                table.add_row(*_variant_row(_pair(size), names[key], audit.passes[key][i]))
    if audit.fitting is not None and audit.fitting[0] not in audit.sizes:
        size, audited = audit.fitting
        table.add_row(*_variant_row(_pair(size), names["True"], audited))
    return table


def _variant_row(size: str, name: str, audited: ForwardPass) -> Sequence[Any]:
    pooled, levels = 0.0, 0.0
    for meeting in audited.misregistered:
        if meeting.pooled:
            pooled = max(pooled, meeting.worst)
        else:
            levels = max(levels, meeting.worst)
    final = audited.final
    beyond = max((entry.pixels for entry in audited.repeats), default=0.0)
    y, x = (None, None) if final is None else (final.y, final.x)
    return (
        size,
        name,
        _coloured(f"{levels:.4g}", levels),
        _coloured(f"{pooled:.4g}", pooled),
        _offset(y),
        _offset(x),
        f"{beyond:.4g}",
    )


def _meetings(audit: Audit, everything: bool) -> Table:
    audited = audit.now
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
    left = {(m.path, m.op) for m in audit.exact.trace.meetings if m.worst > TOLERANCE}
    for meeting, times in grouped(kept):
        repairable = "" if meeting.worst <= TOLERANCE else "no" if (meeting.path, meeting.op) in left else "yes"
        table.add_row(
            meeting.path or "model",
            meeting.op,
            _resized_by(audited, meeting),
            _offset(meeting.y),
            _offset(meeting.x),
            str(times),
            repairable,
        )
    return table


def grouped(meetings: Sequence[Meeting]) -> list[tuple[Meeting, int]]:
    """Put equal findings in one module together, with their number."""
    groups: dict[Any, list[Meeting]] = {}
    for meeting in meetings:
        groups.setdefault((meeting.path, meeting.op, in_pixels(meeting.y), in_pixels(meeting.x)), []).append(meeting)
    return sorted(((group[0], len(group)) for group in groups.values()), key=lambda pair: -pair[0].worst)


def _resized_by(audited: ForwardPass, meeting: Meeting) -> str:
    if meeting.site is None:
        return "layers, no resize"
    resize = audited.trace.resizes[meeting.site]
    return f"{_pair(resize.source_size)} -> {_pair(resize.size)} {_model(resize)}"


def _model(resize: Resize) -> str:
    return resize.mode if resize.align_corners is None else f"{resize.mode} {resize.align_corners}"


def _resizes(audit: Audit, everything: bool) -> Table:
    audited = audit.now
    changed = audit.exact.maps
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
        ignores = "  (hard-coded)" if resize.site in audit.hard_coded else ""
        table.add_row(
            resize.path or "model",
            str(resize.call) if resize.reachable else "-",
            f"{_pair(resize.source_size)} -> {_pair(resize.size)}",
            _model(resize) + ignores,
            _grid(resize.source),
            _grid(resize.result),
            exact,
        )
    return table


def _whole(column: str) -> dict[str, Any]:
    """Return how a narrow column shows what does not fit: in more lines, never cut, but names in one line."""
    return {"overflow": "fold", "no_wrap": column in ("input", "resizes", "module")}


def _grid(grid: Any) -> str:
    return "no position" if grid is None else f"{_pair(grid.stride)}, {_pair(grid.offset)}"


def _pair(values: Sequence[float]) -> str:
    """Write ``512x1024``; one number where both axes agree and are no size."""
    texts = [f"{value + 0:.4g}" if isinstance(value, float) else str(value) for value in values]
    return texts[0] if isinstance(values[0], float) and len(set(texts)) == 1 else "x".join(texts)


def _offset(offset: Offset | None) -> Text:
    return Text("-") if offset is None else _coloured(in_pixels(offset), abs(offset.largest))


def _coloured(text: str, pixels: float) -> Text:
    return Text(text, style="green" if pixels <= TOLERANCE else "yellow" if pixels <= 2 else "red")


def to_json(audit: Audit) -> dict[str, Any]:
    """Return everything that was found, for programs; grids and offsets in input pixels, axes in the order (y, x)."""
    fitting = audit.fitting
    return {
        "schema": SCHEMA,
        "config": audit.name,
        "verdict": describe(audit),
        "advice": [asdict(each) for each in audit.advice],
        "sizes": audit.sizes,
        "hard_coded": audit.hard_coded,
        "covered_at": audit.covering,
        "weights": [None if each is None else asdict(each) for each in audit.weights],
        "label_offsets": [asdict(moved) for moved in audit.labels],
        "true_is_exact_at": fitting[0] if fitting is not None and fitting[1].worst < TOLERANCE else None,
        "audits": {key: [_pass_json(p) for p in passes] for key, passes in audit.passes.items()},
    }


def _pass_json(audited: ForwardPass) -> dict[str, Any]:
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
        "uncovered": [asdict(entry) for entry in audited.uncovered],
        "unreachable": [r.site for r in audited.unreachable],
        "unknown": audited.trace.unknown,
        "notes": audited.trace.notes,
    }
