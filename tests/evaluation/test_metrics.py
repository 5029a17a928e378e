"""What all metrics have in common: registration, per-image results, ranks, files, names."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import METRICS

from mmseg_resample.evaluation import (
    EdgeCounts,
    area_iou,
    boundary_areas,
    contour_matches,
    contour_scores,
    displacement,
    edge_counts,
    frame_areas,
    object_areas,
    stored_displacement,
    trimap_areas,
)
from mmseg_resample.evaluation.per_image import DamagedCounts

from .maps import CLASSES, C, evaluate, patches

SIZE = (40, 50)

# Options, what is counted for an image, and the names of the results.
METRIC_CASES = {
    "BoundaryIoUMetric": (
        {"widths": (1, 0.05), "frame": False},
        lambda pred, label: {"areas": boundary_areas(pred, label, C, (1, 0.05), frame=False)},
        {"mBIoU_1px", "mBIoU_5pct"},
    ),
    "TrimapIoUMetric": (
        {"widths": (1, 4)},
        lambda pred, label: {"areas": trimap_areas(pred, label, C, (1, 4))},
        {"mIoU_trimap_1px", "mIoU_trimap_4px"},
    ),
    "BoundaryFMetric": (
        {"tolerances": (1, 0.03)},
        lambda pred, label: {"matches": contour_matches(pred, label, C, (1, 0.03))},
        {"mBF_1px", "mBF_3pct"},
    ),
    "DisplacementMetric": (
        {"max_displacement": 3, "bins": 3},
        lambda pred, label: edge_counts(pred, label, C, 3, 3)._asdict(),
        {"dx", "dx_left", "dx_middle", "dx_right", "dx_drift"}
        | {"dy", "dy_top", "dy_middle", "dy_bottom", "dy_drift", "edges_found"},
    ),
    "FrameDistanceIoUMetric": (
        {"distances": (4, 8.5)},
        lambda pred, label: {"areas": frame_areas(pred, label, C, (4, 8.5))},
        {"mIoU_frame_0-4px", "mIoU_frame_4-8.5px", "mIoU_frame_8.5px_up"},
    ),
    "ObjectSizeIoUMetric": (
        {"radii": (1, 2)},
        lambda pred, label: {"areas": object_areas(pred, label, C, (1, 2))},
        {"mIoU_size_0-1px", "mIoU_size_1-2px", "mIoU_size_2px_up"},
    ),
}


@pytest.fixture(params=METRIC_CASES)
def name(request):
    return request.param


def build(name, **kwargs):
    return METRICS.build({"type": name, **METRIC_CASES[name][0], **kwargs})


def pairs(number):
    return [patches(seed, SIZE, C) for seed in range(number)]


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    np.testing.assert_equal(list(actual.values()), list(expected.values()))


class TestEveryMetric:
    def test_names(self, name):
        assert evaluate(build(name), pairs(3)).keys() == METRIC_CASES[name][2]

    def test_defaults(self, name):
        assert evaluate(METRICS.build({"type": name}), pairs(1))

    def test_does_not_depend_on_the_order_of_images(self, name):
        assert_equal(evaluate(build(name), pairs(4)), evaluate(build(name), pairs(4)[::-1]))

    def test_stores_the_counts_of_every_image(self, name, tmp_path):
        path = tmp_path / "new" / "counts.npz"
        evaluate(build(name, out_file=str(path)), pairs(3))
        with np.load(path) as stored:
            assert stored["images"].tolist() == ["0.png", "1.png", "2.png"]
            assert stored["classes"].tolist() == list(CLASSES)
            for i, pair in enumerate(pairs(3)):
                for field, counts in METRIC_CASES[name][1](*pair).items():
                    np.testing.assert_equal(stored[field][i], counts.numpy())

    def test_drops_what_a_distributed_sampler_padded(self, name):
        metric = build(name)
        metric.dataset_meta = {"classes": CLASSES}
        samples = [{"pred_sem_seg": {"data": p[None]}, "gt_sem_seg": {"data": t[None]}} for p, t in pairs(3)]
        for sample in samples:
            metric.process({}, [sample])
        assert_equal(metric.evaluate(2), evaluate(build(name), pairs(2)))

    def test_names_the_image_that_is_wrong(self, name):
        wrong = torch.full(SIZE, C)
        with pytest.raises(ValueError, match=rf"{name}: image '1.png': .* got a prediction of {C}. Check num_classes"):
            evaluate(build(name), [*pairs(1), (wrong, torch.zeros_like(wrong))])

    def test_out_file_must_be_an_npz(self, name):
        with pytest.raises(ValueError, match=rf"{name}: expected out_file to end with .npz, got 'counts.json'"):
            build(name, out_file="counts.json")

    @pytest.mark.filterwarnings("error::RuntimeWarning")
    def test_nothing_but_ignored_pixels(self, name):
        ignored = torch.full(SIZE, 255)
        assert np.isnan(list(evaluate(build(name), [(ignored, ignored)]).values())).all()


def test_the_displacement_of_a_file_is_that_of_its_images(tmp_path):
    path, old, cut = (tmp_path / f"{name}.npz" for name in ("new", "old", "cut"))
    evaluate(build("DisplacementMetric", out_file=str(path)), pairs(3))
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    expected = displacement(EdgeCounts(*(arrays[name].sum(0) for name in EdgeCounts._fields)))
    np.savez_compressed(old, **{name: array for name, array in arrays.items() if not name.startswith("total_")})
    for found in map(stored_displacement, (path, old)):
        assert found.found == expected.found
        np.testing.assert_equal(found.x.profile, expected.x.profile)
        np.testing.assert_equal(found.y.thirds, expected.y.thirds)
    cut.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamagedCounts, match="is damaged"):
        stored_displacement(cut)


@pytest.mark.parametrize("name", ["ConfusionMatrixMetric", *METRIC_CASES])
def test_one_channel_predicts_floating_point(name):
    floating = [(pred.float(), label) for pred, label in pairs(2)]
    assert_equal(*(evaluate(METRICS.build({"type": name}), maps) for maps in (floating, pairs(2))))
    probabilities = [(torch.full(SIZE, 0.25), label) for _, label in pairs(1)]
    with pytest.raises(ValueError, match=rf"{name}: image '0.png': expected predicted classes, got 0.25"):
        evaluate(METRICS.build({"type": name}), probabilities)


@pytest.mark.parametrize("name", ["ConfusionMatrixMetric", *METRIC_CASES])
def test_one_row_is_a_map(name):
    """Takes a row by itself, and as mmseg's (1, H, W)."""
    row = torch.arange(60)[None] % C
    metrics = [METRICS.build({"type": name}) for _ in range(2)]
    for metric, data in zip(metrics, (row, row[None]), strict=True):
        metric.dataset_meta = {"classes": CLASSES}
        metric.process({}, [{"pred_sem_seg": {"data": data}, "gt_sem_seg": {"data": data}}])
    assert_equal(*(metric.evaluate(1) for metric in metrics))


