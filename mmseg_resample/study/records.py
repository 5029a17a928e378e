"""The files of a study. They tell what has happened, also when a process is killed at any moment.

::

    <study>/
      study.json                  what was asked for, for the report
      align_corners=true,size=s128/seed-0/
        config.py                 the resolved config that is trained
        environment.json          the ledger: versions, device, commit and seed of every attempt, and why it failed
        log.txt                   all output of all attempts
        train/                    mmengine's work directory: checkpoints, logs, scalars
        training.json             iterations, seconds and memory, once the training is complete
        evaluations/own.json      what was tested as the evaluation `own`, and the scores; written last
        evaluations/own/          confusion.npz with per-image confusion matrices, and the per-image counts of others
        metrics.json              all of it; written last, so it marks the run as finished
        failure.json              why the last attempt failed, if it did

Files are written by ``files.atomic_write``, so each is complete or absent. One that is damaged all the same is told by
``damaged`` and set aside as ``<name>.damaged``; what it recorded is made again. A run whose config.py is damaged could
be one of any study: it is moved to ``damaged/``.
"""

import ast
import fcntl
import itertools
import json
import platform
import re
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from mmseg_resample.files import atomic_write
from mmseg_resample.launch.dumped import read_dumped

from .evaluators import CONFUSION
from .plan import Evaluation, Run, StudyError

SCHEMA = 2
"""Version of the JSON files; raised when a reader of the old ones would misread the new ones."""


DAMAGED = "damaged"
"""Folder of a study for runs that cannot be told to be its own, and ending of files that cannot be used."""

_KEYS = {
    "metrics.json": ("variants", "seed", "training", "evaluations"),
    "failure.json": ("variants", "seed", "error"),
    "environment.json": ("attempts",),
    "training.json": ("iterations", "seconds"),
}  # that readers rely on
_KINDS = {"attempts": list, "evaluations": dict, "metrics": dict, "variants": dict}
_EVALUATION_KEYS = ("overrides", "evaluators", "metrics")
_NEARLY_FULL = 2**26  # bytes: less than a checkpoint may take
_READ_THROUGH = 2**24  # bytes of counts: more are not compared with their checksums whenever a study is started


class DamagedError(StudyError):
    """Error of a stored file that was cut or edited into something unreadable."""


class SchemaError(StudyError):
    """Error of a stored file of another version of this package."""


