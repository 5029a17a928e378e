"""How long a study takes, from what it took and from a few iterations."""

import pytest
import torch

from mmseg_resample.study import estimate, loading, records


@pytest.fixture
def study(write_study):
    return loading.load(write_study())


def finish(run, root, training, *tests):
    evaluations = {str(index): {"seconds": seconds} for index, seconds in enumerate(tests)}
    metrics = {"variants": run.variants, "seed": run.seed, "training": {"seconds": training}}
    metrics["evaluations"] = evaluations
    records.write_json(records.RunFiles(root / run.directory).metrics, metrics)


class TestFromFinished:
    def test_the_median_of_the_same_variants(self, study, tmp_path):
        false0, true0, false1, true1 = study.runs()
        finish(false0, tmp_path, 10.0, 1.0, 1.5)
        finish(true0, tmp_path, 30.0, 2.0)
        found = estimate.from_finished(study, tmp_path, [false1, true1], 1)
        assert found.seconds == 12.5 + 32.0
        assert found.source == "from the 2 finished runs of this study, 22 s each (median)"

    def test_others_where_there_are_none(self, study, tmp_path):
        false0, _, _, true1 = study.runs()
        finish(false0, tmp_path, 10.0)
        assert estimate.from_finished(study, tmp_path, [true1], 1).seconds == 10.0

    def test_a_run_that_lacks_an_evaluation_is_pending(self, study, tmp_path):
        false0, *others = study.runs()
        finish(false0, tmp_path, 10.0)
        assert estimate.from_finished(loading.load(study.file), tmp_path, [false0, *others], 1) is None

    def test_nothing_is_known(self, study, tmp_path):
        assert estimate.from_finished(study, tmp_path, study.runs(), 1) is None

    @pytest.mark.parametrize(
        ("seconds", "workers", "expected"),
        [([4, 3, 2], 1, 9), ([4, 3, 2], 2, 5), ([4, 3, 2], 3, 4), ([4, 3, 2], 9, 4), ([1, 1, 4], 2, 5), ([], 2, 0)],
    )
    def test_workers_share_the_runs(self, seconds, workers, expected):
        assert estimate._makespan(seconds, workers) == expected


def test_from_iterations(write_study, tmp_path, capsys):
    """Each iteration of the training sleeps: 8 iterations of 0.1 s are found from a few of them; nothing is left."""
    study = loading.load(write_study({"custom_hooks.0.seconds": 0.1}))
    threads = torch.get_num_threads()
    before = set(tmp_path.rglob("*"))
    found = estimate.from_iterations(study.runs(), 2, 1, iterations=2)
    assert found.seconds / 2 > 0.8  # four runs, two at a time
    assert found.seconds / 2 < 5
    assert "from 2 iterations of the training and of each test of align_corners=false size=s32 seed 0" in found.source
    assert set(tmp_path.rglob("*")) == before
    assert torch.get_num_threads() == threads
    assert capsys.readouterr().out == ""
