"""One run in this process: train, evaluate, and write all files of its directory."""

import contextlib
import functools
import gc
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_distributed, is_main_process
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.utils import import_modules_from_strings
from mmengine.visualization import Visualizer

from mmseg_resample import launch
from mmseg_resample.evaluation.confusion import scores
from mmseg_resample.evaluation.per_image import read_counts

from . import records
from .audit import predicted_shift
from .evaluators import evaluator_configs
from .hooks import DivergenceHook, ExactWeightsHook, InputSizeHook, ProgressHook, RandomStateHook
from .messages import Progress
from .plan import METRICS, Evaluation, Run


def perform(run: Run, root: Path, report: Callable[[Progress], None], git: Mapping[str, Any] | None = None) -> None:
    """Train and evaluate ``run`` as far as that is left to do, from its last complete checkpoint on.

    Called in every process of a distributed run: the first one decides and records.

    Args:
        run: a run of the study.
        root: directory of the study.
        report: called with the progress now and then, in the first process.
        git: commit of the project, stored with the environment.
    """
    files = records.RunFiles(root / run.directory)
    first = is_main_process()
    if "custom_imports" in run.config:  # reading a config imports them; this one may come from another process
        import_modules_from_strings(**run.config.custom_imports)
    # A killed study may leave a worker that has not noticed yet: wait until it is gone.
    with records.exclusive(files.path / ".lock", wait=True) if first else contextlib.nullcontext():
        if _decide_in_first_process(lambda: records.is_finished(run, root)):  # by that worker
            return
        _reset_peak_memory()
        checkpoint = _decide_in_first_process(lambda: _begin(run, files, git))
        if checkpoint is None or not _decide_in_first_process(functools.partial(records.is_trained, files)):
            with _isolated():
                checkpoint = _train(run.config, files, checkpoint, report)
        for evaluation in run.evaluations:
            if not _decide_in_first_process(functools.partial(records.is_evaluated, evaluation, files)):
                with _isolated():
                    _evaluate(evaluation, files, checkpoint, report)
        if first:
            records.finish(run, files)
            for path in _checkpoints(files.work_dir):
                if path != checkpoint:
                    path.unlink()


def _begin(run: Run, files: records.RunFiles, git: Mapping[str, Any] | None) -> Path | None:
    records.begin_attempt(run, files, git)
    checkpoint = newest_checkpoint(files.work_dir)
    if checkpoint is None or not records.is_trained(files):
        records.discard_results(files)
    return checkpoint


def _decide_in_first_process(decide: Callable[[], Any]) -> Any:
    """Return in all processes what the first one decides."""
    answer = [decide() if is_main_process() else None]
    broadcast_object_list(answer)
    return answer[0]


def newest_checkpoint(directory: Path) -> Path | None:
    """Return the newest complete checkpoint in ``directory``, and remove incomplete ones.

    mmengine writes a checkpoint in place and notes its name in a second file, so a kill can leave half a checkpoint
    and a note that names one that is gone.
    """
    for path in _checkpoints(directory):
        if _is_complete(path):
            return path
        print(f"{path.name} is incomplete and is removed.")
        path.unlink()
    return None


def _is_complete(checkpoint: Path) -> bool:
    # Every byte is what was written: torch stores a zip archive, with its table of contents at the end and a checksum
    # for each entry. Unlike loading it, this tells half a file from one with a type that may not be loaded.
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, EOFError, RuntimeError):  # the last one for a kind of entry that there is not
        return False


def _checkpoints(directory: Path) -> list[Path]:
    """List the checkpoints, the newest first."""
    found = [(path, re.fullmatch(r"(?:iter|epoch)_(\d+)\.pth", path.name)) for path in directory.glob("*.pth")]
    numbered = {path: int(match[1]) for path, match in found if match}  # not what a hook or a user saved beside them
    return sorted(numbered, key=numbered.__getitem__, reverse=True)


def _train(
    config: Config, files: records.RunFiles, checkpoint: Path | None, report: Callable[[Progress], None]
) -> Path:
    config = _unformatted(config)
    config.resume = checkpoint is not None
    if checkpoint is not None:
        config.load_from = str(checkpoint)
    progress = ProgressHook(lambda *values: report(Progress("train", *values)))
    divergence = DivergenceHook(**config.get("stop_if", {}))
    runner = _runner(config, files.work_dir, progress, divergence, RandomStateHook())
    loop = runner.train_loop
    try:
        runner.train()
    finally:
        if isinstance(loop, IterBasedTrainLoop):
            # Left to the garbage collector, an endless data loader waits 5 s for each of its processes.
            loop.dataloader_iterator = None
    trained = _decide_in_first_process(lambda: newest_checkpoint(files.work_dir))
    if trained is None:
        raise RuntimeError(f"The training ended without a checkpoint in {files.work_dir}: is CheckpointHook replaced?")
    training = {"iterations": runner.iter, "seconds": round(progress.seconds, 3), **_peak_memory()}
    if is_main_process():
        records.write_json(files.training, training)
    return trained