@dataclass(frozen=True)
class RunFiles:
    """Paths of the files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.py"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def work_dir(self) -> Path:
        return self.path / "train"

    @property
    def training(self) -> Path:
        return self.path / "training.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def failure(self) -> Path:
        return self.path / "failure.json"

    @property
    def progress(self) -> Path:
        """Progress for the process that executes the study, while another one performs the run; no record."""
        return self.path / ".progress"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations"

    def evaluation(self, evaluation: str) -> Path:
        return self.evaluations / f"{evaluation}.json"

    def counts(self, evaluation: str) -> Path:
        return self.evaluations / evaluation

    def matrices(self, evaluation: str) -> Path:
        return self.counts(evaluation) / f"{CONFUSION}.npz"


def open_study(root: Path, description: Mapping[str, Any]) -> None:
    """Create the directory of a study and store its description."""
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / "study.json", description)


@dataclass(frozen=True)
class Stored:
    """Files stored of a run, all of them looked at once.

    Attributes:
        run: the run.
        damaged: the files that cannot be used, and why.
        contradiction: how it contradicts the study, or why it cannot be read; None if it does not.
        finished: nothing is left to do.
    """

    run: Run
    damaged: Mapping[Path, str]
    contradiction: str | None
    finished: bool


def look(run: Run, root: Path) -> Stored:
    """Look at all that is stored of ``run``; a damaged config contradicts nothing."""
    try:
        found = damaged(run, root)
        contradiction = None if RunFiles(root / run.directory).config in found else conflict(run, root)
    except SchemaError as error:
        return Stored(run, {}, str(error), False)
    return Stored(run, found, contradiction, not found and contradiction is None and _has_all_scores(run, root))


def is_finished(run: Run, root: Path) -> bool:
    """Tell whether ``run`` was trained and has every evaluation that the study asks for."""
    return _has_all_scores(run, root) and not damaged(run, root)


def _has_all_scores(run: Run, root: Path) -> bool:
    metrics = read_usable(RunFiles(root / run.directory).metrics)
    return metrics is not None and all(
        _satisfies(metrics["evaluations"].get(evaluation.name), evaluation) for evaluation in run.evaluations
    )


def is_trained(files: RunFiles) -> bool:
    """Tell whether the training is complete."""
    return read_usable(files.training) is not None


def is_evaluated(evaluation: Evaluation, files: RunFiles) -> bool:
    """Tell whether ``evaluation`` is stored, with every evaluator that the study asks for."""
    return _satisfies(read_usable(files.evaluation(evaluation.name)), evaluation) and not any(
        map(_damage_of_counts, _counts(files, evaluation))
    )


def damaged(run: Run, root: Path) -> dict[Path, str]:
    """Map the files of ``run`` that cannot be used to the reason.

    Raises:
        SchemaError: a record is of another version.
    """
    files = RunFiles(root / run.directory)
    evaluations = [files.evaluation(evaluation.name) for evaluation in run.evaluations]
    found = {}
    for path in (files.environment, files.training, files.metrics, *evaluations):
        try:
            read_json(path)
        except DamagedError as error:
            found[path] = str(error).removeprefix(f"{path}: ")
    counts = [path for evaluation in run.evaluations for path in _counts(files, evaluation)]
    found |= {path: reason for path in counts if (reason := _damage_of_counts(path)) is not None}
    try:
        ast.parse(files.config.read_bytes() if files.config.exists() else b"")
    except (OSError, SyntaxError, ValueError) as error:
        found[files.config] = f"no config: {error}"
    return found


def set_aside(run: Run, root: Path) -> None:
    """Move the directory of a run out of the study, to where nothing reads it and nobody loses it."""
    places = (root / DAMAGED / f"{run.directory}{f'-{n}' * (n > 1)}" for n in itertools.count(1))
    place = next(place for place in places if not place.exists())
    place.parent.mkdir(parents=True, exist_ok=True)
    (root / run.directory).rename(place)


def _counts(files: RunFiles, evaluation: Evaluation) -> list[Path]:
    return sorted(files.counts(evaluation.name).glob("*.npz"))


def _damage_of_counts(path: Path) -> str | None:
    """Say why per-image counts cannot be read; None if they can."""
    try:
        with zipfile.ZipFile(path) as archive:  # its table of contents is at the end: this finds files that were cut
            small = sum(entry.file_size for entry in archive.infolist()) <= _READ_THROUGH
            wrong = archive.testzip() if small else None
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        return f"{type(error).__name__}: {error}"
    return None if wrong is None else f"the checksum of {wrong} is wrong"


def conflict(run: Run, root: Path) -> str | None:
    """Describe how the stored files of ``run`` contradict the study; None if they do not.

    Names the first keys that differ. An evaluation that is not stored yet, or has other evaluators, is no conflict: it
    is made again.
    """
    files = RunFiles(root / run.directory)
    if files.config.exists():
        try:
            stored = read_dumped(files.config.read_text(encoding="utf-8"))  # never run: a directory of results is data
        except ValueError as error:
            return f"config.py: no study wrote it: {error}"
        changes = list(_differences(stored, run.config.to_dict()))
        if changes:
            return _list_changes("config.py", changes)
    for evaluation in run.evaluations:
        record = read_usable(files.evaluation(evaluation.name))
        if record is not None:
            changes = list(_differences(record["overrides"], _to_json_data(evaluation.overrides)))
            if changes:
                return _list_changes(f"evaluation {evaluation.name!r}", changes)
    return None


def begin_attempt(run: Run, files: RunFiles, git: Mapping[str, Any] | None) -> None:
    """Store the config and the environment of an attempt; remove the failure of the attempt before.

    Damaged records are set aside, and evaluations that lack what was in them are forgotten.
    """
    for path, reason in damaged(run, files.path.parents[1]).items():
        print(f"{path} is damaged and made again: {reason}", flush=True)
        if files.evaluations in path.parents:
            _forget_evaluation(files, path.stem if path.parent == files.evaluations else path.parent.name)
        if path.suffix != ".npz":  # `discard_evaluation` removes these
            path.replace(path.with_name(f"{path.name}.{DAMAGED}"))
    if not files.config.exists():
        write_text(files.config, run.config.pretty_text)
    environment = read_json(files.environment) or {"seed": run.seed, "attempts": []}
    environment["attempts"].append({"started": now(), **_environment(), "git": git})
    write_json(files.environment, environment)
    files.failure.unlink(missing_ok=True)


def _forget_evaluation(files: RunFiles, name: str) -> None:
    """Have the run unfinished until the evaluation is made again, also if that is interrupted."""
    metrics = read_usable(files.metrics)
    if metrics is not None and metrics["evaluations"].pop(name, None) is not None:
        write_json(files.metrics, metrics)


def discard_results(files: RunFiles) -> None:
    """Remove the results of an earlier training."""
    files.metrics.unlink(missing_ok=True)
    if files.evaluations.exists():
        shutil.rmtree(files.evaluations)


def discard_evaluation(evaluation: Evaluation, files: RunFiles) -> None:
    """Remove an evaluation that had other evaluators or was interrupted."""
    files.evaluation(evaluation.name).unlink(missing_ok=True)
    if files.counts(evaluation.name).exists():
        shutil.rmtree(files.counts(evaluation.name))


def write_evaluation(files: RunFiles, evaluation: Evaluation, values: Mapping[str, Any]) -> None:
    """Store the scores of one evaluation beside its counts."""
    record = {
        "variants": evaluation.variants,
        "overrides": _to_json_data(evaluation.overrides),
        "evaluators": _to_json_data(evaluation.evaluators),
        **values,
    }
    write_json(files.evaluation(evaluation.name), record)


def finish(run: Run, files: RunFiles) -> None:
    """Gather the records of a run into ``metrics.json``, which makes it finished."""
    known = read_usable(files.metrics) or {"evaluations": {}}
    evaluations = {evaluation.name: read_json(files.evaluation(evaluation.name)) for evaluation in run.evaluations}
    metrics = {
        "variants": run.variants,
        "seed": run.seed,
        "training": read_json(files.training),
        "evaluations": {**known["evaluations"], **evaluations},
        "finished": now(),
    }
    write_json(files.metrics, metrics)


def end_attempt(files: RunFiles, error: str) -> None:
    """Store why the last attempt did not finish the run; one without an ``error`` did, or was killed with the study."""
    environment = read_usable(files.environment)
    if environment is not None and "error" not in environment["attempts"][-1]:
        environment["attempts"][-1]["error"] = _hide_directories(error)
        write_json(files.environment, environment)


def record_failure(run: Run, files: RunFiles, error: str) -> str:
    """Store why a run failed; its log is beside it. Return it, with what the disk has to do with it."""
    try:
        files.path.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(files.path).free) < _NEARLY_FULL:
            error = f"{error} (the file system of {files.path} has {free / 2**20:.0f} MiB left)"
        end_attempt(files, error)
        failure = {"variants": run.variants, "seed": run.seed, "error": _hide_directories(error), "time": now()}
        write_json(files.failure, failure)
    except OSError as unwritten:
        return f"{error}; and that could not be written down: {unwritten}"
    return error


def write_json(path: Path, data: Mapping[str, Any], *, compact: bool = False) -> None:
    """Write JSON so that ``path`` is complete or absent. NaN is not JSON and raises: store None.

    Args:
        path: of the file.
        data: to store.
        compact: a line per entry, for files that programs read; see ``to_lines``.
    """
    data = {"schema": SCHEMA, **data}
    text = to_lines(data) if compact else json.dumps(data, indent=2, allow_nan=False)
    write_text(path, text + "\n")


def to_lines(data: Mapping[str, Any]) -> str:
    """Convert to JSON with a line per key, and one per entry of lists of objects or lists, so that it diffs well.

    Raises:
        ValueError: a number is NaN or infinite, which JSON has not.
    """

    def one_line(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)

    def lines(value: Any) -> str:
        if isinstance(value, Sequence) and any(isinstance(entry, (Mapping, list, tuple)) for entry in value):
            return "[\n" + ",\n".join(map(one_line, value)) + "\n]"
        return one_line(value)

    if not data:
        return "{}"
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {lines(value)}" for key, value in data.items()) + "\n}"


def read_json(path: Path) -> dict[str, Any] | None:
    """Read what ``write_json`` wrote, or None where there is no such file.

    Raises:
        DamagedError: the file was cut or edited into something unreadable.
        SchemaError: it is of another version.
    """
    again = "The command of the study makes it again."
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path}: not JSON: {error}. {again}") from error
    if not isinstance(data, dict):
        raise DamagedError(f"{path}: expected a JSON object, got {data!r:.40}. {again}")
    schema = data.pop("schema", None)
    if schema != SCHEMA:
        raise SchemaError(
            f"{path}: expected schema {SCHEMA}, got {schema!r}: another version of mmseg_resample wrote it."
        )
    keys = _KEYS.get(path.name, _EVALUATION_KEYS if path.parent.name == "evaluations" else ())
    for key in keys:
        kind = _KINDS.get(key, object)
        if key not in data or not isinstance(data[key], kind) or (kind is list and not data[key]):
            raise DamagedError(f"{path}: expected {key}, got {data.get(key)!r:.40}. {again}")
    return data


def read_usable(path: Path) -> dict[str, Any] | None:
    """Read what ``write_json`` wrote, or None where there is nothing that can be used."""
    try:
        return read_json(path)
    except DamagedError:
        return None


def write_text(path: Path, text: str) -> None:
    """Write text so that ``path`` is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, durable=True) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def exclusive(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock file ``path``; it is released when the process ends, however it ends.

    Args:
        path: created if absent, never removed: a removed lock could be held twice.
        wait: until the holder ends, rather than raise.

    Raises:
        StudyError: another process holds it and ``wait`` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            # Record locks, unlike flock, are not inherited by the processes that a data loader forks.
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            raise StudyError(
                f"{path.parent}: another process is running this study. Wait for it, end it, or use another --work-dir."
            ) from error
        yield


def git_state(path: Path, results: str | None = None) -> dict[str, Any] | None:
    """Read the commit of the repository that holds ``path``, and whether tracked files differ; None outside of one.

    Files below ``results``, a folder of the repository, do not count: a run before this one wrote them.
    """

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        paths = [":/"] if results is None else [":/", f":(top,exclude){results}"]
        changes = git("status", "--porcelain", "--untracked-files=no", "--", *paths)
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changes)}
    except (OSError, subprocess.CalledProcessError):
        return None


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _satisfies(record: Mapping[str, Any] | None, evaluation: Evaluation) -> bool:
    """Tell whether a record has all evaluators and the metric of the study; it may have more."""
    return (
        record is not None
        and evaluation.metric in record["metrics"]
        and _to_json_data(evaluation.evaluators).items() <= record["evaluators"].items()
    )


