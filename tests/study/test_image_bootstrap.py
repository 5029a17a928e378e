"""The nested bootstrap against slow loops, closed forms and mmseg's definitions."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mmseg_resample.evaluation import ConfusionMatrixMetric, scores
from mmseg_resample.study import image_bootstrap
from mmseg_resample.study.image_bootstrap import image_counts, nested_bootstrap, read_image_counts
from mmseg_resample.study.intervals import t_interval
from mmseg_resample.study.paired import interaction_weights
from mmseg_resample.study.plan import METRICS

CLASSES = 4
DOCUMENT = Path(__file__).parents[2] / "docs" / "statistics.md"


def draw(n_arms=2, n_seeds=3, n_images=12, seed=0, spread=1.0):
    """(arms, seeds, images, C, C): every arm and seed labels the same pixels in its own way."""
    rng = np.random.default_rng(seed)
    labels = rng.multinomial(2000, [0.4, 0.3, 0.2, 0.1], n_images)
    confusion = np.empty((n_arms, n_seeds, n_images, CLASSES, CLASSES), np.int64)
    for index in np.ndindex(n_arms, n_seeds, n_images):
        accuracy = 1 / (1 + np.exp(-1 - 0.3 * index[0] - spread * rng.normal()))
        p = np.full((CLASSES, CLASSES), (1 - accuracy) / (CLASSES - 1))
        np.fill_diagonal(p, accuracy)
        confusion[index] = rng.multinomial(labels[index[2]], p)
    return confusion


@pytest.mark.parametrize("metric", METRICS)
def test_metric_is_that_of_the_data_set(metric):
    """Every metric that a study may compare, as ``evaluation.scores`` has it, with a class that never occurs."""
    confusion = np.pad(draw(), [(0, 0)] * 3 + [(0, 1), (0, 1)])
    a, b = ([scores(of_seed.sum(0))[metric] for of_seed in arm] for arm in confusion)
    result = nested_bootstrap([image_counts(arm) for arm in confusion], rng=0, metric=metric, replicates=2)
    assert result.by_seed == pytest.approx(np.subtract(a, b), abs=1e-12)
    assert result.mean == pytest.approx(np.mean(a) - np.mean(b), abs=1e-12)


def test_every_metric_of_a_study_is_known():
    assert set(image_bootstrap._METRICS) == set(METRICS)


def test_percentile_is_the_loop_over_images_then_seeds():
    confusion = draw()
    rng = np.random.default_rng(1)
    pairs = list(zip(*confusion, strict=True))
    replicates, images_alone = [], []
    for _ in range(4000):
        images = rng.integers(0, 12, 12)
        deltas = [scores(a[images].sum(0))["mIoU"] - scores(b[images].sum(0))["mIoU"] for a, b in pairs]
        replicates.append(np.mean(rng.choice(deltas, 3)))
        images_alone.append(np.mean(deltas))
    result = nested_bootstrap(list(image_counts(confusion)), rng=0, replicates=4000, confidence=0.8)
    ends = (result.percentile.low, result.percentile.high)
    assert ends == pytest.approx(np.quantile(replicates, [0.1, 0.9]), abs=0.1 * np.std(replicates))
    assert result.image_error == pytest.approx(np.std(images_alone), rel=4 / math.sqrt(2 * 4000))


def test_images_that_are_all_alike_leave_the_interval_of_the_seeds():
    counts = image_counts(draw(n_images=1).repeat(9, axis=2))
    result = nested_bootstrap(list(counts), rng=0)
    expected = t_interval(result.by_seed)
    assert result.image_error == pytest.approx(0, abs=1e-10)
    assert (result.student.low, result.student.high) == pytest.approx((expected.low, expected.high))
    assert min(result.by_seed) - 1e-9 <= result.percentile.low < result.percentile.high <= max(result.by_seed) + 1e-9


def test_seeds_that_are_all_alike_leave_the_error_of_the_images():
    """More copies of one training make nothing more certain: the images are the same for all of them."""
    single = image_counts(draw(n_seeds=1, n_images=30))
    few, many = (nested_bootstrap(list(single.repeat(n, axis=1)), rng=0) for n in (2, 20))
    assert few.seed_error == pytest.approx(0, abs=1e-10)
    assert few.image_error == pytest.approx(many.image_error) != 0
    for result in (few, many):
        half = (result.student.high - result.student.low) / 2
        assert half == pytest.approx(2.045 * result.image_error, rel=1e-3)  # t(0.975, 29)


def test_image_error_of_accuracy_has_a_closed_form():
    """Images of equal size: accuracy is their mean, and redrawing them has the variance of that mean."""
    confusion = draw(n_arms=1, n_images=40)
    result = nested_bootstrap(list(image_counts(confusion)), (1,), rng=0, metric="aAcc", replicates=20_000)
    by_image = 100 * confusion[0].diagonal(axis1=-2, axis2=-1).sum(-1).mean(0) / 2000
    assert result.image_error == pytest.approx(by_image.std() / math.sqrt(40), rel=0.03)


def test_variance_adds_up_without_counting_interactions_twice():
    """Seeds, images and both with known variances of the accuracy: the interval is that of their sum."""
    rng = np.random.default_rng(0)
    n_seeds, n_images, pixels = 12, 50, 10**6
    sd = dict(seeds=0.01, images=0.05, both=0.04)
    accuracy = 0.5 + sd["seeds"] * rng.normal(size=(n_seeds, 1)) + sd["images"] * rng.normal(size=(1, n_images))
    hits = (pixels * (accuracy + sd["both"] * rng.normal(size=(n_seeds, n_images)))).astype(np.int64)
    counts = np.stack([hits, hits, np.full_like(hits, pixels)], -1)[..., None]
    result = nested_bootstrap([counts], (1,), rng=0, metric="aAcc")
    variance = sd["seeds"] ** 2 / n_seeds + sd["images"] ** 2 / n_images + sd["both"] ** 2 / (n_seeds * n_images)
    error = (result.student.high - result.student.low) / 2 / 2.0  # t(0.975) of about 55 degrees of freedom
    assert error == pytest.approx(100 * math.sqrt(variance), rel=0.2)
    assert result.student.low < 50 < result.student.high


def test_arms_are_tested_on_the_same_images():
    """Two copies of an arm differ by nothing whichever images are drawn, however much the images differ."""
    counts = image_counts(draw(n_arms=1, spread=2.0))[0]
    result = nested_bootstrap([counts, counts], rng=0)
    assert result.image_error == result.seed_error == 0
    assert (result.student.low, result.percentile.high) == (0, 0)
    assert nested_bootstrap([counts], (1,), rng=0).image_error > 1


def test_swapping_the_arms_flips_the_sign():
    a, b = image_counts(draw())
    forth, back = nested_bootstrap([a, b], rng=0), nested_bootstrap([b, a], rng=0)
    assert forth.mean == -back.mean
    assert forth.percentile.low == pytest.approx(-back.percentile.high)
    assert forth.student.low == pytest.approx(-back.student.high)


def test_interaction_is_a_difference_of_differences():
    arms = list(image_counts(draw(n_arms=4)))
    weights = list(interaction_weights(("false", "true"), ("128", "129")).values())
    assert weights == [1, -1, -1, 1]
    result = nested_bootstrap(arms, weights, rng=0)
    first, second = nested_bootstrap(arms[:2], rng=0), nested_bootstrap(arms[2:], rng=0)
    assert result.by_seed == pytest.approx(np.subtract(first.by_seed, second.by_seed))
    assert result.student.low < result.mean < result.student.high


def test_one_seed_says_nothing_about_trainings():
    result = nested_bootstrap(list(image_counts(draw(n_seeds=1))), rng=0)
    assert all(map(math.isnan, (result.seed_error, result.student.low, result.percentile.high)))
    assert result.image_error > 0


def test_a_class_of_few_images_is_counted_as_incomplete():
    """A class on one image of 10 is missing from (1 - 1 / 10)**10 of the draws."""
    confusion = draw(n_images=10)
    confusion[:, :, 1:, 3] = 0
    result = nested_bootstrap(list(image_counts(confusion)), rng=0, replicates=4000)
    assert result.incomplete == pytest.approx(0.9**10, abs=4 * math.sqrt(0.25 / 4000))
    assert nested_bootstrap(list(image_counts(draw())), rng=0).incomplete < 0.001


def test_a_seed_fixes_the_result():
    arms = list(image_counts(draw()))
    assert nested_bootstrap(arms, rng=3) == nested_bootstrap(arms, rng=3)
    assert nested_bootstrap(arms, rng=3) == nested_bootstrap(arms, rng=np.random.default_rng(3))
    assert nested_bootstrap(arms, rng=3).percentile != nested_bootstrap(arms, rng=4).percentile


def test_memory_does_not_change_the_result(monkeypatch):
    arms = list(image_counts(draw()))
    expected = nested_bootstrap(arms, rng=0)
    monkeypatch.setattr(image_bootstrap, "_CHUNK", 10 * arms[0].size)
    assert nested_bootstrap(arms, rng=0) == expected


def store(path, confusion, names):
    """Through the metric, as a study stores them."""
    metric = ConfusionMatrixMetric(out_file=str(path))
    metric.dataset_meta = {"classes": [f"class {k}" for k in range(CLASSES)]}
    for matrix, name in zip(confusion, names, strict=True):
        label = torch.from_numpy(np.repeat(np.repeat(np.arange(CLASSES), CLASSES), matrix.ravel()))[None]
        pred = torch.from_numpy(np.repeat(np.tile(np.arange(CLASSES), CLASSES), matrix.ravel()))[None]
        sample = {"pred_sem_seg": {"data": pred}, "gt_sem_seg": {"data": label}, "img_path": f"folder/{name}.png"}
        metric.process({}, [sample])
    metric.evaluate(len(confusion))
    return path


def test_stored_images_are_brought_into_one_order(tmp_path):
    confusion = draw(n_seeds=2, n_images=5)
    rng = np.random.default_rng(0)
    files: list[list] = [[], []]
    for arm, seed in np.ndindex(2, 2):
        order = rng.permutation(5) if (arm, seed) != (0, 0) else np.arange(5)
        files[arm].append(store(tmp_path / f"{arm}{seed}.npz", confusion[arm, seed][order], order))
    read = read_image_counts(files)
    np.testing.assert_array_equal(read, image_counts(confusion))


def test_frames_of_a_video_are_one_sequence(tmp_path):
    confusion = draw(n_seeds=1, n_images=5)
    names = ["b_1", "a_1", "b_2", "alone", "a_2"]
    files = [[store(tmp_path / f"{arm}.npz", confusion[arm, 0], names)] for arm in range(2)]
    read = read_image_counts(files, r"^[^_]+_")
    images = image_counts(confusion)
    expected = np.stack([images[:, :, [0, 2]].sum(2), images[:, :, [1, 4]].sum(2), images[:, :, 3]], axis=2)
    np.testing.assert_array_equal(read, expected)


def test_stored_images_must_be_the_same(tmp_path):
    confusion = draw(n_seeds=2, n_images=3)
    first = store(tmp_path / "first.npz", confusion[0, 0], "abc")
    for name, images in (("other", "abd"), ("twice", "aab")):
        second = store(tmp_path / f"{name}.npz", confusion[1, 0], images)
        with pytest.raises(ValueError, match=rf"{name}.npz does not have the images of .*first.npz, each once"):
            read_image_counts([[first], [second]])
    images = ["a.png", "b.png", "c.png"]
    np.savez(tmp_path / "classes.npz", confusion=confusion[0, 0], images=images, classes=list("wxyz"))
    with pytest.raises(ValueError, match=r"classes.npz does not have the classes of .*first.npz"):
        read_image_counts([[first], [tmp_path / "classes.npz"]])


def test_the_snippets_of_the_document_run(tmp_path, monkeypatch):
    """Run them in an empty directory that holds the default study: they print these figures."""
    monkeypatch.chdir(tmp_path)
    first, second = re.findall(r"```python[^\n]*\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    for (arm, seed), confusion in zip(np.ndindex(2, 3), draw().reshape(6, 12, CLASSES, CLASSES), strict=True):
        run = Path(f"work_dirs/align_corners_shapes/align_corners={('false', 'true')[arm]},input=128/seed-{seed}")
        (run / "evaluations" / "own").mkdir(parents=True)
        content = dict(confusion=confusion, images=[str(i) for i in range(12)], classes=list("abcd"))
        np.savez(run / "evaluations" / "own" / "confusion.npz", **content)
    found = {}
    exec(first, found)
    difference = found["difference"]
    assert [round(x, 2) for x in (difference.mean, difference.low, difference.high)] == [-0.61, -0.88, -0.34]
    assert found["significance"].sign_flip_test(difference.values).p == pytest.approx(0.03125)
    exec(second, found)
    assert [arm.shape for arm in found["arms"]] == [(3, 12, 3, CLASSES)] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(weights=(1,)), "expected one weight per arm, got 2 arms"),
        (dict(metric="IoU"), r"expected metric in \['mIoU', 'mAcc', 'aAcc'\], got 'IoU'"),
        (dict(replicates=1), "expected 2 replicates or more, got 1"),
        (dict(confidence=95), r"expected confidence in \(0, 1\), got 95"),
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=f"nested_bootstrap: {message}"):
        nested_bootstrap(list(image_counts(draw())), **{"rng": 0, **change})


def test_shapes_are_checked():
    a, b = image_counts(draw())
    with pytest.raises(ValueError, match=r"arms of one shape \(seeds, images, 3, C\), got \[\(3, 12, 3, 4\), \(2, 12"):
        nested_bootstrap([a, b[:2]], rng=0)
    with pytest.raises(ValueError, match=r"got \[\(3, 12, 4, 4\), \(3, 12, 4, 4\)\]"):
        nested_bootstrap(list(draw()), rng=0)
    with pytest.raises(ValueError, match=r"expected confusion matrices \(..., C, C\), got shape \(3, 4\)"):
        image_counts(np.zeros((3, 4)))


def test_images_in_another_order_are_noticed():
    a, b = image_counts(draw())
    b[1] = b[1, ::-1]
    with pytest.raises(ValueError, match=r"their labels differ in arm 1. Bring the images into one order"):
        nested_bootstrap([a, b], rng=0)