def _evaluate(
    evaluation: Evaluation, files: records.RunFiles, checkpoint: Path, report: Callable[[Progress], None]
) -> None:
    started = time.perf_counter()
    if is_main_process():
        records.discard_evaluation(evaluation, files)
    config = _unformatted(evaluation.config)
    config.test_evaluator = evaluator_configs(
        evaluation.evaluators, _ignore_index(config), files.counts(evaluation.name)
    )
    if is_distributed():  # mmengine would collect the results in the working directory
        for index, evaluator in enumerate(config.test_evaluator):
            if evaluator.get("collect_device", "cpu") == "cpu":
                evaluator.setdefault("collect_dir", str(files.counts(evaluation.name) / f".collected-{index}"))
    config.train_dataloader = config.train_cfg = config.optim_wrapper = config.param_scheduler = None
    config.resume, config.load_from = False, str(checkpoint)
    progress = ProgressHook(lambda i, n, _: report(Progress(evaluation.name, i, n)))
    inputs = InputSizeHook()
    metrics = _runner(config, files.path / "test" / evaluation.name, progress, inputs, ExactWeightsHook()).test()
    seconds = time.perf_counter() - started
    if is_main_process():
        confusion, classes = read_counts(files.matrices(evaluation.name), "confusion", "classes")
        values = scores(confusion.sum(0))
        overall = {name: values[name] for name in METRICS}  # the evaluator rounds them
        scalars = {name: value for name, value in metrics.items() if isinstance(value, Real)} | overall
        records.write_evaluation(
            files,
            evaluation,
            {
                **{name: _json_number(value) for name, value in overall.items()},
                "IoU": {name: _json_number(value) for name, value in zip(classes.tolist(), values["IoU"], strict=True)},
                "metrics": {name: _json_number(value) for name, value in scalars.items()},
                "images": len(confusion),
                "seconds": round(seconds, 3),
                "audit": predicted_shift(evaluation.config, inputs.size),
            },
        )
    if evaluation.metric not in metrics:
        raise ValueError(
            f"metric: {evaluation.metric!r} is no scalar of the evaluators of the study, which returned "
            f"{', '.join(metrics)}. Name one of these, or add the evaluator that returns it."
        )


def _runner(config: Config, work_dir: Path, *hooks: Any) -> Runner:
    config.work_dir = str(work_dir)
    config.launcher = "none"
    if is_distributed():
        config.launcher = "pytorch"
        launch.set_wrapper_for_cpu(config)
    runner = Runner.from_cfg(config)
    for hook in hooks:
        runner.register_hook(hook)
    return runner


def _unformatted(config: Config) -> Config:
    """Copy the config unformatted: mmengine would format it for every checkpoint, longer than it writes one."""
    return Config(config.to_dict(), format_python_code=False)


def _ignore_index(config: Config) -> int:
    evaluators = config.get("test_evaluator") or {}
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        if "ignore_index" in evaluator:
            return evaluator["ignore_index"]
    return 255  # of mmseg's metrics and losses


@contextlib.contextmanager
def _isolated() -> Iterator[None]:
    """Remove what a Runner leaves in the process, so that the next one finds it as if it were alone."""
    try:
        yield
    finally:
        # mmengine keeps loggers, message hubs, visualizers and scopes by name for ever and has no call to drop them:
        # the next run would log into the files of this one, and every run would stay in memory.
        for logger in MMLogger._instance_dict.values():
            for handler in logger.handlers:
                if hasattr(handler, "baseFilename"):
                    handler.close()
        for kind in (MMLogger, MessageHub, DefaultScope, *_with_subclasses(Visualizer)):
            kind._instance_dict.clear()
        # What a config may switch on and no config switches off.
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = torch.backends.cudnn.benchmark = False
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _with_subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _with_subclasses(child)


def _reset_peak_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):  # Linux: start the high-water mark anew
            Path("/proc/self/clear_refs").write_text("5")


def _peak_memory() -> dict[str, Any]:
    if torch.cuda.is_available():
        return {"peak_memory_bytes": torch.cuda.max_memory_allocated(), "memory": "allocated on the GPU"}
    try:
        match = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return {"peak_memory_bytes": 1024 * int(match[1]) if match else None, "memory": "resident set of the process"}


def _json_number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
