"""The records in the directory of a study, read once and left as they are: no statistics, no words."""

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mmseg_resample.evaluation.displacement import Displacement, stored_displacement
from mmseg_resample.evaluation.per_image import DamagedCounts

from .. import records
from ..evaluators import CONFUSION
from ..image_bootstrap import read_image_counts
from ..plan import DeclaredComparison, StudyError, Variants, run_directory

Scores = Mapping[int, float]
"""Seed -> metric, in the unit of the metric."""

FEWEST_SEQUENCES = 10
"""Number of videos from which they are redrawn like images; fewer say too little about how videos differ."""


@dataclass(frozen=True)
class Directory:
    """Records of a study.

    Attributes:
        root: the directory.
        study: content of ``study.json``.
        runs: content of ``metrics.json`` of every finished run, and its ``directory`` relative to ``root``.
        failures: variants, seed, error and log of every run that failed, or whose records cannot be used.
        unfinished: variants and seed of the planned runs that neither finished nor failed.
        environments: the distinct environments, with the number of attempts made in each.
        configs: for every finished run its config: path relative to ``root``, and the start of its SHA-256.
        restarts: runs that took more than one attempt.
        unreadable: sentences on records that are left out, except those of ``failures``.
    """

    root: Path
    study: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]
    failures: Sequence[Mapping[str, Any]]
    unfinished: Sequence[Mapping[str, Any]]
    environments: Sequence[Mapping[str, Any]]
    configs: Sequence[Mapping[str, Any]]
    restarts: int
    unreadable: Sequence[str] = ()

    @cached_property
    def combinations(self) -> list[dict[str, str]]:
        """The combinations that are trained or planned, in the order of the axes."""
        return in_order(self.study["axes"], [*(run["variants"] for run in self.runs), *self.study["combinations"]])

    @property
    def other_axes(self) -> dict[str, Sequence[str]]:
        """The axes that are not compared."""
        return {axis: names for axis, names in self.study["axes"].items() if axis != self.study["compare"]}

    def scalars(self, variants: Variants, evaluation: str, name: str) -> dict[int, float]:
        """Map each seed to a scalar of an evaluation; seeds without it, or with NaN, are left out."""
        found = {}
        for run in self.runs_of(variants):
            value = scalar(run["evaluations"].get(evaluation), name)
            if value is not None:
                found[run["seed"]] = value
        return found

    def runs_of(self, variants: Variants) -> list[Mapping[str, Any]]:
        """List the finished runs trained as ``variants``, by seed."""
        return [run for run in self.runs if run["variants"] == variants]

    def all_axes(self, combination: Variants, variant: str) -> dict[str, str]:
        """Combine the variants of the other axes with one of the compared axis, in the order of the axes."""
        compare = self.study["compare"]
        return {axis: variant if axis == compare else combination[axis] for axis in self.study["axes"]}

    def groups(self) -> Iterator[tuple[dict[str, str], list[str]]]:
        """Yield combinations of the other axes, and the variants of the compared axis trained or planned in each."""
        names: dict[tuple[str, ...], list[str]] = {}
        for variants in self.combinations:
            names.setdefault(tuple(variants[axis] for axis in self.other_axes), []).append(
                variants[self.study["compare"]]
            )
        for combination in in_order(self.other_axes, self.combinations):
            yield combination, names[tuple(combination.values())]

    def grid(self) -> Iterator[tuple[dict[str, str], str, list[str]]]:
        """Yield the same for every evaluation: combination, evaluation, variants."""
        for combination, names in self.groups():
            for evaluation in self.study["evaluations"]:
                yield combination, evaluation, names

    def evaluators(self, kind: str) -> list[str]:
        """List the names of the evaluators of a type, such as ``DisplacementMetric``, with or without a scope."""
        evaluators = self.study.get("evaluators") or {}
        return [name for name, config in evaluators.items() if str(config["type"]).split(".")[-1] == kind]

    def counts_file(self, run: Mapping[str, Any], evaluation: str, evaluator: str) -> Path:
        """Return where the per-image counts of an evaluator are kept."""
        return records.RunFiles(self.root / run["directory"]).counts(evaluation) / f"{evaluator}.npz"

    def image_counts(self, runs: Sequence[Mapping[str, Any]], evaluation: str) -> list[np.ndarray] | str:
        """Read the confusion matrices of several runs as counts by image or sequence, in one order.

        Returns:
            (images, 3, C) for every run, or in words why there are none.
        """
        files = [self.counts_file(run, evaluation, CONFUSION) for run in runs]
        if not all(path.exists() for path in files):
            return "per-image confusion matrices are absent"
        sequences = self.study.get("sequences")
        try:
            (arm,) = read_image_counts([files], sequences)
        except DamagedCounts as error:
            return self.damage(error)
        except ValueError:
            return "the runs were not tested on the same images and classes"
        count = arm.shape[1]
        if sequences is not None and count < FEWEST_SEQUENCES:
            return f"too few videos to redraw their frames ({count}; from {FEWEST_SEQUENCES} on)"
        return list(arm)

    def displacement(self, run: Mapping[str, Any], evaluation: str, evaluator: str) -> Displacement | str:
        """Read the displacement over all test images, with its profile; in words why there is none."""
        try:
            return stored_displacement(self.counts_file(run, evaluation, evaluator))
        except FileNotFoundError:
            return "per-image counts are absent"
        except DamagedCounts as error:
            return self.damage(error)

    def damage(self, error: DamagedCounts) -> str:
        """Say which counts are damaged, and how they are made again."""
        path = error.path.relative_to(self.root).as_posix()
        return f"{path} is damaged ({error.reason}); the command of the study makes it again"


