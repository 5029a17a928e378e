"""The confusion matrix against a loop over pixels, and the metric against mmseg's IoUMetric."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmseg.evaluation.metrics import IoUMetric
from mmseg.registry import METRICS

from mmseg_resample.evaluation import ConfusionMatrixMetric, confusion_matrix, iou, scores
from mmseg_resample.evaluation.confusion import _count_by_bincount, _count_by_scatter

from .maps import CLASSES, C, evaluate, images


def brute_force(pred, label, num_classes, ignore_index):
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for p, t in zip(pred.flatten().tolist(), label.flatten().tolist(), strict=True):
        if t != ignore_index:
            matrix[t, p] += 1
    return matrix


class TestConfusionMatrix:
    def test_rows_are_labels_and_columns_predictions(self):
        pred, label = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 255])
        assert confusion_matrix(pred, label, 3).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]

    @given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.sampled_from([255, -1, -100, 7, 254, 65535, 10**9, 0, 2]))
    def test_equals_a_loop_over_pixels(self, seed, num_classes, ignore_index):
        generator = torch.Generator().manual_seed(seed)
        label = torch.randint(num_classes + 1, (6, 5), generator=generator)
        label = torch.where(label == num_classes, ignore_index, label)
        pred = torch.randint(num_classes, (6, 5), generator=generator)
        expected = brute_force(pred, label, num_classes, ignore_index)
        assert torch.equal(confusion_matrix(pred, label, num_classes, ignore_index), expected)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
    def test_any_integer_dtype(self, dtype):
        ((pred, label),) = images(1)
        expected = brute_force(pred, label, C, 255)
        assert torch.equal(confusion_matrix(pred.to(dtype), label.to(dtype), C), expected)
        assert confusion_matrix(pred.to(dtype), label.to(dtype), C).dtype == torch.int64

    def test_a_prediction_does_not_matter_where_the_label_is_ignored(self):
        pred, label = torch.tensor([0, 99, -7]), torch.tensor([0, 255, 255])
        assert confusion_matrix(pred, label, 2).tolist() == [[1, 0], [0, 0]]

    @pytest.mark.parametrize("shape", [(0,), (0, 4)])
    def test_no_pixels(self, shape):
        empty = torch.zeros(shape, dtype=torch.int64)
        assert confusion_matrix(empty, empty, 3).sum() == 0

    def test_counts_beyond_float32(self):
        """IoUMetric counts one bin of this with ``torch.histc`` in float32, which stops at 2**24."""
        pixels = 2**24 + 3
        zeros = torch.zeros(1, dtype=torch.uint8).expand(pixels)
        assert confusion_matrix(zeros, zeros, 2).tolist() == [[pixels, 0], [0, 0]]
        assert IoUMetric.intersect_and_union(zeros, zeros, 2, 255)[0][0] != pixels

    @pytest.mark.parametrize("count", [_count_by_bincount, _count_by_scatter])
    @pytest.mark.parametrize("ignore_index", [255, -1, 6])
    def test_both_implementations_count_invalid_pixels(self, count, ignore_index):
        label = torch.tensor([0, 1, 5, ignore_index, 4, 300, -3, 2])
        pred = torch.tensor([0, 5, 0, 99, 4, 0, 0, -1])
        counts = count(pred, label, C, ignore_index)
        assert counts[-1] == 5
        matrix = counts[:-1].view(C, C)
        assert (matrix[0, 0], matrix[4, 4], matrix.sum()) == (1, 1, 2)

    @pytest.mark.parametrize(
        ("pred", "label", "error", "message"),
        [
            ([0, 1], [0, 7], ValueError, r"labels in \[0, 5\) or 255 \(ignored\), got \[0, 1\] and \[0, 7\]"),
            ([0, 9], [0, 1], ValueError, r"predictions in \[0, 5\).* got \[0, 9\]"),
            ([0, -1], [0, 1], ValueError, r"got \[-1, 0\]"),
            ([0, 1], [0], ValueError, r"one shape, got \(2,\) and \(1,\)"),
            ([0.0], [0], TypeError, r"integer classes, got pred torch.float32"),
            ([0], [True], TypeError, r"label torch.bool"),
        ],
    )
    def test_errors(self, pred, label, error, message):
        with pytest.raises(error, match=message):
            confusion_matrix(torch.tensor(pred), torch.tensor(label), C)

    @pytest.mark.parametrize("count", [_count_by_bincount, _count_by_scatter])
    @pytest.mark.parametrize(
        ("classes", "label", "dtype", "ignore_index"),
        [
            (200, 156, torch.uint8, -100),  # 156 is -100 in eight bits
            (200, 0, torch.uint8, 256),
            (300, 255, torch.uint8, -1),
            (300, 44, torch.int8, 300),
        ],
    )
    def test_a_byte_does_not_wrap_around(self, count, classes, label, dtype, ignore_index):
        x = torch.full((4,), label, dtype=dtype)
        assert count(x, x, classes, ignore_index)[:-1].view(classes, classes)[label, label] == 4
        assert not count(x, x, classes, label).any()


class TestScores:
    def test_by_hand(self):
        confusion = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
        np.testing.assert_allclose(iou(confusion), [3 / 6, 4 / 7, np.nan])
        values = scores(confusion)
        assert values["aAcc"] == pytest.approx(70)
        assert values["mIoU"] == pytest.approx(100 * (3 / 6 + 4 / 7) / 2)
        assert values["mAcc"] == pytest.approx(100 * (3 / 4 + 4 / 6) / 2)

    def test_stacks(self):
        confusion = np.random.default_rng(0).integers(9, size=(4, 2, C, C))
        np.testing.assert_equal(iou(confusion)[2, 1], iou(confusion[2, 1]))

    def test_nothing_counted(self):
        assert np.isnan(scores(np.zeros((2, 2), int))["mIoU"])


class TestMetric:
    def test_is_registered_with_mmseg(self):
        assert METRICS.get("ConfusionMatrixMetric") is ConfusionMatrixMetric

    @pytest.mark.parametrize("present", [2, C])
    @pytest.mark.parametrize("ignore_index", [255, 200])
    def test_equals_iou_metric(self, present, ignore_index):
        pairs = list(images(4, ignore_index=ignore_index, present=present))
        expected = evaluate(IoUMetric(ignore_index=ignore_index), pairs)
        actual = evaluate(ConfusionMatrixMetric(ignore_index=ignore_index), pairs)
        assert {name: f"{value:.2f}" for name, value in actual.items()} == {
            name: f"{value:.2f}" for name, value in expected.items()
        }

    @pytest.mark.parametrize("ignore_index", [0, 3])
    def test_equals_iou_metric_where_a_class_is_not_scored(self, ignore_index):
        """It has no label, and what is predicted of it elsewhere is wrong."""
        pairs = list(images(4, ignore_index=ignore_index))
        expected = evaluate(IoUMetric(ignore_index=ignore_index), pairs)
        assert evaluate(ConfusionMatrixMetric(ignore_index=ignore_index), pairs) == pytest.approx(expected, abs=0.011)

    def test_sums_images_exactly(self):
        """2**24 pixels in one bin per image, small remainders in others: float32 sums would lose them."""
        metric = ConfusionMatrixMetric()
        metric.dataset_meta = {"classes": ("a", "b")}
        counts = torch.tensor([2**24 + 1, 1, 0, 1, 0])
        metric.results = [{"image": "", "counts": counts.clone()} for _ in range(3)]
        metric.out_file = None
        assert metric.evaluate(3)["mIoU"] == round(50 * ((2**24 + 1) / (2**24 + 2) + 1 / 2), 2)

    def test_stores_every_image(self, tmp_path):
        pairs = list(images(3))
        evaluate(ConfusionMatrixMetric(out_file=str(tmp_path / "new" / "matrices.npz")), pairs)
        with np.load(tmp_path / "new" / "matrices.npz") as stored:
            assert stored["images"].tolist() == ["0.png", "1.png", "2.png"]
            assert stored["classes"].tolist() == list(CLASSES)
            assert stored["confusion"].dtype == np.int64
            for matrix, (pred, label) in zip(stored["confusion"], pairs, strict=True):
                np.testing.assert_equal(matrix, brute_force(pred, label, C, 255).numpy())

    def test_a_data_set_in_memory_has_positions_for_names(self, tmp_path):
        metric = ConfusionMatrixMetric(out_file=str(tmp_path / "matrices.npz"))
        metric.dataset_meta = {"classes": CLASSES}
        for pred, label in images(2):
            metric.process({}, [{"pred_sem_seg": {"data": pred[None]}, "gt_sem_seg": {"data": label[None]}}])
        metric.evaluate(2)
        with np.load(tmp_path / "matrices.npz") as stored:
            assert stored["images"].tolist() == ["0", "1"]

    def test_drops_what_a_distributed_sampler_padded(self):
        metric = ConfusionMatrixMetric()
        (pred, label), (other, _) = images(2)
        assert evaluate(metric, [(pred, label)]) == evaluate_padded(metric, pred, label, other)

    def test_out_of_range_names_the_image_and_what_to_check(self):
        wrong = torch.full((2, 2), 6)
        with pytest.raises(ValueError, match=r"4 pixels of image '1.png' have neither. Check num_classes"):
            evaluate(ConfusionMatrixMetric(), [*images(1, size=(2, 2)), (torch.zeros_like(wrong), wrong)])

    def test_out_file_must_be_an_npz(self):
        with pytest.raises(ValueError, match=r"end with .npz, got 'matrices.json'"):
            ConfusionMatrixMetric(out_file="matrices.json")


def evaluate_padded(metric, pred, label, other):
    metric.dataset_meta = {"classes": CLASSES}
    for p in (pred, other):
        metric.process({}, [{"pred_sem_seg": {"data": p[None]}, "gt_sem_seg": {"data": label[None]}}])
    return metric.evaluate(1)
