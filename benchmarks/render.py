"""Results as tables, sentences, figures, and as the generated sections of the docs."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import matplotlib.ticker
from measure import FLOOR, SCHEMA
from suites import SUITES

Result = dict[str, Any]
COLORS = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#64748b")
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "mmseg_resample",  # the same figure is the same file
    "svg.fonttype": "none",
}


def load(folder: Path) -> list[Result]:
    """All results in ``folder``, in the order of the suites.

    Raises:
        ValueError: a file has another schema.
    """
    results = []
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        if result.get("suite") not in SUITES:
            continue  # of a program of its own
        if result["schema"] != SCHEMA:
            raise ValueError(
                f"{path}: expected schema {SCHEMA}, got {result['schema']}. Measure again with "
                f"`python benchmarks/run.py --suite {result['suite']}`."
            )
        results.append(result)
    return sorted(results, key=lambda result: list(SUITES).index(result["suite"]))


def stem(result: Result) -> str:
    """Name of the files of a result."""
    threads = "" if result["device"] == "cuda" else f"-{result['environment']['threads']}"
    return f"{result['suite']}-{result['device']}{threads}"


# --------------------------------------------------------------------------------------------------------------------
# Tables


def tables(result: Result) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Header and rows: the baseline, then for every other way how many times faster it is, and its memory.

    Cases with another baseline get a table of their own.
    """
    for baseline in dict.fromkeys(row["baseline"] for row in result["rows"]):
        yield _table([row for row in result["rows"] if row["baseline"] == baseline])


def _table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    baseline, *others = ways(rows)
    has_floor = any(row["floor_ms"] is not None for row in rows)
    has_memory = any(way["peak_mib"] is not None for row in rows for way in row["ways"].values())
    header = ["case", f"{baseline} ms", *([f"{FLOOR} ms"] if has_floor else [])]
    header += [f"{way}, times faster" for way in others]
    header += [f"{way} MiB" for way in (baseline, *others)] if has_memory else []
    body = []
    for row in rows:
        found = row["ways"]
        cells = [row["case"], number(found[baseline]["ms"]["median"])]
        cells += [number(row["floor_ms"]) if row["floor_ms"] is not None else "-"] if has_floor else []
        cells += [faster(found[way]["ratio"]) if way in found else "-" for way in others]
        if has_memory:
            base = found[baseline]["peak_mib"]
            cells.append(mebibytes(base))
            cells += [mebibytes(found[way]["peak_mib"], base) if way in found else "-" for way in others]
        body.append(cells)
    return header, body


def ways(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """All ways of these cases, baselines first."""
    return list(dict.fromkeys([*(row["baseline"] for row in rows), *(way for row in rows for way in row["ways"])]))


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def faster(ratio: Mapping[str, float]) -> str:
    digits = 1 if ratio["median"] >= 10 else 2
    low, median, high = (f"{ratio[key]:.{digits}f}" for key in ("low", "median", "high"))
    return f"{f'**{median}**' if is_slower(ratio) else median} [{low}, {high}]"


def is_slower(ratio: Mapping[str, float]) -> bool:
    """Than the baseline, by more than the quartiles."""
    return ratio["high"] < 1


def mebibytes(value: float | None, base: float | None = None) -> str:
    if value is None:
        return "-"
    if value < 1:
        return "<1"
    text = number(value)
    if base is None:
        return text
    share = max(base, 1) / value
    return f"{text} (1/{share:.3g})" if share > 1.05 else f"{text} ({1 / share:.2g}x)" if share < 0.95 else text


def sentences(result: Result) -> Iterator[str]:
    """Losses and differences, so that they stand beside the wins."""
    rows = result["rows"]
    measured = [(way, found["ratio"]) for row in rows for way, found in row["ways"].items() if way != row["baseline"]]
    slower = [way for way, ratio in measured if is_slower(ratio)]
    counts = ", ".join(f"{way} {slower.count(way)}" for way in dict.fromkeys(slower))
    found = f"{len(slower)} of {len(measured)} ({counts})" if slower else f"none of {len(measured)}"
    yield f"Slower than the baseline, by more than the quartiles (bold): {found}."
    largest: dict[tuple[str, str], float] = {}
    for row in rows:
        for way, found_way in row["ways"].items():
            for what, value in found_way["differs"].items():
                largest[way, what] = max(largest.get((way, what), 0.0), value)
    if largest:
        listed = ", ".join(f"{what} of {way} {value:.2g}" for (way, what), value in largest.items())
        yield f"Largest differences from the baseline over these cases (counts of labels, else relative): {listed}."


def provenance(result: Result) -> str:
    env = result["environment"]
    threads = "" if result["device"] == "cuda" else f", {env['threads']} thread{'s' if env['threads'] > 1 else ''}"
    git = env["git"]
    commit = f", commit {git['commit'][:9]}{' with changes' if git['dirty'] else ''}" if git else ""
    versions = ", ".join(f"{name} {env[name]}" for name in ("torch", "numba", "triton") if env.get(name))
    quick = "; small inputs (--quick), no measurement" if result["quick"] else ""
    return (
        f"{env['device']}{threads}, {versions}; {env['clock']}, {env['rounds']} rounds; load "
        f"{env['load'][0]:.1f} at the start on {env['cores']} cores{commit}{quick}"
    )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# --------------------------------------------------------------------------------------------------------------------
# Figures


def draw(result: Result, path: Path) -> None:
    """The figure of a suite, in the format of ``path``."""
    with plt.rc_context(STYLE):
        figure = _scaling(result) if result["suite"] == "scaling" else _speedups(result)
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, metadata=metadata, dpi=150)
        plt.close(figure)


