"""``FlowLoggerHook``: the flows that a model learns, as scalars beside the losses."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .explain import Explanations, explanations


@HOOKS.register_module()
class FlowLoggerHook(Hook):
    """A hook that logs the mean flow of every flow-aligning resampler while training, in pixels of its output.

    ``flow/<module>.dx`` and ``.dy`` are means over batch and positions, ``.spread`` the standard deviation of the
    flow vectors around them. A flow that only makes up for a misregistration is a constant: its mean is the shift that
    ``mmseg-resample audit`` finds, its spread small.

    In a config: ``custom_hooks = [dict(type='FlowLoggerHook', interval=50)]``. The scalars go wherever the losses go:
    logs, TensorBoard and other backends of the visualizer.

    Args:
        interval: iterations between two values. The iterations in between cost nothing.
    """

    priority = "NORMAL"  # before LoggerHook

    def __init__(self, interval: int = 50) -> None:
        if interval < 1:
            raise ValueError(f"FlowLoggerHook: expected interval >= 1 iterations, got {interval}.")
        self.interval = interval
        self._collecting: Any = None
        self._found: Explanations = {}

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Start to collect, if it is time."""
        if self.every_n_train_iters(runner, self.interval):
            self._collecting = explanations(runner.model)
            self._found = self._collecting.__enter__()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Log the collected flows."""
        if self._collecting is None:
            return
        self._collecting.__exit__(None, None, None)
        self._collecting = None
        for name, parts in self._found.items():
            name = name.removeprefix("module.")
            if "flow" in parts:
                flow = parts["flow"].float()
                mean = flow.mean(dim=(0, 2, 3))
                spread = (flow - mean[:, None, None]).square().sum(1).mean().sqrt()
                for key, value in zip(("dx", "dy", "spread"), torch.cat([mean, spread[None]]).tolist(), strict=True):
                    runner.message_hub.update_scalar(f"train/flow/{name}.{key}", value)
