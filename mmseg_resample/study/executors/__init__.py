"""Executors, which decide where the runs of a study are performed.

An executor takes tasks and yields events (``base.Executor``). What a process does with a task is the same for all of
them, ``worker.attempt``, so all give the same files. They differ in who starts the process, and in what happens when it
is lost. ``local`` and ``inline`` need nothing, ``ray`` and ``slurm`` a package each, imported when they are asked for.
"""

from typing import Any

from .base import Executor, WorkerError

__all__ = ["NAMES", "Executor", "WorkerError", "create"]

NAMES = ("local", "inline", "ray", "slurm")


def create(name: str, workers: int | None = None, *, processes: int = 1, **options: Any) -> Executor:
    """Build an executor.

    Args:
        name: one of ``NAMES``.
        workers: runs at a time; None leaves it to the executor.
        processes: of each run.
        options: further arguments of that executor.

    Raises:
        StudyError: what it needs is not installed, or the numbers contradict the machine.
    """
    if name == "inline":
        from .inline import Inline

        return Inline(workers, processes=processes, **options)
    if name == "ray":
        from .ray import Ray

        return Ray(workers, processes=processes, **options)
    if name == "slurm":
        from .slurm import Slurm

        return Slurm(workers, processes=processes, **options)
    from .local import Local

    return Local(workers, processes=processes, **options)
