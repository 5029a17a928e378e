"""Every executor gives the same files, and a run whose worker is lost is tried again or recorded as failed."""

import json
import os
import shutil
import signal
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from mmseg_resample.study import execution, executors, loading, plan, records, training
from mmseg_resample.study.executors import inline, local, slots, slurm
from mmseg_resample.study.executors.polling import Place, PollingExecutor
from mmseg_resample.study.messages import Done, Lost, Progress, Task, read_progress, write_progress
from mmseg_resample.unpickle import load

TIMES = ("seconds", "finished", "peak_memory_bytes", "memory")
THREADS = local.Local(2).slots[0].threads  # of the undisturbed study: sums depend on how they are split
LOCAL_CLUSTER = {"cluster": "local", "time": "10", "cpus_per_task": THREADS}
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (extra `ray`)")
needs_submitit = pytest.mark.skipif(find_spec("submitit") is None, reason="submitit is not installed (extra `slurm`)")


def without_times(content):
    if isinstance(content, dict):
        return {key: without_times(value) for key, value in content.items() if key not in TIMES}
    return content


def contents(run, root):
    """Read what a finished run leaves that does not depend on when and where: file -> content, arrays as bytes."""
    files = records.RunFiles(root / run.directory)
    found = {"config.py": files.config.read_text()}
    for path in (files.metrics, files.training, *files.evaluations.glob("*.json")):
        found[path.name] = without_times(json.loads(path.read_text()))
    for path in files.evaluations.glob("*/*.npz"):
        with np.load(path) as stored:
            found[str(path.relative_to(files.path))] = {name: stored[name].tobytes() for name in stored}
    (checkpoint,) = files.work_dir.glob("*.pth")
    weights = load(checkpoint)["state_dict"]
    found[checkpoint.name] = {name: value.numpy().tobytes() for name, value in weights.items()}
    return found


def assert_same_files(runs, root, expected_root, without=()):
    for run in runs:
        actual, expected = contents(run, root), contents(run, expected_root)
        assert len(expected) > 8
        assert actual.keys() == expected.keys()
        for name in expected.keys() - set(without):
            assert actual[name] == expected[name], (run.directory, name)


def attempts(root):
    """Run directory -> its attempts."""
    return {
        str(path.parent.relative_to(root)): records.read_json(path)["attempts"]
        for path in root.glob("*/seed-*/environment.json")
    }


def ends(events):
    return {event.run.directory: event.what.error for event in events if isinstance(event.what, Done)}


class TestInline:
    def test_the_same_files_as_worker_processes(self, undisturbed, tmp_path, monkeypatch):
        study, expected, _ = undisturbed
        study = loading.load(study.file, seeds=[0])
        here = []
        perform = training.perform
        monkeypatch.setattr(
            "mmseg_resample.study.worker.perform", lambda *args: here.append(os.getpid()) or perform(*args)
        )
        executor = inline.Inline()
        executor.threads = THREADS
        events = list(execution.execute(study, tmp_path / "runs", executor=executor))
        assert [(event.worker, event.what) for event in events] == [(0, Done(None))] * 2
        assert here == [os.getpid()] * 2
        assert_same_files(study.runs(), tmp_path / "runs", expected)
        assert set(attempts(tmp_path / "runs")) == {run.directory for run in study.runs()}

    def test_a_failure_is_in_the_log_and_on_the_terminal(self, write_study, tmp_path, capsys):
        study = loading.load(write_study({"custom_hooks.0.iteration": 1, "custom_hooks.0.where": "true"}), seeds=[0])
        root = tmp_path / "runs"
        errors = ends(execution.execute(study, root, executor=inline.Inline()))
        failed = "align_corners=true,size=s32/seed-0"
        assert errors == {
            "align_corners=false,size=s32/seed-0": None,
            failed: "RuntimeError: a fault after iteration 1",
        }
        assert "Traceback" in (root / failed / "log.txt").read_text()
        assert "RuntimeError: a fault" in capsys.readouterr().err
        assert attempts(root)[failed][-1]["error"] == "RuntimeError: a fault after iteration 1"

    def test_an_interrupt_is_not_a_failure(self, write_study, tmp_path, monkeypatch):
        def interrupt(*args):
            raise KeyboardInterrupt

        monkeypatch.setattr("mmseg_resample.study.worker.perform", interrupt)
        threads = torch.get_num_threads()
        with pytest.raises(KeyboardInterrupt):
            list(execution.execute(loading.load(write_study()), tmp_path / "runs", executor=inline.Inline()))
        assert list(tmp_path.glob("runs/*/*/failure.json")) == []
        assert torch.get_num_threads() == threads

    def test_one_run_in_one_process(self):
        with pytest.raises(plan.StudyError, match=r"--executor inline: .* Leave out --workers 2"):
            executors.create("inline", 2)
        with pytest.raises(plan.StudyError, match="Leave out --procs-per-run 2"):
            executors.create("inline", processes=2)


