"""A study in worker processes: what happens, what is never repeated, and what a dying worker costs."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmseg_resample.study import command, execution, loading, plan, records, report
from mmseg_resample.study.executors import base
from mmseg_resample.study.messages import Done, Progress


def matrices(study, root):
    """Directory -> evaluation -> confusion matrices."""
    found = {}
    for run in study.runs():
        files = records.RunFiles(root / run.directory)
        for evaluation in run.evaluations:
            with np.load(files.matrices(evaluation.name)) as stored:
                found[run.directory, evaluation.name] = stored["confusion"]
    return found


def assert_same_results(study, root, other_study, other_root):
    actual, expected = matrices(study, root), matrices(other_study, other_root)
    assert actual.keys() == expected.keys()
    for key in expected:
        np.testing.assert_array_equal(actual[key], expected[key], err_msg=str(key))


def fingerprints(root):
    """Inode and time of every file of every finished run."""
    finished = [path.parent for path in root.glob("*/seed-*/metrics.json")]
    paths = [path for run in finished for path in run.rglob("*") if path.is_file()]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def ends(events):
    return {event.run.directory: event.what.error for event in events if isinstance(event.what, Done)}


def children():
    return [int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]


class TestUndisturbed:
    def test_every_run_ends_once(self, undisturbed):
        study, root, events = undisturbed
        assert ends(events) == {run.directory: None for run in study.runs()}
        assert all(records.is_finished(run, root) for run in study.runs())

    def test_two_workers_share_the_runs(self, undisturbed):
        _, _, events = undisturbed
        assert Counter(event.worker for event in events if isinstance(event.what, Done)).keys() == {0, 1}

    def test_progress(self, undisturbed):
        _, _, events = undisturbed
        progress = [event.what for event in events if isinstance(event.what, Progress)]
        assert {each.phase for each in progress} == {"train", "own", "larger"}
        assert all(1 <= each.iteration <= each.iterations for each in progress)
        assert all(each.loss > 0 for each in progress if each.phase == "train")

    def test_output_is_in_the_log_of_the_run(self, undisturbed):
        study, root, _ = undisturbed
        for run in study.runs():
            assert "per class results" in records.RunFiles(root / run.directory).log.read_text()

    def test_finished_runs_are_never_repeated(self, undisturbed):
        study, root, _ = undisturbed
        before = fingerprints(root)
        assert list(execution.execute(study, root, workers=2)) == []
        assert fingerprints(root) == before
        assert before

    def test_report(self, undisturbed):
        _, root, _ = undisturbed
        result = report.build(root)
        assert [comparison.differences["true"].n for comparison in result.comparisons] == [2, 2]
        assert result.environments[0]["attempts"] == 4


@pytest.mark.slow
def test_a_failing_run_and_a_dying_worker_do_not_stop_the_others(undisturbed, write_study, tmp_path):
    faults = [
        {"type": "Fault", "iteration": 5, "where": "align_corners=true,size=s32/seed-0"},
        {"type": "Fault", "iteration": 5, "where": "align_corners=false,size=s32/seed-1", "kill": True},
    ]
    study = loading.load(write_study({"custom_hooks": faults}))
    root = tmp_path / "runs"
    assert ends(execution.execute(study, root, workers=2)) == {
        "align_corners=false,size=s32/seed-0": None,
        "align_corners=true,size=s32/seed-0": "RuntimeError: a fault after iteration 5",
        "align_corners=false,size=s32/seed-1": "the worker process was ended by SIGKILL (out of memory?)",
        "align_corners=true,size=s32/seed-1": None,
    }
    failures = report.build(root).failures
    assert [failure["error"].split()[-1] for failure in failures] == ["5", "memory?)"]
    assert "Traceback" in (root / failures[0]["log"]).read_text()
    before = fingerprints(root)
    assert ends(execution.execute(study, root, workers=2)) == dict.fromkeys(
        ["align_corners=true,size=s32/seed-0", "align_corners=false,size=s32/seed-1"]
    )
    assert before.items() <= fingerprints(root).items()
    assert report.build(root).failures == []
    assert_same_results(study, root, *undisturbed[:2])


@pytest.mark.slow
def test_leaving_the_iterator_ends_the_workers(write_study, tmp_path):
    before = children()
    study = loading.load(write_study({"custom_hooks.0.seconds": 0.5}))
    events = execution.execute(study, tmp_path / "runs", workers=2)
    next(events)
    assert len(children()) == len(before) + 2
    events.close()
    assert children() == before


def test_one_study_at_a_time(undisturbed):
    study, root, _ = undisturbed
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(root / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(plan.StudyError, match=r"another process is running this study. Wait for it, end it"):
            list(execution.execute(study, root))
        holder.stdin.close()
    assert list(execution.execute(study, root)) == []


def test_another_config_is_refused_or_overwritten(undisturbed, write_study, tmp_path):
    study, root, _ = undisturbed
    changed = loading.load(write_study(), options={"optim_wrapper.optimizer.lr": 0.2})
    with pytest.raises(plan.StudyError, match=r"seed-0: made by another version of this study. config.py: optim_wr"):
        execution.prepare(changed, root)
    with pytest.raises(plan.StudyError, match=r"lr was 0.05, is now 0.2. Use a new --work-dir, or --overwrite"):
        list(execution.execute(changed, root))
    assert len(execution.prepare(changed, root, overwrite=True)) == 4
    assert execution.prepare(study, root) == []  # looking changes nothing


@pytest.mark.slow
def test_overwrite_repeats_only_what_differs(undisturbed, tmp_path):
    study, original, _ = undisturbed
    root = shutil.copytree(original, tmp_path / "runs")
    stale = root / "align_corners=true,size=s32/seed-0"
    config = stale / "config.py"
    config.write_text(config.read_text().replace("momentum=0.9", "momentum=0.8"))
    before = fingerprints(root)
    assert ends(execution.execute(study, root, workers=2, overwrite=True)) == {
        "align_corners=true,size=s32/seed-0": None
    }
    assert_same_results(study, root, study, original)  # one run alone computes what it computed beside another
    after = fingerprints(root)
    for file, fingerprint in before.items():
        assert (after.get(file) == fingerprint) == (stale not in file.parents), file


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def without(key):
    def damage(path):
        path.write_text(
            json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != key})
        )

    return damage


DAMAGE = {
    "evaluations/own/confusion.npz": [cut, flip],
    "evaluations/larger/trimap.npz": [cut],
    "evaluations/own.json": [cut, without("metrics")],
    "metrics.json": [cut, lambda path: path.write_text("[]"), without("evaluations")],
    "training.json": [cut, lambda path: path.write_bytes(b"\xff\xfe")],
    "environment.json": [cut, without("attempts")],
    "config.py": [lambda path: path.write_text("model = dict("), lambda path: path.write_bytes(b"\0")],
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_named_and_its_run_alone_is_to_do(undisturbed, tmp_path, name):
    study, original, _ = undisturbed
    run = study.runs()[1]
    for index, damage in enumerate(DAMAGE[name]):
        root = shutil.copytree(original, tmp_path / str(index))
        damage(root / run.directory / name)
        pending = execution.prepare(study, root)
        assert [each.run.directory for each in pending] == [run.directory]
        (reason,) = pending[0].damaged.items()
        assert reason[0] == root / run.directory / name
        assert len(reason[1]) > 5


def test_the_counts_of_a_finished_study_are_read_through_once(undisturbed, tmp_path, monkeypatch):
    study, original, _ = undisturbed
    root = shutil.copytree(original, tmp_path / "runs")
    reads, read = Counter(), records._damage_of_counts
    monkeypatch.setattr(records, "_damage_of_counts", lambda path: reads.update([path]) or read(path))
    monkeypatch.setattr(report, "build", lambda root: sys.exit("done"))  # which reads them for the numbers
    with pytest.raises(SystemExit, match="done"):
        command.main([str(study.file), "--work-dir", str(root)])
    assert reads == Counter(root.glob("*/*/evaluations/*/*.npz")) and len(reads) == 4 * 2 * 4


@pytest.mark.slow
def test_what_is_damaged_is_made_again(undisturbed, tmp_path):
    """One in every run: what is left of it is used, the results are those of an undisturbed study, the others stay."""
    study, original, _ = undisturbed
    root = shutil.copytree(original, tmp_path / "runs")
    names = ["evaluations/own/confusion.npz", "config.py", "training.json", "environment.json"]
    for run, name in zip(study.runs(), names, strict=True):
        DAMAGE[name][0](root / run.directory / name)
    first, _, third, fourth = (root / run.directory for run in study.runs())
    (third / "train" / "iter_best.pth").write_bytes(b"of a user")
    kept = {path: path.stat().st_mtime_ns for path in (first / "training.json", fourth / "evaluations" / "own.json")}

    result = report.build(root)
    assert [sentence for sentence in result.missing if "confusion.npz" in sentence] == [
        "Intervals with other test images: align_corners=false,size=s32/seed-0/evaluations/own/confusion.npz is "
        "damaged (BadZipFile: File is not a zip file); the command of the study makes it again, in s32, own."
    ]
    (left_out,) = (sentence for sentence in result.missing if sentence.startswith("Left out: "))
    assert left_out.startswith("Left out: align_corners=true,size=s32/seed-1/environment.json: not JSON: ")

    assert ends(execution.execute(study, root, workers=2)) == {run.directory: None for run in study.runs()}
    assert_same_results(study, root, study, original)
    assert execution.prepare(study, root) == []
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert (root / "damaged" / study.runs()[1].directory / "config.py").read_text() == "model = dict("
    assert (fourth / "environment.json.damaged").exists()
    assert "training.json is damaged and made again: not JSON" in (third / "log.txt").read_text()
    assert not any("damaged" in sentence for sentence in report.build(root).missing)


def test_records_of_another_version_are_refused_or_overwritten(undisturbed, tmp_path):
    study, original, _ = undisturbed
    root = shutil.copytree(original, tmp_path / "runs")
    run = study.runs()[2]
    path = root / run.directory / "metrics.json"
    path.write_text(path.read_text().replace(f'"schema": {records.SCHEMA}', '"schema": 1'))
    with pytest.raises(plan.StudyError, match=r"seed-1: made by .* expected schema 2, got 1: another .* --overwrite"):
        execution.prepare(study, root)
    assert [each.run.directory for each in execution.prepare(study, root, overwrite=True)] == [run.directory]
    result = report.build(root)
    assert [failure["error"].partition(",")[0] for failure in result.failures] == ["metrics.json: expected schema 2"]
    assert [(run["variants"], run["seed"]) for run in result.failures] == [(run.variants, run.seed)]
    assert [comparison.differences["true"].n for comparison in result.comparisons] == [1, 1]


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        ("kill(getpid(), 9)", "was ended by SIGKILL (out of memory?)"),
        ("kill(getpid(), 40)", "was ended by signal 40"),  # a real-time signal, which has no name
        ("_exit(3)", "ended with exit status 3"),
    ],
)
def test_causes(end, cause):
    process = subprocess.run([sys.executable, "-c", f"from os import *; {end}"])
    assert base.cause_of(process.returncode) == cause


def test_a_worker_that_cannot_start_says_why(write_study, tmp_path, monkeypatch):
    (tmp_path / "broken" / "mmengine").mkdir(parents=True)
    (tmp_path / "broken" / "mmengine" / "__init__.py").write_text("raise ImportError('a broken installation')")
    monkeypatch.syspath_prepend(tmp_path / "broken")
    with pytest.raises(execution.WorkerError, match=r"(?s)does not start. Its output:.*a broken installation"):
        list(execution.execute(loading.load(write_study()), tmp_path / "runs", workers=1))
