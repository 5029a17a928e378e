"""The report of a study, from its directories alone: a page, Markdown, JSON and figures, the verdict first.

- ``gather``: the records of a directory.
- ``analysis``, ``displacement``: the statistics; ``results``: their results, which the modules below show.
- ``verdict``: the words for the results.
- ``sections``, ``several``: content and order of the report of one study and of several.
- ``cells``, ``figures``, ``panels``, ``html``, ``style``, ``markdown``, ``data``, ``terminal``: the formats.

docs/report.md says how to read one.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from .. import records
from . import data, figures, panels, sections, several, terminal
from .analysis import build
from .document import Document
from .html import to_html
from .markdown import to_markdown
from .results import Comparison, Interaction, Report, Transfer, VariantDisplacement
from .several import Collection, build_many

__all__ = [
    "Collection",
    "Comparison",
    "Interaction",
    "Report",
    "Transfer",
    "VariantDisplacement",
    "build",
    "build_many",
    "document",
    "tables",
    "to_html",
    "to_json",
    "to_markdown",
    "write",
]

FIGURES = "figures"
"""Directory of the figures, beside the report."""


def write(report: Report | Collection, root: Path) -> list[Path]:
    """Write ``report.html``, ``report.md``, ``report.json`` and ``figures/`` into ``root``.

    The same runs give the same bytes. Figures of an earlier report that this one does not have are removed.

    Returns:
        The three files.
    """
    content = document(report)
    kept = [path for plot in content.plots for path in panels.save(plot, root / FIGURES)]
    for name in figures.NAMES:
        for path in (root / FIGURES / f"{name}.png", root / FIGURES / f"{name}.svg"):
            if path not in kept:
                path.unlink(missing_ok=True)
    paths = [root / f"report.{suffix}" for suffix in ("html", "md", "json")]
    records.write_text(paths[0], to_html(content))
    records.write_text(paths[1], to_markdown(content, FIGURES))
    records.write_json(paths[2], to_json(report), compact=True)
    return paths


def document(report: Report | Collection) -> Document:
    """Lay out the report as sections of text, tables and figures."""
    return several.document(report) if isinstance(report, Collection) else sections.document(report)


def to_json(report: Report | Collection) -> Mapping[str, Any]:
    """Convert the report to JSON data."""
    return several.to_json(report) if isinstance(report, Collection) else data.to_json(report)


def tables(report: Report | Collection) -> Iterator[Table]:
    """Yield the tables of a report for a terminal; of several studies, the verdict of each."""
    if isinstance(report, Collection):
        yield from (terminal.verdict(each) for each in report.reports)
    else:
        yield from terminal.tables(report)
