"""What can go wrong in a run, as a hook that every test config names."""

import os
import signal
import time
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class Fault(Hook):
    """After ``iteration``, once per run directory that contains ``where``: raise, or end the process.

    Args:
        iteration: 1-based; None for no fault.
        where: part of the path of the runs that are hit.
        kill: SIGKILL the process rather than raise.
        once: only the first attempt is hit.
        seconds: to sleep in every iteration, so that there is time to kill the process from outside.
    """

    priority = "LOWEST"

    def __init__(self, iteration=None, where="", kill=False, once=True, seconds=0.0):
        self.iteration, self.where, self.kill, self.once, self.seconds = iteration, where, kill, once, seconds

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        time.sleep(self.seconds)
        if runner.iter + 1 == self.iteration and self.where in runner.work_dir:
            marker = Path(runner.work_dir, "fault")
            if self.once and marker.exists():
                return
            marker.touch()
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError(f"a fault after iteration {self.iteration}")
