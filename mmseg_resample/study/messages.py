"""What the process that executes a study and the processes that perform its runs say to each other."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmseg_resample.files import atomic_write

from .plan import Run


@dataclass(frozen=True)
class Task:
    """A run to perform.

    Attributes:
        run: the run.
        root: directory of the study.
        git: commit of the project.
        threads: that each process of the run computes with; None leaves them as they are.
    """

    run: Run
    root: Path
    git: dict[str, Any] | None
    threads: int | None = None


@dataclass(frozen=True)
class Ready:
    """The worker waits for a task."""


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes:
        phase: ``"train"`` or the name of an evaluation.
        iteration: of the phase, done.
        iterations: of the phase, in all.
        loss: of the last training iteration.
    """

    phase: str
    iteration: int
    iterations: int
    loss: float | None = None


@dataclass(frozen=True)
class Lost:
    """The worker is gone for the reason ``cause``; the run is tried again on another one."""

    cause: str


@dataclass(frozen=True)
class Done:
    """The run ended; ``error`` says why it failed, None if it is finished."""

    error: str | None


Message = Ready | Progress | Done


@dataclass(frozen=True)
class Event:
    """Something that happened to a run.

    Attributes:
        run: the run.
        worker: index of the worker that has it, among those that work at the same time.
        what: progress, the loss of a worker, or the end of the run, failed or not.
    """

    run: Run
    worker: int
    what: Progress | Lost | Done


def write_progress(path: Path, progress: Progress) -> None:
    """Say it to whoever looks at ``path``, for processes that no pipe connects."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(asdict(progress)))


def read_progress(path: Path) -> Progress | None:
    """What was said last, None if nothing was."""
    with suppress(OSError, ValueError):
        return Progress(**json.loads(path.read_text()))
    return None
