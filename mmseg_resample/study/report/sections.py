"""The content of a report in reading order, the verdict first: names and rounding of every number."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..paired import SEEDS_FOR_SIGNIFICANCE, caveat, summarize
from ..words import counted
from . import figures
from .cells import (
    changes,
    count_cell,
    images_cell,
    interval_cell,
    mean_cell,
    p_cell,
    pairs_cell,
    pixels_cell,
    seeds_cell,
    signed,
    time_cell,
    where,
)
from .document import Block, Bullets, Document, Finding, Paragraph, Picture, Section, Table
from .gather import in_order
from .panels import Plot
from .results import THIRDS, Breakdown, Comparison, Report, TestedDifference


def document(report: Report) -> Document:
    """Lay out the report of one study. Sections whose data is absent are left out; the verdict says so."""
    makers = (
        _verdict,
        _seeds,
        _differences,
        _interactions,
        _deployment,
        _displacement,
        _trimap,
        _boundary,
        _classes,
        _audit,
        _outlook,
        _cost,
        _provenance,
    )
    sections = [Section(key, title, blocks) for make in makers for key, title, blocks in [make(report)] if blocks]
    return Document(report.study["name"], _about(report), sections)


def findings(report: Report) -> list[Finding]:
    """List the verdict on every declared comparison, in the order of the report."""
    shown = []
    for each in report.declared:
        verdict = each.tested.verdict
        shown.append(Finding(verdict.status, verdict.label, each.subject, verdict.text))
    for key in report.uncompared:
        words = [key.variant, *changes(dict(key.along)), f"tested as {key.evaluation}"]
        subject = where(dict(key.combination), ", ".join(words))
        shown.append(Finding("missing", "not compared yet", subject, "No run of this comparison is finished."))
    return shown


def verdicts(report: Report, before: str = "") -> list[Block]:
    """Show the verdict on every declared comparison; where seeds decide nothing, one list of what they show.

    Args:
        report: of one study.
        before: text in front of the name of every comparison.
    """
    blocks: list[Block] = [Finding(f.status, f.label, f"{before}{f.subject}", f.text) for f in findings(report)]
    if not report.seeds_decide_nothing:
        return blocks
    n = _most_seeds(report)
    seen = [each for each in report.declared if each.tested.verdict.status in ("too_few", "single")]
    intro = (
        f"Seen, in {report.unit.difference}, one training of each: mostly noise."
        if n == 1
        else f"Seen, in {report.unit.difference}, with 95 % intervals that take differences to be normally distributed:"
    )
    items = []
    for each in seen:
        difference = each.tested.evidence.difference
        fewer = f", {counted(difference.n, 'seed')}" if 1 < difference.n < n else ""
        items.append(f"{before}{each.subject}: {interval_cell(difference)}{fewer}")
    if items:
        others = (b for b in blocks if not (isinstance(b, Finding) and b.status in ("too_few", "single")))
        blocks = [Paragraph(intro), Bullets(items), *others]
    return blocks


def caveats(report: Report) -> list[str]:
    """List the caveats but for what the headline has said, that the seeds are too few."""
    said = caveat(_most_seeds(report), len(report.family)) if report.seeds_decide_nothing else None
    return [sentence for sentence in report.caveats if sentence != said]


def _most_seeds(report: Report) -> int:
    return max((each.tested.evidence.difference.n for each in report.declared), default=0)


def comparison_rows(report: Report) -> tuple[list[str], list[list[str]]]:
    """Tabulate the means of the variants and the paired differences, for the terminal."""
    names = report.variants
    axes = report.other_axes
    titles = list(dict.fromkeys(f"{name} - {c.reference}" for c in report.comparisons for name in c.differences))
    rows = []
    for c in report.comparisons:
        n = max((d.n for d in c.differences.values()), default=0)
        cells = {f"{name} - {c.reference}": d for name, d in c.differences.items()}
        rows.append(
            [
                *c.combination.values(),
                c.evaluation,
                str(n),
                *(mean_cell(c.means.get(name)) for name in names),
                *(seeds_cell(cells.get(title)) for title in titles),
            ]
        )
    return [*axes, "tested as", "n", *names, *titles], rows


def transfer_rows(report: Report) -> tuple[list[str], list[list[str]]]:
    """Tabulate the same weights tested otherwise."""
    axes = list(report.study["axes"])
    titles = list(dict.fromkeys(f"{t.evaluation} - {t.reference}" for t in report.transfers))
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for t in report.transfers:
        rows.setdefault(tuple(t.variants.values()), {})[f"{t.evaluation} - {t.reference}"] = interval_cell(t.difference)
    return [*axes, *titles], [[*key, *(cells.get(title, "") for title in titles)] for key, cells in rows.items()]


def provenance_rows(environments: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Tabulate the environments, one a row."""
    rows = []
    for environment in environments:
        git = environment.get("git")
        commit = f"{git['commit'][:10]}{' with changes' if git['dirty'] else ''}" if git else "none"
        rows.append({**{k: str(v) for k, v in environment.items() if k != "git"}, "commit": commit})
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return columns, [[row.get(column, "") for column in columns] for row in rows]


