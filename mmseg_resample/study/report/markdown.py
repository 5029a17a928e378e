"""A report as Markdown, its figures beside it."""

import re
from collections.abc import Iterator

from .document import Block, Bullets, Document, Finding, Paragraph, Picture, Table


def to_markdown(document: Document, figures: str = "figures") -> str:
    """Render the document as GitHub's Markdown.

    Args:
        document: what to write.
        figures: directory of the figures, relative to the file.
    """
    lines = [f"# {_escape(document.title)}", "", _escape(document.about), ""]
    for section in document.sections:
        lines += [f"## {_escape(section.title)}", ""]
        for block in section.blocks:
            lines += [*_block(block, figures), ""]
    return "\n".join(lines[:-1]) + "\n"


def _block(block: Block, figures: str) -> Iterator[str]:
    if isinstance(block, Paragraph):
        yield f"**{_escape(block.text)}**" if block.lead else _escape(block.text)
    elif isinstance(block, Bullets):
        yield from (f"- {_escape(item)}" for item in block.items)
    elif isinstance(block, Finding):
        yield f"- **{_escape(block.label)}**: {_escape(block.subject)}. {_escape(block.text)}"
    elif isinstance(block, Picture):
        yield f"![{_escape(block.plot.title)}]({figures}/{block.plot.name}.png)"
        yield ""
        yield f"*{_escape(block.plot.caption)}*"
    else:
        yield from _table(block)


def _table(table: Table) -> Iterator[str]:
    rules = ["---" if column in table.words else "---:" for column in table.columns]
    for cells in (table.columns, rules, *table.rows):
        plain = cells is rules
        yield f"| {' | '.join(cell if plain else _cell(cell) for cell in cells)} |"
    if table.caption:
        yield ""
        yield f"*{_escape(table.caption)}*"


def _cell(text: str) -> str:
    return _escape(text).replace("|", "\\|").replace("\n", "<br>")


def _escape(text: str) -> str:
    """Escape what would become markup; underscores within words would not."""
    text = re.sub(r"[\\`*<]", lambda match: f"\\{match[0]}", text)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
