"""mmengine hooks of a study: exact resuming, early failure, progress, and the input sizes of a test."""

import math
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size, is_distributed
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Hook by which a resumed training draws the random numbers that it would have drawn undisturbed.

    Checkpoints get the states of Python's, NumPy's and torch's generators, of every process. mmengine resumes an
    iteration-based training by drawing the batches again that were used already, which replays the data order and the
    generators of data loader workers, and draws random numbers of this process too: the states are restored after
    that, before the first new batch is drawn.

    Exact for ``IterBasedTrainLoop``, and for ``EpochBasedTrainLoop`` with checkpoints by epoch and without
    persistent workers; deterministic kernels.
    """

    priority = "LOW"  # before the checkpoint hook, which is VERY_LOW

    def __init__(self) -> None:
        self._gathered: list[dict[str, Any]] | None = None
        self._loaded: dict[str, Any] | None = None

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Gather the states of all processes if a checkpoint follows."""
        if is_distributed() and _saves_after_iteration(runner):
            self._gathered = all_gather_object(_random_state())

    def after_train_epoch(self, runner: Runner) -> None:
        """Gather the states of all processes if a checkpoint follows the epoch."""
        if is_distributed() and _saves_after_epoch(runner):
            self._gathered = all_gather_object(_random_state())

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the states to the checkpoint, which mmengine saves in the first process alone.

        Raises:
            RuntimeError: a checkpoint that was not foreseen, in a distributed training.
        """
        states, self._gathered = self._gathered or [_random_state()], None
        if len(states) != get_world_size():
            raise RuntimeError("RandomStateHook: only CheckpointHook can save a distributed training to be resumed.")
        checkpoint["random_states"] = states

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the state of this process until the data loader is where it was.

        Raises:
            ValueError: the checkpoint was made by another number of processes.
        """
        states = checkpoint.get("random_states")
        if states is not None and len(states) != get_world_size():
            raise ValueError(
                f"RandomStateHook: a training of {len(states)} processes cannot be resumed by {get_world_size()}."
            )
        self._loaded = states and states[get_rank()]

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
    """Hook that refuses a checkpoint that does not fit the model exactly; mmengine logs a warning and goes on."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare names and shapes before anything is loaded.

        Raises:
            ValueError: a weight is missing, is not used, or has another shape.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        stored = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
        wrong = sorted(name for name in expected.keys() | stored.keys() if expected.get(name) != stored.get(name))
        if wrong:
            trained, tested = (shapes.get(wrong[0], "absent") for shapes in (stored, expected))
            raise ValueError(
                f"ExactWeightsHook: the tested model is not the trained one: {len(wrong)} weights differ, such as "
                f"{wrong[0]}, trained {trained}, tested {tested}. Test a variant as one with the same weights."
            )


class ProgressHook(Hook):
    """Hook that reports the iteration of a training or a test, and times the training over all its attempts.

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
            loss = (outputs or {}).get("loss")  # not what is logged, which may be read now and then only
            self.report(runner.iter + 1, runner.max_iters, None if loss is None else float(loss))

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


class DivergedError(RuntimeError):
    """Training whose loss is not finite, or stays too high."""


