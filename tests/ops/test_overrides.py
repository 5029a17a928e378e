"""The ops follow PyTorch's override protocol, as the functions of ``torch.nn.functional`` do."""

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from mmseg_resample import ops
from mmseg_resample.ops import AxisMap
from tests.conftest import ONE_GRAPH


class Recording(TorchFunctionMode):
    """Notes the functions that are called, and lets them run."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls.append(func)
        return func(*args, **(kwargs or {}))


def logits():
    return torch.rand(2, 3, 4, 5)


def labels():
    return torch.randint(0, 3, (2, 7, 9))


CALLS = {
    "resize": (ops.resize, lambda: ((logits(),), dict(size=(7, 9), mode="bilinear"))),
    "resize by a map": (ops.resize, lambda: ((logits(), 7), dict(mode="bicubic", coordinates=AxisMap(0.5, 0.1)))),
    "resize, all arguments": (
        ops.resize,
        lambda: (
            (logits(), None, 1.7, "bilinear", False),
            dict(antialias=True, recompute_scale_factor=True, warning=False, backend="torch"),
        ),
    ),
    "flow_warp": (
        ops.flow_warp,
        lambda: (
            (logits(), torch.rand(2, 2, 7, 9)),
            dict(align_corners=True, unit="sfnet", padding_mode="zeros", backend="torch"),
        ),
    ),
    "deform_conv2d": (
        ops.deform_conv2d,
        lambda: (
            (logits(), torch.rand(2, 18, 4, 5), torch.rand(6, 3, 3, 3), torch.rand(6)),
            dict(mask=torch.rand(2, 9, 4, 5), backend="torch"),
        ),
    ),
    "resize_argmax": (
        ops.resize_argmax,
        lambda: (
            (logits(), (7, 9)),
            dict(
                coordinates="asymmetric",
                crop=(0, 1, 1, 0),
                flip="vertical",
                first_size=(5, 6),
                first_coordinates="align_corners",
                dtype=torch.int32,
                threshold=0.4,
                return_confidence=True,
                target=labels(),
                ignore_index=2,
                backend="torch",
            ),
        ),
    ),
    "resize_argmax with a flag": (ops.resize_argmax, lambda: ((logits(), 8), dict(align_corners=True))),
    "resize_cross_entropy": (
        ops.resize_cross_entropy,
        lambda: (
            (logits(), labels()),
            dict(
                size=(7, 9),
                coordinates="asymmetric",
                weight=[1.0, 2.0, 0.5],
                ignore_index=1,
                label_smoothing=0.1,
                reduction="sum",
                avg_non_ignore=True,
                pixel_weight=torch.rand(2, 7, 9),
                return_accuracy=True,
                backend="torch",
            ),
        ),
    ),
    "resize_cross_entropy with a flag": (
        ops.resize_cross_entropy,
        lambda: ((logits(), labels()), dict(align_corners=True)),
    ),
}


def run(op, arguments, around=None):
    """Return what ``op`` returns, flat, and the gradient of its first argument where it has one."""
    torch.manual_seed(0)
    args, kwargs = arguments()
    x = args[0].requires_grad_()
    if around is None:
        out = op(*args, **kwargs)
    else:
        with around:
            out = op(*args, **kwargs)
    outputs = [t for t in (out if isinstance(out, tuple) else (out,)) if t is not None]
    return outputs + ([torch.autograd.grad(outputs[0].sum(), x)[0]] if outputs[0].requires_grad else [])


@pytest.mark.parametrize("name", CALLS)
def test_a_mode_sees_one_call_of_the_public_function_and_changes_nothing(name):
    op, arguments = CALLS[name]
    mode = Recording()
    actual, expected = run(op, arguments, mode), run(op, arguments)
    assert mode.calls == [op] and mode.calls[0] is getattr(ops, name.split(",")[0].split(" ")[0])
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a, b)


def test_a_mode_can_compute_something_else():
    class Corners(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            kwargs = dict(kwargs or {})
            if func is ops.resize:
                kwargs |= dict(align_corners=True, warning=False)
            return func(*args, **kwargs)

    x = torch.rand(1, 2, 4, 5)
    with Corners():
        actual = ops.resize(x, (7, 9), mode="bilinear", align_corners=False)
    assert torch.equal(actual, F.interpolate(x, (7, 9), mode="bilinear", align_corners=True))


@pytest.mark.parametrize("name", CALLS)
def test_a_subclass_can_take_over(name):
    class Mine(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            return func

    op, arguments = CALLS[name]
    args, kwargs = arguments()
    assert op(args[0].as_subclass(Mine), *args[1:], **kwargs) is op
    if isinstance(args[-1], torch.Tensor) and len(args) > 1:  # any of the tensors is enough
        assert op(*args[:-1], args[-1].as_subclass(Mine), **kwargs) is op


@pytest.mark.skipif(not ONE_GRAPH, reason="torch < 2.6 compiles the ops with breaks between graphs")
@pytest.mark.parametrize("name", ["resize", "resize by a map", "resize, all arguments", "flow_warp", "deform_conv2d"])
def test_compiles_in_one_graph_without_a_mode(name):
    op, arguments = CALLS[name]
    expected = run(op, arguments)
    torch._dynamo.reset()
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    for a, b in zip(run(compiled, arguments), expected, strict=True):
        torch.testing.assert_close(a, b)
