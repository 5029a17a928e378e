import ast
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmseg.apis import init_model

from mmseg_resample import cli
from mmseg_resample.models import LinearProbeHead
from tests.launch import test_upsamplers
from tests.launch.sfsegnets_reference import Network
from tests.resamplers import test_joint_bilateral, test_loftup, test_naf

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "convert_sfnet_checkpoint.py"
BASE = ROOT / "configs" / "sfnet" / "sfnet_r18_1xb8-10k_camvid-360x360.py"


@pytest.fixture
def convert(capfd):
    """Run the command in this process; exit status, stdout and stderr."""

    def run(*args):
        status = cli.main(["convert", *map(str, args)])
        out, err = capfd.readouterr()
        return SimpleNamespace(returncode=status, stdout=out, stderr=err)

    return run


@pytest.fixture(scope="module")
def network():
    return Network("stdc1", 64, classes=11)


def test_the_printed_config_loads_what_was_written(convert, network, tmp_path):
    source, target, config = tmp_path / "source.pth", tmp_path / "new" / "target.pth", tmp_path / "config.py"
    weights = OrderedDict((f"module.{key}", value.float()) for key, value in network.state_dict().items())
    torch.save(dict(state_dict=weights, epoch=3, mean_iu=np.float64(0.5)), source)
    done = convert(source, target, "--convention", "sfsegnets-2020")
    assert done.returncode == 0, done.stderr
    assert "the same weights as backbone.features" in done.stdout
    config.write_text(f"_base_ = {str(BASE)!r}\n" + done.stdout[done.stdout.index("model = ") :])
    model = init_model(str(config), str(target), device="cpu")
    assert model.decode_head.top_down[0].convention == "sfsegnets-2020"
    written = torch.load(target, weights_only=True)
    assert written["meta"] == {"convention": "sfsegnets-2020"}
    assert written["state_dict"].keys() == model.state_dict().keys()
    assert all(torch.equal(value, written["state_dict"][key]) for key, value in model.state_dict().items())
    torch.testing.assert_close(
        model.backbone.stages[0].conv.weight.double(), network.trunk.features[0].conv.weight, atol=1e-6, rtol=1e-6
    )


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: dict(model=w)], ids=["raw", "model"])
def test_other_ways_to_store_a_state_dict(convert, network, tmp_path, wrap):
    torch.save(wrap(network.state_dict()), tmp_path / "source.pth")
    done = convert(tmp_path / "source.pth", tmp_path / "target.pth", "--all")
    assert done.returncode == 0, done.stderr
    assert (
        "head.fpn_out_align.0.flow_make.weight" in done.stdout and "decode_head.top_down.0.flow.weight" in done.stdout
    )


def test_as_a_command(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "source.pth")
    command = [sys.executable, str(TOOL), str(tmp_path / "source.pth"), str(tmp_path / "source.pth")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith("error: destination") and "Traceback" not in done.stderr


class Code:
    def __reduce__(self):
        return (Path.touch, (Path("ran.txt"),))


def test_mistakes(convert, network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = network.state_dict()
    files = {
        "list.pth": ([1, 2], "expected a state dict, or a dict with one under 'state_dict' or 'model', got a list"),
        "empty.pth": ({}, "got a dict with nothing in it"),
        "other.pth": ({"conv.weight": torch.zeros(1)}, "1 keys belong to no SFNet"),
        "code.pth": ({"state_dict": weights, "extra": Code()}, "Nothing of it was run"),
        "part.pth": ({k: v for k, v in weights.items() if "fpn_out.1" not in k}, "Missing key(s) in state_dict"),
    }
    cases = {}
    for name, (content, message) in files.items():
        torch.save(content, tmp_path / name)
        cases[name] = message
    whole = tmp_path / "whole.pth"
    torch.save(weights, whole)
    (tmp_path / "cut.pth").write_bytes(whole.read_bytes()[:10000])
    cases |= {"cut.pth": "not a checkpoint, or truncated", "missing.pth": "no such file"}
    target = tmp_path / "target.pth"
    for name, message in cases.items():
        done = convert(tmp_path / name, target)
        assert done.returncode == 2, (name, done.stdout)
        assert message in " ".join(done.stderr.split()) and "Traceback" not in done.stderr, (name, done.stderr)
        assert not target.exists() and not (tmp_path / "ran.txt").exists()
    before = whole.read_bytes()
    done = convert(whole, whole)
    assert done.returncode == 2 and "--overwrite" in done.stderr and whole.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("name", "source", "channels"),
    [
        ("JAFAR", test_upsamplers.weights(test_upsamplers.jafar_shapes()), 6),
        ("AnyUp", test_upsamplers.weights(test_upsamplers.anyup_shapes()), 12),
        ("NAF", test_naf.published(), 12),
        ("LoftUp", test_loftup.published(8), 8),
        ("JointBilateral", test_joint_bilateral.published(4), 4),
    ],
)
def test_the_printed_line_takes_an_upsamplers_weights(convert, tmp_path, name, source, channels):
    torch.save(source, tmp_path / "source.pth")
    done = convert(tmp_path / "source.pth", tmp_path / "target.pth", "--upsampler", name)
    assert done.returncode == 0, done.stderr
    settings = ast.literal_eval(done.stdout[done.stdout.index("resampler=") + len("resampler=") :])
    head = LinearProbeHead([3, channels], num_classes=2, align_corners=False, resampler=settings)
    written = torch.load(tmp_path / "target.pth", weights_only=True)["state_dict"]
    state = {key.removeprefix("decode_head."): value for key, value in written.items()}
    missing, unexpected = head.load_state_dict(state, strict=False)
    assert not unexpected and {key.split(".")[0] for key in missing} <= {"conv_seg", "norm"}
    kinds = {
        "JAFAR": dict(qk_channels=16),
        "AnyUp": dict(qk_channels=16, filter_size=5),
        "NAF": dict(qk_channels=256),
        "LoftUp": dict(convention="loftup", norm=False),
        "JointBilateral": dict(steps=4, up_kernel=7, norm=False),
    }
    assert kinds[name].items() <= settings.items()


def test_an_upsampler_that_is_another(convert, tmp_path):
    source = test_joint_bilateral.published(4)
    torch.save(source, tmp_path / "source.pth")
    done = convert(tmp_path / "source.pth", tmp_path / "target.pth", "--upsampler", "LoftUp")
    assert done.returncode == 2 and "loftup_keys: " in done.stderr and not (tmp_path / "target.pth").exists()
    del source["up2.sigma_spatial"]
    torch.save(source, tmp_path / "source.pth")
    done = convert(tmp_path / "source.pth", tmp_path / "target.pth", "--upsampler", "JointBilateral")
    assert done.returncode == 2 and "incomplete, or not of JointBilateral" in done.stderr
