import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger

from mmseg_resample import cli, launch

TOOL = Path(__file__).parents[2] / "tools" / "audit.py"
STUDY = Path(__file__).parents[2] / "configs" / "studies" / "align_corners_shapes.py"
CONFIG = "mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py"


def audit(*args):
    return subprocess.run([sys.executable, str(TOOL), *map(str, args)], capture_output=True, text=True, timeout=120)


def test_a_name_of_mmseg_with_all_outputs(tmp_path):
    done = audit(CONFIG, "--size", "256", "512", "--json", tmp_path / "new" / "a.json", "--plot", tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) == 120
    assert "reads 3.5 px up and left" in " ".join(done.stdout.replace("│", " ").split())
    assert json.loads((tmp_path / "new" / "a.json").read_text())["sizes"] == [[256, 512]]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_exit_status_is_a_check():
    common = (CONFIG, "--size", "128", "--compare", "none", "--max-shift")
    assert audit(*common, "3").returncode == 1
    passed = audit(*common, "4")
    assert passed.returncode == 0 and passed.stderr == ""


def test_a_policy_is_audited_as_if_the_config_had_it(capsys):
    assert cli.main(["audit", CONFIG, "--policy", "exact+pad", "--compare", "none", "--max-shift", "0.001"]) == 0
    said = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    assert "resize_policy=dict(exact=True, pad='replicate') registers everything, with" in said


@pytest.mark.parametrize("prefix", ["", "module."])  # of what wrapped the model
def test_the_weights_of_a_checkpoint_are_measured(tmp_path, capsys, monkeypatch, prefix):
    from mmseg_resample.launch import auditing

    config = "mmseg_resample::shapes/fcn_r18-d8-tiny_1xb8-400_shapes-128x128.py"
    seen = []
    monkeypatch.setattr(auditing, "level_shifts", lambda model, **_: seen.append(model.state_dict()) or [])
    cli.main(["audit", config, "--weights", "own", "--compare", "none"])
    trained = {key: value + 1 for key, value in seen[0].items()}
    torch.save({"state_dict": {prefix + key: value for key, value in trained.items()}}, tmp_path / "a.pth")
    assert cli.main(["audit", config, "--weights", str(tmp_path / "a.pth"), "--compare", "none"]) == 0
    assert all(torch.equal(value, trained[key]) for key, value in seen[1].items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (CONFIG, "--cfg-options", "model.decode_head.type=Foo"),
            "cannot be audited: type 'Foo' of the config: mmseg has no such model.",
        ),
        (
            (CONFIG, "--cfg-options", "model.decode_head.pool_scale=3"),
            "cannot be audited: TypeError: BaseDecodeHead.__init__() got an unexpected keyword argument 'pool_scale'",
        ),
        (
            (CONFIG, "--cfg-options", "model.decode_head.in_channels=3"),
            "expected input[1, 512, 1, 1] to have 3",
        ),
        ((CONFIG, "--cfg-options", "model.decode_head.type=nowhere.Head"), "needs the package nowhere, which is not"),
        (("torch.nn:Identity", "--policy", "exact"), "--policy: a network named by module:callable has no config."),
        ((CONFIG, "--plot", "a.foo"), "--plot takes an image, a.foo has none of the endings"),
        (
            (CONFIG, "--json", __file__ + "/a.json"),
            "test_audit.py is no folder. Name one that is there or can be made.",
        ),
        ((CONFIG, "--json", str(TOOL.parent)), "tools: it cannot be written (Is a directory)."),
        ((CONFIG, "--plot", "/proc/x.png"), "--plot /proc/x.png: /proc cannot be written to"),  # whoever asks
    ],
)
def test_what_cannot_be_audited_is_one_message_and_status_2(capsys, arguments, message):
    try:
        status = cli.main(["audit", *arguments])
    except SystemExit as stop:  # of argparse
        status = stop.code
    MMLogger._instance_dict.clear()  # a logger writes to the stderr of the test that made it for ever
    captured = capsys.readouterr()
    assert status == 2 and captured.out == ""
    *_, last = [line for line in captured.err.splitlines() if not line.startswith("warning: --cfg-options")]
    assert "error: " in last and message in last and "Traceback" not in captured.err


def test_an_import_of_a_config_that_fails_says_what_is_missing(tmp_path):
    (tmp_path / "c.py").write_text(
        "custom_imports = dict(imports='no_such_package.models', allow_failed_imports=False)"
    )
    with pytest.raises(launch.UsageError) as error:
        launch.load_config(str(tmp_path / "c.py"))
    assert str(error.value).endswith(": No module named 'no_such_package'") and "sys.path" not in str(error.value)


def test_mistakes():
    done = audit("no_such_config.py")
    assert done.returncode == 2 and "no_such_config.py" in done.stderr and "Traceback" not in done.stderr
    done = audit(CONFIG, "--size", "1", "2", "3")
    assert done.returncode == 2 and "pairs H W" in done.stderr
    done = audit(CONFIG, "--cfg-options", "norm")
    assert done.returncode == 2 and "--cfg-options: expected KEY=VALUE, got norm" in done.stderr
    done = audit(STUDY)
    assert (
        done.returncode == 2
        and done.stderr.strip() == "error: an audit needs model in the config, which does not have it."
    )
