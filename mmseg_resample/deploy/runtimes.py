"""Runtimes that compute an ONNX file, behind one function: an image in, outputs by name out."""

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..grids.sites import Size
from . import requires
from .graph import select_outputs

Session = Callable[[np.ndarray], dict[str, np.ndarray]]
"""Takes images (N, C, H, W) in float32 and returns the outputs by their names."""


class Runtime(NamedTuple):
    """A runtime, which may not be installed.

    Args:
        name: of the package, as users say it.
        module: that it is imported by.
        open: reads a file, for images of some size.
        any_size: a session takes images of every size.
    """

    name: str
    module: str
    open: Callable[[Path, Size], Session]
    any_size: bool = True

    def session(self, path: Path) -> Session:
        """Return what computes a file on images of every size; for some runtimes it is converted for each anew."""
        kept: dict[Size | None, Session] = {}

        def run(image: np.ndarray) -> dict[str, np.ndarray]:
            height, width = image.shape[2:]
            key = None if self.any_size else (height, width)
            if key not in kept:
                kept[key] = self.open(path, (height, width))
            return kept[key](image)

        return run


def _open_onnxruntime(path: Path, size: Size) -> Session:
    ort = requires.package("onnxruntime", "onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    given = session.get_inputs()[0].name

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {given: image}), strict=True))

    return run


def _open_openvino(path: Path, size: Size) -> Session:
    openvino = requires.package("openvino", "openvino")
    # Its own choice of precision changes labels by itself.
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(str(path), "CPU", options)

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        found = compiled(image)
        return {output.get_any_name(): np.asarray(found[output]) for output in compiled.outputs}

    return run


def _open_opencv(path: Path, size: Size) -> Session:
    cv2 = requires.package("cv2", "opencv")
    names = [output.name for output in requires.package("onnx", "opencv").load(str(path)).graph.output]

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        network = cv2.dnn.readNetFromONNX(str(path))  # anew: it keeps the sizes that it first saw
        network.setInput(image)
        return dict(zip(names, network.forward(names), strict=True))

    return run


def _open_ncnn(path: Path, size: Size) -> Session:
    ncnn, pnnx = requires.package("ncnn", "ncnn"), requires.package("pnnx", "ncnn")
    onnx = requires.package("onnx", "ncnn")
    model = select_outputs(onnx.load(str(path)), {"logits"})  # it has no argmax
    channels = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    network = ncnn.Net()
    network.opt.num_threads = torch.get_num_threads()
    network.opt.use_fp16_storage = network.opt.use_fp16_packed = network.opt.use_fp16_arithmetic = False
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder, "network.onnx")
        copied.write_bytes(model.SerializeToString())
        _run_pnnx(pnnx, copied, (1, channels, *size))
        if network.load_param(str(copied.with_suffix(".ncnn.param"))):
            raise RuntimeError("ncnn: the converted network cannot be read")
        network.load_model(str(copied.with_suffix(".ncnn.bin")))

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        extractor = network.create_extractor()
        extractor.input("in0", ncnn.Mat(np.ascontiguousarray(image[0])))
        status, out = extractor.extract("out0")
        if status:
            raise RuntimeError(f"ncnn: the network cannot be run (status {status})")
        logits = np.array(out)[None]
        return {"logits": logits, "labels": logits.argmax(1) if logits.shape[1] > 1 else logits[:, 0] > 0}

    return run


def _run_pnnx(pnnx: Any, path: Path, shape: tuple[int, ...]) -> None:
    binary = Path(pnnx.EXEC_PATH)
    command = [str(binary), str(path), f"inputshape=[{','.join(map(str, shape))}]f32", "fp16=0"]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    if not path.with_suffix(".ncnn.param").is_file():
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        raise RuntimeError(f"pnnx: {lines[-1]}")


RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime("onnxruntime", "onnxruntime", _open_onnxruntime),
        Runtime("openvino", "openvino", _open_openvino),
        Runtime("opencv", "cv2", _open_opencv),
        Runtime("ncnn", "ncnn", _open_ncnn, any_size=False),
    )
}
