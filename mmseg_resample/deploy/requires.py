"""Packages that only some of this room needs, imported when they are first needed."""

from importlib import import_module
from typing import Any

_INSTALL = {
    "onnx": "mmseg_resample[export]",
    "onnxscript": "mmseg_resample[export]",
    "onnxruntime": "mmseg_resample[export]",
    "openvino": "openvino",
    "cv2": "opencv-python",
    "ncnn": "ncnn pnnx",
    "pnnx": "ncnn pnnx",
}


def package(name: str, purpose: str) -> Any:
    """Import a package.

    Raises:
        ModuleNotFoundError: it is not installed; the message says how to install it.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ModuleNotFoundError(
            f'{purpose} needs {name}, which is not installed. Get it with pip install "{_INSTALL[name]}".', name=name
        ) from error
