"""Mistakes that are planted in ONNX files: each that changes a pixel is found, with its site; no other line is said."""

import copy
import itertools
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import helper, numpy_helper  # noqa: E402

from mmseg_resample import grids  # noqa: E402
from mmseg_resample.deploy.graph import METADATA  # noqa: E402
from mmseg_resample.deploy.onnx_audit import audit_onnx  # noqa: E402
from mmseg_resample.ops import AxisMap  # noqa: E402
from tests.conftest import needs_export  # noqa: E402

from .onnx_graphs import by_runtime, graph, image, node  # noqa: E402

SIZE = (41, 53)


def trained(*resizes):
    """Return the metadata of resizes (path, call, mode, coordinates, source size, size)."""
    keys = ("path", "call", "mode", "coordinates", "source_size", "size")
    return json.dumps({"resizes": [dict(zip(keys, entry, strict=True)) for entry in resizes]})


def with_metadata(model, text):
    model = copy.deepcopy(model)
    helper.set_model_props(model, {METADATA: text})
    return model


def lines(model, tmp_path, size=SIZE):
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return audit_onnx(path, size).differences


def judge(clean, planted, tmp_path, site, size=SIZE):
    """Require that ``planted`` is found if it changes a pixel, and only then; return the line.

    A file of dynamic sizes is compared at the size of its export too.
    """
    dynamic = not clean.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    effective = False
    for each in {size, SIZE} if dynamic else [size]:
        before, after = (by_runtime(model, image((1, 3, *each)))[-1] for model in (clean, planted))
        effective |= before.shape != after.shape or bool(abs(before - after).max() > 1e-5)
    found = lines(planted, tmp_path, size)
    assert [(each.path, each.number) for each in found] == [site] * effective, (effective, list(map(str, found)))
    return found[0] if found else None


def plant(model, number, **attributes):
    """Copy ``model`` with attributes of its n-th Resize changed."""
    model = copy.deepcopy(model)
    resize = [each for each in model.graph.node if each.op_type == "Resize"][number]
    kept = [a for a in resize.attribute if a.name not in attributes]
    del resize.attribute[:]
    resize.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in attributes.items())])
    return model


class Network(nn.Module):
    """A pyramid of three levels, pooled bins, and a nearest resize; every kind of resize that PyTorch has."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.ModuleList([nn.Conv2d(3, 4, 3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)])
        self.decode_head = Head()

    def forward(self, x):
        size, levels = x.shape[2:], []
        for layer in self.backbone:
            x = layer(x)
            levels.append(x)
        return F.interpolate(self.decode_head(levels), size, mode="bilinear", align_corners=False)


class Head(nn.Module):
    def forward(self, levels):
        x = levels[-1]
        x = x + F.interpolate(x.mean((2, 3), keepdim=True), x.shape[2:], mode="bilinear", align_corners=False)
        for finer, mode in zip(levels[-2::-1], ("bilinear", "bicubic"), strict=True):
            x = finer + F.interpolate(x, finer.shape[2:], mode=mode, align_corners=mode == "bicubic")
        return x + F.interpolate(levels[1], x.shape[2:], mode="nearest")


def entries(audit):
    """Return an audit's resizes as our exporter writes them."""
    names = {True: "align_corners", False: "half_pixel"}
    return [
        (r.path, r.call, r.mode, names.get(r.align_corners, "asymmetric"), list(r.source_size), list(r.size))
        for r in audit.resizes
    ]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    needs_export()
    torch.manual_seed(0)
    path, dynamic = tmp_path_factory.mktemp("onnx") / "network.onnx", torch.export.Dim.DYNAMIC
    network = Network().eval()
    shapes = ({2: dynamic, 3: dynamic},)
    torch.onnx.export(network, (torch.randn(1, 3, *SIZE),), path, dynamo=True, verbose=False, dynamic_shapes=shapes)
    return with_metadata(onnx.load(path), trained(*entries(grids.audit(network, SIZE))))