def _environment() -> dict[str, Any]:
    modules = ("torch", "numpy", "mmengine", "mmcv", "mmseg", "mmseg_resample")  # forks keep these names
    return {
        "python": platform.python_version(),
        **{name: import_module(name).__version__ for name in modules},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu_name(),
        "threads": torch.get_num_threads(),
    }


def _cpu_name() -> str:
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else platform.machine()


def _differences(stored: Any, planned: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(stored, Mapping) and isinstance(planned, Mapping):
        for name in [*stored, *(name for name in planned if name not in stored)]:
            yield from _differences(
                stored.get(name, _Absent), planned.get(name, _Absent), f"{key}.{name}" if key else str(name)
            )
    elif isinstance(stored, list) and isinstance(planned, list) and len(stored) == len(planned):
        for index, (a, b) in enumerate(zip(stored, planned, strict=True)):
            yield from _differences(a, b, f"{key}.{index}")
    elif type(stored) is not type(planned) or stored != planned:
        yield key, stored, planned


class _Absent:
    """Marker in place of the value of a key that one side does not have."""


def _list_changes(where: str, changes: list[tuple[str, Any, Any]], limit: int = 3) -> str:
    def show(value: Any) -> str:
        return "nothing" if value is _Absent else repr(value)

    lines = [f"{key} was {show(stored)}, is now {show(planned)}" for key, stored, planned in changes[:limit]]
    more = f"; and {len(changes) - limit} more" if len(changes) > limit else ""
    return f"{where}: {'; '.join(lines)}{more}"


def _to_json_data(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Convert to JSON data: tuples become lists, and values of other types their ``repr``."""
    return json.loads(json.dumps(dict(overrides), default=repr))


def _hide_directories(text: str) -> str:
    for path, name in ((Path.cwd(), "."), (Path.home(), "~")):
        if len(path.parts) > 1:
            text = text.replace(str(path), name)
    return text
