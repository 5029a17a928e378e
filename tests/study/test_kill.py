"""The command is interrupted, then killed, then run to its end, on a real process tree."""

import functools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmseg_resample.study import records

from .test_execution import assert_same_results, fingerprints
from .test_executors import assert_same_files, attempts, holders, needs_proc, needs_ray

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(write_study, tmp_path):
    """Starts the command on the tiny study, each iteration slow enough to be killed in; kills it afterwards."""
    started = []

    def start(*arguments, seconds=0.15):
        path = write_study({"custom_hooks.0.seconds": seconds})
        command = [sys.executable, str(ROOT / "tools" / "study.py"), str(path), "--workers", "2", *arguments]
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
    wait_for(lambda: at_work(root), "work")
    workers = workers_of(process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert f"interrupted by SIGTERM; finished work is kept in {root}, the same command goes on" in output
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
    for name in ("report.html", "report.md", "report.json"):
        assert str(root / name) in output.replace("\n", "")
        assert (root / name).exists()
    assert "true - false" in output


def at_work(root):
    """Processes that perform a run: they hold its lock."""
    return sorted({pid for lock in root.glob("*/seed-*/.lock") for pid in holders(lock)})


def kill_five_times(start, root, rng):
    """Kill -9 the main process twice and workers three times, at random moments; what was finished at each of them."""
    process, finished = start(), []
    victims = ["main", "main", "worker", "worker", "worker"]
    rng.shuffle(victims)
    for victim in victims:
        wait_for(lambda current=process: current.poll() is not None or at_work(root), "work")
        time.sleep(rng.uniform(0, 2))
        if process.poll() is not None:  # the last worker was killed in the last run
            process = start()
        workers = wait_for(lambda: at_work(root), "work")
        pid = process.pid if victim == "main" else rng.choice(workers)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: not is_running(pid), "the end of the process", seconds=10)
        if victim == "main":
            process.wait()
            process = start()
        finished.append(fingerprints(root))
    process.communicate(timeout=300)
    return finished


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=needs_ray)])
def test_survives_five_kills_at_random_moments(start, undisturbed, tmp_path, monkeypatch, executor):
    """No run is lost, none repeated, and the results are those of an undisturbed study."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    root, (study, expected, _) = tmp_path / "runs", undisturbed
    start = functools.partial(start, "--executor", executor, seconds=0.5)
    finished = kill_five_times(start, root, random.Random(2))
    process = start()  # runs that failed because a worker was killed
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert_same_files(study.runs(), root, expected, without=["config.py"])  # it has the pauses
    assert list(root.glob("*/*/failure.json")) == []
    after = fingerprints(root)
    for before in finished:
        assert before.items() <= after.items()  # what was finished is as it was
    tried = [len(each) for each in attempts(root).values()]
    assert len(tried) == 4
    assert 4 < sum(tried) <= 4 + 2 * 2 + 3  # each kill of main interrupts two runs at most, of a worker one
    wait_for(lambda: not at_work(root), "the end of the workers", seconds=20)
