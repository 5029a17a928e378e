"""What the process that executes a study and its workers say to each other."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .plan import Run


@dataclass(frozen=True)
class Task:
    """A run to perform in the study directory ``root``; ``git`` is the commit of the project."""

    run: Run
    root: Path
    git: dict[str, Any] | None


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
class Done:
    """The run ended; ``error`` says why it failed, None if it is finished."""

    error: str | None


Message = Ready | Progress | Done
