"""A report as one HTML file: no script, nothing to load, light and dark, for a phone and for paper."""

import html
from collections.abc import Iterator, Sequence

from . import panels
from .document import Block, Bullets, Document, Finding, Paragraph, Picture, Section, Table
from .style import CSS

LONG = 14
"""Tables with more rows start folded; paper has them open."""


def to_html(document: Document) -> str:
    """Render the document as a page."""
    title = _text(document.title)
    links = "".join(f'<a href="#{s.key}">{_text(s.title)}</a>' for s in document.sections)
    body = "".join(_section(section) for section in document.sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{title}</title>\n<style>\n{CSS}</style>\n</head>\n'
        f"<body>\n<header>\n<h1>{title}</h1>\n<p>{_text(document.about)}</p>\n</header>\n<nav>{links}</nav>\n"
        f"<main>\n{body}</main>\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    keys = _tables_of_figures(section.blocks)
    blocks = "".join(f"{part}\n" for n, block in enumerate(section.blocks) for part in _block(block, keys.get(n)))
    heading = f"<h2>{_text(section.title)}</h2>"
    return f'<section id="{section.key}">\n{heading}\n{blocks}</section>\n'


def _tables_of_figures(blocks: Sequence[Block]) -> dict[int, str]:
    """Map the index of each figure that has a table below it, and of that table, to an anchor."""
    keys: dict[int, str] = {}
    for number, block in enumerate(blocks):
        tables = (later for later in range(number, len(blocks)) if isinstance(blocks[later], Table))
        if isinstance(block, Picture) and (table := next(tables, None)) is not None:
            keys[number] = keys.setdefault(table, f"table-{block.plot.name}")
    return keys


def _block(block: Block, table: str | None) -> Iterator[str]:
    """Render a block; ``table`` is the anchor of the table that belongs to it, if one does."""
    if isinstance(block, Paragraph):
        yield f'<p class="lead">{_text(block.text)}</p>' if block.lead else f"<p>{_text(block.text)}</p>"
    elif isinstance(block, Bullets):
        yield f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in block.items)}</ul>"
    elif isinstance(block, Finding):
        yield (
            f'<div class="finding {block.status}"><p><span class="label">{_text(block.label)}</span> '
            f"<b>{_text(block.subject)}</b></p><p>{_text(block.text)}</p></div>"
        )
    elif isinstance(block, Picture):
        yield from _figure(block.plot, table)
    else:
        yield from _table(block, table)


def _figure(plot: panels.Plot, table: str | None) -> Iterator[str]:
    yield f'<figure id="figure-{plot.name}">'
    yield f"<h3>{_text(plot.title)}</h3>"
    if plot.legend:
        entries = (_legend(index, name) for index, name in enumerate(plot.legend))
        yield f'<p class="legend">{"".join(entries)}</p>'
    yield '<div class="panels">'
    yield from panels.inline_svg(plot)
    yield "</div>"
    link = "" if table is None else f' <a href="#{table}">The numbers</a>'
    yield f"<figcaption>{_text(plot.caption)}{link}</figcaption>"
    yield "</figure>"


def _legend(index: int, name: str) -> str:
    colour, glyph = index % len(panels.SERIES), panels.GLYPHS[index % len(panels.GLYPHS)]
    return f'<span><i style="color: var(--series-{colour})">{glyph}</i> {_text(name)}</span>'


def _table(table: Table, key: str | None) -> Iterator[str]:
    folded = len(table.rows) > LONG
    if folded:
        yield f"<details><summary>Table of {len(table.rows)} rows</summary>"
    # Within the details, not on them: a browser unfolds what holds the target of a link.
    anchor = "" if key is None else f' id="{key}"'
    yield f'<div class="table"{anchor}><table>'
    kinds = [' class="words"' if column in table.words else "" for column in table.columns]
    head = "".join(f"<th{kind}>{_text(column)}</th>" for column, kind in zip(table.columns, kinds, strict=True))
    yield f"<thead><tr>{head}</tr></thead><tbody>"
    for row in table.rows:
        yield f"<tr>{''.join(f'<td{kind}>{_text(cell)}</td>' for cell, kind in zip(row, kinds, strict=True))}</tr>"
    yield "</tbody></table></div>"
    if table.caption:
        yield f'<p class="note">{_text(table.caption)}</p>'
    if folded:
        yield "</details>"


def _text(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")
