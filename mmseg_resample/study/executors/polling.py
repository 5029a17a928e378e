"""Runs in processes that another system starts: results come by handles, progress by files."""

import os
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import records
from ..messages import Done, Event, Lost, Progress, Task, read_progress, write_progress
from .base import record_loss


@dataclass(frozen=True)
class Place:
    """Working directory and import path of a process, which one on another machine lacks.

    Attributes:
        directory: the working directory, to which paths in configs are relative.
        modules: where imports are looked for.
    """

    directory: str
    modules: tuple[str, ...]

    @classmethod
    def here(cls) -> "Place":
        """Return the place of this process."""
        return cls(os.getcwd(), tuple(path or os.getcwd() for path in sys.path))

    def enter(self) -> None:
        """Make it the place of this process."""
        os.chdir(self.directory)
        sys.path.extend(path for path in self.modules if path not in sys.path)


def attempt_there(task: Task, place: Place) -> str | None:
    """Perform a task in the process that this is called in; return what failed, or None.

    The directory of the study must be the same one, on a file system that both machines share.
    """
    place.enter()
    from ..worker import attempt

    progress = records.RunFiles(task.root / task.run.directory).progress
    progress.parent.mkdir(parents=True, exist_ok=True)
    try:
        return attempt(task, partial(write_progress, progress))
    finally:
        with suppress(OSError):
            progress.unlink()


@dataclass
class _Job:
    task: Task
    attempts: int
    handle: Any
    progress: Progress | None = None


class PollingExecutor(ABC):
    """Executor that hands out tasks, looks at files and handles, and repeats a run whose worker was lost.

    Args:
        workers: runs at a time; None for no limit.
        threads: of each process of a run.
    """

    attempts = 1
    """Number of attempts at a run whose worker is lost."""

    interval = 0.5
    """Seconds between two looks at the jobs."""

    def __init__(self, workers: int | None, threads: int) -> None:
        self.workers = workers
        self.threads = threads
        self._jobs: dict[int, _Job] = {}

    @abstractmethod
    def submit(self, task: Task, place: Place) -> Any:
        """Arrange for ``attempt_there(task, place)`` to be called elsewhere; returns a handle."""

    @abstractmethod
    def outcome(self, handle: Any) -> Done | Lost | None:
        """Return the result of ``attempt_there``, why it ended without a result, or None while it works."""

    @abstractmethod
    def cancel(self, handle: Any) -> None:
        """End the attempt."""

    def wait(self, handles: Sequence[Any]) -> None:
        """Sleep for ``interval`` at most."""
        time.sleep(self.interval)

    def perform(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """Perform every task once; a lost one again, on another worker, ``attempts`` times in all."""
        place = Place.here()
        waiting = deque((replace(task, root=task.root.absolute(), threads=self.threads), 1) for task in tasks)
        places = range(min(self.workers or len(tasks), len(tasks)))
        while waiting or self._jobs:
            for index in places:
                if index not in self._jobs and waiting:
                    task, attempts = waiting.popleft()
                    _progress_of(task).unlink(missing_ok=True)
                    self._jobs[index] = _Job(task, attempts, self.submit(task, place))
            self.wait([job.handle for job in self._jobs.values()])
            for index, job in list(self._jobs.items()):
                outcome = self.outcome(job.handle)
                if outcome is None:
                    yield from self._progress(index, job)
                    continue
                del self._jobs[index]
                if isinstance(outcome, Lost):
                    if job.attempts < self.attempts and not records.is_finished(job.task.run, job.task.root):
                        records.end_attempt(records.RunFiles(job.task.root / job.task.run.directory), outcome.cause)
                        waiting.appendleft((job.task, job.attempts + 1))
                        yield Event(job.task.run, index, outcome)
                        continue
                    outcome = record_loss(job.task, outcome.cause)
                yield Event(job.task.run, index, outcome)

    def close(self) -> None:
        """End the runs that are still at work."""
        while self._jobs:
            self.cancel(self._jobs.popitem()[1].handle)

    def _progress(self, index: int, job: _Job) -> Iterator[Event]:
        progress = read_progress(_progress_of(job.task))
        if progress is not None and progress != job.progress:
            job.progress = progress
            yield Event(job.task.run, index, progress)


def _progress_of(task: Task) -> Path:
    return records.RunFiles(task.root / task.run.directory).progress
