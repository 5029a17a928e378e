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

from .test_execution import fingerprints
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


def at_work(root):
    """Processes that perform a run: they hold its lock."""
    return sorted({pid for lock in root.glob("*/seed-*/.lock") for pid in holders(lock)})


def interrupt(process, number, root, status, words):
    """Signal the main process as a terminal or a system does, and see it end in good order, its workers too."""
    workers = workers_of(process)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status, output
    assert f"{words}; finished work is kept in {root}" in output
    assert "Traceback" not in output
    assert not any(is_running(pid) for pid in workers)


def kill(victim, process, root, rng):
    """Kill -9 the main process, or what performs a run."""
    if victim == "main":
        workers = workers_of(process)
        process.kill()
        process.wait()
    else:
        workers = [rng.choice(wait_for(lambda: at_work(root), "work"))]
        os.kill(workers[0], signal.SIGKILL)
    wait_for(lambda: not any(is_running(pid) for pid in workers), "the end of the workers", seconds=10)


INTERRUPTS = {
    "Ctrl-C": (signal.SIGINT, 130, "interrupted"),
    "SIGTERM": (signal.SIGTERM, 143, "interrupted by SIGTERM"),
}


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize(
    ("executor", "faults"),
    [
        ("local", ["Ctrl-C", "SIGTERM", "main", "worker"]),
        pytest.param("ray", ["main", "main", "worker", "worker", "worker"], marks=needs_ray),
    ],
)
def test_survives_interrupts_and_kills_at_random_moments(start, undisturbed, tmp_path, monkeypatch, executor, faults):
    """No run is lost, none repeated, and the results are those of an undisturbed study."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    root, (study, expected, _) = tmp_path / "runs", undisturbed
    start = functools.partial(start, "--executor", executor, seconds=0.5)
    rng = random.Random(2)
    rng.shuffle(faults)
    process, finished = start(), []
    for fault in faults:
        wait_for(lambda current=process: current.poll() is not None or at_work(root), "work")
        time.sleep(rng.uniform(0, 2))
        if process.poll() is not None:  # the last worker was killed in the last run
            process = start()
            wait_for(lambda: at_work(root), "work")
        if fault in INTERRUPTS:
            number, status, words = INTERRUPTS[fault]
            interrupt(process, number, root, status, words)
        else:
            kill(fault, process, root, rng)
        if fault != "worker":
            process = start()
        finished.append(fingerprints(root))
    process.communicate(timeout=300)
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
    most = {"worker": 1}  # of the runs that a fault interrupts: two, if it ends them all
    assert 4 < sum(tried) <= 4 + sum(most.get(fault, 2) for fault in faults)
    for name in ("report.html", "report.md", "report.json"):
        assert str(root / name) in output.replace("\n", "")
        assert (root / name).exists()
    assert "true - false" in output
    wait_for(lambda: not at_work(root), "the end of the workers", seconds=20)
