"""What came out of a study, from its directories alone: tables, a figure, ``report.md`` and ``report.json``."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from . import records
from .plan import StudyError, Variants
from .statistics import PairedDifference, caveat, mean_and_sd, paired_difference

Scores = Mapping[int, float]
"""Seed -> metric in percent."""


@dataclass(frozen=True)
class Comparison:
    """The variants of the compared axis within one combination of the other axes, under one evaluation.

    Attributes:
        combination: variants of the other axes, as trained.
        evaluation: name.
        scores: variant -> seed -> metric, in the order of the axis; the first variant is the reference.
        differences: every other variant minus the reference.
    """

    combination: Variants
    evaluation: str
    scores: Mapping[str, Scores]
    differences: Mapping[str, PairedDifference]


@dataclass(frozen=True)
class Transfer:
    """One trained variant tested in another way: same weights, so the difference is what the test costs.

    Attributes:
        variants: as trained.
        evaluation: name.
        reference: the first evaluation of the study.
        difference: ``evaluation`` minus ``reference``.
    """

    variants: Variants
    evaluation: str
    reference: str
    difference: PairedDifference


@dataclass(frozen=True)
class Report:
    """Everything a reader of a study is told.

    Attributes:
        study: content of ``study.json``.
        comparisons: by combination, then evaluation.
        transfers: by trained variants, then evaluation.
        caveats: sentences.
        runs: content of ``metrics.json`` of every finished run.
        environments: the distinct environments, with the number of attempts made in each.
        failures: variants, seed, error and log of every failed run.
        unfinished: variants and seed of the planned runs that neither finished nor failed.
    """

    study: Mapping[str, Any]
    comparisons: Sequence[Comparison]
    transfers: Sequence[Transfer]
    caveats: Sequence[str]
    runs: Sequence[Mapping[str, Any]]
    environments: Sequence[Mapping[str, Any]]
    failures: Sequence[Mapping[str, Any]]
    unfinished: Sequence[Mapping[str, Any]]


def build(root: Path) -> Report:
    """Read the directory of a study.

    Raises:
        StudyError: ``root`` holds no study, or files of another version.
    """
    study = records.read_json(root / "study.json")
    if study is None:
        raise StudyError(f"{root}: expected the directory of a study, but it has no study.json. Run the study first.")
    runs = _read(root, "metrics.json", study)
    failures = [
        {**{key: run[key] for key in ("variants", "seed", "error")}, "log": f"{run['directory']}/log.txt"}
        for run in _read(root, "failure.json", study)
    ]
    ended = [(run["variants"], run["seed"]) for run in (*runs, *failures)]
    unfinished = [
        {"variants": variants, "seed": seed}
        for seed in study["seeds"]
        for variants in _product(study["train"])
        if (variants, seed) not in ended
    ]
    comparisons = list(_comparisons(study, runs))
    environments = _environments(root)
    return Report(
        study=study,
        comparisons=comparisons,
        transfers=list(_transfers(study, runs)),
        caveats=_caveats(comparisons, failures, unfinished, environments),
        runs=runs,
        environments=environments,
        failures=failures,
        unfinished=unfinished,
    )


def write(report: Report, root: Path) -> list[Path]:
    """Write ``report.md``, ``report.json`` and ``report.png`` into ``root``; the same runs give the same files."""
    paths = [root / f"report.{suffix}" for suffix in ("md", "json", "png")]
    records.write_text(paths[0], to_markdown(report))
    records.write_json(paths[1], to_json(report))
    draw(report, paths[2])
    return paths


def to_json(report: Report) -> dict[str, Any]:
    """The report as JSON data; what is not a number (an interval of one seed) is None."""
    return {
        "study": report.study,
        "comparisons": [
            {
                "combination": comparison.combination,
                "evaluation": comparison.evaluation,
                "variants": {name: _summary(scores) for name, scores in comparison.scores.items()},
                "differences": [
                    {"variant": name, "reference": _reference(comparison), **_paired(difference)}
                    for name, difference in comparison.differences.items()
                ],
            }
            for comparison in report.comparisons
        ],
        "transfers": [
            {
                "variants": transfer.variants,
                "evaluation": transfer.evaluation,
                "reference": transfer.reference,
                **_paired(transfer.difference),
            }
            for transfer in report.transfers
        ],
        "caveats": report.caveats,
        "runs": report.runs,
        "environments": report.environments,
        "failures": report.failures,
        "unfinished": report.unfinished,
    }


def to_markdown(report: Report) -> str:
    """The report as Markdown, with the figure beside it."""
    study = report.study
    lines = [
        f"# {study['name']}",
        "",
        f"{study['metric']} in percent of the variants of `{study['compare']}`, trained from `{study['base']}`. "
        f"Mean ± standard deviation over seeds; differences are paired by seed, with Student's 95 % interval.",
        "",
        *_markdown(_comparison_rows(report)),
        "",
        "![every seed of every variant; lines connect the same seed](report.png)",
        "",
    ]
    if report.transfers:
        lines += [f"## {_transfer_title(report)}", "", *_markdown(_transfer_rows(report)), ""]
    if report.caveats:
        lines += ["## Before you believe it", "", *(f"- {sentence}" for sentence in report.caveats), ""]
    if report.failures:
        lines += ["## Failed runs", "", *_markdown(_failure_rows(report)), ""]
    lines += ["## Cost", "", *_markdown(_cost_rows(report)), ""]
    lines += ["## Made with", "", *_markdown(_environment_rows(report))]
    return "\n".join(lines) + "\n"


def tables(report: Report) -> Iterator[Table]:
    """The report for a terminal."""
    study = report.study
    yield _rich(_comparison_rows(report), f"{study['metric']} (%) by {study['compare']}, paired by seed")
    if report.transfers:
        yield _rich(_transfer_rows(report), _transfer_title(report))


def draw(report: Report, path: Path) -> None:
    """Draw every seed of every variant, one panel per comparison; equal heights mean equal differences everywhere."""
    combinations = list(dict.fromkeys(_label(comparison.combination) for comparison in report.comparisons))
    evaluations = list(dict.fromkeys(comparison.evaluation for comparison in report.comparisons))
    names = report.study["axes"][report.study["compare"]]
    values = [_finite(comparison.scores) for comparison in report.comparisons]
    span = 1.2 * max((max(v) - min(v) for v in values if v), default=0.0) or 1.0
    width, height = 1.0 + max(1.8, 0.6 * len(names)) * len(evaluations), 0.9 + 2.2 * len(combinations)
    figure = Figure(figsize=(max(width, 3.6), height), dpi=150, layout="constrained")
    figure.suptitle(f"{report.study['name']}: {report.study['metric']} (%), one line per seed", fontsize=10)
    panels = figure.subplots(max(len(combinations), 1), max(len(evaluations), 1), squeeze=False)
    for comparison, present in zip(report.comparisons, values, strict=True):
        row, column = combinations.index(_label(comparison.combination)), evaluations.index(comparison.evaluation)
        panel = panels[row, column]
        _draw_seeds(panel, comparison.scores)
        middle = (max(present) + min(present)) / 2 if present else 0.0
        panel.set_ylim(middle - span / 2, middle + span / 2)
    for (row, column), panel in np.ndenumerate(panels):
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
        panel.grid(axis="y", color="0.92")
        panel.set_axisbelow(True)
        if row == 0 and evaluations:
            panel.set_title(evaluations[column], fontsize=9)
        if column == 0 and combinations:
            panel.set_ylabel(combinations[row] or report.study["metric"], fontsize=9)
    figure.supxlabel(f"trained with {report.study['compare']}", fontsize=9)
    partial = path.with_name(f".{path.name}")
    figure.savefig(partial, format="png")
    partial.replace(path)


def _draw_seeds(panel: Axes, scores: Mapping[str, Scores]) -> None:
    for seed in sorted({seed for of_variant in scores.values() for seed in of_variant}):
        panel.plot([of_variant.get(seed, math.nan) for of_variant in scores.values()], color="0.75", linewidth=0.9)
    for position, (name, of_variant) in enumerate(scores.items()):
        color = f"C{position}"
        panel.scatter([position] * len(of_variant), list(of_variant.values()), s=16, color=color, alpha=0.8, zorder=3)
        if of_variant:
            mean, _ = mean_and_sd(list(of_variant.values()))
            panel.hlines(mean, position - 0.22, position + 0.22, color=color, linewidth=1.8, label=name, zorder=2)
    panel.set_xticks(range(len(scores)), list(scores))
    panel.set_xlim(-0.5, len(scores) - 0.5)


def _read(root: Path, name: str, study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records called ``name`` of all runs that the study knows, seed by seed in the order of the axes."""
    axes = study["axes"]
    found = []
    for path in root.glob(f"*/seed-*/{name}"):
        record = records.read_json(path)
        if record is None or record["variants"].keys() != axes.keys():
            continue
        if all(variant in axes[axis] for axis, variant in record["variants"].items()):
            found.append({**record, "directory": path.parent.relative_to(root).as_posix()})
    order = {tuple(variants.items()): index for index, variants in enumerate(_product(axes))}
    return sorted(found, key=lambda run: (run["seed"], order[tuple(run["variants"].items())]))