SectionParts = tuple[str, str, list[Block]]
"""Key, title and blocks of a section; without blocks it is left out."""


def _about(report: Report) -> str:
    study = report.study
    n = sorted({difference.n for c in report.comparisons for difference in c.differences.values()})
    pairs = f"{n[0]} to {n[-1]} seeds" if len(n) > 1 else counted(n[0] if n else 0, "seed")
    return (
        f"{counted(len(report.runs), 'run')} of {study['base']}, paired by seed, {pairs} each: {study['metric']} "
        f"({report.unit.score}) by {study['compare']}."
    )


def _verdict(report: Report) -> SectionParts:
    total = len(report.family)
    limit = report.unit.amount(report.margin)
    blocks: list[Block] = [
        Paragraph(report.headline, lead=True),
        *verdicts(report),
        Paragraph(
            f"Declared: {total} {'comparison' if total == 1 else 'comparisons, corrected together'}, and a margin of "
            f"{limit}, the smallest difference that matters. The unit is a seed: one training of each variant. All "
            f"else is exploratory."
        ),
    ]
    if doubts := caveats(report):
        blocks += [Paragraph("Before you believe it:"), Bullets(doubts)]
    if report.missing:
        blocks += [Paragraph("Not in this report:"), Bullets(report.missing)]
    return "verdict", "Verdict", blocks


def _seeds(report: Report) -> SectionParts:
    if not report.comparisons:
        return "seeds", "", []
    study = report.study
    names = report.variants
    axes = report.other_axes
    rows = [
        [*c.combination.values(), c.evaluation, *(mean_cell(c.means.get(name)) for name in names)]
        for c in report.comparisons
    ]
    table = Table(
        [*axes, "tested as", *names],
        rows,
        f"{study['metric']} ({report.unit.score}), mean ± standard deviation over seeds.",
        frozenset([*axes, "tested as"]),
    )
    return "seeds", "Every seed", [Picture(figures.seeds(report)), table]


def _differences(report: Report) -> SectionParts:
    rows = [
        _difference_row(comparison, name, tested)
        for comparison in report.comparisons
        for name, tested in comparison.tested.items()
        if tested.evidence.difference.n
    ]
    if not rows:
        return "differences", "", []
    axes = report.other_axes
    keys = [*axes, "tested as", "difference"]
    columns = [
        *keys,
        "n",
        "mean [95 %]",
        "with other images",
        "by seed",
        "p",
        "p, Holm",
        "p, equivalent",
        "verdict",
    ]
    sequences = report.study.get("sequences")
    drawn = (
        "images are drawn as if independent, which frames of one video are not"
        if sequences is None
        else f"what is drawn are sequences, images with an equal match of {sequences}"
    )
    table = Table(
        columns,
        rows,
        f"Differences in {report.unit.difference}. Mean [95 %]: Student's interval over seeds, on these test images. "
        f"With other images: 95 % interval for other trainings and another test set of this size; "
        f"{drawn}. p: sign flips. p, Holm: corrected for the declared "
        f"family of {len(report.family)}. p, equivalent: that the difference is below the margin of "
        f"{report.unit.amount(report.margin)}, corrected too; from {SEEDS_FOR_SIGNIFICANCE} seeds on.",
        frozenset([*keys, "by seed", "verdict"]),
    )
    return "differences", "Paired differences", [Picture(figures.differences(report)), table]