class Scripted(PollingExecutor):
    """Ends each task as told; it performs nothing, the executors that do are below."""

    interval = 0.0
    attempts = 2

    def __init__(self, workers, outcomes):
        super().__init__(workers, threads=3)
        self.outcomes = outcomes
        self.submitted = []
        self.cancelled = []
        self.most = 0

    def submit(self, task, place):
        self.submitted.append(task)
        return task.run.directory

    def outcome(self, handle):
        self.most = max(self.most, len(self._jobs))
        return self.outcomes[handle].pop(0)

    def cancel(self, handle):
        self.cancelled.append(handle)


class TestPolling:
    """Tests of what Ray and Slurm have in common: the order of things, without either."""

    @pytest.fixture
    def tasks(self, write_study, tmp_path):
        return [Task(run, tmp_path / "runs", None) for run in loading.load(write_study()).runs()]

    def perform(self, tasks, outcomes, workers=2):
        executor = Scripted(workers, {task.run.directory: list(outcomes) for task in tasks})
        return executor, list(executor.perform(tasks))

    @pytest.mark.parametrize("workers", [1, 3, None])
    def test_every_task_once(self, tasks, workers):
        executor, events = self.perform(tasks, [None, Done(None)], workers)
        assert ends(events) == {task.run.directory: None for task in tasks}
        assert len(executor.submitted) == len(tasks)
        assert executor.most == (workers or len(tasks))
        assert {event.worker for event in events} == set(range(workers or len(tasks)))
        assert {task.threads for task in executor.submitted} == {3}

    def test_lost_once_is_tried_again(self, tasks):
        executor, events = self.perform(tasks[:1], [Lost("gone"), None, Done(None)])
        assert [event.what for event in events] == [Lost("gone"), Done(None)]
        assert len(executor.submitted) == 2

    def test_lost_twice_has_failed(self, tasks, tmp_path):
        _, events = self.perform(tasks[:1], [Lost("gone"), Lost("gone again")])
        assert [event.what for event in events] == [Lost("gone"), Done("gone again")]
        failure = records.RunFiles(tmp_path / "runs" / tasks[0].run.directory).failure
        assert records.read_json(failure)["error"] == "gone again"

    def test_lost_after_its_work_was_done_is_finished(self, tasks, undisturbed):
        done = [Task(task.run, undisturbed[1], None) for task in tasks[:1]]
        executor, events = self.perform(done, [Lost("gone")])
        assert [event.what for event in events] == [Done(None)]
        assert len(executor.submitted) == 1

    def test_the_attempts_are_in_the_ledger(self, tasks, tmp_path):
        run = tasks[0].run
        records.begin_attempt(run, records.RunFiles(tmp_path / "runs" / run.directory), None)
        self.perform(tasks[:1], [Lost("gone"), Done(None)])
        assert [attempt["error"] for attempt in attempts(tmp_path / "runs")[run.directory]] == ["gone"]

    def test_progress_comes_from_a_file(self, tasks):
        run = tasks[0].run
        path = records.RunFiles(tasks[0].root / run.directory).progress
        path.parent.mkdir(parents=True)
        write_progress(path, Progress("train", 1, 8, 0.5))  # of an earlier attempt

        class Reporting(Scripted):
            def submit(self, task, place):
                assert not path.exists()
                write_progress(path, Progress("train", 2, 8, 0.25))
                return super().submit(task, place)

        executor = Reporting(1, {run.directory: [None, None, Done(None)]})
        assert [event.what for event in executor.perform(tasks[:1])] == [Progress("train", 2, 8, 0.25), Done(None)]

    def test_close_ends_what_is_at_work(self, tasks):
        executor = Scripted(2, {task.run.directory: [Lost("gone"), *[None] * 9] for task in tasks})
        events = executor.perform(tasks)
        next(events)
        executor.close()
        assert len(executor.cancelled) == 1  # one was lost, the other is at work
        executor.close()
        assert len(executor.cancelled) == 1