@pytest.mark.parametrize("size", [SIZE, (64, 96), (96, 64)])
def test_clean(exported, tmp_path, size):
    assert lines(exported, tmp_path, size) == []


COORDINATES = ("half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric", "pytorch_half_pixel")
SITES = [("decode_head", 1), ("decode_head", 2), ("decode_head", 3), ("decode_head", 4), ("", 1)]
NEAREST = 3  # of these


def test_every_site_is_a_resize(exported):
    assert sum(each.op_type == "Resize" for each in exported.graph.node) == len(SITES)


@pytest.mark.parametrize("number", set(range(len(SITES))) - {NEAREST})
def test_planted_coordinates(exported, tmp_path, number):
    for name in COORDINATES:
        planted = plant(exported, number, coordinate_transformation_mode=name)
        judge(exported, planted, tmp_path, SITES[number], (64, 96))


def test_planted_nearest_modes(exported, tmp_path):
    for name, mode in itertools.product(("half_pixel", "asymmetric"), ("floor", "ceil", "round_prefer_floor")):
        planted = plant(exported, NEAREST, coordinate_transformation_mode=name, nearest_mode=mode)
        judge(exported, planted, tmp_path, SITES[NEAREST], (64, 96))


def test_planted_kernels_and_words(exported, tmp_path):
    found = judge(exported, plant(exported, -1, mode="nearest"), tmp_path, ("", 1), (64, 96))
    assert "trained bilinear half_pixel, this file computes nearest" in str(found)
    found = judge(
        exported, plant(exported, -1, coordinate_transformation_mode="align_corners"), tmp_path, ("", 1), (64, 96)
    )
    assert str(found) == "model, resize 1: trained half_pixel, this file computes align_corners: drifts 1.5 .. -1.5 px"
    judge(exported, plant(exported, -1, mode="cubic"), tmp_path, ("", 1))


def test_a_resize_that_is_gone_or_new(exported, tmp_path):
    text = {entry.key: entry.value for entry in exported.metadata_props}[METADATA]
    resizes = json.loads(text)["resizes"]
    for index in range(1, len(resizes)):
        less = with_metadata(exported, json.dumps({"resizes": resizes[:index] + resizes[index + 1 :]}))
        (found,) = lines(less, tmp_path)
        assert (found.kind, found.path) == ("new", resizes[index]["path"])
        more = [*resizes[:index], {**resizes[index], "path": "neck", "size": [3, 90]}, *resizes[index:]]
        (found,) = lines(with_metadata(exported, json.dumps({"resizes": more})), tmp_path)
        assert (found.kind, found.path) == ("gone", "neck")
        assert "no such resize" in str(found)


