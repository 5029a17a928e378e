"""``OnnxNetwork`` computes what ONNX Runtime does: operators, resizes, and graphs that PyTorch exports."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from mmseg_resample.deploy.onnx_network import OnnxNetwork  # noqa: E402
from mmseg_resample.grids import FakeCopy  # noqa: E402
from tests.conftest import needs_export  # noqa: E402

from .onnx_graphs import assert_alike, by_network, graph, image, node  # noqa: E402

RANDOM = np.random.default_rng(1)


def weights(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def numbers(*values):
    return np.array(values, np.int64)


UNARY = [
    *("Abs", "Atan", "Ceil", "Cos", "Erf", "Exp", "Floor", "Neg", "Reciprocal", "Round", "Sigmoid", "Sign", "Sin"),
    *("Tanh", "Relu", "Softplus", "Softsign", "HardSwish", "Identity", "LeakyRelu", "Elu", "Celu", "ThresholdedRelu"),
    *("HardSigmoid", "Shrink", "Selu", "Mish", "GlobalAveragePool", "GlobalMaxPool", "Flatten", "Softmax", "Transpose"),
    *("LpNormalization", "LogSoftmax"),
]


@pytest.mark.parametrize("op", UNARY)
def test_unary(op):
    assert_alike(graph([node(op, ["x"])]), image())


# Operator, constants, attributes, opset; the first input is the image.
CASES = [
    *[(op, {"b": weights(1, 3, 1, 1)}, {}, 18) for op in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean")],
    *[(op, {"b": weights(8, 9)}, {}, 18) for op in ("Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal")],
    ("Pow", {"b": np.float32(2)}, {}, 18),
    ("Mod", {"b": np.float32(0.7)}, {"fmod": 1}, 18),
    ("PRelu", {"b": weights(3, 1, 1)}, {}, 18),
    ("Clip", {"low": np.float32(-0.5), "high": np.float32(0.5)}, {}, 18),
    ("Clip", {}, {"min": 0.0, "max": 6.0}, 10),
    ("Cast", {}, {"to": onnx.TensorProto.INT32}, 18),
    ("Gelu", {}, {"approximate": "tanh"}, 20),
    ("Softmax", {}, {"axis": 1}, 11),
    ("Softmax", {}, {"axis": 1}, 13),
    ("ArgMax", {}, {"axis": 1, "keepdims": 0}, 18),
    ("ArgMin", {}, {"axis": 2}, 18),
    *[(f"Reduce{kind}", {"axes": numbers(2, 3)}, {}, 18) for kind in ("Mean", "Max", "L2", "L1", "Min", "Prod")],
    *[(f"Reduce{kind}", {"axes": numbers(-1)}, {"keepdims": 0}, 18) for kind in ("Sum", "SumSquare", "LogSumExp")],
    ("ReduceMean", {}, {"axes": [2, 3], "keepdims": 0}, 13),
    ("BatchNormalization", {k: abs(weights(3)) for k in "abcd"}, {"epsilon": 1e-3}, 15),
    ("InstanceNormalization", {"a": weights(3), "b": weights(3)}, {}, 18),
    ("LayerNormalization", {"a": weights(9), "b": weights(9)}, {}, 18),
    ("LayerNormalization", {"a": weights(8, 9)}, {"axis": 2}, 18),
    ("GroupNormalization", {"a": weights(3), "b": weights(3)}, {"num_groups": 1}, 21),
    ("LRN", {}, {"size": 3, "alpha": 0.1}, 18),
    ("Reshape", {"s": numbers(0, -1, 9)}, {}, 18),
    ("Transpose", {}, {"perm": [0, 2, 3, 1]}, 18),
    ("Squeeze", {"a": numbers(0)}, {}, 18),
    ("Squeeze", {}, {"axes": [0]}, 11),
    ("Unsqueeze", {"a": numbers(0, -1)}, {}, 18),
    ("Unsqueeze", {}, {"axes": [2]}, 11),
    ("Expand", {"s": numbers(2, 1, 1, 1)}, {}, 18),
    ("Tile", {"r": numbers(1, 2, 1, 3)}, {}, 18),
    ("Concat", {"b": weights(1, 2, 8, 9)}, {"axis": 1}, 18),
    ("Slice", {"s": numbers(1, -7), "e": numbers(7, 100), "a": numbers(2, 3), "t": numbers(2, 3)}, {}, 18),
    ("Slice", {"s": numbers(-1), "e": numbers(-100), "a": numbers(3), "t": numbers(-2)}, {}, 18),
    ("Slice", {"s": numbers(5), "e": numbers(1), "a": numbers(2), "t": numbers(-1)}, {}, 18),
    ("Slice", {}, {"starts": [1], "ends": [-1], "axes": [2]}, 9),
    ("Pad", {"p": numbers(0, 0, 1, 2, 0, 0, 3, 0), "v": np.float32(1.5)}, {}, 18),
    ("Pad", {"p": numbers(0, 0, 1, 2, 0, 0, 3, 0)}, {"mode": "edge"}, 18),
    ("Pad", {"p": numbers(1, 2, 3, 0), "": None, "a": numbers(2, 3)}, {"mode": "reflect"}, 18),
    ("Pad", {"p": numbers(0, 0, -1, 2, 0, 0, 0, -2)}, {}, 13),
    ("Pad", {}, {"pads": [0, 0, 1, 0, 0, 0, 0, 1], "value": 2.0}, 10),
    ("Gather", {"i": numbers(2, 0, -1)}, {"axis": 2}, 18),
    ("Gather", {"i": np.array(1)}, {"axis": 1}, 18),
    ("Gather", {"i": numbers(0, 0, 1, 1, 2, 3, 4, 4)}, {"axis": 3}, 18),
    ("GatherElements", {"i": RANDOM.integers(-9, 9, (1, 3, 8, 4))}, {"axis": 3}, 18),
    ("GatherND", {"i": np.array([[0, 1, 2], [0, 0, 3]])}, {}, 18),
    ("ScatterND", {"i": np.array([[0, 1, 2], [0, 0, 3]]), "u": weights(2, 9)}, {}, 18),
    ("ScatterElements", {"i": RANDOM.integers(-9, 9, (1, 1, 1, 1)), "u": weights(1, 1, 1, 1)}, {"axis": 3}, 18),
    ("CumSum", {"a": np.array(2)}, {}, 18),
    ("Trilu", {"k": np.array(1)}, {"upper": 0}, 18),
    ("MatMul", {"b": weights(9, 4)}, {}, 18),
    ("Einsum", {"b": weights(9, 4)}, {"equation": "nchw,wk->nkhc"}, 18),
    ("Conv", {"w": weights(4, 3, 3, 3), "b": weights(4)}, {"strides": [2, 2], "pads": [1, 1, 1, 1]}, 18),
    ("Conv", {"w": weights(4, 3, 3, 2)}, {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, 18),
    ("Conv", {"w": weights(4, 3, 4, 3)}, {"strides": [1, 2], "auto_pad": "SAME_LOWER"}, 18),
    ("Conv", {"w": weights(3, 1, 3, 3)}, {"group": 3, "dilations": [2, 2], "pads": [0, 1, 2, 1]}, 18),
    ("ConvTranspose", {"w": weights(3, 2, 4, 4)}, {"strides": [2, 2], "pads": [1, 1, 1, 1]}, 18),
    (
        "ConvTranspose",
        {"w": weights(3, 2, 3, 3)},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        18,
    ),
    ("ConvTranspose", {"w": weights(3, 2, 3, 3)}, {"strides": [2, 2], "pads": [0, 0, 2, 1]}, 18),
    ("ConvTranspose", {"w": weights(3, 2, 3, 3)}, {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, 18),
    ("ConvTranspose", {"w": weights(3, 2, 3, 3)}, {"strides": [2, 2], "output_shape": [16, 17]}, 18),
    ("MaxPool", {}, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, 18),
    ("MaxPool", {}, {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, 18),
    ("MaxPool", {}, {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER", "dilations": [1, 1]}, 18),
    ("MaxPool", {}, {"kernel_shape": [3, 3], "pads": [0, 1, 2, 0], "dilations": [2, 2]}, 18),
    ("AveragePool", {}, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, 18),
    ("AveragePool", {}, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1}, 18),
    ("AveragePool", {}, {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, 19),
    ("AveragePool", {}, {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, 18),
    ("AveragePool", {}, {"kernel_shape": [2, 2], "pads": [0, 1, 1, 0], "count_include_pad": 1}, 18),
    ("QuantizeLinear", {"s": np.float32(0.1), "z": np.uint8(128)}, {}, 18),
    ("QuantizeLinear", {"s": abs(weights(3)) + 0.1, "z": np.zeros(3, np.int8)}, {"axis": 1}, 18),
    ("Upsample", {"s": np.array([1, 1, 2, 3], np.float32)}, {"mode": "nearest"}, 9),
    ("Upsample", {"s": np.array([1, 1, 2, 3], np.float32)}, {"mode": "linear"}, 9),
]


@pytest.mark.parametrize(
    ("op", "constants", "attributes", "opset"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_operator(op, constants, attributes, opset):
    given = {name: value for name, value in constants.items() if name}
    assert_alike(graph([node(op, ["x", *constants], **attributes)], given, opset=opset), image())


@pytest.mark.parametrize(
    ("op", "attributes", "opset"),
    [
        ("DepthToSpace", {"blocksize": 2}, 13),
        ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, 13),
        ("SpaceToDepth", {"blocksize": 2}, 13),
    ],
)
def test_blocks(op, attributes, opset):
    assert_alike(graph([node(op, ["x"], **attributes)], opset=opset, shape=(1, 8, 4, 6)), image((1, 8, 4, 6)))


def test_several_outputs_and_values_of_integers():
    nodes = [
        node("Split", ["x", "sizes"], ["a", "b"], axis=1),
        node("TopK", ["b", "k"], ["values", "places"], axis=3),
        node("Where", ["mask", "a", "zero"], ["w"]),
        node("DequantizeLinear", ["q", "scale", "point"], ["d"]),
        node("QuantizeLinear", ["x", "scale", "point"], ["q"]),
        node("GridSample", ["x", "grid"], ["g"], align_corners=1, padding_mode="border"),
        node("Gemm", ["flat", "m", "bias"], ["gemm"], transB=1, alpha=0.5),
        node("Flatten", ["x"], ["flat"]),
    ]
    order = [0, 1, 2, 4, 3, 5, 7, 6]
    constants = {
        "sizes": numbers(1, 2),
        "k": numbers(2),
        "mask": RANDOM.random((8, 9)) > 0.5,
        "zero": np.float32(0),
        "scale": np.float32(0.05),
        "point": np.uint8(100),
        "grid": (weights(1, 5, 6, 2) / 2),
        "m": weights(4, 3 * 8 * 9),
        "bias": weights(4),
    }
    outputs = ["a", "values", "places", "w", "d", "g", "gemm"]
    assert_alike(graph([nodes[i] for i in order], constants, outputs=outputs), image(), 1e-4)


MODES = ["nearest", "linear", "cubic"]
COORDINATES = ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric"]
SIZES = [((5, 7), (10, 21)), ((8, 6), (5, 1)), ((1, 4), (3, 9)), ((6, 5), (6, 5)), ((7, 3), (17, 8))]


@pytest.mark.parametrize("coordinates", [*COORDINATES, "tf_crop_and_resize"])
@pytest.mark.parametrize("mode", MODES)
def test_resize_to_sizes(mode, coordinates):
    for (source, size), nearest in itertools.product(
        SIZES, ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"] if mode == "nearest" else ["floor"]
    ):
        attributes = dict(mode=mode, coordinate_transformation_mode=coordinates, nearest_mode=nearest)
        made = graph(
            [node("Resize", ["x", "roi", "", "sizes"], **attributes)],
            {"roi": np.array([0, 0, 0.125, 0.3, 1, 1, 0.9, 1.2], np.float32), "sizes": numbers(1, 2, *size)},
            shape=(1, 2, *source),
        )
        assert_alike(made, image((1, 2, *source)), 2e-5)


@pytest.mark.parametrize("mode", MODES)
def test_resize_by_scales(mode):
    scales = [(2, 2), (2.5, 0.6), (1.3, 3), (1.1, 1), (0.5, 0.25)]
    for coordinates, pair in itertools.product(COORDINATES, scales):
        made = graph(
            [node("Resize", ["x", "", "scales"], mode=mode, coordinate_transformation_mode=coordinates)],
            {"scales": np.array([1, 1, *pair], np.float32)},
            shape=(1, 2, 7, 6),
        )
        assert_alike(made, image((1, 2, 7, 6)), 2e-5)


@pytest.mark.parametrize("opset", [10, 11, 13, 18, 19])
def test_resize_of_every_version(opset):
    for mode, scales in itertools.product(["nearest", "linear"], [(2, 3), (0.6, 0.5), (1.7, 1)]):
        inputs = ["x", "scales"] if opset == 10 else ["x", "roi", "scales"]
        constants = {"scales": np.array([1, 1, *scales], np.float32), "roi": np.zeros(0, np.float32)}
        made = graph([node("Resize", inputs, mode=mode)], constants, shape=(1, 2, 7, 10), opset=opset)
        assert_alike(made, image((1, 2, 7, 10)))


@pytest.mark.parametrize(
    "attributes",
    [
        dict(mode="cubic", cubic_coeff_a=-0.5),
        dict(mode="cubic", exclude_outside=1),
        dict(mode="linear", axes=[2, 3]),
        dict(mode="nearest", axes=[3, 2]),
        dict(mode="linear", axes=[2, 3], keep_aspect_ratio_policy="not_larger"),
        dict(mode="linear", axes=[2, 3], keep_aspect_ratio_policy="not_smaller"),
        dict(mode="linear", axes=[2, 3], coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=7.0),
        dict(mode="linear", axes=[2, 3], antialias=1, exclude_outside=1),
        dict(mode="cubic", axes=[2, 3], antialias=1, exclude_outside=1, cubic_coeff_a=-0.5),
    ],
    ids=str,
)
def test_resize_attributes(attributes):
    sizes = numbers(4, 11) if "axes" in attributes else numbers(1, 3, 4, 11)
    constants = {"roi": np.array([-0.2, 0, 0.5, 1.3], np.float32), "sizes": sizes}
    made = graph([node("Resize", ["x", "roi", "", "sizes"], **attributes)], constants, opset=18)
    assert_alike(made, image((1, 3, 8, 9)), 2e-5)


def test_resize_of_channels_last_and_of_integers():
    constants = {"scales": np.array([1, 2, 2, 1], np.float32)}
    last = graph([node("Resize", ["x", "", "scales"], mode="linear")], constants, shape=(1, 5, 6, 3))
    assert_alike(last, image((1, 5, 6, 3)))
    labels = graph(
        [node("ArgMax", ["x"], ["a"], axis=1), node("Cast", ["a"], ["c"], to=6), node("Resize", ["c", "", "s"])],
        {"s": np.array([1, 1, 2, 2], np.float32)},
    )
    assert_alike(labels, image())


def test_what_is_not_supported_says_so():
    made = graph(
        [node("Resize", ["x", "", "s"], mode="cubic", antialias=1, exclude_outside=1)],
        {"s": np.array([1, 1, 0.5, 0.5], np.float32)},
    )
    with pytest.raises(NotImplementedError, match=r"Resize_y.*antialias"):
        by_network(made, image())
    network = OnnxNetwork(made, skip_unsupported=True)
    assert network(torch.from_numpy(image())) == {}
    (path, said), *_ = network.unsupported
    assert path == "Resize_y" and "antialias" in said


# --- resizes in other forms -------------------------------------------------------------------------------------------


def matrix(kernel, n, size, coordinates):
    """Weights (size, n) of a resize along one axis, as PyTorch computes it."""
    eye = torch.eye(n)[:, None, :, None] if kernel != "bins" else torch.eye(n)[None]
    if kernel == "bins":
        return F.adaptive_avg_pool1d(eye, size)[0].T.numpy()
    return F.interpolate(eye, (size, 1), mode=kernel, align_corners=coordinates == "align_corners")[
        :, 0, :, 0
    ].T.numpy()


@pytest.mark.parametrize(
    ("kernel", "coordinates", "called"),
    [
        ("bilinear", "half_pixel", F.interpolate),
        ("bilinear", "align_corners", F.interpolate),
        ("bicubic", "half_pixel", F.interpolate),
        ("bins", None, F.adaptive_avg_pool2d),
    ],
)
@pytest.mark.parametrize(("source", "size"), [((8, 9), (16, 27)), ((8, 9), (3, 4)), ((4, 4), (6, 7))])
def test_two_products_are_one_resize(kernel, coordinates, called, source, size, monkeypatch):
    constants = {
        "h": matrix(kernel, source[0], size[0], coordinates),
        "w": np.ascontiguousarray(matrix(kernel, source[1], size[1], coordinates).T),
    }
    made = graph([node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["h", "a"])], constants, shape=(1, 3, *source))
    calls = []
    monkeypatch.setattr(F, called.__name__, lambda *a, **k: calls.append(a) or called(*a, **k))
    assert_alike(made, image((1, 3, *source)))
    assert len([call for call in calls if call[0].ndim == 4]) == 1  # proofs are of lines


def test_two_gathers_are_one_resize():
    for sizes in [(16, 18), (19, 25), (5, 4), (8, 9)]:
        index = [np.floor(np.arange(out) * n / out).astype(np.int64) for n, out in zip((8, 9), sizes, strict=True)]
        nodes = [node("Gather", ["x", "i"], ["a"], axis=2), node("Gather", ["a", "j"], axis=3)]
        assert_alike(graph(nodes, dict(zip("ij", index, strict=True))), image())


def test_weights_are_no_resize():
    for constants in (weights(9, 9), np.eye(9, dtype=np.float32)[::-1].copy(), np.full((9, 4), 0.25, np.float32)):
        assert_alike(graph([node("MatMul", ["x", "b"])], {"b": constants}), image())


# --- whole graphs -----------------------------------------------------------------------------------------------------


class Pyramid(nn.Module):
    """Pooled bins, a pyramid and a nearest resize."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.down = nn.Conv2d(8, 8, 3, 2, 1)
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, image):
        fine = self.stem(image)
        coarse = self.down(fine)
        context = F.interpolate(F.adaptive_avg_pool2d(coarse, 1), coarse.shape[2:], mode="bilinear")
        up = F.interpolate(coarse + context, fine.shape[2:], mode="bilinear", align_corners=True)
        logits = self.head(torch.cat([fine, F.interpolate(up, scale_factor=1.0, mode="nearest")], 1))
        return F.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    needs_export()
    path = tmp_path_factory.mktemp("onnx") / "pyramid.onnx"
    torch.manual_seed(0)
    dynamic = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        Pyramid().eval(),
        (torch.randn(1, 3, 41, 53),),
        path,
        dynamo=True,
        verbose=False,
        dynamic_shapes=({2: dynamic, 3: dynamic},),
    )
    return onnx.load(path)


@pytest.mark.parametrize("size", [(41, 53), (64, 96), (33, 70)])
def test_exported(exported, size):
    assert_alike(exported, image((1, 3, *size)))


def test_fake_tensors_have_the_sizes_of_real_ones(exported):
    network = OnnxNetwork(exported).eval()
    real = network(torch.randn(1, 3, 41, 53))
    fake = FakeCopy(network).run(lambda copied: copied(torch.empty(1, 3, 41, 53)))
    assert {k: v.shape for k, v in fake.items()} == {k: v.shape for k, v in real.items()}


def test_branches_of_a_known_condition():
    inner = [graph([node(op, ["x"], ["z"])], outputs=["z"]).graph for op in ("Neg", "Abs")]
    for graph_ in inner:
        del graph_.input[:]
        graph_.output[0].type.CopyFrom(onnx.helper.make_tensor_type_proto(1, None))
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "two"], ["h"]),
        node("Greater", ["h", "seven"], ["c"]),
        node("If", ["c"], then_branch=inner[0], else_branch=inner[1]),
    ]
    made = graph(nodes, {"two": np.array(2), "seven": np.array(7)})
    assert_alike(made, image((1, 3, 8, 9)))
    assert_alike(made, image((1, 3, 6, 9)))