def read(root: Path) -> Directory:
    """Read the directory of a study.

    Raises:
        StudyError: ``root`` holds no study, or files of another version.
    """
    study = records.read_json(root / "study.json")
    if study is None:
        raise StudyError(f"{root}: expected the directory of a study, but it has no study.json. Run the study first.")
    if "combinations" not in study:
        raise StudyError(
            f"{root}: its study.json was written by an older version. Run the study's command again: it writes that "
            f"file anew and repeats no run."
        )
    unreadable = dict[Path, str]()
    runs = _records(root, "metrics.json", study, unreadable)
    failures = [
        {**{key: run[key] for key in ("variants", "seed", "error")}, "log": f"{run['directory']}/log.txt"}
        for run in [*_records(root, "failure.json", study, unreadable), *_damaged(root, study, runs, unreadable)]
    ]
    ended = [(run["variants"], run["seed"]) for run in (*runs, *failures)]
    unfinished = [
        {"variants": variants, "seed": seed}
        for seed in study["seeds"]
        for variants in study["combinations"]
        if (variants, seed) not in ended
    ]
    environments, restarts = _environments(root, unreadable)
    configs = [{"config": f"{run['directory']}/config.py", "sha256": _digest(root, run)} for run in runs]
    return Directory(
        root, study, runs, failures, unfinished, environments, configs, restarts, list(unreadable.values())
    )


def family(study: Mapping[str, Any]) -> list[DeclaredComparison]:
    """List the declared comparisons, in the order of the runs."""
    found = []
    for each in study["family"]:
        along = tuple((axis, (start, to)) for axis, (start, to) in each.get("interaction", {}).items())
        held = tuple((axis, each["combination"][axis]) for axis in study["axes"] if axis in each["combination"])
        found.append(DeclaredComparison(held, each["evaluation"], each["variant"], along))
    return found


def tested_as(study: Mapping[str, Any], variants: Variants, evaluation: str) -> dict[str, str]:
    """Map each trained variant to the one it is tested as in an evaluation."""
    mapping = study["evaluations"][evaluation]
    return {axis: mapping.get(axis, {}).get(name, name) for axis, name in variants.items()}