def _speedups(result: Result) -> plt.Figure:
    rows = result["rows"]
    others = [way for way in ways(rows) if way not in {row["baseline"] for row in rows}]
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.26 * len(rows)), layout="constrained")
    axes.set_xscale("log")
    for i, way in enumerate(others):
        shift = 0.5 * (i - (len(others) - 1) / 2) / len(others)
        points = [(y, row["ways"][way]["ratio"]) for y, row in enumerate(rows) if way in row["ways"]]
        at = [y + shift for y, _ in points]
        color = COLORS[i % len(COLORS)]
        axes.hlines(at, [r["low"] for _, r in points], [r["high"] for _, r in points], color=color)
        axes.plot([r["median"] for _, r in points], at, "o", markersize=4, color=color, label=way)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.8), max(high, 1.25))
    axes.axvspan(axes.get_xlim()[0], 1, color="#f1f5f9", zorder=0)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:.0e}"[0] in "25" else "")
    axes.set_yticks(range(len(rows)), [row["case"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("times faster than the baseline; grey: slower")
    figure.legend(loc="outside upper right", ncols=len(others), fontsize=8)
    return figure


def _scaling(result: Result) -> plt.Figure:
    panels = [(work, along) for work in ("loss", "labels") for along in ("pixels", "classes")]
    figure, grid = plt.subplots(2, 4, figsize=(11, 5.5), layout="constrained", sharey="row")
    names = ways(result["rows"])
    colors = {way: COLORS[i % len(COLORS)] for i, way in enumerate(names)}
    for column, (work, along) in enumerate(panels):
        rows = [row for row in result["rows"] if (row["facts"]["work"], row["facts"]["along"]) == (work, along)]
        rows.sort(key=lambda row: row["facts"][along])
        x = [row["facts"][along] for row in rows]
        time, memory = grid[:, column]
        for way in names:
            found = [row["ways"][way] for row in rows]
            time.plot(x, [f["ms"]["median"] for f in found], "o-", markersize=3, color=colors[way], label=way)
            if all(f["peak_mib"] is not None for f in found):
                memory.plot(x, [max(f["peak_mib"], 0.1) for f in found], "o-", markersize=3, color=colors[way])
        time.plot(x, [row["floor_ms"] for row in rows], "--", color="black", linewidth=0.8, label=FLOOR)
        for axes in (time, memory):
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(x, [_short(value) for value in x])
            axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
            axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
        fixed = "classes" if along == "pixels" else "pixels"
        time.set_title(f"{work}, {_short(rows[0]['facts'][fixed])} {fixed}", fontsize=9)
        memory.set_xlabel(along)
    grid[0, 0].set_ylabel("ms")
    grid[1, 0].set_ylabel("peak, MiB")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=len(names) + 1, fontsize=8)
    return figure


def _short(value: int) -> str:
    """1048576 as 1M."""
    return f"{value / 2**20:.0f}M" if value >= 2**20 else f"{value / 2**10:.0f}k" if value >= 2**10 else str(value)


# --------------------------------------------------------------------------------------------------------------------
# Resamplers: cost beside accuracy


def resampler_table(result: Result, report: Mapping[str, Any] | None) -> tuple[list[str], list[list[str]], str]:
    """Header, rows and a note: the cost of every variant, and its accuracy where a study's report has it.

    Args:
        result: of suite ``resamplers``.
        report: ``report.json`` of a study of the same variants. The first combination and evaluation is shown.
    """
    baseline = result["rows"][0]["baseline"]
    cost = {baseline: ["1", "1", f"{result['rows'][0]['facts']['baseline_parameters']:,}"]}
    for row in result["rows"]:
        way, base = row["ways"]["variant"], row["ways"][row["baseline"]]
        added = row["facts"]["parameters"] - row["facts"]["baseline_parameters"]
        low, median, high = (f"{1 / way['ratio'][key]:.2f}" for key in ("high", "median", "low"))
        memory = "-" if way["peak_mib"] is None else f"{way['peak_mib'] / base['peak_mib']:.2f}"
        cost[row["case"]] = [f"{median} [{low}, {high}]", memory, f"{added:+,}"]
    header = ["time of a step", "peak memory", "parameters"]
    note = (
        f"Time and memory relative to {baseline} (median and quartiles), parameters of the whole network beside it: "
        f"{provenance(result)}."
    )
    scores: dict[str, list[str]] = {}
    if report is not None:
        comparison = report["comparisons"][0]
        width, boundary = _boundary(report, comparison)
        metric = report["study"]["metric"]
        differences = {difference["variant"]: difference for difference in comparison["differences"]}
        for name, score in comparison["variants"].items():
            scores[name] = [_mean(score), _difference(differences.get(name))]
            scores[name] += [_mean(boundary[name])] if name in boundary else []
        header = [metric, f"to {next(iter(scores))}", *([f"boundary IoU, {width}"] if boundary else []), *header]
        n = max(len(score["seeds"]) for score in comparison["variants"].values())
        note += (
            f" Scores in percent, mean ± standard deviation over {n} seed{'s' if n > 1 else ''} of "
            f"`{report['study']['name']}`; differences paired by seed, with 95 % intervals. {report['headline']}"
        )
    empty = ["-"] * (len(header) - 3)
    names = [*cost, *(name for name in scores if name not in cost)]
    rows = [[name, *scores.get(name, empty), *cost.get(name, ["-"] * 3)] for name in names]
    return ["resampler", *header], rows, note


def _boundary(report: Mapping[str, Any], comparison: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The narrowest but one of the report's boundary widths: one pixel is mostly the rounding of the labels."""
    for entry in report["boundary"]:
        if all(entry[key] == comparison[key] for key in ("combination", "evaluation")):
            widths = list(entry["rows"])
            width = widths[min(1, len(widths) - 1)]
            return width.replace("px", " px"), entry["rows"][width]["variants"]
    return "", {}


def _mean(score: Mapping[str, Any]) -> str:
    return f"{score['mean']:.2f}" + (f" ± {score['sd']:.2f}" if score.get("sd") is not None else "")


def _difference(difference: Mapping[str, Any] | None) -> str:
    if difference is None:
        return ""
    text = f"{difference['mean']:+.2f}"
    has_interval = difference.get("low") is not None
    return f"{text} [{difference['low']:+.2f}, {difference['high']:+.2f}]" if has_interval else text


# --------------------------------------------------------------------------------------------------------------------
# Docs


def write_docs(docs: Path, results: Sequence[Result], report: Path | None) -> list[Path]:
    """Fill the generated sections of all pages in ``docs``; those without a result stay as they are.

    A section stands between ``<!-- benchmark NAME -->`` and ``<!-- end of benchmark -->``, where NAME is a suite.

    Args:
        report: ``report.json`` of the study of the resamplers, or None.

    Returns:
        The files that changed.
    """
    sections = {suite: _section(docs, suite, [r for r in results if r["suite"] == suite], report) for suite in SUITES}
    changed = []
    for page in sorted(docs.glob("*.md")):
        text = page.read_text()
        new = fill(text, {name: section for name, section in sections.items() if section})
        if new != text:
            page.write_text(new)
            changed.append(page)
    return changed


def fill(text: str, sections: Mapping[str, str]) -> str:
    def section(match: re.Match[str]) -> str:
        start, name, old, end = match.groups()
        return f"{start}\n{sections[name]}\n{end}" if name in sections else start + old + end

    return re.sub(r"(<!-- benchmark (\w+) -->)(.*?)(<!-- end of benchmark -->)", section, text, flags=re.S)


def _section(docs: Path, suite: str, results: Sequence[Result], report: Path | None) -> str:
    parts = [SUITES[suite].NOTE] if results else []
    for result in results:
        source = f"[result](../benchmarks/results/{stem(result)}.json)"
        if suite == "resamplers":
            found = json.loads(report.read_text()) if report is not None and report.exists() else None
            header, rows, note = resampler_table(result, found)
            parts += [markdown_table(header, rows), f"{note} {source}"]
            continue
        figure = docs / "figures" / f"performance-{stem(result)}.svg"
        draw(result, figure)
        picture = f"![{SUITES[suite].TITLE}](figures/{figure.name})"
        if suite == "scaling":
            parts += [picture, f"{provenance(result)} ({source})."]
            continue
        parts += [
            f"{provenance(result)} ({source}).",
            *(markdown_table(*found) for found in tables(result)),
            *sentences(result),
            picture,
        ]
    return "\n\n".join(parts)
