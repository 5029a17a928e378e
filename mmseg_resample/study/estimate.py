"""An estimate of the time that the rest of a study takes, with its source."""

import contextlib
import copy
import heapq
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from . import records
from .plan import Run, Study

_WARM_UP = 2  # the first iterations allocate, and choose algorithms


@dataclass(frozen=True)
class Estimate:
    """Time that the pending runs of a study take.

    Attributes:
        seconds: wall-clock time, with ``workers`` runs at a time.
        workers: runs at a time.
        source: a clause that says what the estimate is made from.
    """

    seconds: float
    workers: int
    source: str


def from_finished(study: Study, root: Path, pending: Sequence[Run], workers: int) -> Estimate | None:
    """Estimate from the seconds that finished runs of this study took; None if there are none.

    Each pending run counts as the median of the finished ones of the same variants, or of all where there are none.
    """
    left = {run.directory for run in pending}
    finished = [(run, _seconds(run, root)) for run in study.runs() if run.directory not in left]
    known = [(run.variants, seconds) for run, seconds in finished if seconds is not None]
    if not known:
        return None
    overall = [seconds for _, seconds in known]
    needed = []
    for run in pending:
        alike = [seconds for variants, seconds in known if variants == run.variants]
        needed.append(statistics.median(alike or overall))
    runs = "finished run" if len(known) == 1 else f"{len(known)} finished runs"
    source = f"from the {runs} of this study, {statistics.median(overall):.0f} s each (median)"
    return Estimate(_makespan(needed, workers), workers, source)


def from_iterations(pending: Sequence[Run], workers: int, threads: int, iterations: int = 8) -> Estimate:
    """Estimate from a few iterations of the training and of each evaluation of the first pending run, performed now.

    Nothing of them is kept. They run alone, so runs that slow each other down take longer.
    """
    run = pending[0]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with (
            tempfile.TemporaryDirectory() as directory,
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            total = _time(_train_config(run), Path(directory), "train", iterations)
            for evaluation in run.evaluations:
                config = _test_config(evaluation.config, evaluation.evaluators)
                total += _time(config, Path(directory), "test", iterations)
    finally:
        torch.set_num_threads(before)
    source = (
        f"from {iterations} iterations of the training and of each test of {run.label}, alone in this process with "
        f"{threads} thread{'s' * (threads > 1)}: {total:.3g} s a run"
    )
    return Estimate(_makespan([total] * len(pending), workers), workers, source)


class _EnoughIterations(Exception):
    """Signal that ends a Runner."""


class _Stopwatch(Hook):
    priority = "LOWEST"

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations
        self.times: list[float] = []
        self.length = 0

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._record_time(runner.max_iters)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._record_time(len(runner.test_dataloader))

    def seconds(self) -> float:
        steps = [after - before for before, after in pairwise(self.times)]
        return self.length * statistics.median(steps[_WARM_UP - 1 :] or steps or [0.0])

    def _record_time(self, length: int) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())
        self.length = length
        if len(self.times) == self.iterations + _WARM_UP:
            raise _EnoughIterations


def _time(config: Config, directory: Path, phase: str, iterations: int) -> float:
    from .training import _isolated, _runner

    watch = _Stopwatch(iterations)
    with _isolated(), contextlib.suppress(_EnoughIterations):
        runner = _runner(config, directory / phase, watch)
        getattr(runner, phase)()
    return watch.seconds()


def _train_config(run: Run) -> Config:
    config = copy.deepcopy(run.config)
    config.default_hooks.checkpoint = None
    return config


def _test_config(config: Config, evaluators: Any) -> Config:
    config = copy.deepcopy(config)
    config.train_dataloader = config.train_cfg = config.optim_wrapper = config.param_scheduler = None
    config.test_evaluator = [{"type": "ConfusionMatrixMetric"}, *(dict(each) for each in evaluators.values())]
    return config


def _seconds(run: Run, root: Path) -> float | None:
    metrics = records.read_usable(records.RunFiles(root / run.directory).metrics)
    if metrics is None or metrics["training"] is None:
        return None
    return metrics["training"]["seconds"] + sum(result["seconds"] for result in metrics["evaluations"].values())


def _makespan(seconds: Sequence[float], workers: int) -> float:
    """Compute when the last run ends, if each starts on the worker that is free first."""
    ends = [0.0] * max(workers, 1)
    for each in seconds:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)
