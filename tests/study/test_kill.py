"""The command is interrupted, then killed, then run to its end, on a real process tree."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmseg_resample.study import records

from .test_execution import assert_same_results, fingerprints

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(write_study, tmp_path):
    """Starts the command on the tiny study, each iteration slow enough to be killed in; kills it afterwards."""
    path = write_study({"custom_hooks.0.seconds": 0.15})
    started = []

    def start():
        command = [sys.executable, str(ROOT / "tools" / "study.py"), str(path), "--workers", "2"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        process = subprocess.Popen(
            [*command, "--work-dir", str(tmp_path / "runs")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a terminal of its own, as far as signals go
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for(condition, what, seconds=120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)
    return found


def workers_of(process):
    return [
        int(pid) for path in Path(f"/proc/{process.pid}/task").glob("*/children") for pid in path.read_text().split()
    ]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for the workers in /proc")
def test_survives_an_interrupt_and_a_kill(start, undisturbed, tmp_path):
    root = tmp_path / "runs"

    process = start()
    wait_for(lambda: list(root.glob("*/seed-0/train/iter_*.pth")), "a checkpoint")
    workers = workers_of(process)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert f"interrupted; finished work is kept in {root}" in output
    assert "Traceback" not in output
    assert not any(is_running(pid) for pid in workers)

    process = start()
    wait_for(lambda: list(root.glob("*/seed-1/train/iter_4.pth")), "a checkpoint of the second seed")
    finished = fingerprints(root)
    assert finished, "seeds are run one after the other"
    workers = workers_of(process)
    assert len(workers) == 2
    process.kill()
    process.wait()
    wait_for(lambda: not any(is_running(pid) for pid in workers), "the end of the workers", seconds=10)

    process = start()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert_same_results(*undisturbed[:2], undisturbed[0], root)
    assert finished.items() <= fingerprints(root).items()
    attempts = [len(records.read_json(path)["attempts"]) for path in root.glob("*/seed-*/environment.json")]
    assert sum(attempts) > len(attempts)  # something was interrupted
    for name in ("report.md", "report.json", "report.png"):
        assert str(root / name) in output.replace("\n", "")
        assert (root / name).exists()
    assert "true - false" in output
