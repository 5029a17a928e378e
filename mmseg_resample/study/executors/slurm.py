"""Runs as Slurm jobs, through submitit."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..messages import Done, Lost, Task
from ..plan import StudyError
from .polling import Place, PollingExecutor, attempt_there

_SHARED = {"timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "name"}


_TIMEOUTS = 20  # how often a job may reach its time limit: it goes on from its last checkpoint


class Slurm(PollingExecutor):
    """Executor by Slurm jobs, one a run; a job that reaches its time limit or is preempted is queued again and goes on.

    Args:
        workers: jobs at a time; default: all are submitted.
        options: of the jobs, as ``parameters`` takes them. ``time`` must be among them. ``cluster="local"`` starts the
            jobs as processes of this machine, through submitit all the same.
        processes: of each run; the GPUs are ``gpus_per_node`` of the options.

    Raises:
        StudyError: submitit or Slurm is missing, an option is unknown, or ``time`` is not given.
    """

    interval = 1.0

    def __init__(
        self, workers: int | None = None, *, options: Mapping[str, str] | None = None, processes: int = 1
    ) -> None:
        try:
            import submitit
        except ImportError as error:
            message = "--executor slurm: submitit is not installed. pip install 'mmseg_resample[slurm]'."
            raise StudyError(message) from error
        if workers is not None and workers < 1:
            raise StudyError(f"--workers: expected 1 or more, got {workers}.")
        options = dict(options or {})
        self._cluster = options.pop("cluster", "slurm")
        if "time" not in options:
            raise StudyError("--slurm: time is missing, submitit would set 5 minutes. Add time=4:00:00, say.")
        self._parameters = {"name": "study", "cpus_per_task": processes, **parameters(options)}
        super().__init__(workers, max(1, self._parameters["cpus_per_task"] // processes))
        self._auto_executor = submitit.AutoExecutor
        self._executor: Any = None
        with tempfile.TemporaryDirectory() as folder:  # the options are checked before anything is written
            self._open(folder)

    def _open(self, folder: str | Path) -> Any:
        try:
            executor = self._auto_executor(folder=folder, cluster=self._cluster, slurm_max_num_timeout=_TIMEOUTS)
            executor.update_parameters(**self._parameters)
        except (NameError, AssertionError, RuntimeError, ValueError) as error:
            raise StudyError(f"--slurm: {error}") from error
        return executor

    def submit(self, task: Task, place: Place) -> Any:
        """Submit the attempt as a job, with its scripts and logs in ``slurm/`` of the study."""
        if self._executor is None:
            self._executor = self._open(task.root / "slurm")
        return self._executor.submit(_Attempt(), task, place)

    def outcome(self, handle: Any) -> Done | Lost | None:
        """Return how the job ended, or None while it works."""
        if not handle.done():
            return None
        try:
            return Done(handle.result())
        except Exception as error:  # UncompletedJobError, or what unpickling raises: the job has no result
            reason = str(error).strip().splitlines()[0]
            return Lost(f"the job {handle.job_id} ended without a result (state {handle.state}): {reason}")

    def cancel(self, handle: Any) -> None:
        """Cancel the job with scancel."""
        handle.cancel(check=False)


class _Attempt:
    def __call__(self, task: Task, place: Place) -> str | None:
        return attempt_there(task, place)

    def checkpoint(self, task: Task, place: Place) -> Any:
        """Return the job to queue again; submitit asks before a time limit or a preemption."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, task, place)


def parameters(options: Mapping[str, str]) -> dict[str, Any]:
    """Translate options of Slurm jobs to submitit's names.

    Args:
        options: names as in sbatch, with _ for -: ``partition``, ``account``, ``time`` (minutes or [D-]HH:MM:SS),
            ``gpus_per_node``, ``cpus_per_task``, ``mem_gb``, ...

    Raises:
        StudyError: ``time`` is not a time.
    """
    named: dict[str, Any] = {}
    for name, text in options.items():
        value = int(text) if re.fullmatch(r"\d+", str(text)) else text
        if name == "time":
            named["timeout_min"] = _minutes(str(text))
        else:
            named[name if name in _SHARED else f"slurm_{name}"] = value
    return named


def _minutes(time: str) -> int:
    match = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):(\d\d):\d\d|(\d+))", time)
    if match is None:
        raise StudyError(f"--slurm time={time}: expected minutes or [D-]HH:MM:SS.")
    days, hours, minutes, alone = (int(part or 0) for part in match.groups())
    return 24 * 60 * days + 60 * hours + minutes + alone
