"""The one way in which the benchmarks take times and peaks of memory.

**Time.** All ways of a case run in turn, in every round, forward and backward in order: what else the machine does
meets them alike. After two calls that warm up, a sample is the mean of as many calls as fill a few milliseconds.
Reported are medians and quartiles, and those of the ratio to the baseline of the same round. The clock is processor
time for one CPU thread, which other programs disturb least, wall time for several, and CUDA's events on a GPU.

**Memory.** The peak beyond the inputs, the result included. On a CPU: resident memory in a process of its own that
makes one call, forked from one that has imported everything and run nothing (Linux only). There, glibc maps every block
of 64 KiB or more by itself, so that the peak is what is alive at once, not how the heap fragments. On a GPU: CUDA's
allocator.
"""

import gc
import importlib
import multiprocessing
import multiprocessing.context
import os
import platform
import re
import time
import timeit
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

Call = Callable[[], Any]
SCHEMA = 1
WARM_UP = 2
FLOOR = "copy"


@dataclass(frozen=True)
class Options:
    """Options that hold for all cases.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        threads: that torch computes with on a CPU.
        rounds: samples per way.
        quick: small inputs, for trying things out.
        study: the study config that names the resamplers.
    """

    device: str = "cpu"
    threads: int = 1
    rounds: int = 15
    quick: bool = False
    study: Path = Path(__file__).parents[1] / "configs" / "studies" / "resamplers_shapes.py"

    @cached_property
    def clock(self) -> str:
        if self.device == "cuda":
            return "CUDA events"
        return "processor time" if self.threads == 1 else "wall time"


@dataclass(frozen=True)
class Case:
    """One row of a table: the same work done in several ways.

    Args:
        name: unique in its suite.
        ways: names, the baseline first.
        build: way -> a call on inputs of its own, equal for all ways.
        tiny: the same on small inputs. It loads and compiles what a way needs, before its memory is counted.
        floor: a call that takes as long as no way could beat, or None.
        compare: (way, result of the baseline, result of the way) -> how far they differ, by name.
        facts: what else a table or a plot needs to know about the case.
        memory: whether peaks are taken.
    """

    name: str
    ways: Sequence[str]
    build: Callable[[str], Call]
    tiny: Callable[[str], Call]
    floor: Callable[[], Call] | None = None
    compare: Callable[[str, Any, Any], dict[str, float]] | None = None
    facts: Callable[[], dict[str, Any]] = dict
    memory: bool = True


def measure(suite: str, case: Case, options: Options, *, memory: bool = True) -> dict[str, Any]:
    """One row of the results: for every way its time, how many times faster it is, its peak and how far it differs.

    Args:
        suite: where the process that measures memory finds the case again.
        memory: take peaks too.
    """
    calls = {way: case.build(way) for way in case.ways}
    row: dict[str, Any] = {"case": case.name, "baseline": case.ways[0], "facts": case.facts(), "ways": {}}
    differs = _differences(case, calls)
    if case.floor is not None:
        calls[FLOOR] = case.floor()
    times = sample(calls, options)
    del calls
    for way in case.ways:
        row["ways"][way] = {
            "ms": _quartiles(times[way] * 1e3),
            "ratio": _quartiles(times[case.ways[0]] / times[way]),
            "peak_mib": peak(suite, case, way, options) if memory and case.memory else None,
            "differs": differs[way],
        }
    row["floor_ms"] = float(np.median(times[FLOOR])) * 1e3 if FLOOR in times else None
    return row


def _differences(case: Case, calls: dict[str, Call]) -> dict[str, dict[str, float]]:
    if case.compare is None:
        return {way: {} for way in calls}
    reference = calls[case.ways[0]]()
    return {way: case.compare(way, reference, call()) if way != case.ways[0] else {} for way, call in calls.items()}


def _quartiles(values: np.ndarray) -> dict[str, float]:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": float(median), "low": float(low), "high": float(high)}


# --------------------------------------------------------------------------------------------------------------------
# Time


def sample(calls: dict[str, Call], options: Options) -> dict[str, np.ndarray]:
    """Seconds per call, one number per round; the calls in turn."""
    fill = 1e-3 if options.quick else 2e-2
    numbers = {}
    for way, call in calls.items():
        for _ in range(WARM_UP):
            once = seconds(call, 1, options)
        numbers[way] = max(1, min(1000, round(fill / max(once, 1e-7))))
    gc.collect()
    samples: dict[str, list[float]] = {way: [] for way in calls}
    for round_ in range(options.rounds):
        for way in list(calls)[:: 1 if round_ % 2 == 0 else -1]:
            samples[way].append(seconds(calls[way], numbers[way], options))
    return {way: np.array(values) for way, values in samples.items()}


def seconds(call: Call, number: int, options: Options) -> float:
    """Mean of ``number`` calls, without garbage collection between them."""
    if options.device != "cuda":
        clock = time.process_time if options.threads == 1 else time.perf_counter
        return timeit.Timer(call, timer=clock).timeit(number) / number
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(number):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / number


# --------------------------------------------------------------------------------------------------------------------
# Memory


def peak(suite: str, case: Case, way: str, options: Options) -> float | None:
    """MiB that the first call of ``way`` needs beyond its inputs, the result included."""
    if options.device == "cuda":
        return _cuda_peak(case, way)
    if not Path("/proc/self/clear_refs").exists():
        return None
    with ProcessPoolExecutor(1, mp_context=_clean_processes()) as pool:
        return pool.submit(_peak_of_this_process, suite, case.name, way, options).result()


@cache
def _clean_processes() -> multiprocessing.context.BaseContext:
    """Processes forked from one that has imported the suites and run nothing."""
    here = str(Path(__file__).parent)
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**16))  # read when a process starts: this one keeps its malloc
    # Before Python 3.12.3 the server starts without sys.path, and then imports nothing without saying so.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["suites"])
    return context


def _cuda_peak(case: Case, way: str) -> float:
    case.tiny(way)()
    call = case.build(way)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _peak_of_this_process(suite: str, name: str, way: str, options: Options) -> float:
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    cases = importlib.import_module(f"suites.{suite}").cases(options)
    case = next(case for case in cases if case.name == name)
    case.tiny(way)()
    call = case.build(way)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # from here on the high-water mark is the peak since now
    before = status("VmRSS")
    result = call()  # alive until the peak is read
    grown = status("VmHWM") - before
    del result
    return grown / 1024


def status(key: str) -> int:
    """A field of the process's status, in KiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))


# --------------------------------------------------------------------------------------------------------------------
# Provenance


def environment(options: Options) -> dict[str, Any]:
    """Return what the numbers depend on."""
    from mmseg_resample.study.records import git_state

    modules = ("torch", "numpy", "mmengine", "mmcv", "mmseg", "mmseg_resample", "numba", "triton", "torchvision")
    return {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": list(os.getloadavg()),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        **{name: _version(name) for name in modules},
        "threads": options.threads,
        "rounds": options.rounds,
        "clock": options.clock,
        "git": git_state(Path(__file__).parent, results="benchmarks/results"),
    }


def _version(module: str) -> str | None:
    try:
        return importlib.import_module(module).__version__
    except (ImportError, OSError, RuntimeError):  # absent, or built for another torch
        return None


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or platform.machine()