class DivergenceHook(Hook):
    """Hook that ends a training whose loss is not finite, and on request one whose loss stays high.

    Args:
        iteration: when the loss is judged, 1-based; None for never.
        loss_above: the mean loss over the last ``window`` iterations that ends the training.
        window: iterations; fewer where ``iteration`` is less.
        interval: iterations between two looks at losses on a GPU, which must finish its queue for each; on a CPU
            every loss is looked at. No checkpoint is saved after a loss that was not.

    Raises:
        ValueError: one of ``iteration`` and ``loss_above`` without the other, or out of range.
    """

    def __init__(
        self, iteration: int | None = None, loss_above: float | None = None, window: int = 50, interval: int = 20
    ) -> None:
        if (iteration is None) != (loss_above is None):
            raise ValueError(f"expected both iteration and loss_above, got {iteration} and {loss_above}.")
        for name, value in (("iteration", iteration), ("window", window), ("interval", interval)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"expected {name} to be an integer >= 1, got {value!r}.")
        if loss_above is not None and not (isinstance(loss_above, (int, float)) and math.isfinite(loss_above)):
            raise ValueError(f"expected loss_above to be a number, got {loss_above!r}.")
        self.iteration, self.interval = iteration, interval
        self.loss_above = math.inf if loss_above is None else loss_above
        self._unread: list[torch.Tensor] = []
        self._recent: deque[float] = deque(maxlen=window)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Read the loss, or keep it until it is read.

        Raises:
            DivergedError: the training has failed.
        """
        loss, iteration = outputs["loss"].detach(), runner.iter + 1
        self._unread.append(loss)
        on_time = loss.device.type == "cpu" or iteration % self.interval == 0 or iteration == self.iteration
        if on_time or _saves_after_iteration(runner):
            self._read(iteration)

    def after_train_epoch(self, runner: Runner) -> None:
        """Read the losses that are left."""
        self._read(runner.iter)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the last losses, so that a resumed training is judged like an undisturbed one."""
        checkpoint["recent_losses"] = list(self._recent)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore the losses before the checkpoint."""
        self._recent.extend(checkpoint.get("recent_losses", []))

    def _read(self, last: int) -> None:
        if not self._unread:
            return
        losses, self._unread = torch.stack(self._unread).double(), []
        all_reduce(losses, op="mean")  # every process comes to the same conclusion
        for iteration, loss in enumerate(losses.tolist(), last - len(losses) + 1):
            if not math.isfinite(loss):
                raise DivergedError(
                    f"the loss of iteration {iteration} is {loss}: the training diverged. A lower learning rate, a "
                    f"longer warm-up or gradient clipping may help; change it for all variants."
                )
            self._recent.append(loss)
            if iteration == self.iteration:
                mean = sum(self._recent) / len(self._recent)
                if mean > self.loss_above:
                    raise DivergedError(
                        f"stop_if: the mean loss of the {len(self._recent)} iterations up to {iteration} is "
                        f"{mean:.4g}, above {self.loss_above:g}."
                    )


class InputSizeHook(Hook):
    """Hook that counts the input sizes of the network in a test, which padding and sliding windows decide."""

    def __init__(self) -> None:
        self._sizes: Counter[tuple[int, int]] = Counter()

    @property
    def size(self) -> tuple[int, int]:
        """The most frequent one, (h, w)."""
        return self._sizes.most_common(1)[0][0]

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count the images of a batch."""
        for image, sample in zip(data_batch["inputs"], outputs, strict=True):
            padded = "img_padding_size" in sample.metainfo  # by the preprocessor
            height, width = sample.metainfo["pad_shape"] if padded else image.shape[-2:]
            window = runner.cfg.model.get("test_cfg") or {}
            if window.get("mode") == "slide":
                height, width = (min(n, crop) for n, crop in zip((height, width), window["crop_size"], strict=True))
            self._sizes[int(height), int(width)] += 1


def _saves_after_iteration(runner: Runner) -> bool:
    return any(
        hook.every_n_train_iters(runner, hook.interval, hook.save_begin)
        or (hook.save_last and hook.is_last_train_iter(runner))
        for hook in _checkpoint_hooks(runner)
        if not hook.by_epoch
    )


def _saves_after_epoch(runner: Runner) -> bool:
    return any(
        hook.every_n_epochs(runner, hook.interval, hook.save_begin)
        or (hook.save_last and hook.is_last_train_epoch(runner))
        for hook in _checkpoint_hooks(runner)
        if hook.by_epoch
    )


def _checkpoint_hooks(runner: Runner) -> list[CheckpointHook]:
    return [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]


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
