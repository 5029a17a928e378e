"""The division of a machine among runs."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..plan import StudyError


@dataclass(frozen=True)
class Slot:
    """Share of a machine for one run at a time.

    Attributes:
        gpus: ids as in CUDA_VISIBLE_DEVICES, one per process of the run; none on a machine without GPUs.
        threads: that each of its processes computes with.
    """

    gpus: tuple[str, ...]
    threads: int


def slots(
    gpus: Sequence[str],
    cores: int,
    *,
    workers: int | None = None,
    runs_per_gpu: int | None = None,
    processes: int = 1,
    threads: int | None = None,
) -> list[Slot]:
    """Divide a machine among runs.

    Args:
        gpus: ids of the GPUs to use.
        cores: number of CPU cores.
        workers: runs at a time. By default ``runs_per_gpu`` on every GPU, or one per core up to 4: small models gain
            more from several runs at once than from several threads, and 4 bounds the memory.
        runs_per_gpu: runs that share a GPU. By default 1, or as many as ``workers`` needs.
        processes: of each run, one GPU each.
        threads: of each process. By default what ``OMP_NUM_THREADS`` says, else the cores divided among all processes.

    Returns:
        A slot for every run at a time. Successive ones are on different GPUs, as far as there are.

    Raises:
        StudyError: a number is not positive, or they contradict each other.
    """
    named = {"--workers": workers, "--runs-per-gpu": runs_per_gpu, "--procs-per-run": processes}
    named["--threads"] = threads
    for name, value in named.items():
        if value is not None and value < 1:
            raise StudyError(f"{name}: expected 1 or more, got {value}.")
    if not gpus:
        if runs_per_gpu is not None:
            raise StudyError(f"--runs-per-gpu {runs_per_gpu}: there is no GPU to share. Use --workers on CPU cores.")
        count = workers or max(1, min(cores // processes, 4))
        return [Slot((), threads or _threads(cores, count * processes))] * count
    groups = [tuple(gpus[start : start + processes]) for start in range(0, len(gpus) - processes + 1, processes)]
    if not groups:
        raise StudyError(f"--procs-per-run {processes}: each process needs a GPU, and there are {len(gpus)}.")
    count = workers or len(groups) * (runs_per_gpu or 1)
    if runs_per_gpu is not None and count > len(groups) * runs_per_gpu:
        raise StudyError(
            f"--workers {count}: {len(gpus)} GPUs hold {len(groups) * runs_per_gpu} runs of {processes} processes at "
            f"--runs-per-gpu {runs_per_gpu}. Raise it to {math.ceil(count / len(groups))}, or leave one of them out."
        )
    threads = threads or _threads(cores, count * processes)
    return [Slot(groups[index % len(groups)], threads) for index in range(count)]


def _threads(cores: int, processes: int) -> int:
    """Return the number of threads that the environment asks for, else a share of the cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # one number per level of nesting
    return int(asked) if asked.isdecimal() and int(asked) else max(1, cores // processes)


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus(wanted: Sequence[str] | None = None) -> list[str]:
    """List the GPUs that CUDA_VISIBLE_DEVICES may name here; ``wanted`` selects among them.

    Raises:
        StudyError: a wanted one is not there.
    """
    visible: list[str] = []
    if torch.cuda.is_available():
        variable = os.environ.get("CUDA_VISIBLE_DEVICES")
        visible = variable.split(",") if variable else [str(index) for index in range(torch.cuda.device_count())]
    for gpu in wanted or ():
        if gpu not in visible:
            raise StudyError(
                f"--gpus: {gpu!r} is not a GPU of this machine. There are: {', '.join(visible) or 'none'}."
            )
    return list(wanted or visible)