def _difference_row(comparison: Comparison, name: str, tested: TestedDifference) -> list[str]:
    evidence = tested.evidence
    d = evidence.difference
    return [
        *comparison.combination.values(),
        comparison.evaluation,
        f"{name} - {comparison.reference}",
        str(d.n),
        interval_cell(d),
        images_cell(evidence.images, d.n),
        " ".join(signed(value) for value in d.values),
        p_cell(evidence.p),
        p_cell(evidence.p_holm),
        p_cell(evidence.p_equivalence_holm) if d.n >= SEEDS_FOR_SIGNIFICANCE else "",
        tested.verdict.label,
    ]


def _interactions(report: Report) -> SectionParts:
    rows = [
        [
            i.label,
            i.evaluation,
            str(i.difference.n),
            interval_cell(i.difference),
            p_cell(i.tested.evidence.p),
            p_cell(i.tested.evidence.p_holm),
            i.tested.verdict.label,
        ]
        for i in report.interactions
    ]
    if not rows:
        return "interactions", "", []
    intro = Paragraph(
        "How much a difference depends on another axis: the difference of the paired differences, seed by seed. Where "
        "an effect changes sign along an axis, this is larger than either effect. p of what was not declared is not "
        "corrected: it is exploratory."
    )
    caption = f"In {report.unit.difference}, with Student's 95 % interval over seeds."
    words = frozenset(["interaction", "tested as", "verdict"])
    columns = ["interaction", "tested as", "n", "mean [95 %]", "p", "p, Holm", "verdict"]
    table = Table(columns, rows, caption, words)
    return "interactions", "Interactions", [intro, Picture(figures.interactions(report)), table]


def _deployment(report: Report) -> SectionParts:
    if not report.transfers:
        return "deployment", "", []
    columns, rows = transfer_rows(report)
    plot = figures.deployment(report)
    table = Table(
        columns,
        rows,
        f"The same weights tested otherwise: change in {report.unit.difference}, paired by seed, with Student's 95 % "
        f"interval. Exploratory.",
        frozenset(report.study["axes"]),
    )
    return "deployment", "Trained one way, tested another", [*([Picture(plot)] if plot is not None else []), table]


def _displacement(report: Report) -> SectionParts:
    rows = []
    for each in report.displaced:
        for axis in ("x", "y"):
            shift = getattr(each, axis)
            rows.append(
                [
                    *each.combination.values(),
                    each.evaluation,
                    each.variant,
                    f"d{axis}",
                    *(pixels_cell(mean) for mean in shift.third_means),
                    pixels_cell(shift.drift_mean),
                    "" if math.isnan(each.found) else f"{each.found:.0f} %",
                ]
            )
    if not rows:
        return "displacement", "", []
    axes = report.other_axes
    words = frozenset([*axes, "tested as", "trained with", "axis"])
    thirds = [" / ".join(pair) for pair in zip(THIRDS["x"], THIRDS["y"], strict=True)]
    thirds = [name if name != "middle / middle" else "middle" for name in thirds]
    table = Table(
        [*axes, "tested as", "trained with", "axis", *thirds, "drift", "edges found"],
        rows,
        "Displacement in px, mean over seeds with Student's 95 % interval, in the middle of each third. Drift: how "
        "much more at the right (lower) end than at the left (upper) one. Edges found: share of the labelled edges "
        "that the predictions have; where it is small, the displacement means little.",
        words,
    )
    return "displacement", "Displacement", [Picture(figures.displacement(report)), table]


def _trimap(report: Report) -> SectionParts:
    if not report.trimap:
        return "trimap", "", []
    plot = figures.curves(
        report,
        "trimap",
        "mIoU near the boundaries of the labels",
        report.trimap,
        "mIoU in the band (%)",
        "Only pixels within the width of a boundary count. Low on the left and soon level: errors sit at boundaries; "
        "low everywhere: errors of recognition. Thin lines are seeds.",
    )
    table = _curve_table(report, report.trimap, "mIoU (%) in bands around the boundaries of the labels")
    return "trimap", "Near boundaries: trimap curves", [*_pictures(plot), table]


def _boundary(report: Report) -> SectionParts:
    if not report.boundary:
        return "boundary", "", []
    plot = figures.curves(
        report,
        "boundary",
        "Boundary IoU",
        report.boundary,
        "Boundary IoU (%)",
        "IoU of the outlines of the classes, in bands of this width. Thin lines are seeds.",
    )
    table = _curve_table(report, report.boundary, "Boundary IoU (%), mean over classes")
    return "boundary", "Boundary IoU", [*_pictures(plot), table]


