"""Faster training and tests, equally for all variants of a study.

The first part of ``apply`` changes no result, bit for bit. The second part are the options of a study.
"""

import contextlib
import functools
import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook, LoggerHook, RuntimeInfoHook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmseg.models.losses import accuracy
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode

from mmseg_resample.datasets.wrapped import walk
from mmseg_resample.grids.network import named_tensors

OPTIONS: Mapping[str, Any] = {
    "amp": None,
    "channels_last": False,
    "compile": False,
    "fold_norms": False,
    "cache": True,
}
"""The options and their defaults, under which every result is that of the plain config, bit for bit."""

_LOADERS = ("LoadImageFromFile", "LoadAnnotations", "LoadShapes", "Resize", "AlignedResize")
_PIPELINES = ("train_dataloader", "val_dataloader", "test_dataloader")


def apply(config: Config, options: Mapping[str, Any]) -> None:
    """Set hooks and options in ``config`` that make its training and its test faster, in place.

    Args:
        config: of mmseg, to train or to test.
        options: ``amp``: None, ``"bfloat16"`` or ``"float16"``, train in mixed precision, on a GPU; tests stay in
            float32. ``channels_last``: weights and images in that memory format. ``compile``: True, or the arguments of
            ``torch.compile``. ``fold_norms``: test with the batch norms folded into the convolutions before them, which
            a test checks on its first images. ``cache``: read decoded samples from memory, see ``CachedLoading``.

    Raises:
        ValueError: an option is unknown or has another value, or AMP meets an optimizer wrapper of another type.
    """
    options = complete_options(options)
    _import(config, "mmseg_resample")
    _import(config, __name__)
    hooks = config.get("default_hooks") or {}
    if (hooks.get("runtime_info") or {"type": "RuntimeInfoHook"}) == {"type": "RuntimeInfoHook"}:
        config.default_hooks = {**hooks, "runtime_info": {"type": "LeanInfoHook"}}
    _add_hook(config, "FastArgmaxHook")
    if options["cache"]:
        for name in _PIPELINES:
            if config.get(name):
                _cache(config[name].dataset)
    if options["amp"] and config.get("optim_wrapper"):
        _mix_precision(config, options["amp"])
    if options["fold_norms"]:
        _add_hook(config, "FoldNormsHook")
    if options["channels_last"]:
        _add_hook(config, "ChannelsLastHook")
    if options["compile"]:
        config.compile = options["compile"]
        _add_hook(config, "FreshCompilerHook")


