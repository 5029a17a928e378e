"""A report in a terminal."""

import itertools
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from .results import Report
from .sections import comparison_rows, findings, transfer_rows


def tables(report: Report) -> Iterator[Table]:
    """Yield the comparisons, the transfers, and last, where a reader looks first, the verdict."""
    study = report.study
    yield _rich(
        *comparison_rows(report), f"{study['metric']} ({report.unit.score}) by {study['compare']}, paired by seed"
    )
    if report.transfers:
        first = report.transfers[0].reference
        yield _rich(
            *transfer_rows(report), f"The same weights tested otherwise: {study['metric']} minus that of {first}"
        )
    yield verdict(report)


def verdict(report: Report) -> Table:
    """Tabulate the headline, and the status of every declared comparison."""
    return _rich(["declared comparison", "verdict"], [[f.subject, f.label] for f in findings(report)], report.headline)


def _rich(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> Table:
    table = Table(title=escape(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    table.padding = (0, 1, 0, 0)  # a comparison fits 80 columns
    for header in headers:
        table.add_column(escape(header), overflow="fold")  # where it is too narrow after all, nothing is lost
    for _, group in itertools.groupby(rows, key=lambda row: row[0]):
        for row in group:
            table.add_row(*map(escape, row))
        table.add_section()
    return table
