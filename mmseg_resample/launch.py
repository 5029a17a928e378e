"""From command-line arguments to a configured mmengine ``Runner``; what the tools share.

Mistakes that a user can make on the command line raise ``UsageError`` as early as they can be known.
"""

import argparse
import ast
import difflib
import inspect
import numbers
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.dist import init_dist, is_main_process
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader, Runner
from mmengine.utils import get_installed_path, is_installed
from mmseg.registry import DATASETS, RUNNERS

from .ops import Coordinates

__all__ = [
    "KeyValues",
    "UsageError",
    "add_arguments",
    "add_config_arguments",
    "add_policy_argument",
    "build_runner",
    "check_weights",
    "config_from_arguments",
    "dotted_keys",
    "find_config",
    "init_processes",
    "load_config",
    "prepare_test",
    "prepare_training",
    "read_weights",
    "report",
    "require",
    "require_data",
    "run",
    "set_policy",
    "set_wrapper_for_cpu",
    "train",
]

Shapes = dict[str, tuple[int, ...]]

_ACCELERATORS = ("cuda", "musa", "npu", "mlu")  # that mmengine trains on in mixed precision, or on several
_GIVES = {"IoUMetric": "aAcc", "ConfusionMatrixMetric": "aAcc", "DisplacementMetric": "dx"}  # whatever their options
_RUNNER_ARGUMENTS = set(inspect.signature(Runner).parameters)  # may be set although a config does not mention them


class UsageError(Exception):
    """What the command line asks for cannot be done. The message names the value, the rule and the fix."""


# --------------------------------------------------------------------------------------------------------------------
# The command line


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``config`` and ``--cfg-options``."""
    parser.add_argument("config", help="a config file, or one of an installed package: mmseg::pspnet/<name>.py")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=KeyValues,
        metavar="KEY=VALUE",
        help='change settings of the config: train_cfg.max_iters=100 model.decode_head.norm_cfg.type=BN key="[a,b]"',
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what training and testing have in common, under mmseg's names; ``config_from_arguments`` reads it."""
    add_config_arguments(parser)
    parser.add_argument(
        "--work-dir",
        help="folder for logs, checkpoints and metrics (default: the config's, or work_dirs/<config name>)",
    )
    add_policy_argument(parser)
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="what started the processes of a distributed job (default: none, one process)",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help="set by torch.distributed.launch")


def add_policy_argument(parser: argparse.ArgumentParser) -> None:
    """Adds ``--policy``, for ``set_policy``."""
    parser.add_argument(
        "--policy",
        metavar="PIXEL_MODEL",
        help="the pixel model of every resize, whatever the modules say: exact (as tools/audit.py finds it), "
        "True, False (align_corners), or a convention such as asymmetric",
    )