class Twice(nn.Module):
    """Two modules that bring the same features to the same size; exporters make one resize of them, or one cat."""

    def __init__(self, cats):
        super().__init__()
        self.cats, self.heads = cats, nn.ModuleList(nn.Conv2d(8, 2, 1) for _ in range(2))
        self.backbone = nn.Conv2d(3, 4, 3, 4, 1)
        self.deeper = nn.Conv2d(4, 4, 3, 2, 1)
        size = [(n + 3) // 4 for n in SIZE]
        self.first, self.second = (nn.Upsample(size, mode="bilinear") for _ in range(2))

    def forward(self, x):
        finer = self.backbone(x)
        x = self.deeper(finer)
        if not self.cats:
            return torch.cat([finer + self.first(x), self.second(x)], 1)
        return sum(
            head(torch.cat([finer, up(x)], 1)) for head, up in zip(self.heads, (self.first, self.second), strict=True)
        )


@pytest.mark.parametrize("cats", [False, True])
def test_one_resize_for_two_equal_ones(cats, tmp_path):
    needs_export()
    network = Twice(cats).eval()
    torch.onnx.export(network, (torch.randn(1, 3, *SIZE),), tmp_path / "n.onnx", dynamo=True, verbose=False)
    resizes = entries(grids.audit(network, SIZE))
    model = with_metadata(onnx.load(tmp_path / "n.onnx"), trained(*resizes))
    assert [each.op_type for each in model.graph.node].count("Resize") == 1 and len(resizes) == 2
    assert lines(model, tmp_path) == []
    (found,) = lines(plant(model, 0, coordinate_transformation_mode="asymmetric"), tmp_path)
    assert found.path == "first" and "computes asymmetric" in str(found)
    # One that only the first module's reader reads is none of the second's.
    for each in model.graph.node:
        if each.op_type == ("Add" if cats else "Concat"):
            each.input[1] = each.input[0]
    kept = [
        each
        for each in model.graph.node
        if each.op_type != "Conv" or any(name in other.input for other in model.graph.node for name in each.output)
    ]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    (found,) = lines(model, tmp_path)
    assert (found.kind, found.path) == ("gone", "second")


# --- forms by hand ----------------------------------------------------------------------------------------------------

STRIDE_4 = node("Conv", ["x", "w"], ["f"], path="stem", strides=[4, 4], pads=[1, 1, 1, 1])
WEIGHT = {"w": np.random.default_rng(3).standard_normal((4, 3, 3, 3)).astype(np.float32)}
SOURCE, TARGET = (8, 12), (32, 48)  # of images of 32x48


def by_hand(nodes, constants, *resizes):
    return with_metadata(graph([STRIDE_4, *nodes], {**WEIGHT, **constants}, shape=(1, 3, *TARGET)), trained(*resizes))


def matrix(axis_map, n, size):
    at = axis_map.scale * np.arange(size) + axis_map.offset
    return np.maximum(0, 1 - abs(np.clip(at, 0, n - 1)[:, None] - np.arange(n))).astype(np.float32)


def products(map_y, map_x):
    nodes = [node("MatMul", ["f", "mx"], ["a"], "head"), node("MatMul", ["my", "a"], path="head")]
    my, mx = matrix(map_y, SOURCE[0], TARGET[0]), matrix(map_x, SOURCE[1], TARGET[1]).T.copy()
    return by_hand(nodes, {"my": my, "mx": mx}, ("head", 0, "bilinear", [[0.25, 0.0], [0.25, 0.0]], SOURCE, TARGET))


def test_planted_products(tmp_path):
    exact = AxisMap(0.25, 0.0)
    clean = products(exact, exact)
    assert judge(clean, clean, tmp_path, None, TARGET) is None
    others = [AxisMap(0.25, -0.375), AxisMap(7 / 31, 0.0), AxisMap(0.25, 0.1), AxisMap(0.25, 0.25), AxisMap(0.24, 0.0)]
    for other in others:
        assert judge(clean, products(other, exact), tmp_path, ("head", 1), TARGET) is not None
        assert judge(clean, products(exact, other), tmp_path, ("head", 1), TARGET) is not None
    found = judge(clean, products(exact, others[0]), tmp_path, ("head", 1), TARGET)
    assert str(found).endswith("-1.5 px everywhere")


def gathers(shift=0, ceil=False):
    rounded = np.ceil if ceil else np.floor
    pairs = [(n, rounded(np.arange(out) * n / out) + shift) for n, out in zip(SOURCE, TARGET, strict=True)]
    index = [np.clip(i, 0, n - 1).astype(np.int64) for n, i in pairs]
    nodes = [node("Gather", ["f", "i"], ["a"], "head", axis=2), node("Gather", ["a", "j"], path="head", axis=3)]
    return by_hand(nodes, dict(zip("ij", index, strict=True)), ("head", 0, "nearest", "asymmetric", SOURCE, TARGET))


def test_planted_gathers(tmp_path):
    assert judge(gathers(), gathers(), tmp_path, None, TARGET) is None
    assert str(judge(gathers(), gathers(1), tmp_path, ("head", 1), TARGET)).endswith("+4 px everywhere")
    assert str(judge(gathers(), gathers(-1), tmp_path, ("head", 1), TARGET)).endswith("-4 px everywhere")
    assert judge(gathers(), gathers(ceil=True), tmp_path, ("head", 1), TARGET) is not None
    # A network that picks rows and columns by itself resizes nothing.
    assert lines(with_metadata(gathers(), trained()), tmp_path, TARGET) == []


def portable(start=0, mode="edge", coordinates="align_corners"):
    """Return source = target / 4 as exporters write it: padded, with aligned corners, cut."""
    nodes = [
        node("Pad", ["f", "pads"], ["p"], path="head", mode=mode),
        node(
            "Resize", ["p", "", "", "sizes"], ["r"], "head", mode="linear", coordinate_transformation_mode=coordinates
        ),
        node("Slice", ["r", "starts", "ends", "axes"], path="head"),
    ]
    constants = {
        "pads": np.array([0, 0, 0, 0, 0, 0, 1, 1]),
        "sizes": np.array([1, 4, 33, 49]),
        "starts": np.array([start, start]),
        "ends": np.array([32 + start, 48 + start]),
        "axes": np.array([2, 3]),
    }
    return by_hand(nodes, constants, ("head", 0, "bilinear", [[0.25, 0.0], [0.25, 0.0]], SOURCE, TARGET))


def test_planted_in_the_portable_form(tmp_path):
    clean = portable()
    assert judge(clean, clean, tmp_path, None, TARGET) is None
    found = judge(clean, portable(start=1), tmp_path, ("head", 1), TARGET)
    assert str(found).endswith("+1 px everywhere")
    assert judge(clean, portable(coordinates="half_pixel"), tmp_path, ("head", 1), TARGET) is not None


def native(sizes=TARGET, roi=(0, 0, 0, 0, 1, 1, 1, 1), **attributes):
    attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel", **attributes}
    nodes = [node("Resize", ["f", "roi", "", "sizes"], path="head", **attributes)]
    constants = {"roi": np.array(roi, np.float32), "sizes": np.array([1, 4, *sizes])}
    return by_hand(nodes, constants, ("head", 0, "bilinear", "half_pixel", SOURCE, TARGET))


def test_planted_sizes_and_regions(tmp_path):
    clean = native()
    assert judge(clean, native(sizes=(32, 47)), tmp_path, ("head", 1), TARGET) is not None
    for roi in [(0, 0, 0, 0, 1, 1, 1, 1), (0, 0, 0.1, 0, 1, 1, 1, 1), (0, 0, 0, 0, 1, 1, 1, 0.9)]:
        planted = native(roi=roi, coordinate_transformation_mode="tf_crop_and_resize")
        assert judge(clean, planted, tmp_path, ("head", 1), TARGET) is not None
    for other in ("align_corners", "asymmetric"):
        assert judge(clean, native(coordinate_transformation_mode=other), tmp_path, ("head", 1), TARGET) is not None


def test_without_our_metadata_nothing_is_compared(tmp_path):
    assert lines(graph([STRIDE_4], WEIGHT, outputs=["f"]), tmp_path) == []
    broken = with_metadata(graph([STRIDE_4], WEIGHT, outputs=["f"]), '{"resizes": [{"path": 3}]}')
    with pytest.raises(ValueError, match="Export the network again"):
        lines(broken, tmp_path)


def test_values_of_a_matrix_are_read_from_constants_in_the_graph(tmp_path):
    clean = products(AxisMap(0.25, 0.0), AxisMap(0.25, 0.0))
    assert {numpy_helper.to_array(t).shape for t in clean.graph.initializer} >= {(32, 8), (12, 48)}
    (resize,) = audit_of(clean, tmp_path).resizes
    assert (resize.path, resize.call, resize.source_size, resize.size) == ("head", 0, SOURCE, TARGET)
    assert all(m.is_close(AxisMap(0.25, 0.0)) for m in resize.maps)


def audit_of(model, tmp_path):
    onnx.save(model, tmp_path / "model.onnx")
    return audit_onnx(tmp_path / "model.onnx")
