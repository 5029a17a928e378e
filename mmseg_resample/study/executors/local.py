"""Runs in worker processes of this machine, which share its GPUs or its cores."""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

from ..messages import Done, Event, Message, Ready, Task
from . import slots
from .base import WorkerError, cause_of, record_loss


@dataclass
class _Worker:
    index: int
    process: subprocess.Popen
    connection: Connection
    log: Path
    task: Task | None = None
    ready: bool = False


class Local:
    """Executor in worker processes of this machine, each with one run at a time.

    Args:
        workers: runs at a time.
        gpus: ids of the GPUs to use; default: all that are visible.
        runs_per_gpu: runs that share a GPU.
        processes: of each run.
        threads: of each process; default: see ``slots.slots``.

    Raises:
        StudyError: this machine cannot be divided like that, see ``slots.slots``.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        gpus: Sequence[str] | None = None,
        runs_per_gpu: int | None = None,
        processes: int = 1,
        threads: int | None = None,
    ) -> None:
        self.slots = slots.slots(
            slots.visible_gpus(gpus),
            slots.cores(),
            workers=workers,
            runs_per_gpu=runs_per_gpu,
            processes=processes,
            threads=threads,
        )
        self._workers: list[_Worker] = []

    def perform(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """Perform every task once, a failed or lost one too.

        Raises:
            WorkerError: a worker does not start.
        """
        if not tasks:
            return
        logs = tasks[0].root / "workers"
        queue = deque(tasks)
        self._workers = [self._start(index, logs) for index in range(min(len(self.slots), len(queue)))]
        while self._workers:
            # A killed worker may leave children that hold its end of the pipe open, so look at the process as well.
            ready = wait([worker.connection for worker in self._workers], timeout=0.5)
            for worker in list(self._workers):
                if worker.connection in ready or worker.process.poll() is not None:
                    yield from self._serve(worker, queue)

    def close(self) -> None:
        """End the workers and their runs."""
        while self._workers:
            _end(self._workers.pop())

    def _start(self, index: int, logs: Path) -> _Worker:
        ours, theirs = Pipe()
        log = logs / f"{index}.log"
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
        slot = self.slots[index]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(slot.threads),
            "MKL_NUM_THREADS": str(slot.threads),
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        }
        if slot.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(slot.gpus)
        return environment

    def _serve(self, worker: _Worker, queue: deque[Task]) -> Iterator[Event]:
        """Take what a worker sends, hand it the next task, replace it when it is gone."""
        gone = worker.process.poll() is not None  # before its last messages are read, not after
        for message in _messages(worker):
            if isinstance(message, Ready):
                worker.ready = True
                worker.task = replace(queue.popleft(), threads=self.slots[worker.index].threads) if queue else None
                with suppress(BrokenPipeError):  # it died: seen at the next turn
                    worker.connection.send(worker.task)
            elif worker.task is not None:
                run = worker.task.run
                if isinstance(message, Done):
                    worker.task = None
                yield Event(run, worker.index, message)
        if gone:
            self._workers.remove(worker)
            _end(worker)
            if not worker.ready:
                raise WorkerError(f"a worker of the study does not start. Its output:\n{worker.log.read_text()}")
            if worker.task is not None:
                cause = f"the worker process {cause_of(worker.process.returncode)}"
                yield Event(worker.task.run, worker.index, record_loss(worker.task, cause))
            if queue:
                self._workers.append(self._start(worker.index, worker.log.parent))


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