def test_all_in_one_evaluator():
    """Build them as a config has them: names do not collide, and a prefix is possible."""
    init_default_scope("mmseg")
    evaluator = Evaluator([{"type": "ConfusionMatrixMetric"}, *({"type": name} for name in METRIC_CASES)])
    evaluator.dataset_meta = {"classes": CLASSES}
    for pred, label in pairs(2):
        evaluator.process([{"pred_sem_seg": {"data": pred[None]}, "gt_sem_seg": {"data": label[None]}}])
    results = evaluator.evaluate(2)
    assert len(results) == sum(len(evaluate(METRICS.build({"type": name}), pairs(2))) for name in METRIC_CASES) + 3


class TestReduction:
    """Data sets are sums of counts, so that images can be drawn again from a file."""

    def test_areas(self, tmp_path):
        values = evaluate(build("TrimapIoUMetric", out_file=str(tmp_path / "a.npz")), pairs(4))
        with np.load(tmp_path / "a.npz") as stored:
            per_class = area_iou(stored["areas"].sum(0))
            assert stored["bins"].tolist() == ["1px", "4px"]
        assert list(values.values()) == (100 * np.nanmean(per_class, axis=1)).round(2).tolist()

    def test_contours(self, tmp_path):
        values = evaluate(build("BoundaryFMetric", out_file=str(tmp_path / "a.npz")), pairs(4))
        with np.load(tmp_path / "a.npz") as stored:
            f_score = contour_scores(stored["matches"].sum(0))[2]
            assert stored["tolerances"].tolist() == ["1px", "3pct"]
        assert list(values.values()) == (100 * np.nanmean(f_score, axis=1)).round(2).tolist()

    def test_displacement(self, tmp_path):
        shifted = [(label.where(label != 255, 0).roll((1, -2), (0, 1)), label) for _, label in pairs(4)]
        values = evaluate(build("DisplacementMetric", out_file=str(tmp_path / "a.npz")), shifted)
        assert values["dx"] == pytest.approx(-2, abs=0.2)
        assert values["dy"] == pytest.approx(1, abs=0.2)
        with np.load(tmp_path / "a.npz") as stored:
            result = displacement(EdgeCounts(*(stored[field].sum(0) for field in EdgeCounts._fields)))
        assert values["dx_left"] == pytest.approx(result.x.thirds[0], abs=1e-3)
        assert values["dy_bottom"] == pytest.approx(result.y.thirds[2], abs=1e-3)
        assert values["dy_drift"] == pytest.approx(result.y.drift, abs=1e-3)

    def test_sizes_score_no_bin_of_absent_classes(self):
        values = evaluate(build("ObjectSizeIoUMetric"), [(torch.ones(4, 4).long(), torch.zeros(4, 4).long())])
        assert np.isnan(values["mIoU_size_0-1px"])
        assert values["mIoU_size_2px_up"] == 0


class TestWhereCountsAreWritten:
    @pytest.fixture
    def logger(self):
        """Undo what a runner does to the loggers that metrics find."""
        before = MMLogger._instance_dict.copy()
        MMLogger._instance_dict.clear()
        yield
        MMLogger._instance_dict.clear()
        MMLogger._instance_dict.update(before)

    def write(self, path):
        evaluate(build("TrimapIoUMetric", out_file=str(path)), pairs(2))

    def test_a_relative_path_begins_at_the_work_directory_of_the_run(self, logger, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        config = dict(
            model=dict(type="FCNHead", in_channels=1, channels=1, num_classes=2, num_convs=1), launcher="none"
        )
        runner = Runner(**config, work_dir=str(tmp_path / "work"), default_scope="mmseg", experiment_name="out_file")
        self.write("counts/trimap.npz")
        assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.npz")] == [Path("work/counts/trimap.npz")]
        assert runner.log_dir != runner.work_dir

    def test_an_absolute_path_stays(self, logger, tmp_path):
        MMLogger.get_instance("other", log_file=str(tmp_path / "other.log"))
        self.write(tmp_path / "here" / "trimap.npz")
        assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.npz")] == [Path("here/trimap.npz")]

    def test_without_a_run_it_begins_where_the_process_is(self, logger, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        self.write("trimap.npz")
        assert (tmp_path / "trimap.npz").is_file()