def complete_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check the options, and complete them by the defaults.

    Raises:
        ValueError: an option is unknown or has another value.
    """
    for name, value in options.items():
        if name not in OPTIONS:
            raise ValueError(f"speed: {name!r} is not an option. Known: {', '.join(OPTIONS)}.")
        if name == "amp":
            if value not in (None, "bfloat16", "float16"):
                raise ValueError(f"speed: amp: expected None, 'bfloat16' or 'float16', got {value!r}.")
        elif not isinstance(value, bool) and not (name == "compile" and isinstance(value, Mapping)):
            also = ", or a dict of arguments of torch.compile" if name == "compile" else ""
            raise ValueError(f"speed: {name}: expected True or False{also}, got {value!r}.")
    return {**OPTIONS, **options}


def _import(config: Config, module: str) -> None:
    imports = config.get("custom_imports") or {"imports": [], "allow_failed_imports": False}
    names = [imports["imports"]] if isinstance(imports["imports"], str) else list(imports["imports"])
    if module not in names:
        config.custom_imports = {**imports, "imports": [*names, module]}


def _add_hook(config: Config, name: str) -> None:
    hooks = config.get("custom_hooks") or []
    if {"type": name} not in hooks:
        config.custom_hooks = [*hooks, {"type": name}]


def _mix_precision(config: Config, dtype: str) -> None:
    wrapper = config.optim_wrapper
    if wrapper.get("type", "OptimWrapper") not in ("OptimWrapper", "AmpOptimWrapper"):
        raise ValueError(f"speed: amp={dtype!r} needs an optim_wrapper of type OptimWrapper, got {wrapper.type}.")
    # bfloat16 has the range of float32: gradients need no scaling, and a scaler looks for overflows at every step.
    loss_scale = "dynamic" if dtype == "float16" else {"enabled": False}
    config.optim_wrapper = {**wrapper, "type": "AmpOptimWrapper", "dtype": dtype, "loss_scale": loss_scale}


# --------------------------------------------------------------------------------------------------------------------
# Samples


def _cache(dataset: Any) -> None:
    """Let ``CachedLoading`` do the first steps of the pipelines in ``dataset``, which may wrap others."""
    for _, config in walk(dataset):
        pipeline = config.get("pipeline") or []
        count = next((i for i, transform in enumerate(pipeline) if not _loads(transform)), len(pipeline))
        if count:
            # A LoadShapes that keeps its scenes would keep them again, in every process.
            loading = [{key: value for key, value in t.items() if key != "cache"} for t in pipeline[:count]]
            cached = {"type": "CachedLoading", "transforms": loading}
            config["pipeline"] = [cached, *pipeline[count:]]  # type: ignore[index]


def _loads(transform: Mapping[str, Any]) -> bool:
    kind = transform.get("type")
    scope, _, name = kind.rpartition(".") if isinstance(kind, str) else ("", "", getattr(kind, "__name__", ""))
    return scope in ("", "mmseg", "mmcv") and name in _LOADERS


# --------------------------------------------------------------------------------------------------------------------
# Training


@HOOKS.register_module()
class LeanInfoHook(RuntimeInfoHook):
    """Hook that reads losses and computes accuracies only as far as the log shows them.

    ``RuntimeInfoHook`` reads every loss after every iteration, for which a GPU must finish its queue, and mmseg's heads
    compute an accuracy for it, which needs two more waits on a GPU and a tenth of the time of a small network on a CPU.
    Here losses are read together before the log, or a checkpoint, needs them, and the accuracy is computed in the
    iterations that are logged. The log is the same.
    """

    def __init__(self) -> None:
        self._unread: list[dict[str, Any]] = []
        self._logged = True

    def before_train(self, runner: Runner) -> None:
        """Wrap ``train_step`` so that it skips the accuracy in iterations that are not logged."""
        super().before_train(runner)
        self._unread.clear()
        step = runner.model.train_step
        modules = _modules_with_accuracy(runner.model)

        @functools.wraps(step)
        def train_step(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
            if self._logged:
                return step(*args, **kwargs)
            with _without_accuracy(modules):
                losses = step(*args, **kwargs)
            return {name: value for name, value in losses.items() if not name.rpartition(".")[2].startswith("acc_")}

        runner.model.train_step = train_step

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Determine whether this iteration is logged."""
        super().before_train_iter(runner, batch_idx, data_batch)
        self._logged = any(_is_logged(runner, hook, batch_idx) for hook in runner.hooks if isinstance(hook, LoggerHook))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Keep the losses, and read all that were kept if this iteration is logged."""
        self._unread.append({name: _detached(value) for name, value in (outputs or {}).items()})
        if self._logged:
            self._read(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the history, with which a resumed training goes on."""
        self._read(runner)
        checkpoint["message_hub"] = runner.message_hub.state_dict()

    def after_train(self, runner: Runner) -> None:
        """Read the losses that are left."""
        self._read(runner)

    def _read(self, runner: Runner) -> None:
        unread, self._unread = self._unread, []
        values = [value for outputs in unread for value in outputs.values()]
        if values and all(isinstance(value, torch.Tensor) for value in values):
            values = torch.stack([value.reshape(()).double() for value in values]).tolist()  # one wait for all
        names = (name for outputs in unread for name in outputs)
        for name, value in zip(names, values, strict=True):
            runner.message_hub.update_scalar(f"train/{name}", value)


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value


def _is_logged(runner: Runner, hook: LoggerHook, batch_idx: int) -> bool:
    # As LoggerHook.after_train_iter decides it.
    if hook.every_n_inner_iters(batch_idx, hook.interval):
        return True
    last = hook.end_of_epoch(runner.train_dataloader, batch_idx)
    return last and (not hook.ignore_last or len(runner.train_dataloader) <= hook.interval)


def _modules_with_accuracy(model: nn.Module) -> tuple[Any, ...]:
    """Find the Python modules of the classes in ``model`` that call mmseg's ``accuracy`` by its name."""
    names = {kind.__module__ for module in model.modules() for kind in type(module).__mro__}
    modules = (sys.modules.get(name) for name in sorted(names))
    return tuple(module for module in modules if getattr(module, "accuracy", None) is accuracy)


@contextlib.contextmanager
def _without_accuracy(modules: Sequence[Any]) -> Iterator[None]:
    for module in modules:
        module.accuracy = _no_accuracy
    try:
        yield
    finally:
        for module in modules:
            module.accuracy = accuracy


