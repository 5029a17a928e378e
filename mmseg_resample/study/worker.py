"""The performance of a task in a process, however that was started.

``python -m mmseg_resample.study.worker FD`` is a worker of ``executors.local``: it reads tasks from a pipe and writes
messages to it. Importing mmseg takes seconds, so a worker performs many runs; on a GPU it ends after a failed one,
because a CUDA error would fail every later run of the process as well.
"""

import faulthandler
import gc
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from . import distributed, records
from .messages import Done, Progress, Ready, Task
from .training import perform


def attempt(task: Task, report: Callable[[Progress], None], *, redirect: bool = True) -> str | None:
    """Perform a task in this process, and record it if it fails.

    Args:
        task: the task.
        report: called with the progress now and then.
        redirect: send all that this process writes to the log of the run from now on.

    Returns:
        What failed, None if the run is finished.
    """
    files = records.RunFiles(task.root / task.run.directory)
    processes = distributed.processes(task.run)
    try:
        if redirect:
            _send_output_to(files.log)
        if task.threads is not None:
            torch.set_num_threads(task.threads)
        if processes > 1:
            distributed.perform(task, processes, report)
        else:
            perform(task.run, task.root, report, task.git)
    except Exception as error:
        traceback.print_exc()
        if not redirect:
            with suppress(OSError):
                files.path.mkdir(parents=True, exist_ok=True)
                with files.log.open("a") as log:
                    traceback.print_exc(file=log)
        return records.record_failure(task.run, files, "".join(traceback.format_exception_only(error)).strip())
    return None


def main() -> None:
    """Perform the tasks that arrive, until the other end says so or is gone."""
    connection = Connection(int(sys.argv[1]))
    tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()
    faulthandler.enable()
    gc.collect()
    gc.freeze()  # what was imported stays: collecting between runs need not look at it again
    connection.send(Ready())
    while (task := tasks.get()) is not None:
        error = attempt(task, connection.send)
        connection.send(Done(error))
        if error is not None and torch.cuda.is_initialized():
            return
        connection.send(Ready())


def _listen(connection: Connection, tasks: "queue.SimpleQueue[Task | None]") -> None:
    while True:
        try:
            tasks.put(connection.recv())
        except (EOFError, OSError):
            os._exit(1)  # the study was killed: whatever this process is computing, nobody waits for it


def _send_output_to(log: Path) -> None:
    """Redirect all output: mmengine's log, warnings, and what C++ code prints when it crashes."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    with log.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what was printed before a crash counts


if __name__ == "__main__":
    main()
