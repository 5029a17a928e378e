"""Who gets which share of a machine: a function of its GPUs and cores."""

import pytest
import torch

from mmseg_resample.study import plan
from mmseg_resample.study.executors import local, slots
from mmseg_resample.study.executors.slots import Slot


@pytest.fixture(autouse=True)
def _no_wish(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def gpus_of(*args, **kwargs):
    return [",".join(slot.gpus) for slot in slots.slots(*args, **kwargs)]


class TestSlots:
    @pytest.mark.parametrize(
        ("cores", "workers", "expected"),
        [
            (1, None, [1]),
            (2, None, [1, 1]),
            (64, None, [16, 16, 16, 16]),
            (7, 3, [2, 2, 2]),
            (2, 6, [1] * 6),
        ],
    )
    def test_cores(self, cores, workers, expected):
        assert slots.slots([], cores, workers=workers) == [Slot((), threads) for threads in expected]

    def test_processes_share_the_cores(self):
        assert slots.slots([], 8, processes=2) == [Slot((), 1)] * 4
        assert slots.slots([], 8, workers=2, processes=2) == [Slot((), 2)] * 2
        assert slots.slots([], 2, processes=4) == [Slot((), 1)]

    @pytest.mark.parametrize(
        ("wish", "threads", "expected"), [("1", None, 1), ("3,2", None, 3), ("", None, 8), ("a", None, 8), ("1", 2, 2)]
    )
    def test_the_wish_of_the_environment_counts_and_that_of_the_command_more(
        self, monkeypatch, wish, threads, expected
    ):
        monkeypatch.setenv("OMP_NUM_THREADS", wish)
        assert slots.slots([], 8, workers=1, threads=threads) == [Slot((), expected)]
        assert slots.slots(["0"], 8, threads=threads) == [Slot(("0",), expected)]

    def test_a_run_per_gpu(self):
        assert slots.slots(["2", "GPU-5"], 16) == [Slot(("2",), 8), Slot(("GPU-5",), 8)]

    def test_runs_share_a_gpu(self):
        assert gpus_of(["0", "1"], 8, runs_per_gpu=3) == ["0", "1", "0", "1", "0", "1"]
        assert {slot.threads for slot in slots.slots(["0", "1"], 8, runs_per_gpu=3)} == {1}

    def test_fewer_workers_are_on_different_gpus(self):
        assert gpus_of(["0", "1", "2"], 8, workers=2, runs_per_gpu=4) == ["0", "1"]

    def test_more_workers_than_gpus_share_them(self):
        assert gpus_of(["0", "1"], 8, workers=3) == ["0", "1", "0"]

    def test_a_gpu_per_process(self):
        assert gpus_of(["0", "1", "2", "3"], 8, processes=2) == ["0,1", "2,3"]
        assert gpus_of(["0", "1", "2"], 8, processes=2, runs_per_gpu=2) == ["0,1", "0,1"]  # one has no partner

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (dict(workers=0), "--workers: expected 1 or more, got 0"),
            (dict(threads=0), "--threads: expected 1 or more, got 0"),
            (dict(runs_per_gpu=0), "--runs-per-gpu: expected 1 or more, got 0"),
            (dict(processes=-1), "--procs-per-run: expected 1 or more, got -1"),
            (dict(workers=5, runs_per_gpu=2), "--workers 5: 2 GPUs hold 4 runs of 1 processes .* Raise it to 3"),
            (dict(processes=3), "--procs-per-run 3: each process needs a GPU, and there are 2"),
        ],
    )
    def test_what_contradicts_the_machine(self, arguments, message):
        with pytest.raises(plan.StudyError, match=message):
            slots.slots(["0", "1"], 8, **arguments)

    def test_no_gpu_to_share(self):
        with pytest.raises(plan.StudyError, match="--runs-per-gpu 2: there is no GPU to share"):
            slots.slots([], 8, runs_per_gpu=2)


class TestVisibleGpus:
    @pytest.fixture
    def three(self, monkeypatch):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)

    def test_all(self, three):
        assert slots.visible_gpus() == ["0", "1", "2"]

    def test_as_the_environment_names_them(self, three, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5,1")
        assert slots.visible_gpus() == ["GPU-5", "1"]

    def test_selected(self, three):
        assert slots.visible_gpus(["2", "0"]) == ["2", "0"]
        with pytest.raises(plan.StudyError, match=r"--gpus: '3' is not a GPU of this machine. There are: 0, 1, 2"):
            slots.visible_gpus(["3"])

    def test_none(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert slots.visible_gpus() == []
        with pytest.raises(plan.StudyError, match="There are: none"):
            slots.visible_gpus(["0"])


def test_workers_get_their_share(monkeypatch):
    monkeypatch.setattr(slots, "cores", lambda: 7)
    monkeypatch.setattr(slots, "visible_gpus", lambda wanted: ["2", "GPU-5"])
    executor = local.Local(3)
    environments = [executor._environment(index) for index in range(3)]
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in environments] == ["2", "GPU-5", "2"]
    assert {environment["OMP_NUM_THREADS"] for environment in environments} == {"2"}
