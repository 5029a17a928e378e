"""ONNX graphs for tests, and what ONNX Runtime makes of them."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from mmseg_resample.deploy.onnx_network import OnnxNetwork


def graph(nodes, constants=None, shape=(1, 3, None, None), opset=18, outputs=("y",), dtype=TensorProto.FLOAT, **attrs):
    """Return a model of ``nodes`` with the image ``x``; ``constants`` are arrays by name."""
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    dims = [f"d{i}" if n is None else n for i, n in enumerate(shape)]
    given = [helper.make_tensor_value_info("x", dtype, dims)]
    returned = [helper.make_empty_tensor_value_info(name) for name in outputs]
    made = helper.make_graph(nodes, "graph", given, returned, initializers)
    # As old a format as the newest runtime of any opset reads.
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **attrs)


def node(op, inputs, outputs=("y",), path=None, **attributes):
    """Return a node, with the module path that PyTorch's exporter would leave."""
    made = helper.make_node(op, list(inputs), list(outputs), name=f"{op}_{outputs[0]}", **attributes)
    if path is not None:
        scopes = ["", path, outputs[0]] if path else ["", outputs[0]]
        made.metadata_props.append(onnx.StringStringEntryProto(key="pkg.torch.onnx.name_scopes", value=str(scopes)))
    return made


def by_runtime(model, *images: np.ndarray) -> list[np.ndarray]:
    """Return the outputs of ONNX Runtime, without its optimisations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, {given.name: image for given, image in zip(session.get_inputs(), images, strict=True)})


def by_network(model, image: np.ndarray) -> list[np.ndarray]:
    """Return the same of an ``OnnxNetwork``."""
    with torch.no_grad():
        out = OnnxNetwork(model).eval()(torch.from_numpy(image))
    return [out[name.name].numpy() for name in model.graph.output]


def assert_alike(model, image: np.ndarray, tolerance: float = 1e-5) -> None:
    """Require the same values, shapes and dtypes of both, to rounding."""
    for wanted, got in zip(by_runtime(model, image), by_network(model, image), strict=True):
        assert got.shape == wanted.shape
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


def image(shape: Sequence[int] = (1, 3, 8, 9), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
