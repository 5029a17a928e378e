"""The interface of executors, and what they share."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the command line imports this module for its names alone
    from ..messages import Done, Event, Task


class Executor(Protocol):
    """Interface of executors, which perform runs in some process on some machine."""

    def perform(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """Perform every task once and yield what happens; each ends in one ``Done``.

        A run that fails, or whose process dies, is recorded as failed and does not stop the others.
        """
        ...

    def close(self) -> None:
        """End the runs that are still at work. Must be called when the iterator of events is left early."""
        ...


class WorkerError(RuntimeError):
    """Failure of the worker processes that is not the study's."""


def record_loss(task: Task, cause: str) -> Done:
    """Record the run of a process that is gone as failed, unless it died after its work was done."""
    from .. import records
    from ..messages import Done

    if records.is_finished(task.run, task.root):
        return Done(None)
    return Done(records.record_failure(task.run, records.RunFiles(task.root / task.run.directory), cause))


def cause_of(returncode: int) -> str:
    """Describe how a process ended."""
    if returncode >= 0:
        return f"ended with exit status {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:  # of the real-time signals only the first and the last one have names
        name = f"signal {-returncode}"
    return f"was ended by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