def _product(axes: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    return (dict(zip(axes, names, strict=True)) for names in itertools.product(*axes.values()))


def _scores(study: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], variants: Variants, evaluation: str) -> Scores:
    found = {}
    for run in runs:
        if run["variants"] == variants and evaluation in run["evaluations"]:
            value = run["evaluations"][evaluation][study["metric"]]
            if value is not None:
                found[run["seed"]] = value
    return found


def _comparisons(study: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> Iterator[Comparison]:
    axis = study["compare"]
    others = {name: variants for name, variants in study["axes"].items() if name != axis}
    for combination, evaluation in itertools.product(_product(others), study["evaluations"]):
        scores = {}
        for name in study["axes"][axis]:
            variants = {each: name if each == axis else combination[each] for each in study["axes"]}
            of_variant = _scores(study, runs, variants, evaluation)
            if of_variant or _is_planned(study, variants):
                scores[name] = of_variant
        if any(scores.values()):
            reference, *rest = scores
            differences = {name: paired_difference(scores[name], scores[reference]) for name in rest}
            yield Comparison(combination, evaluation, scores, differences)


def _transfers(study: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> Iterator[Transfer]:
    reference, *others = study["evaluations"]
    for variants, evaluation in itertools.product(_product(study["axes"]), others):
        value = _scores(study, runs, variants, evaluation)
        if value:
            difference = paired_difference(value, _scores(study, runs, variants, reference))
            yield Transfer(variants, evaluation, reference, difference)


def _is_planned(study: Mapping[str, Any], variants: Variants) -> bool:
    return all(variant in study["train"][axis] for axis, variant in variants.items())


def _environments(root: Path) -> list[dict[str, Any]]:
    attempts: dict[str, dict[str, Any]] = {}
    for path in sorted(root.glob("*/seed-*/environment.json")):
        for attempt in (records.read_json(path) or {"attempts": []})["attempts"]:
            environment = {key: value for key, value in attempt.items() if key != "started"}
            attempts.setdefault(repr(environment), {**environment, "attempts": 0})["attempts"] += 1
    return list(attempts.values())


def _caveats(
    comparisons: Sequence[Comparison],
    failures: Sequence[Any],
    unfinished: Sequence[Any],
    environments: Sequence[Mapping[str, Any]],
) -> list[str]:
    differences = [difference for comparison in comparisons for difference in comparison.differences.values()]
    intervals = sum(difference.n > 1 for difference in differences)
    found = [caveat(min((difference.n for difference in differences), default=0))]
    if intervals > 1:
        found.append(
            f"{intervals} intervals are shown, each of 95 % by itself: about one in twenty misses its true difference, "
            f"and no correction for looking at {intervals} of them is made."
        )
    missing = len(failures) + len(unfinished)
    if missing:
        found.append(
            f"{missing} planned {'run is' if missing == 1 else 'runs are'} missing ({len(failures)} failed, "
            f"{len(unfinished)} not finished). Differences use only the seeds that both sides have; if runs fail more "
            f"under one variant, what is left is biased."
        )
    if len(environments) > 1:
        found.append(
            f"The runs were made in {len(environments)} different environments, listed below; "
            f"differences between those are differences between variants too, unless each seed was run in one."
        )
    if any((environment.get("git") or {}).get("dirty") for environment in environments):
        found.append("The working tree had uncommitted changes, so the commit alone does not reproduce these numbers.")
    return [sentence for sentence in found if sentence]


Rows = list[dict[str, str]]
"""Header -> cell, for every row."""


def _comparison_rows(report: Report) -> Rows:
    rows: Rows = []
    for comparison in report.comparisons:
        row = {**comparison.combination, "tested as": comparison.evaluation}
        row["n"] = str(max((difference.n for difference in comparison.differences.values()), default=0))
        row |= {name: _mean_cell(scores) for name, scores in comparison.scores.items()}
        for name, difference in comparison.differences.items():
            title = f"{name} - {_reference(comparison)}"
            row[title] = "\n".join([_interval_cell(difference), *_values_cell(difference)])
        rows.append(row)
    return rows


def _transfer_rows(report: Report) -> Rows:
    rows: dict[str, dict[str, str]] = {}
    for transfer in report.transfers:
        row = rows.setdefault(_label(transfer.variants), dict(transfer.variants))
        row[f"{transfer.evaluation} - {transfer.reference}"] = _interval_cell(transfer.difference)
    return list(rows.values())


def _cost_rows(report: Report) -> Rows:
    rows = []
    for variants in _product(report.study["axes"]):
        trainings = [run["training"] for run in report.runs if run["variants"] == variants]
        if trainings:
            seconds, _ = mean_and_sd([training["seconds"] for training in trainings])
            peaks = [training["peak_memory_bytes"] for training in trainings if training["peak_memory_bytes"]]
            row = {**variants, "runs": str(len(trainings)), "iterations": str(trainings[0]["iterations"])}
            row["training, mean"] = f"{seconds:.0f} s"
            row["peak memory"] = f"{max(peaks) / 2**20:.0f} MiB ({trainings[0]['memory']})" if peaks else "unknown"
            rows.append(row)
    return rows


def _failure_rows(report: Report) -> Rows:
    return [
        {**run["variants"], "seed": str(run["seed"]), "error": run["error"], "log": run["log"]}
        for run in report.failures
    ]


def _environment_rows(report: Report) -> Rows:
    rows = []
    for environment in report.environments:
        git = environment["git"]
        commit = f"{git['commit'][:10]}{' with changes' if git['dirty'] else ''}" if git else "none"
        rows.append({key: str(value) for key, value in environment.items() if key != "git"} | {"commit": commit})
    return rows


def _mean_cell(scores: Scores) -> str:
    mean, sd = mean_and_sd(list(scores.values()))
    return "" if math.isnan(mean) else f"{mean:.2f}" if math.isnan(sd) else f"{mean:.2f} ± {sd:.2f}"


def _interval_cell(difference: PairedDifference) -> str:
    if not difference.n:
        return ""
    interval = f" [{difference.low:+.2f}, {difference.high:+.2f}]" if difference.n > 1 else " (one seed)"
    return f"{difference.mean:+.2f}{interval}"


def _values_cell(difference: PairedDifference) -> list[str]:
    return [" ".join(f"{value:+.2f}" for value in difference.values)] if difference.n > 1 else []


def _markdown(rows: Rows) -> list[str]:
    if not rows:
        return ["Nothing is finished yet."]
    headers = _headers(rows)
    cells = [[row.get(header, "").replace("|", "\\|").replace("\n", "<br>") for header in headers] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (headers, ["---"] * len(headers), *cells)]


def _transfer_title(report: Report) -> str:
    return f"The same weights tested otherwise: {report.study['metric']} minus that of {report.transfers[0].reference}"


def _rich(rows: Rows, title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    table.padding = (0, 1, 0, 0)  # a comparison fits 80 columns
    headers = _headers(rows)
    for header in headers:
        table.add_column(header)
    for _, group in itertools.groupby(rows, key=lambda row: row[headers[0]]):
        for row in group:
            table.add_row(*(escape(row.get(header, "")) for header in headers))
        table.add_section()
    return table


def _headers(rows: Rows) -> list[str]:
    return list(dict.fromkeys(header for row in rows for header in row))


def _label(variants: Variants) -> str:
    return ", ".join(f"{axis}={variant}" for axis, variant in variants.items())


def _reference(comparison: Comparison) -> str:
    return next(iter(comparison.scores))


def _finite(scores: Mapping[str, Scores]) -> list[float]:
    return [value for of_variant in scores.values() for value in of_variant.values()]


def _summary(scores: Scores) -> dict[str, Any]:
    mean, sd = mean_and_sd(list(scores.values()))
    return {"seeds": {str(seed): scores[seed] for seed in sorted(scores)}, "mean": _number(mean), "sd": _number(sd)}


def _paired(difference: PairedDifference) -> dict[str, Any]:
    numbers = {name: _number(getattr(difference, name)) for name in ("mean", "sd", "low", "high", "confidence")}
    by_seed = {str(seed): value for seed, value in zip(difference.seeds, difference.values, strict=True)}
    return {"n": difference.n, "seeds": by_seed, **numbers, "smallest_p": difference.smallest_p}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