class KeyValues(DictAction):
    """mmengine's option of KEY=VALUE pairs, with a usage message where mmengine raises."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *args: Any) -> None:
        try:
            super().__call__(parser, namespace, values, *args)
        except (AssertionError, ValueError) as error:
            name = "/".join(self.option_strings)
            parser.error(f"argument {name}: expected KEY=VALUE, got {' '.join(values)} ({error})")


def config_from_arguments(args: argparse.Namespace) -> Config:
    """Reads the config that ``add_arguments`` asked for; see ``load_config``."""
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = load_config(args.config, options=args.cfg_options, work_dir=args.work_dir, launcher=args.launcher)
    if args.policy is not None:
        set_policy(cfg, args.policy)
    return cfg


def set_policy(cfg: Config, pixel_model: str) -> None:
    """Puts every resize of ``cfg.model`` under one pixel model, through ``ResampledSegmentor``.

    ``LeanSegmentor`` stays outermost: the policy goes to the segmentor that it wraps.

    Args:
        cfg: from ``load_config``; its ``model`` is changed in place.
        pixel_model: ``exact``, ``True``, ``False``, or a convention that ``ops.resize`` knows.

    Raises:
        UsageError: another word, or the config has a policy already.
    """
    wrapped = cfg.model.get("segmentor")
    if isinstance(wrapped, str) or wrapped is None:
        wrapped = dict(type=wrapped or "EncoderDecoder")
    for given in (cfg.model.get("resize_policy", {}), wrapped.get("resize_policy", {})):
        if given.get("exact") or given.get("rules"):
            raise UsageError(f"--policy {pixel_model}: the config has resize_policy={given}. Keep one of them.")
    flags = {"True": True, "False": False}
    if pixel_model == "exact":
        policy: dict[str, Any] = dict(exact=True)
    elif pixel_model in flags:
        policy = dict(rules=[dict(align_corners=flags[pixel_model])])
    elif pixel_model in get_args(Coordinates):
        policy = dict(rules=[dict(coordinates=pixel_model)])
    else:
        known = ", ".join(get_args(Coordinates))
        raise UsageError(f"--policy {pixel_model}: expected exact, True, False or one of {known}.")
    if cfg.model.type == "LeanSegmentor":
        cfg.model.pop("resize_policy", None)
        cfg.model.segmentor = _under_policy(wrapped, policy)
    else:
        cfg.model.update(_under_policy(cfg.model, policy))


def _under_policy(model: Mapping[str, Any], policy: dict[str, Any]) -> dict[str, Any]:
    stock = {} if model["type"] == "ResampledSegmentor" else dict(segmentor=model["type"])
    return {**model, **stock, "type": "ResampledSegmentor", "resize_policy": policy}


def run(main: Callable[[], int | None]) -> int:
    """Runs a command and returns its exit status: its own or 0, 2 after a ``UsageError``, 130 after Ctrl-C.

    Args:
        main: the command; None is status 0. Any other exception passes through, with its traceback.
    """
    try:
        return main() or 0
    except UsageError as error:
        _say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        _say("interrupted")
        return 130


def _say(text: str) -> None:
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or os.environ.get("OMPI_COMM_WORLD_RANK") or "0"
    if rank == "0":
        print(text, file=sys.stderr, flush=True)


# --------------------------------------------------------------------------------------------------------------------
# The config


def load_config(
    config: str,
    *,
    options: Mapping[str, Any] | None = None,
    work_dir: str | None = None,
    launcher: str = "none",
) -> Config:
    """Reads a config and completes it from the command line.

    Args:
        config: a path, or ``package::path`` for a config of an installed OpenMMLab package.
        options: dotted key to value, merged into the config. A key that the config does not have is added, with a
            warning on stderr that names the nearest one.
        work_dir: where the run writes; default: the config's ``work_dir``, else ``./work_dirs/<config name>``.
        launcher: as in ``Runner``.

    Raises:
        UsageError: no such config, it cannot be read, an option does not fit it, or the launcher has no GPU to use.
    """
    path = find_config(config)
    try:
        cfg = Config.fromfile(path)
    except (ImportError, OSError, SyntaxError) as error:
        raise UsageError(f"config {path} cannot be read: {_reason(error)}") from error
    if options:
        _merge(cfg, options)
    if launcher not in ("none", "pytorch") and get_device() not in _ACCELERATORS:
        raise UsageError(
            f"--launcher {launcher}: mmengine gives every process a GPU, and torch finds none. On the CPU use torchrun "
            f"and --launcher pytorch."
        )
    if launcher == "pytorch" and "RANK" not in os.environ:
        raise UsageError("--launcher pytorch: the command must be started by torchrun, which sets RANK. Drop it.")
    cfg.launcher = launcher
    cfg.work_dir = work_dir or cfg.get("work_dir") or os.path.join("work_dirs", path.stem)
    return cfg


def _reason(error: BaseException) -> str:
    """The message; for an import that mmengine tried, what it did not find instead of where it looked."""
    message, _, _ = str(error).partition(", the current sys.path is")
    cause: BaseException | None = error
    while isinstance(cause, ImportError):
        innermost, cause = cause, cause.__cause__ or cause.__context__
    return message if not isinstance(error, ImportError) or innermost is error else f"{message}: {innermost}"


def find_config(config: str) -> Path:
    """The file of a config given as a path or as ``package::path`` (``.py`` may be left out).

    Raises:
        UsageError: there is no such file; the message suggests names that are there.
    """
    package, separator, name = config.rpartition("::")
    if separator and not is_installed(package):
        raise UsageError(f"{config}: the package {package!r} is not installed; `mmseg` is, try mmseg::{name}.")
    path = Path(get_installed_path(package), ".mim", "configs", name) if separator else Path(config)
    if separator and not path.suffix:
        path = path.with_suffix(".py")
    if path.is_file():
        return path
    raise UsageError(f"config {config}: there is no file {path}.{_suggest_file(path)}")


def _suggest_file(path: Path) -> str:
    if path.is_dir():
        return " It is a folder."
    folder = next(parent for parent in path.parents if parent.is_dir())
    missing = path.relative_to(folder).parts[0]
    close = difflib.get_close_matches(missing, sorted(os.listdir(folder)), n=3, cutoff=0.6)
    return f" Did you mean {', or '.join(close)}?" if close else f" Nothing in {folder.resolve()} is called {missing}."


def _merge(cfg: Config, options: Mapping[str, Any]) -> None:
    keys = list(dotted_keys(cfg.to_dict()))
    for option in options:
        if option not in keys and option.split(".")[0] not in _RUNNER_ARGUMENTS - set(keys):
            nearest = _nearest(option, keys)
            hint = f" Did you mean {nearest}?" if nearest else ""
            _say(f"warning: --cfg-options: the config has no {option}, so it is added.{hint}")
    try:
        cfg.merge_from_dict(dict(options))
    except (KeyError, TypeError) as error:
        raise UsageError(f"--cfg-options {' '.join(options)}: {error.args[0]}") from error


def dotted_keys(node: Any) -> Iterator[str]:
    """The dotted keys of nested dicts and lists, as ``--cfg-options`` and the axes of a study write them."""
    return (key for key, _ in _dotted_items(node))


def _dotted_items(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        yield f"{prefix}{key}", value
        yield from _dotted_items(value, f"{prefix}{key}.")


def _nearest(option: str, keys: Sequence[str]) -> str | None:
    """The key with the most similar spelling that ends alike (max_iters: train_cfg.max_iters) or begins alike."""
    parent, _, name = option.rpartition(".")
    namesakes = [key for key in keys if key.rpartition(".")[2] == name]
    siblings = [key for key in keys if key.rpartition(".")[0] == parent]
    near = difflib.get_close_matches(name, [key.rpartition(".")[2] for key in siblings], n=1)
    close = difflib.get_close_matches(option, namesakes, n=1, cutoff=0) if namesakes else []
    return close[0] if close else f"{parent}.{near[0]}".lstrip(".") if near else None


# --------------------------------------------------------------------------------------------------------------------
# Training


def prepare_training(cfg: Config, *, amp: bool = False, resume: bool = False) -> None:
    """Completes a config for training, in place.

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
    _check_metrics(cfg, "val_evaluator")
    wrapper = cfg.optim_wrapper
    if amp and wrapper.get("type", "OptimWrapper") != "AmpOptimWrapper":
        if wrapper.get("type", "OptimWrapper") != "OptimWrapper":
            raise UsageError(f"--amp works with an optim_wrapper of type OptimWrapper; the config has {wrapper.type}.")
        wrapper.type = "AmpOptimWrapper"
        wrapper.loss_scale = "dynamic"
    if wrapper.get("type") == "AmpOptimWrapper" and get_device() not in _ACCELERATORS:
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
            _say(f"warning: --resume: nothing to resume in {cfg.work_dir}, the training starts from the beginning.")
            return
        checkpoint = pointer.read_text().strip() or str(pointer)  # empty if the job was killed while writing it
    try:
        read_weights(checkpoint)
    except UsageError as error:
        raise UsageError(
            f"--resume: {error} To resume from another one: --resume --cfg-options load_from=<checkpoint>."
        ) from error


