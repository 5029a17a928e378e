"""mmengine hooks of a study: exact resuming, and progress."""

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Makes a resumed training draw the random numbers that it would have drawn undisturbed.

    Checkpoints get the states of Python's, NumPy's and torch's generators. mmengine resumes an iteration-based
    training by drawing the batches again that were used already, which replays the data order and the generators of
    data loader workers, and draws random numbers of this process too: the states are restored after that, before the
    first new batch is drawn.

    Exact for ``IterBasedTrainLoop``, and for ``EpochBasedTrainLoop`` with checkpoints by epoch and without
    persistent workers; one process (mmengine stores a checkpoint on rank 0 only), deterministic kernels.
    """

    priority = "VERY_LOW"

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the states to the checkpoint."""
        checkpoint["random_state"] = _random_state()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the states until the data loader is where it was."""
        self._loaded = checkpoint.get("random_state")

    def before_train_epoch(self, runner: Runner) -> None:
        """Arrange for the states to be restored."""
        state, self._loaded = self._loaded, None
        if state is None or runner.iter == 0:  # a checkpoint to start from is not one to resume
            return
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            loop.dataloader_iterator = _restore_after(loop.dataloader_iterator, loop.iter, state)
        else:
            _set_random_state(state)


class ExactWeightsHook(Hook):
    """Refuses a checkpoint that does not fit the model exactly, where mmengine logs a warning and goes on."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare names and shapes before anything is loaded.

        Raises:
            ValueError: a weight is missing, is not used, or has another shape.
        """
        expected = {name: tuple(value.shape) for name, value in runner.model.state_dict().items()}
        stored = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
        wrong = sorted(name for name in expected.keys() | stored.keys() if expected.get(name) != stored.get(name))
        if wrong:
            trained, tested = (shapes.get(wrong[0], "absent") for shapes in (stored, expected))
            raise ValueError(
                f"ExactWeightsHook: the tested model is not the trained one: {len(wrong)} weights differ, such as "
                f"{wrong[0]}, trained {trained}, tested {tested}. Test a variant as one with the same weights."
            )


class ProgressHook(Hook):
    """Reports where a training or a test is, and measures how long the training took in all its attempts.

    Args:
        report: called with (iteration, iterations, loss or None), at most every ``interval`` seconds.
        interval: seconds.
    """

    priority = "LOWEST"

    def __init__(self, report: Callable[[int, int, float | None], None], interval: float = 0.5) -> None:
        self.report = report
        self.interval = interval
        self.seconds = 0.0
        self._started = 0.0
        self._reported = 0.0

    def before_train(self, runner: Runner) -> None:
        """Start the clock, at zero unless a training is resumed."""
        if runner.iter == 0:
            self.seconds = 0.0
        self._started = time.perf_counter()

    def after_train(self, runner: Runner) -> None:
        """Stop the clock."""
        self.seconds = self._elapsed()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the time that led to this checkpoint."""
        checkpoint["training_seconds"] = self._elapsed()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Continue counting from a resumed checkpoint."""
        self.seconds = checkpoint.get("training_seconds", 0.0)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Report the loss."""
        if self._due():
            loss = runner.message_hub.log_scalars.get("train/loss")
            self.report(runner.iter + 1, runner.max_iters, None if loss is None else float(loss.current()))

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Report the batch."""
        if self._due():
            self.report(batch_idx + 1, len(runner.test_dataloader), None)

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self._started

    def _due(self) -> bool:
        if time.perf_counter() - self._reported < self.interval:
            return False
        self._reported = time.perf_counter()
        return True


def _restore_after(batches: Iterator[Any], count: int, state: dict[str, Any]) -> Iterator[Any]:
    for _ in range(count):
        yield next(batches)
    _set_random_state(state)
    yield from batches


def _random_state() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    # mmengine loads a checkpoint onto the device of the model; generator states live on the CPU.
    name, keys, *rest = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"]:
        torch.cuda.set_rng_state_all([device.cpu() for device in state["cuda"]])
