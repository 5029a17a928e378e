"""The execution of a study: find the runs that are left, give them to an executor, and yield all events."""

import copy
import shutil
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from . import distributed, records
from .executors import Executor, WorkerError, create
from .messages import Event, Task
from .plan import Run, Study, StudyError

__all__ = ["Event", "WorkerError", "damaged", "execute", "prepare", "processes", "with_processes"]


def prepare(study: Study, root: Path, *, overwrite: bool = False) -> list[Run]:
    """Return the unfinished runs, after checking that what is stored belongs to this study. Writes nothing.

    Args:
        study: the study.
        root: its directory, which need not exist.
        overwrite: leave out the check, ``execute`` removes the runs that contradict the study.

    Raises:
        StudyError: a stored run was made from another config.
    """
    pending = []
    for run in study.runs():
        difference = _contradiction(run, root)
        if difference and not overwrite:
            raise StudyError(
                f"{root / run.directory}: made by another version of this study. {difference}. "
                f"Use a new --work-dir, or --overwrite to remove and repeat such runs."
            )
        if difference or not records.is_finished(run, root):
            pending.append(run)
    return pending


def damaged(pending: Sequence[Run], root: Path) -> dict[Path, str]:
    """Map the damaged files of the runs that ``prepare`` returned to what is wrong with them."""
    found = {}
    for run in pending:
        with suppress(records.SchemaError):  # to be overwritten
            found.update(records.damaged(run, root))
    return found


def _contradiction(run: Run, root: Path) -> str | None:
    """Describe how what is stored of ``run`` contradicts the study; a damaged config says nothing."""
    try:
        if records.RunFiles(root / run.directory).config in records.damaged(run, root):
            return None
        return records.conflict(run, root)
    except records.SchemaError as error:
        return str(error)


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

    Raises:
        StudyError: another process executes in ``root``, or a stored run was made from another config.
        WorkerError: a worker does not start.
    """
    executor = executor or create("local", workers, processes=processes(study))
    with records.exclusive(root / ".lock", wait=False):
        pending = prepare(study, root, overwrite=overwrite)
        records.open_study(root, study.describe())
        for run in pending:
            if _contradiction(run, root):
                shutil.rmtree(root / run.directory)
            elif records.RunFiles(root / run.directory).config in records.damaged(run, root):
                records.set_aside(run, root)
        git = records.git_state(study.file.parent)
        try:
            yield from executor.perform([Task(run, root, git) for run in pending])
        finally:
            executor.close()