def _curve_table(report: Report, curves: Sequence[Breakdown], what: str) -> Table:
    rows = [
        [*curve.combination.values(), curve.evaluation, width, *cells]
        for curve in curves
        for width, cells in _paired_rows(report, curve)
    ]
    return _paired_table(report, ["tested as", "width"], rows, what)


def _classes(report: Report) -> SectionParts:
    rows = [
        [*each.combination.values(), name, *cells]
        for each in report.classes
        for name, cells in _paired_rows(report, each)
    ]
    if not rows:
        return "classes", "", []
    evaluation = report.classes[0].evaluation
    table = _paired_table(report, ["class"], rows, f"IoU (%) of every class, tested as {evaluation}")
    return "classes", "By class", [table]


def _paired_rows(report: Report, breakdown: Breakdown) -> Iterator[tuple[str, list[str]]]:
    names = report.variants
    for row, of_variant in breakdown.means.items():
        means = [mean_cell(of_variant.get(name)) for name in names]
        changes = [breakdown.differences[row].get(name) for name in names[1:]]
        yield row, [*means, *("" if change is None else interval_cell(change) for change in changes)]


def _paired_table(report: Report, words: Iterable[str], rows: Sequence[Sequence[str]], what: str) -> Table:
    names = report.variants
    axes = report.other_axes
    keys = [*axes, *words]
    caption = (
        f"{what}: mean ± standard deviation, and paired differences in points with Student's 95 % interval over seeds. "
        f"Exploratory: {counted(len(rows), 'row')}, no correction for looking at all of them."
    )
    return Table([*keys, *names, *(f"{n} - {names[0]}" for n in names[1:])], rows, caption, frozenset(keys))


def _audit(report: Report) -> SectionParts:
    plot = figures.audit(report)
    if plot is None:
        return "audit", "", []
    rows = []
    for each in report.displaced:
        for axis in ("x", "y"):
            shift = getattr(each, axis)
            if shift.absorbed is None or shift.shift_absorbed is None or shift.audited is None:
                continue
            for third in range(3):
                rows.append(
                    [
                        *each.combination.values(),
                        each.evaluation,
                        each.variant,
                        f"d{axis} {THIRDS[axis][third]}",
                        signed(_at_third(shift.audited, third)),
                        signed(shift.absorbed[third]),
                        signed(shift.shift_absorbed[third]),
                        pixels_cell(shift.third_means[third]),
                    ]
                )
    axes = report.other_axes
    words = [*axes, "tested as", "trained with", "where"]
    intro = Paragraph(
        "The audit follows positions through the network, without weights and data, and says by how many pixels the "
        "logits read evidence to the right (e > 0) of where they are. An untrained network would predict e px to the "
        "left of the labels. Training learns to undo what it meets: a constant shift surely, a drift only in part. "
        "Trained as A and tested as B, the displacement is expected between -(e of B - e of A) and "
        "-(e of B - constant part of e of A)."
    )
    table = Table(
        [*words, "e, tested network", "if all is learned away", "if the shift is", "measured"],
        rows,
        "In px; the measured displacement is the mean over seeds with Student's 95 % interval.",
        frozenset(words),
    )
    return "audit", "Predicted by the audit, and measured", [intro, Picture(plot), table]


def _at_third(ends: tuple[float, float, float], third: int) -> float:
    first, middle, last = ends
    return (first + 2 * middle) / 3 if third == 0 else middle if third == 1 else (2 * middle + last) / 3


def _outlook(report: Report) -> SectionParts:
    rows = []
    for declared in report.declared:
        evidence = declared.tested.evidence
        d, plan = evidence.difference, evidence.outlook
        rows.append(
            [
                declared.subject,
                str(d.n),
                "" if math.isnan(d.sd) else f"{d.sd:.2f}",
                "none" if math.isnan(plan.detectable) else f"{plan.detectable:.2f}",
                count_cell(plan.seeds),
                count_cell(plan.cautious_seeds),
            ]
        )
    if not rows:
        return "outlook", "", []
    words = ["comparison"]
    table = Table(
        [*words, "n", "sd", "detectable with n", f"seeds for {report.margin:g}", "to be cautious"],
        rows,
        f"In {report.unit.difference}. Detectable: the true difference that n seeds find with probability 0.8, within "
        f"the declared family of {len(report.family)}; none: n seeds can find nothing. Seeds for {report.margin:g}: "
        f"how many find a true difference of the margin; cautious: if the standard deviation is its upper 80 % limit. "
        f"Adding seeds to this study until it is significant finds differences that do not exist: plan a new one.",
        frozenset(words),
    )
    return "outlook", "How many seeds", [table]


