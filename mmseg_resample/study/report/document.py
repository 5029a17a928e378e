"""The structure of a report in any format: sections of plain text, tables and figures."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .panels import Plot
from .verdict import Status


@dataclass(frozen=True)
class Paragraph:
    """Text.

    Attributes:
        text: plain.
        lead: whether it is what a reader must not miss.
    """

    text: str
    lead: bool = False


@dataclass(frozen=True)
class Bullets:
    """List of sentences in no order."""

    items: Sequence[str]


@dataclass(frozen=True)
class Finding:
    """Verdict on one comparison.

    Attributes:
        status: decides how it looks.
        label: of the status.
        subject: what is compared.
        text: the verdict.
    """

    status: Status
    label: str
    subject: str
    text: str


@dataclass(frozen=True)
class Table:
    """Table whose cells are text; a line break within a cell is kept.

    Attributes:
        columns: headers.
        rows: as many cells each.
        caption: what the cells are, with their unit.
        words: columns of text, which are aligned left and may wrap; the others are numbers.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    words: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Picture:
    """Figure of the report."""

    plot: Plot


Block = Paragraph | Bullets | Finding | Table | Picture


@dataclass(frozen=True)
class Section:
    """Heading and the blocks below it.

    Attributes:
        key: unique in the document, fit for an anchor.
        title: heading.
        blocks: in order.
    """

    key: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """Report as a document.

    Attributes:
        title: of the document.
        about: what was done, in a sentence or two.
        sections: in order.
    """

    title: str
    about: str
    sections: Sequence[Section] = field(default_factory=list)

    @property
    def plots(self) -> list[Plot]:
        """All figures, in order."""
        return [block.plot for section in self.sections for block in section.blocks if isinstance(block, Picture)]
