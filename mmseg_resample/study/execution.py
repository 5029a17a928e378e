"""The execution of a study: find the runs that are left, give them to an executor, and yield all events."""

import copy
import shutil
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

from . import distributed, records
from .executors import Executor, WorkerError, create
from .messages import Event, Task
from .plan import Run, Study, StudyError

__all__ = ["Event", "WorkerError", "execute", "prepare", "processes", "with_processes"]


def prepare(
    study: Study, root: Path, *, overwrite: bool = False, runs: Sequence[Run] | None = None
) -> list[records.Stored]:
    """Return what is stored of the unfinished runs, after checking that it belongs to this study. Writes nothing.

    Args:
        study: the study.
        root: its directory, which need not exist.
        overwrite: leave out the check, ``execute`` removes the runs that contradict the study.
        runs: those to look at; default: all runs of the study.

    Raises:
        StudyError: a stored run was made from another config.
    """
    pending = []
    for run in study.runs() if runs is None else runs:
        stored = records.look(run, root)
        if stored.contradiction and not overwrite:
            raise StudyError(
                f"{root / run.directory}: made by another version of this study. {stored.contradiction}. "
                f"Use a new --work-dir, or --overwrite to remove and repeat such runs."
            )
        if not stored.finished:
            pending.append(stored)
    return pending


def with_processes(study: Study, count: int) -> Study:
    """Return the study with every run in ``count`` processes, which is part of the config: it changes what is trained.

    Raises:
        StudyError: ``count`` is not positive.
    """
    if count < 1:
        raise StudyError(f"--procs-per-run: expected 1 or more, got {count}.")
    config = copy.deepcopy(study.base_config)
    config[distributed.KEY] = count
    return replace(study, base_config=config)


def processes(study: Study) -> int:
    """Return the largest number of processes of a run."""
    return max(distributed.processes(run) for run in study.runs())


def execute(
    study: Study,
    root: Path,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    overwrite: bool = False,
    runs: Sequence[Run] | None = None,
) -> Generator[Event, None, None]:
    """Perform the runs of ``study`` that are not finished, and yield what happens.

    It can be killed at any moment, its workers too; executed again, it continues. A run that fails does not stop
    the others. Leaving the iterator ends the workers.

    Args:
        study: the study.
        root: its directory; only one process at a time may execute in it.
        workers: runs at a time on this machine, where no executor is given.
        executor: performs the runs, and is closed after them; default: worker processes of this machine.
        overwrite: remove and repeat runs that were made from another config.
        runs: those that ``prepare`` found unfinished; default: all runs of the study are looked at.

    Raises:
        StudyError: another process executes in ``root``, or a stored run was made from another config.
        WorkerError: a worker does not start.
    """
    executor = executor or create("local", workers, processes=processes(study))
    with records.exclusive(root / ".lock", wait=False):
        pending = prepare(study, root, overwrite=overwrite, runs=runs)  # others may have run since the last look
        records.open_study(root, study.describe())
        for stored in pending:
            directory = root / stored.run.directory
            if stored.contradiction:
                shutil.rmtree(directory)
            elif records.RunFiles(directory).config in stored.damaged:
                records.set_aside(stored.run, root)
        git = records.git_state(study.file.parent)
        try:
            yield from executor.perform([Task(stored.run, root, git) for stored in pending])
        finally:
            executor.close()
