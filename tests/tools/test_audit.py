import json
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "audit.py"
STUDY = Path(__file__).parents[2] / "configs" / "studies" / "align_corners_shapes.py"
CONFIG = "mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py"


def audit(*args):
    return subprocess.run([sys.executable, str(TOOL), *map(str, args)], capture_output=True, text=True, timeout=120)


def test_a_name_of_mmseg_with_all_outputs(tmp_path):
    done = audit(CONFIG, "--size", "256", "512", "--json", tmp_path / "new" / "a.json", "--plot", tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    assert "reads 3.5 px up and left" in " ".join(done.stdout.replace("│", " ").split())
    assert json.loads((tmp_path / "new" / "a.json").read_text())["sizes"] == [[256, 512]]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_exit_status_is_a_check():
    common = (CONFIG, "--size", "128", "--compare", "none", "--max-shift")
    assert audit(*common, "3").returncode == 1
    assert audit(*common, "4").returncode == 0


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
