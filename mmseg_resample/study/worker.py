"""A process that performs runs for ``execution``: ``python -m mmseg_resample.study.worker FD``.

It reads tasks from a pipe and writes messages to it. Importing mmseg takes seconds, so a worker performs many runs;
on a GPU it ends after a failed one, because a CUDA error would fail every later run of the process as well.
"""

import faulthandler
import gc
import os
import queue
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from . import records
from .messages import Done, Ready, Task
from .training import perform


def main() -> None:
    """Perform the tasks that arrive, until the other end says so or is gone."""
    connection = Connection(int(sys.argv[1]))
    tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what was printed before a crash counts
    faulthandler.enable()
    gc.collect()
    gc.freeze()  # what was imported stays: collecting between runs need not look at it again
    connection.send(Ready())
    while (task := tasks.get()) is not None:
        error = _attempt(task, connection)
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


def _attempt(task: Task, connection: Connection) -> str | None:
    files = records.RunFiles(task.root / task.run.directory)
    _send_output_to(files.log)
    try:
        perform(task.run, task.root, connection.send, task.git)
    except Exception as error:
        traceback.print_exc()
        summary = "".join(traceback.format_exception_only(error)).strip()
        records.write_failure(task.run, files, summary)
        return summary
    return None


def _send_output_to(log: Path) -> None:
    """All of it: mmengine's log, warnings, and what C++ code prints when it crashes."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    with log.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)


if __name__ == "__main__":
    main()
