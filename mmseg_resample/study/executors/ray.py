"""Runs on a Ray cluster, or on one that is started for the study on this machine."""

import math
import os
import secrets
from collections.abc import Sequence
from typing import Any

from ..messages import Done, Lost, Task
from ..plan import StudyError
from . import slots
from .polling import Place, PollingExecutor, attempt_there

_AUTHENTICATION = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_TOKEN = secrets.token_hex(32)  # of the clusters that this process starts: Ray reads it once


class Ray(PollingExecutor):
    """Executor by Ray tasks; a run whose worker or node is lost is tried once more, from its last checkpoint.

    Args:
        workers: runs at a time; by default what the GPUs, or else the cores of the cluster hold.
        address: of a running cluster; by default RAY_ADDRESS, else a cluster is started on this machine and ended
            with the study. All machines of a cluster must share the directory of the study.
        runs_per_gpu: runs that share a GPU.
        processes: of each run, a GPU each where there are GPUs.

    Raises:
        StudyError: Ray is not installed, the cluster cannot be reached, or no machine of it can hold a run.
    """

    attempts = 2

    def __init__(
        self,
        workers: int | None = None,
        *,
        address: str | None = None,
        runs_per_gpu: int | None = None,
        processes: int = 1,
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise StudyError("--executor ray: Ray is not installed. pip install 'mmseg_resample[ray]'.") from error
        self._ray = ray
        address = address or os.environ.get("RAY_ADDRESS")
        self._token = False
        self._started = not ray.is_initialized()
        if self._started:
            self._start(address, max(slots.cores(), (workers or 1) * processes))
        try:
            divided, gpus = self._divide(workers, runs_per_gpu, processes, capped=address is None)
        except StudyError:
            self._end()
            raise
        super().__init__(len(divided), divided[0].threads)
        threads = str(self.threads)
        self._attempt = ray.remote(attempt_there).options(
            num_cpus=self.threads * processes,
            num_gpus=gpus,
            max_retries=0,  # `attempts`: Ray would not tell that it tries again
            runtime_env={"env_vars": {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}},
        )

    def _start(self, address: str | None, cpus: int) -> None:
        # Nothing but tasks and their ends goes through Ray, so its store can be small.
        small: dict[str, Any] = {"num_cpus": cpus, "object_store_memory": 100 * 2**20, "include_dashboard": False}
        if not address and not any(name in os.environ for name in _AUTHENTICATION):
            # Else Ray would make a token for all clusters of this user, and leave it in the home directory.
            os.environ[_AUTHENTICATION[0]] = _TOKEN
            self._token = True
        try:
            self._ray.init(address=address or "local", log_to_driver=False, **({} if address else small))
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise StudyError(f"--ray-address {address}: {error}") from error

    def _divide(
        self, workers: int | None, runs_per_gpu: int | None, processes: int, capped: bool
    ) -> tuple[list[slots.Slot], float]:
        """Divide the cluster: return a slot for every run at a time, and the GPUs of each."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cores, gpus = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("CPU", "GPU"))
        kind = "GPU" if gpus else "CPU"
        largest = int(max(node.get(kind, 0) for node in nodes))
        if processes > largest:
            raise StudyError(
                f"--procs-per-run {processes}: the largest machine of the Ray cluster has {largest} {kind}s."
            )
        if workers is None and not gpus and not capped:
            workers = max(1, cores // processes)
        names = [str(index) for index in range(gpus)]
        divided = slots.slots(names, cores, workers=workers, runs_per_gpu=runs_per_gpu, processes=processes)
        sharing = math.ceil(len(divided) * processes / gpus) if gpus else 1
        if sharing > 1 and processes > 1:
            raise StudyError(f"--procs-per-run {processes}: Ray gives such runs whole GPUs. Lower --workers.")
        return divided, processes / sharing if gpus else 0

    def submit(self, task: Task, place: Place) -> Any:
        """Submit the attempt as a Ray task."""
        return self._attempt.remote(task, place)

    def wait(self, handles: Sequence[Any]) -> None:
        """Wait until one task ends, for ``interval`` at most."""
        self._ray.wait(list(handles), timeout=self.interval)

    def outcome(self, handle: Any) -> Done | Lost | None:
        """Return how the task ended, or None while it works."""
        if not self._ray.wait([handle], timeout=0)[0]:
            return None
        try:
            return Done(self._ray.get(handle))
        except self._ray.exceptions.RayTaskError as error:  # not the run, whose errors are returned
            return Lost(f"Ray could not call the run: {error.cause!r}")
        except self._ray.exceptions.RayError as error:
            return Lost(f"the Ray worker was lost: {type(error).__name__}: {str(error).strip().splitlines()[0]}")

    def cancel(self, handle: Any) -> None:
        """End the task at once: runs go on from their last checkpoint."""
        self._ray.cancel(handle, force=True)

    def close(self) -> None:
        """End the runs that are at work, and the cluster if it was started here."""
        super().close()
        self._end()

    def _end(self) -> None:
        if self._started:
            self._ray.shutdown()
            self._started = False
        if self._token:
            del os.environ[_AUTHENTICATION[0]]
            self._token = False