class TestProgressFile:
    def test_what_was_said_last(self, tmp_path):
        assert read_progress(tmp_path / "p") is None
        for progress in (Progress("train", 1, 2, 0.5), Progress("own", 1, 2)):
            write_progress(tmp_path / "p", progress)
            assert read_progress(tmp_path / "p") == progress
        assert [path.name for path in tmp_path.iterdir()] == ["p"]

    def test_nonsense_is_nothing(self, tmp_path):
        (tmp_path / "p").write_text('{"phase": ')
        assert read_progress(tmp_path / "p") is None


def test_a_place_is_entered(tmp_path, monkeypatch):
    monkeypatch.chdir(Path.cwd())
    monkeypatch.setattr(sys, "path", list(dict.fromkeys(sys.path)))
    Place(str(tmp_path), ("/nowhere", sys.path[0])).enter()
    assert Path.cwd() == tmp_path
    assert sys.path.count("/nowhere") == 1
    assert sys.path.count(sys.path[0]) == 1


class TestMissing:
    @pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
    def test_says_what_to_install(self, monkeypatch, name, package):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(plan.StudyError, match=rf"--executor {name}: .* not installed. pip install .*\[{name}\]"):
            executors.create(name)


class TestSlurmOptions:
    def test_names_of_submitit(self):
        assert slurm.parameters(
            {"partition": "gpu", "time": "1-02:30:00", "gpus_per_node": 4, "array_parallelism": 2}
        ) == {
            "slurm_partition": "gpu",
            "timeout_min": 1590,
            "gpus_per_node": 4,
            "slurm_array_parallelism": 2,
        }

    @pytest.mark.parametrize(("time", "minutes"), [("90", 90), (90, 90), ("4:00:00", 240), ("00:20:30", 20)])
    def test_time(self, time, minutes):
        assert slurm.parameters({"time": time}) == {"timeout_min": minutes}

    def test_not_a_time(self):
        with pytest.raises(plan.StudyError, match="--slurm time=soon: expected minutes or"):
            slurm.parameters({"time": "soon"})

    @needs_submitit
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"cluster": "local"}, "--slurm: time is missing, submitit would set 5 minutes"),
            ({**LOCAL_CLUSTER, "partitoin": "gpu"}, "--slurm: .*Unknown argument 'partitoin'"),
            ({**LOCAL_CLUSTER, "gpus_per_node": "two"}, "--slurm: .*gpus_per_node"),
            pytest.param(
                {"time": 10},
                "--slurm: Could not detect .srun.",
                marks=pytest.mark.skipif(shutil.which("srun") is not None, reason="there is a Slurm"),
            ),
        ],
    )
    def test_are_checked_before_anything_is_written(self, tmp_path, monkeypatch, options, message):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(plan.StudyError, match=message):
            executors.create("slurm", options=options)
        assert list(tmp_path.iterdir()) == []


