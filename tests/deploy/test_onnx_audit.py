"""Audits of ONNX files: the findings that PyTorch's audit has, whatever the outputs look like, and errors that help."""

import json
import sys

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")

import mmseg_resample  # noqa: E402
from mmseg_resample.cli import main  # noqa: E402
from mmseg_resample.deploy.graph import METADATA  # noqa: E402
from mmseg_resample.deploy.onnx_network import load  # noqa: E402

from .onnx_graphs import graph, node  # noqa: E402

WEIGHT = {
    "w": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32),
    "v": np.random.default_rng(0).standard_normal((4, 4, 3, 3)).astype(np.float32),
    "s": np.array([1, 1, 2, 2], np.float32),
    "t": np.array([1, 1, 4, 4], np.float32),
}
CONV = dict(strides=[2, 2], pads=[1, 1, 1, 1])
NODES = [
    node("Conv", ["x", "w"], ["a"], **CONV),
    node("Conv", ["a", "v"], ["b"], **CONV),
    node("Conv", ["b", "v"], ["c"], **CONV),
    node("Resize", ["c", "", "s"], ["d"], path="head", mode="linear"),
    node("Add", ["b", "d"], ["e"], path="head"),
    node("Resize", ["e", "", "t"], path="", mode="linear"),
]


def saved(tmp_path, more=(), outputs=("y",), **arguments):
    path = tmp_path / "model.onnx"
    onnx.save(graph([*NODES, *more], WEIGHT, outputs=outputs, **arguments), path)
    return str(path)


def test_findings(tmp_path):
    audit = mmseg_resample.audit(saved(tmp_path), 64)
    (meeting,) = [m for m in audit.meetings if m.op == "add"]
    assert (meeting.path, meeting.y.first, meeting.x.last) == ("head", -2.0, -2.0)
    assert audit.final.y.shift == -1.5
    assert [(r.path, r.call, r.align_corners) for r in audit.resizes] == [("head", 0, False), ("", 0, False)]
    assert [level.stride[0] for level in audit.levels] == [4, 8]
    assert audit.exact.worst == 0
    assert (audit.covering, audit.unknown) == ((65, 65), [])
    assert "Levels" in str(audit)


@pytest.mark.parametrize(
    "more",
    [
        [node("ArgMax", ["y"], ["z"], axis=1, keepdims=0)],
        [node("ArgMax", ["y"], ["z"], axis=1)],
        [node("ArgMax", ["y"], ["i"], axis=1, keepdims=0), node("Cast", ["i"], ["z"], to=2)],
        [node("Transpose", ["y"], ["z"], perm=[0, 2, 3, 1])],
        [node("Softmax", ["y"], ["z"], axis=1)],
    ],
    ids=["labels", "labels of one channel", "labels in bytes", "channels last", "probabilities"],
)
def test_predictions_of_any_layout(tmp_path, more):
    audit = mmseg_resample.audit(saved(tmp_path, more, ["z"]), (64, 96))
    assert audit.final.y.shift == audit.final.x.shift == -1.5


def test_images_with_channels_last(tmp_path):
    path = tmp_path / "last.onnx"
    first = node("Transpose", ["x"], ["image"], perm=[0, 3, 1, 2])
    conv = node("Conv", ["image", "w"], ["a"], **CONV)
    onnx.save(graph([first, conv, *NODES[1:]], WEIGHT, shape=(1, None, None, 3)), path)
    assert mmseg_resample.audit(path, 64).final.y.shift == -1.5


def test_sizes(tmp_path):
    assert mmseg_resample.audit(saved(tmp_path)).sizes == [(512, 512)]
    fixed = saved(tmp_path, shape=(2, 3, 32, 64))
    assert mmseg_resample.audit(fixed).sizes == [(32, 64)]
    with pytest.raises(ValueError, match="takes images of 32x64 alone, got 48x48"):
        mmseg_resample.audit(fixed, 48)
    height = saved(tmp_path, shape=(1, 3, 32, None))
    assert mmseg_resample.audit(height).sizes == [(32, 512)]
    with pytest.raises(ValueError, match="takes images of 32xany alone"):
        mmseg_resample.audit(height, 64)


def test_what_cannot_be_followed_is_listed(tmp_path):
    boxes = node("NonZero", ["y"], ["z"])
    audit = mmseg_resample.audit(saved(tmp_path, [boxes], ["y", "z"]), 64)
    assert audit.final.y.shift == -1.5
    assert [path for path, _ in audit.unknown] == ["NonZero_z"]


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        mmseg_resample.audit(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("no graph at all")
    with pytest.raises(ValueError, match="no ONNX file"):
        mmseg_resample.audit(tmp_path / "text.onnx")
    onnx.save(graph([node("Flatten", ["x"])], shape=(1, 8)), tmp_path / "table.onnx")
    with pytest.raises(ValueError, match="expected an image"):
        mmseg_resample.audit(tmp_path / "table.onnx")
    model = graph([node("Add", ["x", "other"])])
    model.graph.input.append(onnx.helper.make_tensor_value_info("other", 1, [1, 3, 8, 8]))
    onnx.save(model, tmp_path / "two.onnx")
    with pytest.raises(ValueError, match=r"one input.*got 2: x, other"):
        mmseg_resample.audit(tmp_path / "two.onnx")


def test_weights_in_another_file(tmp_path):
    path = tmp_path / "big.onnx"
    options = dict(save_as_external_data=True, location="big.data", size_threshold=0)
    onnx.save(graph(NODES, WEIGHT), path, **options)
    assert mmseg_resample.audit(path, 64).worst == 2
    (tmp_path / "big.data").unlink()
    with pytest.raises(ValueError, match="Put it beside this one"):
        mmseg_resample.audit(path, 64)


def test_without_onnx(tmp_path, monkeypatch):
    path = saved(tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "mmseg_resample\[export\]"'):
        load(path)


def test_command(tmp_path, capsys):
    path, found = saved(tmp_path), tmp_path / "found.json"
    assert main(["audit", path, "--size", "64", "--json", str(found)]) == 0
    assert json.loads(found.read_text())["differences"] == []
    assert main(["audit", path, "--size", "64", "--max-shift", "1"]) == 1
    assert main(["audit", path, "--policy", "exact"]) == 2
    assert "--policy: an ONNX file is what it is" in capsys.readouterr().err


def test_command_says_what_differs(tmp_path, capsys):
    model = graph(NODES, WEIGHT)
    entry = dict(path="head", call=0, mode="bilinear", source_size=[8, 8], size=[16, 16], coordinates="align_corners")
    last = dict(entry, path="", coordinates="half_pixel", source_size=[16, 16], size=[64, 64])
    onnx.helper.set_model_props(model, {METADATA: json.dumps({"resizes": [entry, last]})})
    onnx.save(model, tmp_path / "planted.onnx")
    found = tmp_path / "found.json"
    assert main(["audit", str(tmp_path / "planted.onnx"), "--size", "64", "--json", str(found)]) == 1
    said = "head, resize 1: trained align_corners, this file computes half_pixel: drifts -2 .. 2 px"
    assert said in capsys.readouterr().out
    assert [each["text"] for each in json.loads(found.read_text())["differences"]] == [said]


def test_values_do_not_matter(tmp_path):
    """An audit allocates no image and computes no feature."""
    with torch.device("cpu"):
        assert mmseg_resample.audit(saved(tmp_path), (2**14, 2**14)).worst == 2
