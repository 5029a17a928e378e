"""Runs in this process, one after the other: breakpoints and Ctrl-C work as in any script."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from ..messages import Done, Event, Task
from ..plan import StudyError
from . import slots


class Inline:
    """Executor in this process. The output of the runs is its output; only tracebacks go to their logs.

    Args:
        workers: takes no part, but must be 1 or None.
        processes: the same.
        threads: that runs compute with; default: see ``slots.slots``.

    Raises:
        StudyError: several runs at a time or several processes are asked for.
    """

    def __init__(self, workers: int | None = None, *, processes: int = 1, threads: int | None = None) -> None:
        for name, value in {"--workers": workers, "--procs-per-run": processes}.items():
            if value not in (None, 1):
                raise StudyError(f"--executor inline: runs in this process alone. Leave out {name} {value}.")
        # As many as a local worker has by default: sums depend on how they are split.
        self.threads = slots.slots(slots.visible_gpus(), slots.cores(), threads=threads)[0].threads

    def perform(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """Perform one run after the other, without progress: nobody could read it while a run has the process."""
        from ..worker import attempt

        threads = torch.get_num_threads()
        for task in tasks:
            try:
                error = attempt(replace(task, threads=self.threads), lambda progress: None, redirect=False)
            finally:
                torch.set_num_threads(threads)
            yield Event(task.run, 0, Done(error))

    def close(self) -> None:
        """Do nothing: no run is left at work."""