def scalar(record: Mapping[str, Any] | None, name: str) -> float | None:
    """Read a scalar from the record of an evaluation; None where it is absent or not a number."""
    if record is None:
        return None
    return record[name] if record.get(name) is not None else (record.get("metrics") or {}).get(name)


def widths(record: Mapping[str, Any], name: str) -> dict[str, str]:
    """Find the metrics ``<name>_<width>`` of an evaluation: width, as ``3px`` or ``2pct``, -> name of the scalar."""
    pattern = re.compile(rf"(?:.*/)?{re.escape(name)}_(\d+(?:\.\d+)?(?:px|pct))")
    matches = ((pattern.fullmatch(key), key) for key in record.get("metrics") or {})
    return {match[1]: key for match, key in matches if match}


def product(axes: Mapping[str, Iterable[str]]) -> Iterator[dict[str, str]]:
    """Yield every combination of variants."""
    return (dict(zip(axes, names, strict=True)) for names in itertools.product(*axes.values()))


def in_order(axes: Mapping[str, Sequence[str]], found: Iterable[Variants]) -> list[dict[str, str]]:
    """List the variants of ``axes`` in each combination, each once, in the order of the product of the axes."""
    unique = {tuple(variants[axis] for axis in axes) for variants in found}
    return [dict(zip(axes, names, strict=True)) for names in sorted(unique, key=lambda names: _position(axes, names))]


def _position(axes: Mapping[str, Sequence[str]], names: Iterable[str]) -> list[int]:
    return [list(axes[axis]).index(name) for axis, name in zip(axes, names, strict=True)]


def _records(root: Path, name: str, study: Mapping[str, Any], unreadable: dict[Path, str]) -> list[dict[str, Any]]:
    """Read the records called ``name`` of all runs that the study knows, seed by seed in the order of the axes."""
    axes = study["axes"]
    found = []
    for path in sorted(root.glob(f"*/seed-*/{name}")):
        record = _read(path, root, unreadable)
        if record is None or record["variants"].keys() != axes.keys():
            continue
        if all(variant in axes[axis] for axis, variant in record["variants"].items()):
            found.append({**record, "directory": path.parent.relative_to(root).as_posix()})
    return sorted(found, key=lambda run: (run["seed"], _position(axes, [run["variants"][axis] for axis in axes])))


def _read(path: Path, root: Path, unreadable: dict[Path, str]) -> dict[str, Any] | None:
    try:
        return records.read_json(path)
    except (records.DamagedError, records.SchemaError) as error:
        unreadable[path] = f"Left out: {path.relative_to(root).as_posix()}{str(error).removeprefix(str(path))}"
        return None


def _damaged(
    root: Path, study: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], unreadable: dict[Path, str]
) -> Iterator[dict[str, Any]]:
    """Take the planned runs without scores out of ``unreadable`` and yield them as failed."""
    readable = {run["directory"] for run in runs}
    for seed, variants in itertools.product(study["seeds"], study["combinations"]):
        directory = run_directory(variants, seed)
        if directory in readable:
            continue
        errors = [unreadable.pop(path) for path in list(unreadable) if path.parent == root / directory]
        if errors:
            error = errors[0].removeprefix(f"Left out: {directory}/")
            yield {"variants": variants, "seed": seed, "error": error, "directory": directory}


def _environments(root: Path, unreadable: dict[Path, str]) -> tuple[list[dict[str, Any]], int]:
    attempts: dict[str, dict[str, Any]] = {}
    restarts = 0
    for path in sorted(root.glob("*/seed-*/environment.json")):
        of_run = (_read(path, root, unreadable) or {"attempts": []})["attempts"]
        restarts += len(of_run) > 1
        for attempt in of_run:
            environment = {key: value for key, value in attempt.items() if key not in ("started", "error")}
            attempts.setdefault(repr(environment), {**environment, "attempts": 0})["attempts"] += 1
    return list(attempts.values()), restarts


def _digest(root: Path, run: Mapping[str, Any]) -> str | None:
    path = root / run["directory"] / "config.py"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.exists() else None
