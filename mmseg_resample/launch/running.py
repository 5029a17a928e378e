"""From a config to a ``Runner`` of mmengine: what a training and a test need, distributed or not."""

import numbers
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import init_dist, is_distributed, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import RUNNERS

from .checkpoints import Shapes, compare_geometry, read_checkpoint, shapes_of
from .command_line import require_folder
from .configs import ACCELERATORS, check_metrics, require, type_name
from .messages import UsageError, say


def prepare_training(cfg: Config, *, amp: bool = False, resume: bool = False) -> None:
    """Complete a config for training, in place.

    Args:
        cfg: from ``load_config``.
        amp: train in mixed precision.
        resume: go on from ``load_from`` of the config, else from the last checkpoint in the work directory. Where
            there is none the run starts from the beginning, as mmengine does, and says so on stderr.

    Raises:
        UsageError: the config does not describe a training, two of its metrics have equal names, AMP without a GPU or
            with a special optimizer wrapper, or the checkpoint to resume from cannot be read.
    """
    require(cfg, "training", "model", "train_dataloader", "train_cfg", "optim_wrapper")
    check_metrics(cfg, "val_evaluator")
    _require_folders({"work_dir": cfg.get("work_dir")})
    wrapper = cfg.optim_wrapper
    if amp and wrapper.get("type", "OptimWrapper") != "AmpOptimWrapper":
        if wrapper.get("type", "OptimWrapper") != "OptimWrapper":
            raise UsageError(f"--amp works with an optim_wrapper of type OptimWrapper; the config has {wrapper.type}.")
        wrapper.type = "AmpOptimWrapper"
        wrapper.loss_scale = "dynamic"
    if wrapper.get("type") == "AmpOptimWrapper" and get_device() not in ACCELERATORS:
        asked = "--amp" if amp else f"optim_wrapper of type {wrapper.type}"
        raise UsageError(f"{asked}: mixed precision needs a GPU, and torch finds none. Train without, in float32.")
    if resume or cfg.get("resume"):
        cfg.resume = True
        _check_resume(cfg)


def _check_resume(cfg: Config) -> None:
    checkpoint = cfg.get("load_from")
    if not checkpoint:
        pointer = Path(cfg.work_dir, "last_checkpoint")
        if not pointer.is_file():
            say(f"warning: --resume: nothing to resume in {cfg.work_dir}, the training starts from the beginning.")
            return
        checkpoint = pointer.read_text().strip() or str(pointer)  # empty if the job was killed while writing it
    try:
        content = read_checkpoint(checkpoint)
        meta = content.get("meta")
        missing = [f"meta.{key}" for key in ("epoch", "iter") if not isinstance(meta, Mapping) or key not in meta]
        missing += ["message_hub"] * ("message_hub" not in content)
        if missing:
            raise UsageError(
                f"checkpoint {checkpoint}: it has weights, but no training to go on with "
                f"({', '.join(missing)} missing). To start from its weights, leave --resume out and set load_from."
            )
    except UsageError as error:
        raise UsageError(
            f"--resume: {error} To resume from another one: --resume --cfg-options load_from=<checkpoint>."
        ) from error


def run_training(runner: Runner) -> dict[str, Any]:
    """Train, and return the metrics of the last validation with the iteration it ran at; {} if none ran."""
    validation = _LastValidation()
    runner.register_hook(validation, priority="LOWEST")
    runner.train()
    return validation.metrics


class _LastValidation(Hook):
    """Hook that keeps the metrics of the last validation."""

    def __init__(self) -> None:
        self.metrics: dict[str, Any] = {}

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.metrics = {"iter": runner.iter, **(metrics or {})}