def _no_accuracy(pred: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return pred.new_zeros(1)


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Hook that puts weights and images into the memory format ``channels_last``; results differ by rounding.

    After the weights were drawn or loaded, so that they are those of a model in the usual format.
    """

    def before_train(self, runner: Runner) -> None:
        """Convert the weights, and from now on the images."""
        _to_channels_last(runner.model)

    def before_test(self, runner: Runner) -> None:
        """Convert the weights before a test, and from now on the images."""
        _to_channels_last(runner.model)


def _to_channels_last(model: nn.Module) -> None:
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    _unwrapped(model).backbone.register_forward_pre_hook(_input_to_channels_last)


def _input_to_channels_last(module: nn.Module, inputs: tuple) -> tuple:
    image, *rest = inputs
    return image.contiguous(memory_format=torch.channels_last), *rest


@HOOKS.register_module()
class FreshCompilerHook(Hook):
    """Hook that resets the compiler before a run: after a few models ``torch.compile`` would give up, silently."""

    def before_run(self, runner: Runner) -> None:
        """Reset the compiler."""
        torch.compiler.reset()


# --------------------------------------------------------------------------------------------------------------------
# Test


@HOOKS.register_module()
class FastArgmaxHook(Hook):
    """Hook that predicts labels by ``max`` instead of ``argmax`` on a CPU, where it is 4 to 9 times as fast.

    Both return the first of equal maxima.
    """

    def before_test(self, runner: Runner) -> None:
        """Wrap ``postprocess_result`` so that it calls ``max`` for ``argmax``."""
        model = _unwrapped(runner.model)
        postprocess: Callable | None = getattr(model, "postprocess_result", None)
        if not inspect.ismethod(postprocess):  # another kind of model, or done before
            return

        @functools.wraps(postprocess)
        def faster(*args: Any, **kwargs: Any) -> Any:
            with _MaxForArgmax():
                return postprocess(*args, **kwargs)

        model.postprocess_result = faster


@HOOKS.register_module()
class FoldNormsHook(Hook):
    """Hook that folds batch norms into the convolutions before them for a test; results differ by rounding.

    The first images of the test tell which convolution a norm follows, and whether nothing else reads its output.
    """

    def before_test(self, runner: Runner) -> None:
        """Fold the norms.

        Raises:
            ValueError: the network computes otherwise then.
        """
        model = _unwrapped(runner.model).eval()
        with torch.no_grad():
            inputs = model.data_preprocessor(next(iter(runner.test_dataloader)), False)["inputs"]
            test_cfg = getattr(model, "test_cfg", None) or {}
            if test_cfg.get("mode") == "slide":  # the network takes no more than that at a time
                height, width = test_cfg["crop_size"]
                inputs = inputs[..., :height, :width]
            with _NormsOfConvolutions(model) as found:
                before = model(inputs, mode="tensor")
            found.fold()
            after = model(inputs, mode="tensor")
        for expected, folded in zip(*(_maps(output) for output in (before, after)), strict=True):
            apart = float((folded - expected).abs().max() / expected.std())
            if not apart < 1e-3:
                raise ValueError(
                    f"speed: fold_norms: expected the same predictions with the norms of {type(model).__name__} folded "
                    f"into the convolutions before them, got {apart:.0e} standard deviations of difference. Something "
                    f"else reads the output of such a convolution: leave fold_norms out."
                )


class _NormsOfConvolutions:
    """The batch norms that a forward pass applies to the output of a convolution, each of both once and always."""

    def __init__(self, model: nn.Module) -> None:
        self._places = {child: (parent, name) for parent in model.modules() for name, child in parent.named_children()}
        self._called: Counter[nn.Module] = Counter()
        self._last: tuple[Any, Any] = None, None
        self._follows: dict[_BatchNorm, nn.Conv2d] = {}

    def __enter__(self) -> "_NormsOfConvolutions":
        self._hooks = [
            module.register_forward_hook(self._convolved if isinstance(module, nn.Conv2d) else self._normed)
            for module in self._places
            if isinstance(module, nn.Conv2d) or (isinstance(module, _BatchNorm) and module.running_mean is not None)
        ]
        return self

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _convolved(self, module: nn.Conv2d, inputs: tuple, output: torch.Tensor) -> None:
        self._called[module] += 1
        self._last = module, output

    def _normed(self, module: _BatchNorm, inputs: tuple, output: torch.Tensor) -> None:
        self._called[module] += 1
        convolution, made = self._last
        if inputs[0] is made:
            self._follows[module] = convolution

    def fold(self) -> None:
        """Fold each of these norms into its convolution."""
        for norm, convolution in self._follows.items():
            if self._called[norm] == self._called[convolution] == 1:
                self._put(convolution, fuse_conv_bn_eval(convolution, norm))
                self._put(norm, nn.Identity())

    def _put(self, module: Any, other: nn.Module) -> None:
        parent, name = self._places[module]
        setattr(parent, name, other)


def _maps(output: Any) -> list[torch.Tensor]:
    return [tensor for _, tensor in named_tensors(output) if tensor.is_floating_point()]


class _MaxForArgmax(TorchFunctionMode):
    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.argmax and kwargs.get("dim") is not None and args[0].device.type == "cpu":
            return torch.max(args[0], **kwargs).indices
        return func(*args, **kwargs)


def _unwrapped(model: Any) -> Any:
    while is_model_wrapper(model):
        model = model.module
    return model
