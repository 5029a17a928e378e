"""Messages between the process that executes a study and the processes that perform its runs."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmseg_resample.files import atomic_write

from .plan import Run


@dataclass(frozen=True)
class Task:
    """Run to perform.

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
    """Message of a worker that waits for a task."""


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

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
    """Loss of a worker for the reason ``cause``; the run is tried again on another one."""

    cause: str


@dataclass(frozen=True)
class Done:
    """End of a run; ``error`` says why it failed, None if it is finished."""

    error: str | None


Message = Ready | Progress | Done


@dataclass(frozen=True)
class Event:
    """Event in the life of a run.

    Attributes:
        run: the run.
        worker: index of the worker that has it, among those that work at the same time.
        what: progress, the loss of a worker, or the end of the run.
    """

    run: Run
    worker: int
    what: Progress | Lost | Done


def write_progress(path: Path, progress: Progress) -> None:
    """Write the progress to the file ``path``, for processes that no pipe connects."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(asdict(progress)))


def read_progress(path: Path) -> Progress | None:
    """Read the progress that was written last; None if none was."""
    with suppress(OSError, ValueError):
        return Progress(**json.loads(path.read_text()))
    return None
