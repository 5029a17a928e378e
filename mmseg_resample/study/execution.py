"""Runs a study on this machine: what is left to do, in worker processes, with everything that happens as events."""

import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from . import records
from .messages import Done, Message, Progress, Ready, Task
from .plan import Run, Study, StudyError


class WorkerError(RuntimeError):
    """The worker processes do not work here, whatever the study."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a run.

    Attributes:
        run: the run.
        worker: index of the worker that has it.
        what: progress, or the end of the run, failed or not.
    """

    run: Run
    worker: int
    what: Progress | Done


def prepare(study: Study, root: Path, *, overwrite: bool = False) -> list[Run]:
    """The runs that are not finished, after checking that what is stored belongs to this study. Writes nothing.

    Args:
        study: the study.
        root: its directory, which need not exist.
        overwrite: leave out the check, ``execute`` removes the runs that contradict the study.

    Raises:
        StudyError: a stored run was made from another config.
    """
    pending = []
    for run in study.runs():
        difference = records.conflict(run, root)
        if difference and not overwrite:
            raise StudyError(
                f"{root / run.directory}: made by another version of this study. {difference}. "
                f"Use a new --work-dir, or --overwrite to remove and repeat such runs."
            )
        if difference or not records.is_finished(run, root):
            pending.append(run)
    return pending


def execute(study: Study, root: Path, *, workers: int | None = None, overwrite: bool = False) -> Iterator[Event]:
    """Perform the runs of ``study`` that are not finished, and yield what happens.

    It can be killed at any moment, its workers too; executed again, it continues. A run that fails does not stop
    the others. Leaving the iterator ends the workers.

    Args:
        study: the study.
        root: its directory; only one process at a time may execute in it.
        workers: number of worker processes. By default one for every GPU, or for every core up to 4; at most one
            per run.
        overwrite: remove and repeat runs that were made from another config.

    Raises:
        StudyError: another process executes in ``root``, or a stored run was made from another config.
        WorkerError: a worker does not start.
    """
    with records.exclusive(root / ".lock", wait=False):
        pending = prepare(study, root, overwrite=overwrite)
        records.open_study(root, study.describe())
        for run in pending:
            if records.conflict(run, root):
                shutil.rmtree(root / run.directory)
        git = records.git_state(study.file.parent)
        pool = _Pool(_worker_count(workers), root)
        try:
            yield from pool.perform([Task(run, root, git) for run in pending])
        finally:
            pool.close()


@dataclass
class _Worker:
    index: int
    process: subprocess.Popen
    connection: Connection
    log: Path
    task: Task | None = None
    ready: bool = False


@dataclass
class _Pool:
    """Worker processes, each with one task at a time."""

    size: int
    root: Path
    workers: list[_Worker] = field(default_factory=list)

    def perform(self, tasks: Sequence[Task]) -> Iterator[Event]:
        queue = deque(tasks)
        self.workers = [self._start(index) for index in range(min(self.size, len(queue)))]
        while self.workers:
            # A killed worker may leave children that hold its end of the pipe open, so look at the process as well.
            ready = wait([worker.connection for worker in self.workers], timeout=0.5)
            for worker in list(self.workers):
                if worker.connection in ready or worker.process.poll() is not None:
                    yield from self._serve(worker, queue)

    def close(self) -> None:
        while self.workers:
            _end(self.workers.pop())

    def _start(self, index: int) -> _Worker:
        ours, theirs = Pipe()
        log = self.root / "workers" / f"{index}.log"
        log.parent.mkdir(exist_ok=True)
        # Not `multiprocessing`: the threads and the GPU of a process must be in its environment before it imports
        # torch, its output must not reach the progress display, and Ctrl-C is for this process to handle.
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "mmseg_resample.study.worker", str(theirs.fileno())],
                env=self._environment(index),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        theirs.close()
        return _Worker(index, process, ours, log)

    def _environment(self, index: int) -> dict[str, str]:
        # The same for the last run alone as for the first among many: sums depend on how they are split.
        threads = str(max(1, _cores() // self.size))
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        }
        gpus = _gpus()
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
        return environment

    def _serve(self, worker: _Worker, queue: deque[Task]) -> Iterator[Event]:
        """Take what a worker sends, hand it the next task, replace it when it is gone."""
        gone = worker.process.poll() is not None  # before its last messages are read, not after
        for message in _messages(worker):
            if isinstance(message, Ready):
                worker.ready = True
                worker.task = queue.popleft() if queue else None
                with suppress(BrokenPipeError):  # it died: seen at the next turn
                    worker.connection.send(worker.task)
            elif worker.task is not None:
                run = worker.task.run
                if isinstance(message, Done):
                    worker.task = None
                yield Event(run, worker.index, message)
        if gone:
            self.workers.remove(worker)
            _end(worker)
            if not worker.ready:
                raise WorkerError(f"a worker of the study does not start. Its output:\n{worker.log.read_text()}")
            if worker.task is not None:
                yield self._lost(worker, worker.task.run)
            if queue:
                self.workers.append(self._start(worker.index))

    def _lost(self, worker: _Worker, run: Run) -> Event:
        error = None
        if not records.is_finished(run, self.root):  # else it died after its work was done
            error = f"the worker process {_cause(worker.process.returncode)}"
            records.write_failure(run, records.RunFiles(self.root / run.directory), error)
        return Event(run, worker.index, Done(error))


def _messages(worker: _Worker) -> Iterator[Message]:
    with suppress(EOFError, OSError):
        while worker.connection.poll():
            yield worker.connection.recv()


def _end(worker: _Worker) -> None:
    """End a worker with the processes of its data loaders, which outlive it for a while otherwise."""
    with suppress(ProcessLookupError):
        os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    worker.connection.close()


def _cause(returncode: int) -> str:
    if returncode >= 0:
        return f"ended with exit status {returncode}"
    name = signal.Signals(-returncode).name
    return f"was ended by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"


def _worker_count(asked: int | None) -> int:
    if asked is not None and asked < 1:
        raise StudyError(f"--workers: expected 1 or more, got {asked}.")
    # Small models gain more from several runs at once than from several threads; 4 bounds the memory.
    return asked or len(_gpus()) or min(_cores(), 4)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may name."""
    if not torch.cuda.is_available():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