def prepare_test(
    cfg: Config,
    checkpoint: str,
    *,
    out: str | None = None,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2.0,
    tta: bool = False,
) -> Shapes:
    """Complete a config for testing, in place, and read the checkpoint before anything is built.

    Where the config that the checkpoint stores has another pixel model, a warning on stderr says in what they differ.

    Args:
        cfg: from ``load_config``.
        checkpoint: a path or a URL.
        out: folder for the predicted label maps of the IoU metrics.
        show: open a window with each prediction.
        show_dir: folder for a painted image of each prediction, in ``vis_data/vis_image``.
        wait_time: seconds that a window stays open.
        tta: average over the config's ``tta_pipeline``.

    Returns:
        The shape of each weight in the checkpoint, for ``check_weights``.

    Raises:
        UsageError: the config does not describe a test, lacks what an option needs, has two metrics of equal names,
            or the checkpoint is unreadable.
    """
    require(cfg, "testing", "model", "test_dataloader", "test_cfg", "test_evaluator")
    check_metrics(cfg, "test_evaluator")
    _require_folders({"work_dir": cfg.get("work_dir"), "--out": out, "--show-dir": show_dir})
    model = cfg.to_dict()["model"]
    if show or show_dir:
        require(cfg, "showing predictions", "default_hooks.visualization", "visualizer")
        cfg.default_hooks.visualization.update(draw=True, interval=1, show=show, wait_time=wait_time)
        if show_dir:
            cfg.visualizer.save_dir = show_dir
    if tta:
        require(cfg, "--tta", "tta_pipeline", "tta_model")
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        average = {**cfg.tta_model, "module": cfg.model}
        cfg.model = average | ({"type": "TTASegmentor"} if type_name(average) == "SegTTAModel" else {})
    if out:
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        writers = [evaluator for evaluator in evaluators if evaluator.type in ("IoUMetric", "CityscapesMetric")]
        if not writers:
            raise UsageError("--out: no metric of the config writes predictions; IoUMetric and CityscapesMetric do.")
        for evaluator in writers:
            evaluator.update(output_dir=out, keep_results=True)
    cfg.load_from = checkpoint
    cfg.resume = False
    content = read_checkpoint(checkpoint)
    compare_geometry(model, content, checkpoint)
    return shapes_of(content)


def _require_folders(folders: Mapping[str, str | None]) -> None:
    for option, folder in folders.items():
        if folder:
            require_folder(option, folder)


def init_processes() -> None:
    """Connect the processes that torchrun started: over gloo on the CPU, where mmengine asks for GPUs, else NCCL."""
    if get_device() in ACCELERATORS:
        init_dist("pytorch")
    else:
        torch.distributed.init_process_group("gloo")


def set_wrapper_for_cpu(cfg: Config) -> None:
    """Set ``model_wrapper_cfg`` for a distributed run on the CPU, in place; GPUs need none.

    Raises:
        UsageError: the model synchronizes batch statistics, which torch can on GPUs only.
    """
    if get_device() in ACCELERATORS:
        return
    if "'SyncBN'" in str(cfg.model.to_dict()):
        raise UsageError("distributed on the CPU: SyncBN needs GPUs. Set norm_cfg.type=BN: statistics of each process.")
    given = cfg.get("model_wrapper_cfg") or dict(
        type="MMDistributedDataParallel",
        broadcast_buffers=False,  # as mmengine has it
        find_unused_parameters=cfg.get("find_unused_parameters", False),
    )
    cfg.model_wrapper_cfg = {**given, "device_ids": None}


def build_runner(cfg: Config) -> Runner:
    """Build the ``Runner`` of a config, or what its ``runner_type`` names, and log what changes its resizes."""
    if cfg.launcher == "pytorch" and get_device() not in ACCELERATORS:
        set_wrapper_for_cpu(cfg)
        if not is_distributed():  # by an earlier runner of this process, as mmengine has it
            init_processes()
    runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
    for line in _in_force(runner.model):
        runner.logger.info(line)
    return runner


def _in_force(model: torch.nn.Module) -> Iterator[str]:
    """Describe what changes the resizes of a model and how it computes, a line each."""
    for module in model.modules():
        policy = getattr(module, "resize_policy", None)
        if policy is not None:
            exact = [rule for rule in policy.rules if rule.coordinates == "exact"]
            counts = ", ".join(f"{len(sites)} {what}" for what, sites in policy.report().items() if sites)
            rules = len(policy.rules) - len(exact)
            parts = [f"{rules} rule{'s' * (rules > 1)}"] * (rules > 0) + [f"resizes: {counts}"] * bool(exact)
            parts += ["fast resizes"] * policy.fast_resize
            yield f"ResizePolicy is in force, {', '.join(parts)}"
    lean: list[Any] = [module.lean for module in model.modules() if is_dataclass(getattr(module, "lean", None))]
    switches = [field.name for field in fields(lean[0]) if all(getattr(of, field.name) for of in lean)] if lean else []
    if switches:
        yield f"LeanSegmentor is in force: {', '.join(switches)}"


def report(runner: Runner, metrics: Mapping[str, Any]) -> None:
    """Print where the results are and what the metrics were, in the first process."""
    if is_main_process():
        values = [f"{name} {value:.6g}" for name, value in metrics.items() if isinstance(value, numbers.Real)]
        print(f"work_dir: {runner.work_dir}\nmetrics: {'  '.join(values) or 'none were computed'}")