def _cost(report: Report) -> SectionParts:
    rows = []
    kinds = {run["training"]["memory"] for run in report.runs if run["training"]["peak_memory_bytes"]}
    for variants in in_order(report.study["axes"], [run["variants"] for run in report.runs]):
        runs = [run for run in report.runs if run["variants"] == variants]
        if runs:
            trainings = [run["training"] for run in runs]
            seconds = summarize([training["seconds"] for training in trainings]).mean
            tested = [sum((e or {}).get("seconds") or 0.0 for e in run["evaluations"].values()) for run in runs]
            peaks = [t["peak_memory_bytes"] for t in trainings if t["peak_memory_bytes"]]
            kind = f" ({trainings[0]['memory']})" if len(kinds) > 1 else ""
            peak = f"{max(peaks) / 2**20:.0f} MiB{kind}" if peaks else "unknown"
            counts = [str(len(runs)), str(trainings[0]["iterations"])]
            rows.append([*variants.values(), *counts, time_cell(seconds), time_cell(summarize(tested).mean), peak])
    if not rows:
        return "cost", "", []
    total = sum(run["training"]["seconds"] for run in report.runs)
    tests = sum((e or {}).get("seconds") or 0.0 for run in report.runs for e in run["evaluations"].values())
    axes = list(report.study["axes"])
    of_all = f" Peak memory: {', '.join(kinds)}." if len(kinds) == 1 else ""
    table = Table(
        [*axes, "runs", "iterations", "training, mean", "tests, mean", "peak memory"],
        rows,
        f"Wall time of a run, with whatever ran beside it. All finished runs: {time_cell(total)} of training and "
        f"{time_cell(tests)} of tests.{of_all}",
        frozenset([*axes, "peak memory"]),
    )
    return "cost", "Cost", [table]


def _provenance(report: Report) -> SectionParts:
    blocks: list[Block] = []
    if report.failures:
        axes = list(report.study["axes"])
        rows = [[*f["variants"].values(), str(f["seed"]), f["error"], f["log"]] for f in report.failures]
        words = frozenset([*axes, "error", "log"])
        blocks += [Paragraph("Failed runs:"), Table([*axes, "seed", "error", "log"], rows, "", words)]
    if report.unfinished:
        labels = [", ".join([*u["variants"].values(), f"seed {u['seed']}"]) for u in report.unfinished]
        blocks += [Paragraph(f"Planned and not finished, {counted(len(labels), 'run')}: {'; '.join(labels)}.")]
    if report.restarts:
        again = f"{counted(report.restarts, 'run')} took more than one attempt, and went on from a checkpoint."
        blocks += [Paragraph(again)]
    columns, rows = provenance_rows(report.environments)
    if rows:
        blocks += [
            Table(columns, rows, "What the runs were made with; attempts: how many were made so.", frozenset(columns))
        ]
    speed = {key: value for key, value in (report.study.get("speed") or {}).items() if value}
    if speed:
        blocks += [Paragraph(f"Speed options, the same for all variants: {pairs_cell(speed)}.")]
    if report.study.get("stop_if"):
        rule = pairs_cell(report.study["stop_if"])
        blocks += [Paragraph(f"A training that fails this rule counts as failed, whatever variant: {rule}.")]
    seeds = sorted({run["seed"] for run in report.runs})
    if report.runs:
        finished = sorted(run["finished"] for run in report.runs if run.get("finished"))
        times = f" Finished between {finished[0]} and {finished[-1]}." if finished else ""
        blocks += [Paragraph(f"Base config: {report.study['base']}. Seeds: {', '.join(map(str, seeds))}.{times}")]
        rows = [[each["config"], each["sha256"] or "absent"] for each in report.configs]
        caption = "The resolved config of every finished run, with the start of its SHA-256."
        blocks += [Table(["config", "sha256"], rows, caption, frozenset(["config", "sha256"]))]
    return "provenance", "Provenance", blocks


def _pictures(plot: Plot) -> list[Block]:
    return [Picture(plot)] if plot.panels else []
