"""One run in several processes: data parallel, started as torchrun starts them."""

import os
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch

from . import records
from .executors.base import cause_of
from .messages import Progress, Task, read_progress, write_progress
from .plan import Run, StudyError

KEY = "procs_per_run"
"""Key of a config for the number of processes that train it. Each has its own batch, so it changes the experiment."""

_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")


def processes(run: Run) -> int:
    """Return the number of processes of a run.

    Raises:
        StudyError: the config says something else than a positive integer.
    """
    count = run.config.get(KEY, 1)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise StudyError(f"{KEY}: expected 1 or more, got {count!r}.")
    return count


def perform(task: Task, count: int, report: Callable[[Progress], None]) -> None:
    """Call ``training.perform`` in ``count`` processes, and wait for them.

    They meet over gloo on the CPU and over NCCL on GPUs, of which each takes one, at a free port of this machine.

    Raises:
        RuntimeError: one of them failed or was ended; it says which, and why.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    with tempfile.TemporaryDirectory() as directory, _forward_progress(task, report), _signal_handlers():
        try:
            elastic_launch(_launch_config(count, directory), _main)(task)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            message = str(failure.message).strip()
            cause = message if failure.exitcode >= 0 else cause_of(failure.exitcode)
            raise RuntimeError(f"process {rank} of {count}: {cause}") from None


def _launch_config(count: int, directory: str) -> Any:
    """Build the settings of ``torchrun --standalone``; ``directory`` is for what torch would leave behind."""
    from torch.distributed.elastic import multiprocessing
    from torch.distributed.launcher.api import LaunchConfig

    specs = getattr(multiprocessing, "DefaultLogsSpecs", None)  # until torch 2.2 it is an argument of its own
    logs = {"logs_specs": specs(log_dir=directory)} if specs else {"log_dir": directory}
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,  # a run goes on from its last checkpoint, which is for the executor to ask
        **logs,
    )


def _main(task: Task) -> None:
    """Perform the task in one of its processes."""
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    from mmseg_resample import launch

    from . import training

    launch.init_processes()
    progress = records.RunFiles(task.root / task.run.directory).progress
    first = torch.distributed.get_rank() == 0
    report = partial(write_progress, progress) if first else lambda progress: None
    training.perform(task.run, task.root, report, task.git)
    torch.distributed.destroy_process_group()


def _exit_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)  # it was killed: nobody waits for this process, which holds the lock of the run


@contextmanager
def _forward_progress(task: Task, report: Callable[[Progress], None]) -> Iterator[None]:
    """Report what the first process writes to the progress file."""
    path = records.RunFiles(task.root / task.run.directory).progress
    path.parent.mkdir(parents=True, exist_ok=True)
    ended = threading.Event()

    def forward() -> None:
        last = None
        while not ended.wait(0.5):
            progress = read_progress(path)
            if progress is not None and progress != last:
                last = progress
                report(progress)

    thread = threading.Thread(target=forward, daemon=True)
    path.unlink(missing_ok=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(OSError):
            path.unlink()


@contextmanager
def _signal_handlers() -> Iterator[None]:
    """Restore the signal handlers, which torchrun replaces and leaves so."""
    handlers = {name: signal.getsignal(getattr(signal, name)) for name in _SIGNALS}
    try:
        yield
    finally:
        for name, handler in handlers.items():
            signal.signal(getattr(signal, name), handler)