def train(runner: Runner) -> dict[str, Any]:
    """Trains and returns the metrics of the last validation with the iteration it ran at; {} if none ran."""
    validation = _LastValidation()
    runner.register_hook(validation, priority="LOWEST")
    runner.train()
    return validation.metrics


class _LastValidation(Hook):
    def __init__(self) -> None:
        self.metrics: dict[str, Any] = {}

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.metrics = {"iter": runner.iter, **(metrics or {})}


# --------------------------------------------------------------------------------------------------------------------
# Testing


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
    """Completes a config for testing, in place, and reads the checkpoint before anything is built.

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
    _check_metrics(cfg, "test_evaluator")
    model = cfg.to_dict()["model"]
    if show or show_dir:
        require(cfg, "showing predictions", "default_hooks.visualization", "visualizer")
        cfg.default_hooks.visualization.update(draw=True, interval=1, show=show, wait_time=wait_time)
        if show_dir:
            cfg.visualizer.save_dir = show_dir
    if tta:
        require(cfg, "--tta", "tta_pipeline", "tta_model")
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.model = {**cfg.tta_model, "module": cfg.model}
    if out:
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        writers = [evaluator for evaluator in evaluators if evaluator.type in ("IoUMetric", "CityscapesMetric")]
        if not writers:
            raise UsageError("--out: no metric of the config writes predictions; IoUMetric and CityscapesMetric do.")
        for evaluator in writers:
            evaluator.update(output_dir=out, keep_results=True)
    cfg.load_from = checkpoint
    cfg.resume = False
    content = _read(checkpoint)
    _compare_geometry(model, content, checkpoint)
    return _shapes(content)


def read_weights(checkpoint: str) -> Shapes:
    """The shape of each weight in a checkpoint, by the name under which mmengine loads it.

    Raises:
        UsageError: there is no such file, or it is not a checkpoint, is truncated, or holds objects that torch refuses.
    """
    return _shapes(_read(checkpoint))


def _shapes(content: Mapping[str, Any]) -> Shapes:
    weights = content.get("state_dict", content)
    return {re.sub(r"^module\.", "", key): tuple(getattr(value, "shape", ())) for key, value in weights.items()}


def _read(checkpoint: str) -> Mapping[str, Any]:
    if "://" not in checkpoint and not Path(checkpoint).is_file():
        raise UsageError(f"checkpoint {checkpoint}: no such file.{_suggest_file(Path(checkpoint))}")
    try:
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location="cpu", logger="silent")
        _shapes(content)
        return content
    except Exception as error:  # whatever a broken file makes torch raise
        refused = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
        if refused:
            raise UsageError(
                f"checkpoint {checkpoint}: it holds a {refused[1]}, and torch runs no code from a checkpoint. If you "
                f"trust the file, import a module that calls torch.serialization.add_safe_globals([{refused[1]}]) in "
                f"custom_imports of the config."
            ) from error
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UsageError(f"checkpoint {checkpoint}: not a checkpoint, or truncated ({reason:.120}).") from error


def _compare_geometry(model: Mapping[str, Any], content: Mapping[str, Any], checkpoint: str) -> None:
    """Warns if ``model`` reads its features at other positions than the model that the checkpoint was trained as."""
    meta = content.get("meta")
    trained = _stored_model(meta.get("cfg") if isinstance(meta, Mapping) else None)
    if trained is None:
        return
    before, now = _geometry(trained), _geometry(model)
    keys = [key for key in {**before, **now} if (before.get(key) or None) != (now.get(key) or None)]
    if keys:
        differences = ", ".join(f"{key}={before.get(key)} (now {now.get(key)})" for key in keys)
        _say(f"warning: checkpoint {checkpoint}: trained with {differences}.")


def _stored_model(text: Any) -> Mapping[str, Any] | None:
    """``model`` of a config as mmengine stores it in checkpoints, without running any of it; None if there is none."""
    try:
        tree = ast.parse(text if isinstance(text, str) else "")
    except (SyntaxError, ValueError):
        return None
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "model":
            model = _literal(node.value)
            return model if isinstance(model, dict) else None
    return None


def _literal(node: ast.expr) -> Any:
    """The value of nested literals and calls of ``dict``; None for any other expression."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        (first, *_) = [_literal(argument) for argument in node.args] or [None]
        return {**(first or {}), **{item.arg: _literal(item.value) for item in node.keywords}}
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {ast.literal_eval(key): _literal(value) for key, value in pairs if isinstance(key, ast.Constant)}
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _geometry(model: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model that decide where its features are read. Wrappers that change nothing are left out."""
    model = dict(model)
    if _type_name(model) == "LeanSegmentor":
        below = model.pop("segmentor", "EncoderDecoder")
        model.update(below if isinstance(below, Mapping) else dict(type=below))
    segmentor, policy = _type_name(model), {}
    if segmentor == "ResampledSegmentor":
        segmentor, policy = model.get("segmentor", "EncoderDecoder"), model.pop("resize_policy", {})
    active = {key: _as_lists(value) for key, value in policy.items() if value}
    found = {"model.type": segmentor, "model.resize_policy": active if active.keys() & {"exact", "rules"} else None}
    settings = {f"model.{key}": value for key, value in _dotted_items(model)}
    return found | {
        key: settings[key] for key in settings if key.rpartition(".")[2] in ("align_corners", "coordinates")
    }


def _type_name(model: Mapping[str, Any]) -> str:
    kind = model.get("type")
    return getattr(kind, "__name__", str(kind)).rpartition(".")[2]  # configs of mmengine's new style have classes


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, list | tuple) else value


def check_weights(runner: Runner, weights: Shapes, checkpoint: str) -> None:
    """Refuses a checkpoint that lacks weights of the model; mmengine would log a warning and test random ones.

    Weights are parameters and floating-point buffers. What a test does not use may be missing: the counters of batch
    norms and the auxiliary heads. Weights that the model lacks are left out, with a warning on stderr.

    Args:
        runner: with the model, before it loads.
        weights: from ``read_weights`` or ``prepare_test``.
        checkpoint: its name, for messages.

    Raises:
        UsageError: a weight of the model is missing in the checkpoint, or has another shape there.
    """
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    state = {key: value for key, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    expected = {key: tuple(value.shape) for key, value in state.items() if value.is_floating_point()}
    missing = {key: shape for key, shape in expected.items() if key not in weights}
    unused = {key: shape for key, shape in weights.items() if key not in state and shape}
    idle = {key for key in expected if key.startswith("auxiliary_head.")}
    other = {key: shape for key, shape in expected.items() if weights.get(key, shape) != shape}
    if missing.keys() - idle or other.keys() - idle:
        raise UsageError(
            f"checkpoint {checkpoint}: {len(missing) + len(other)} of the {len(expected)} weights of the model "
            f"cannot be loaded from it, and would be random."
            + (f"\n  {len(missing)} missing: {_sample(missing)}" if missing else "")
            + (f"\n  {len(other)} of another shape: {_sample(other, weights)}" if other else "")
            + (f"\n  {len(unused)} that only the checkpoint has: {_sample(unused)}" if unused else "")
            + "\nUse the config it was trained with."
        )
    if missing or other:
        _say(
            f"warning: checkpoint {checkpoint}: {len(missing) + len(other)} weights of auxiliary heads are not in it; "
            f"a test does not use them."
        )
    if unused:
        _say(f"warning: checkpoint {checkpoint}: {len(unused)} left out, not in the model: {_sample(unused)}.")


def _sample(shapes: Shapes, found: Shapes | None = None) -> str:
    """The first of them, each with the shape that was found in the checkpoint instead, if any."""
    first = [
        f"{key} {shape}" + (f" in the model, {found[key]} in the checkpoint" if found else "")
        for key, shape in list(shapes.items())[:3]
    ]
    return "; ".join([*first, "..."] if len(shapes) > 3 else first)


# --------------------------------------------------------------------------------------------------------------------
# Both


def init_processes() -> None:
    """Connects the processes that torchrun started: over gloo on the CPU, where mmengine asks for GPUs, else NCCL."""
    if get_device() in _ACCELERATORS:
        init_dist("pytorch")
    else:
        torch.distributed.init_process_group("gloo")


def set_wrapper_for_cpu(cfg: Config) -> None:
    """Sets ``model_wrapper_cfg`` for a distributed run on the CPU, in place; GPUs need none.

    Raises:
        UsageError: the model synchronizes batch statistics, which torch can on GPUs only.
    """
    if get_device() in _ACCELERATORS:
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
    """The ``Runner`` of a config, or what its ``runner_type`` names. Its log says if resizes are changed, or lean."""
    if cfg.launcher == "pytorch" and get_device() not in _ACCELERATORS:
        set_wrapper_for_cpu(cfg)
        init_processes()
    runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
    for line in _in_force(runner.model):
        runner.logger.info(line)
    return runner


def _in_force(model: torch.nn.Module) -> Iterator[str]:
    """What changes the resizes of a model and how it computes, a line each."""
    for module in model.modules():
        policy = getattr(module, "resize_policy", None)
        if policy is not None:
            exact = [rule for rule in policy.rules if rule.coordinates == "exact"]
            counts = ", ".join(f"{len(sites)} {what}" for what, sites in policy.report().items() if sites)
            rules = len(policy.rules) - len(exact)
            parts = [f"{rules} rule{'s' * (rules > 1)}"] * (rules > 0) + [f"resizes: {counts}"] * bool(exact)
            yield f"ResizePolicy is in force, {', '.join(parts)}"
    lean = [module.lean for module in model.modules() if is_dataclass(getattr(module, "lean", None))]
    switches = [field.name for field in fields(lean[0]) if all(getattr(of, field.name) for of in lean)] if lean else []
    if switches:
        yield f"LeanSegmentor is in force: {', '.join(switches)}"


def report(runner: Runner, metrics: Mapping[str, Any]) -> None:
    """Prints where the results are and what the metrics were, in the first process."""
    if is_main_process():
        values = [f"{name} {value:.6g}" for name, value in metrics.items() if isinstance(value, numbers.Real)]
        print(f"work_dir: {runner.work_dir}\nmetrics: {'  '.join(values) or 'none were computed'}")


def require(cfg: Config, purpose: str, *keys: str) -> None:
    """Refuses a config that lacks a dotted key.

    Raises:
        UsageError: names the missing keys and the ``purpose`` that needs them.
    """
    known = set(dotted_keys(cfg.to_dict()))
    missing = [key for key in keys if key not in known]
    if missing:
        raise UsageError(f"{purpose} needs {', '.join(missing)} in the config, which does not have it.")


def _check_metrics(cfg: Config, key: str) -> None:
    """Refuses metrics that are known to give equal names, which mmengine refuses when all images are done."""
    seen: dict[Any, str] = {}
    for evaluator in cfg.get(key) if isinstance(cfg.get(key), list | tuple) else [cfg.get(key) or {}]:
        kind = _type_name(evaluator)
        name, prefix = _GIVES.get(kind), evaluator.get("prefix")
        if name is not None and (name, prefix) in seen:
            raise UsageError(
                f"{key}: {seen[name, prefix]} and {kind} both give {name}, and mmengine takes each name once. Give one "
                f"of them a prefix, such as dict(type={kind!r}, prefix='second')."
            )
        seen[name, prefix] = kind


def require_data(cfg: Config, *loaders: str) -> None:
    """Refuses a config whose images are not where it says. Only local files are looked for.

    Args:
        cfg: from ``load_config``.
        loaders: the keys of its data loaders; those that it does not set are skipped.

    Raises:
        UsageError: names a folder that is missing, and every ``data_root`` to set.
    """
    missing: dict[str, Path] = {}
    how_to_get = ""
    for loader in loaders:
        for key, dataset in [(loader, cfg.get(loader)), *_dotted_items(cfg.get(loader), f"{loader}.")]:
            folder = _image_folder(dataset)
            if folder is not None and not folder.exists():
                missing[key] = folder
                how_to_get = getattr(DATASETS.get(str(dataset["type"])), "HOW_TO_GET", how_to_get)
    if missing:
        key, folder = next(iter(missing.items()))
        settings = " ".join(f"{key}.data_root=<folder>" for key in missing)
        raise UsageError(
            f"{key}: there is no {folder}. Put the data there, or say where it is: --cfg-options {settings}."
            + (f"\n{how_to_get}" if how_to_get else "")
        )


def _image_folder(dataset: Any) -> Path | None:
    """Where the images of a data set's config are, if it is one that reads local files."""
    if not isinstance(dataset, Mapping) or not isinstance(dataset.get("data_root"), str) or "type" not in dataset:
        return None
    folder = os.path.join(dataset["data_root"], (dataset.get("data_prefix") or {}).get("img_path") or "")
    remote = (dataset.get("backend_args") or {}).get("backend", "local") != "local" or re.match(r"\w{2,}:", folder)
    return None if remote else Path(folder)
