"""``mmseg-resample export``: the file, the script beside it, and what the exit status says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from mmseg_resample import launch
from mmseg_resample.deploy import graph, runtimes
from mmseg_resample.deploy import to_onnx as exporting
from mmseg_resample.launch.export import RUNTIMES, main

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

CONFIG = "mmseg_resample::lean/fcn_r18-d8-tiny-lean_1xb8-400_shapes-128x128.py"


def built(cfg):
    init_default_scope("mmseg")
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    torch.nn.init.normal_(model.decode_head.conv_seg.weight, 0, 1)
    return model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    model = built(launch.load_config(CONFIG))
    meta = dict(dataset_meta=dict(classes=("a", "b"), palette=[[0, 0, 0], [255, 0, 0]]))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


def export(checkpoint, out, *options):
    return main([CONFIG, str(checkpoint), "--out", str(out), *options])


def test_the_file_and_its_script(checkpoint, tmp_path, capsys):
    out = tmp_path / "net.onnx"
    assert export(checkpoint, out, "--size", "64", "80", "--normalize", "--policy", "exact+pad") == 0
    printed = capsys.readouterr().out
    assert "0 of 5120" in printed and "net.py IMAGE LABELS" in printed
    about = graph.description(onnx.load(out))
    assert about["classes"] == ["a", "b"] and about["palette"][1] == [255, 0, 0]
    assert about["channels"] == "RGB" and about["normalised in the graph"] and about["policy"] == "exact+pad"
    assert {r["path"] for r in about["resizes"]} == {"decode_head.logits"}
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    (tmp_path / "image.ppm").write_bytes(b"P6\n80 64\n255\n" + image.tobytes())
    # Without PyTorch, and whatever imports it.
    code = (
        "import sys, runpy; sys.modules.update(torch=None, mmseg=None); runpy.run_path(sys.argv.pop(1), {}, '__main__')"
    )
    command = [
        sys.executable,
        "-c",
        code,
        str(tmp_path / "net.py"),
        str(tmp_path / "image.ppm"),
        str(tmp_path / "l.pgm"),
    ]
    subprocess.run(command, check=True)
    content = (tmp_path / "l.pgm").read_bytes()
    assert content.startswith(b"P5 80 64 255\n")
    labels = np.frombuffer(content[13:], np.uint8).reshape(64, 80)
    cfg = launch.load_config(CONFIG)
    launch.set_policy(cfg, "exact+pad")
    model = built(cfg)
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    pixels = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)  # BGR, as mmcv reads
    with torch.no_grad():
        sample = model.test_step(dict(inputs=[pixels], data_samples=None))[0]
    assert (labels != sample.pred_sem_seg.data[0].numpy()).mean() < 1e-3


def test_a_file_that_computes_other_labels_is_status_1(checkpoint, tmp_path, monkeypatch, capsys):
    right = exporting.export

    def wrong(*args, **kwargs):
        model = right(*args, **kwargs)
        resize = next(node for node in model.graph.node if node.op_type == "Resize")
        resize.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
        return model

    monkeypatch.setattr(exporting, "export", wrong)
    assert export(checkpoint, tmp_path / "net.onnx", "--size", "64", "80") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policy", "exact+pad"], "depend on their size. Give a size"),
        (["--policy", "asymmetric"], "Trace it for one size"),
    ],
)
def test_what_cannot_be_exported_is_status_2(options, message, checkpoint, tmp_path, capsys):
    assert export(checkpoint, tmp_path / "net.onnx", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "net.onnx").exists()


def test_the_help_knows_every_runtime():
    assert tuple(runtimes.RUNTIMES) == RUNTIMES  # named twice: the help does without PyTorch


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "net.pt"], "--out takes a file that ends in .onnx, got net.pt"),
        (["--out", "net.onnx", "--opset", "16"], "--opset takes 17 to 23, got 16"),
        (["--out", "net.onnx", "--size", "0", "3"], "--size takes numbers of pixels >= 1"),
        (["--out", "net.onnx", "--runtimes", "onxruntime"], "Did you mean 'onnxruntime'"),
    ],
)
def test_command_lines_that_cannot_work(options, message, capsys):
    with pytest.raises(SystemExit) as error:
        main([CONFIG, "weights.pth", *options])
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_evaluation_of_pytorch_and_of_the_file(checkpoint, tmp_path, capsys):
    out = tmp_path / "net.onnx"
    options = ["test_dataloader.dataset.length=4", "test_dataloader.batch_size=3"]
    arguments = [CONFIG, str(checkpoint), "--out", str(out), "--evaluate", "--cfg-options", *options]
    assert main(arguments) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("metrics:")]
    assert len(lines) == 2 and lines[0] == lines[1]
    assert json.loads(next(Path(tmp_path, "net_evaluation").rglob("*.json")).read_text())
