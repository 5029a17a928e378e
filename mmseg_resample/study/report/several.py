"""Several studies in one report: the verdict of each, then their declared comparisons side by side."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..plan import StudyError
from . import analysis, cells, data, figures, sections
from .document import Block, Bullets, Document, Paragraph, Picture, Section, Table
from .results import Report, TestedDifference


@dataclass(frozen=True)
class Collection:
    """Reports of several studies.

    Attributes:
        names: of the studies; their directories tell apart those that are called the same.
        reports: in the same order.
    """

    names: Sequence[str]
    reports: Sequence[Report]

    @property
    def caveats(self) -> list[str]:
        """Sentences that a reader must know before comparing across the studies."""
        found = [
            "Each study is corrected for its own family of comparisons, and nothing is corrected across studies: of "
            "many studies without any effect, some find one."
        ]
        metrics = sorted({report.study["metric"] for report in self.reports})
        if len(metrics) > 1:
            found.append(f"The studies compare different metrics: {', '.join(metrics)}.")
        if len({report.study["base"] for report in self.reports}) > 1:
            found.append(
                "The studies start from different base configs: their scores differ for more reasons than one."
            )
        for name, report in zip(self.names, self.reports, strict=True):
            found += [f"{name}: {sentence}" for sentence in sections.caveats(report)]
        return found


def build_many(roots: Sequence[Path]) -> Collection:
    """Read the directories of several studies.

    Raises:
        StudyError: a directory holds no study, or files of another version, or is given twice.
    """
    if len({root.resolve() for root in roots}) < len(roots) or not roots:
        raise StudyError(f"report: expected different directories of studies, got {[str(root) for root in roots]}.")
    reports = [analysis.build(root) for root in roots]
    count = Counter(report.study["name"] for report in reports)
    names = []
    for root, report in zip(roots, reports, strict=True):
        name = report.study["name"]
        names.append(name if count[name] == 1 else f"{name} ({root.resolve().name})")
    return Collection(names, reports)


def document(collection: Collection) -> Document:
    """Lay out the report across the studies."""
    named = list(zip(collection.names, collection.reports, strict=True))
    verdicts: list[Block] = []
    for name, report in named:
        verdicts.append(Paragraph(f"{name}: {report.headline}", lead=True))
        verdicts += sections.verdicts(report, f"{name}, ")
    verdicts += [Paragraph("Before you believe it:"), Bullets(collection.caveats)]
    missing = [f"{name}: {sentence}" for name, report in named for sentence in report.missing]
    if missing:
        verdicts += [Paragraph("Not in these reports:"), Bullets(missing)]
    return Document(
        "Studies side by side",
        f"{', '.join(collection.names)}. Each has its own report beside its runs.",
        [
            Section("verdict", "Verdicts", verdicts),
            *_differences(collection),
            _scores(collection),
            _cost(collection),
            _provenance(collection),
        ],
    )


def to_json(collection: Collection) -> dict[str, Any]:
    """Convert to JSON data, every study as in its own report."""
    studies = [
        {"name": name, **data.to_json(report)}
        for name, report in zip(collection.names, collection.reports, strict=True)
    ]
    return {"caveats": collection.caveats, "studies": studies}


def _differences(collection: Collection) -> list[Section]:
    drawn: dict[str, list[tuple[str, TestedDifference]]] = {}
    rows = []
    for name, report in zip(collection.names, collection.reports, strict=True):
        for declared in report.declared:
            label, tested = declared.subject, declared.tested
            difference = tested.evidence.difference
            drawn.setdefault(name, []).append((label, tested))
            rows.append(
                [
                    name,
                    report.study["metric"],
                    label,
                    str(difference.n),
                    cells.interval_cell(difference),
                    cells.images_cell(tested.evidence.images, difference.n),
                    tested.verdict.label,
                ]
            )
    if not rows:
        return []
    units = {report.unit.difference for report in collection.reports}
    plot = figures.studies(drawn, units.pop() if len(units) == 1 else "")
    words = frozenset(["study", "metric", "comparison", "verdict"])
    columns = ["study", "metric", "comparison", "n", "mean [95 %]", "with other images", "verdict"]
    caption = "Student's 95 % interval over seeds, and the one with other test images; points, or px of dx and dy."
    blocks: list[Block] = [*([Picture(plot)] if plot.panels else []), Table(columns, rows, caption, words)]
    return [Section("differences", "Declared comparisons", blocks)]


def _scores(collection: Collection) -> Section:
    rows = [
        [name, report.study["metric"], cells.where(c.combination, c.evaluation), variant, cells.mean_cell(mean)]
        for name, report in zip(collection.names, collection.reports, strict=True)
        for c in report.comparisons
        for variant, mean in c.means.items()
    ]
    words = frozenset(["study", "metric", "tested", "variant"])
    table = Table(
        ["study", "metric", "tested", "variant", "score"], rows, "Mean ± standard deviation over seeds.", words
    )
    return Section("scores", "Scores", [table])


def _cost(collection: Collection) -> Section:
    rows = []
    for name, report in zip(collection.names, collection.reports, strict=True):
        hours = sum(run["training"]["seconds"] for run in report.runs) / 3600
        rows.append(
            [name, str(len(report.runs)), str(len(report.failures)), str(len(report.unfinished)), f"{hours:.2f}"]
        )
    columns = ["study", "finished runs", "failed", "not finished", "training, h"]
    return Section("cost", "Cost", [Table(columns, rows, "", frozenset(["study"]))])


def _provenance(collection: Collection) -> Section:
    tables: list[Block] = []
    for name, report in zip(collection.names, collection.reports, strict=True):
        columns, rows = sections.provenance_rows(report.environments)
        if rows:
            tables.append(Table(columns, rows, f"{name}: trained from {report.study['base']}.", frozenset(columns)))
    return Section("provenance", "Provenance", tables)