def holders(path):
    """Processes that have ``path`` open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(link) == str(path) for link in (process / "fd").iterdir()):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def execute_and_kill(study, root, executor, target, times):
    """Execute; ``times`` kill -9 what performs the run ``target`` between two of its checkpoints; the events."""
    events, killed = [], []
    checkpoints = root / target.directory / "train"
    for event in execution.execute(study, root, executor=executor):
        events.append(event)
        seen = {path.name for path in checkpoints.glob("iter_*.pth")}
        pids = holders(root / target.directory / ".lock")
        if len(killed) < times and seen and pids and pids[0] not in killed:
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)
    assert len(killed) == times
    return events


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds the worker in /proc")


@pytest.fixture
def slow_study(write_study):
    """The tiny study with time to be killed in."""
    return loading.load(write_study({"custom_hooks.0.seconds": 0.4}), seeds=[0])


@pytest.mark.slow
@needs_submitit
class TestSlurm:
    def test_the_same_files_as_worker_processes(self, undisturbed, tmp_path):
        study, expected, _ = undisturbed
        root = tmp_path / "runs"
        events = list(execution.execute(study, root, executor=executors.create("slurm", 2, options=LOCAL_CLUSTER)))
        assert ends(events) == {run.directory: None for run in study.runs()}
        assert any(isinstance(event.what, Progress) for event in events)
        assert_same_files(study.runs(), root, expected)
        assert {len(each) for each in attempts(root).values()} == {1}
        assert list(root.glob("*/*/.progress*")) == []

    @needs_proc
    def test_a_lost_job_has_failed_and_goes_on_when_asked(self, undisturbed, slow_study, tmp_path):
        root, (target, other) = tmp_path / "runs", slow_study.runs()
        new = partial(executors.create, "slurm", 2, options=LOCAL_CLUSTER)
        errors = ends(execute_and_kill(slow_study, root, new(), target, times=1))
        assert errors[other.directory] is None
        assert "ended without a result" in errors[target.directory]
        assert records.read_json(root / target.directory / "failure.json")["error"] == errors[target.directory]
        assert ends(execution.execute(slow_study, root, executor=new())) == {target.directory: None}
        assert [attempt.get("error") for attempt in attempts(root)[target.directory]] == [
            errors[target.directory],
            None,
        ]


@pytest.fixture
def ray_executor(monkeypatch):
    """Starts a Ray cluster of this machine for two runs at a time."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    started = []

    def start():
        started.append(executors.create("ray", 2))
        return started[-1]

    yield start
    for executor in started:
        executor.close()


@pytest.mark.slow
@needs_ray
class TestRay:
    def test_the_same_files_as_worker_processes(self, undisturbed, ray_executor, tmp_path):
        study, expected, _ = undisturbed
        root = tmp_path / "runs"
        events = list(execution.execute(study, root, executor=ray_executor()))
        assert ends(events) == {run.directory: None for run in study.runs()}
        assert any(isinstance(event.what, Progress) for event in events)
        assert_same_files(study.runs(), root, expected)
        assert {len(each) for each in attempts(root).values()} == {1}
        assert not {"RAY_AUTH_TOKEN"} & os.environ.keys()

    @needs_proc
    def test_a_lost_worker_is_replaced_once(self, ray_executor, slow_study, tmp_path):
        root, (target, other) = tmp_path / "runs", slow_study.runs()
        events = execute_and_kill(slow_study, root, ray_executor(), target, times=1)
        assert ends(events) == {target.directory: None, other.directory: None}
        (lost,) = [event for event in events if isinstance(event.what, Lost)]
        assert lost.run.directory == target.directory
        assert "WorkerCrashedError" in lost.what.cause
        assert [attempt.get("error") for attempt in attempts(root)[target.directory]] == [lost.what.cause, None]
        assert len(attempts(root)[other.directory]) == 1
        assert "resumed epoch:" in "".join(
            path.read_text() for path in (root / target.directory / "train").glob("*/*.log")
        )

    @needs_proc
    def test_lost_twice_is_a_failure(self, ray_executor, slow_study, tmp_path):
        root, (target, other) = tmp_path / "runs", slow_study.runs()
        errors = ends(execute_and_kill(slow_study, root, ray_executor(), target, times=2))
        assert errors[other.directory] is None
        assert "WorkerCrashedError" in errors[target.directory]
        assert len(attempts(root)[target.directory]) == 2

    def test_a_run_that_no_machine_holds(self, ray_executor):
        cpus = max(2, slots.cores())
        first = ray_executor()
        with pytest.raises(plan.StudyError, match=rf"--procs-per-run {cpus + 1}: the largest .* has {cpus} CPUs"):
            executors.create("ray", processes=cpus + 1)  # a second one finds the cluster of the first
        assert first._ray.is_initialized()  # and leaves it alone
