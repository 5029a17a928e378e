"""``RuntimeHook``: a test whose logits an exported file computes, in another runtime, instead of the network."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor

from ..grids.sites import Size
from ..ops import _check

if TYPE_CHECKING:  # a tenth of a second, which only tests with a runtime need
    from ..deploy import Normalisation
    from ..deploy.runtimes import Session


@HOOKS.register_module()
class RuntimeHook(Hook):
    """Hook that lets a runtime compute the logits of every test, from a file that is exported of the network.

    The pipeline, what becomes of the logits and the metrics stay those of the config:
    ``custom_hooks = [dict(type='RuntimeHook', runtime='onnxruntime')]``.

    Args:
        runtime: ``"onnxruntime"``, ``"openvino"``, ``"opencv"`` or ``"ncnn"``.
        file: with an output ``logits``. None: the network is exported when the test meets an image, for each size of
            images anew.
        normalisation: that is in the graph of ``file``.
    """

    priority = "LOWEST"  # behind what changes the weights

    def __init__(self, runtime: str, file: str | None = None, normalisation: "Normalisation | None" = None) -> None:
        from ..deploy.runtimes import RUNTIMES

        _check.one_of("RuntimeHook", "runtime", runtime, tuple(RUNTIMES))
        self.runtime, self.file, self.normalisation = RUNTIMES[runtime], file, normalisation

    def before_test(self, runner: Runner) -> None:
        model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
        sessions: dict[Size, Session] = {}
        whole = None if self.file is None else self.runtime.session(Path(self.file))

        def encode_decode(inputs: Tensor, *_: Any) -> Tensor:
            height, width = inputs.shape[2:]
            session = whole or sessions.get((height, width))
            if session is None:
                del model.encode_decode  # which the export runs
                session = sessions[height, width] = self._export(model, (height, width))
                model.encode_decode = encode_decode
            return self._compute(session, inputs)

        model.encode_decode = encode_decode

    def after_test(self, runner: Runner) -> None:
        model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
        del model.encode_decode

    def _export(self, model: Any, size: Size) -> "Session":
        from ..deploy import DeployedNetwork, Options, export, save

        network = DeployedNetwork(model)
        network.find_logits(size)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "network.onnx")
            save(export(network, Options(size)), path)
            session = self.runtime.session(path)
            session(torch.zeros(1, network.channels, *size).numpy())  # reads the file
        return session

    def _compute(self, session: "Session", inputs: Tensor) -> Tensor:
        images = inputs.cpu()
        if self.normalisation is not None:  # undone, since the graph does it
            mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self.normalisation.mean, self.normalisation.std))
            images = images * std + mean
        logits = [torch.from_numpy(session(image.numpy())["logits"]) for image in images.split(1)]
        return torch.cat(logits).to(inputs.device)
