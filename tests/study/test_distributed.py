"""One run in two processes over gloo: exact resuming, and the counts of one process."""

import shutil

import numpy as np
import pytest
import torch

from mmseg_resample.study import distributed, execution, loading, plan, records, training
from mmseg_resample.study.hooks import RandomStateHook
from mmseg_resample.study.messages import Done, Progress, Task
from mmseg_resample.unpickle import load

from .test_executors import attempts, ends
from .tiny import STUDY
from .tiny import write_study as write

DIFFERENT = {"randomness": {"diff_rank_seed": True}}  # so that no process could take the state of another one


def two_processes(path, **kwargs):
    return execution.with_processes(loading.load(path, seeds=[3], **kwargs), 2)


def perform(study, root):
    run = study.runs()[0]
    distributed.perform(Task(run, root, None, threads=1), 2, lambda progress: None)
    return records.RunFiles(root / run.directory)


def result(files):
    (checkpoint,) = files.work_dir.glob("*.pth")
    state = load(checkpoint)
    momenta = {f"momentum {i}": each["momentum_buffer"] for i, each in state["optimizer"]["state"].items()}
    return {**state["state_dict"], **momenta}, state["random_states"]


class TestProcesses:
    def test_are_part_of_the_config(self, write_study, tmp_path):
        one = loading.load(write_study())
        two = execution.with_processes(one, 2)
        assert execution.processes(one) == 1
        assert execution.processes(two) == 2
        assert {run.config["procs_per_run"] for run in two.runs()} == {2}
        assert "procs_per_run" not in one.base_config
        run = two.runs()[0]
        records.begin_attempt(run, records.RunFiles(tmp_path / run.directory), None)
        with pytest.raises(plan.StudyError, match=r"config.py: procs_per_run was 2, is now nothing"):
            execution.prepare(one, tmp_path)
        assert len(execution.prepare(two, tmp_path)) == 4

    @pytest.mark.parametrize("count", [0, True, "2"])
    def test_must_be_a_number(self, write_study, count):
        study = loading.load(write_study({"procs_per_run": count}))
        with pytest.raises(plan.StudyError, match="procs_per_run: expected 1 or more, got"):
            execution.processes(study)

    def test_none(self, write_study):
        with pytest.raises(plan.StudyError, match="--procs-per-run: expected 1 or more, got 0"):
            execution.with_processes(loading.load(write_study()), 0)

    def test_another_number_cannot_resume(self):
        with pytest.raises(ValueError, match="a training of 2 processes cannot be resumed by 1"):
            RandomStateHook().after_load_checkpoint(None, {"random_states": [{}, {}]})


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The events and the directory of two runs by an executor, of which the second one fails."""
    folder = tmp_path_factory.mktemp("executed")
    fault = {"type": "Fault", "iteration": 3, "where": "align_corners=true"}
    study = two_processes(write(folder, {**DIFFERENT, "custom_hooks": [fault]}, evaluations={"own": {}}))
    return list(execution.execute(study, folder / "runs", workers=1)), folder / "runs"


@pytest.mark.slow
def test_by_an_executor(executed):
    """A failure names the process and is recorded; the ledger has one attempt."""
    events, root = executed
    errors = ends(events)
    failed = "align_corners=true,size=s32/seed-3"
    assert errors["align_corners=false,size=s32/seed-3"] is None
    assert "process" in errors[failed]
    assert "RuntimeError: a fault after iteration 3" in errors[failed]
    assert [len(each) for each in attempts(root).values()] == [1, 1]
    assert sum(isinstance(event.what, Done) for event in events) == 2
    assert "train" in {event.what.phase for event in events if isinstance(event.what, Progress)}


@pytest.mark.slow
def test_a_killed_run_resumes_exactly(executed, write_study, tmp_path):
    files = records.RunFiles(executed[1] / "align_corners=false,size=s32" / "seed-3")
    expected, expected_states = result(files)
    assert records.read_json(files.training)["iterations"] == 8
    assert not files.progress.exists()
    assert len(expected_states) == 2
    assert not torch.equal(expected_states[0]["torch"], expected_states[1]["torch"])

    fault = {"type": "Fault", "iteration": 7, "kill": True}  # after the checkpoints at 2, 4 and 6 of 8 iterations
    study = two_processes(write_study({**DIFFERENT, "custom_hooks": [fault]}, evaluations={"own": {}}))
    with pytest.raises(RuntimeError, match=r"process [01] of 2: was ended by SIGKILL"):
        perform(study, tmp_path)
    files = perform(study, tmp_path)
    assert "resumed epoch: 0, iter: 6" in "".join(path.read_text() for path in files.work_dir.glob("*/*.log"))
    actual, actual_states = result(files)
    assert actual.keys() == expected.keys()
    for name in expected:
        assert torch.equal(actual[name], expected[name]), name
    for ours, theirs in zip(actual_states, expected_states, strict=True):
        assert torch.equal(ours["torch"], theirs["torch"])
        assert ours["python"] == theirs["python"]


@pytest.mark.slow
def test_the_counts_of_one_process(executed, write_study, tmp_path):
    """Test the same weights in two processes: an odd number of images leaves one of them a repeated image."""
    sizes = {**STUDY["axes"]["size"], "s48": {**STUDY["axes"]["size"]["s48"], "test_dataloader.dataset.length": 4}}
    run = two_processes(write_study(axes={**STUDY["axes"], "size": sizes})).runs()[0]  # the others have 3 images
    counts = {}
    for processes in (1, 2):
        root = shutil.copytree(executed[1], tmp_path / str(processes))
        files = records.RunFiles(root / run.directory)
        shutil.rmtree(files.evaluations)
        files.metrics.unlink()
        trained = files.training.read_bytes()
        if processes == 1:
            training.perform(run, root, lambda progress: None)
        else:
            distributed.perform(Task(run, root, None, threads=1), processes, lambda progress: None)
        assert files.training.read_bytes() == trained
        counts[processes] = {}
        assert {path.suffix for path in files.evaluations.glob("*/*")} == {".npz"}  # what was collected is gone
        for path in sorted(files.evaluations.glob("*/*.npz")):
            with np.load(path) as stored:
                counts[processes][str(path.relative_to(files.evaluations))] = {name: stored[name] for name in stored}
        scores = [records.read_json(files.evaluation(name))["metrics"] for name in ("own", "larger")]
        counts[processes]["scores"] = {"scores": np.array([list(each.values()) for each in scores], dtype=float)}
    assert len(counts[1]) == 2 * 4 + 1  # two evaluations with four evaluators
    assert counts[1].keys() == counts[2].keys()
    for name, arrays in counts[1].items():
        for key, expected in arrays.items():
            np.testing.assert_array_equal(counts[2][name][key], expected, err_msg=f"{name} {key}")
    assert [len(counts[2][f"{name}/confusion.npz"]["confusion"]) for name in ("own", "larger")] == [3, 4]
