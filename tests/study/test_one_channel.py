"""A study of a network of one channel whose background is ignored, up to its report: mmseg's counts, and no others."""

import math

import numpy as np
import pytest
import torch
from mmseg.evaluation.metrics import IoUMetric
from PIL import Image

from mmseg_resample.study import execution, loading, records, report
from mmseg_resample.study.evaluators import DEFAULT_EVALUATORS
from mmseg_resample.study.executors import create
from mmseg_resample.study.messages import Done

from .tiny import STUDY, write_study

pytestmark = pytest.mark.slow

IGNORED = 0
HEAD = {
    "num_classes": 2,
    "out_channels": 1,
    "threshold": 0.5,
    "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": True},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The study, its directory, and the folder of labels; each run leaves its predictions as mmseg writes them."""
    folder = tmp_path_factory.mktemp("one_channel")
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for index in range(3):
        label = np.zeros((32, 36), np.uint8)
        top, left = rng.integers(4, 12, 2)
        label[top : top + 14, left : left + 16] = 1
        image = rng.integers(256, size=(*label.shape, 3), dtype=np.uint8)
        Image.fromarray(label).save(folder / "labels" / f"{index}.png")
        Image.fromarray(image).save(folder / "images" / f"{index}.png")
    dataset = {
        "_delete_": True,
        "type": "BaseSegDataset",
        "data_root": str(folder),
        "data_prefix": {"img_path": "images", "seg_map_path": "labels"},
        "img_suffix": ".png",
        "metainfo": {"classes": ("background", "object")},
        "pipeline": [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}],
    }
    config = {
        "model.decode_head": HEAD,
        "train_dataloader.dataset": dataset,
        "test_dataloader.dataset": dataset,
        "train_cfg.max_iters": 4,
        "test_evaluator.ignore_index": IGNORED,
    }
    stock = {"type": "IoUMetric", "ignore_index": IGNORED, "output_dir": "predicted", "prefix": "stock"}
    axes = {"align_corners": STUDY["axes"]["align_corners"]}
    path = write_study(
        folder,
        config,
        ("train",),
        axes=axes,
        evaluations={"own": {}},
        evaluators={**DEFAULT_EVALUATORS, "stock": stock},
    )
    study, root = loading.load(path), folder / "runs"
    with pytest.MonkeyPatch.context() as patch:
        for run in study.runs():
            (folder / "here" / run.directory).mkdir(parents=True)
            patch.chdir(folder / "here" / run.directory)
            events = list(execution.execute(study, root, executor=create("inline"), runs=[run]))
            assert events[-1].what == Done(None)
    return study, root, folder


def areas(run, folder):
    """Count the predictions that were written as ``IoUMetric`` does: (images, 4, classes) areas."""
    counted = []
    for path in sorted((folder / "here" / run.directory / "predicted").iterdir()):
        label = torch.from_numpy(np.array(Image.open(folder / "labels" / path.name)))
        pred = torch.from_numpy(np.array(Image.open(path)))
        counted.append(torch.stack(IoUMetric.intersect_and_union(pred, label, 2, IGNORED)))
    return torch.stack(counted).numpy()


def test_counts_are_those_of_mmseg(done):
    study, root, folder = done
    for run in study.runs():
        files = records.RunFiles(root / run.directory)
        with np.load(files.matrices("own")) as stored:
            confusion = stored["confusion"]
        rows, columns, hit = confusion.sum(2), confusion.sum(1), confusion.diagonal(0, 1, 2)
        intersect, union, predicted, label = areas(run, folder).swapaxes(0, 1)
        for ours, theirs in ((hit, intersect), (rows + columns - hit, union), (columns, predicted), (rows, label)):
            np.testing.assert_array_equal(ours, theirs)
        assert label[:, 0].sum() == 0 and predicted[:, 0].sum() > 0  # of the background, what is predicted elsewhere
        metrics = records.read_json(files.evaluation("own"))["metrics"]
        for name in ("aAcc", "mIoU", "mAcc"):
            assert metrics[name] == pytest.approx(metrics[f"stock/{name}"], abs=0.00501), name


def test_the_report_has_their_differences(done):
    study, root, folder = done
    result = report.build(root)
    assert result.failures == [] and result.unfinished == []
    # Where one of two classes is ignored there is no boundary left.
    assert result.missing == [
        f"{what}: no finished evaluation has its scores." for what in ("Trimap curves", "Boundary IoU")
    ]
    by_variant = {"false": [], "true": []}
    for run in study.runs():
        intersect, union = areas(run, folder).sum(0)[:2]
        by_variant[run.variants["align_corners"]].append(100 * float(np.mean(intersect / union)))
    (comparison,) = result.comparisons
    assert comparison.scores == {name: pytest.approx(dict(enumerate(values))) for name, values in by_variant.items()}
    expected = np.subtract(by_variant["true"], by_variant["false"])
    assert comparison.differences["true"].mean == pytest.approx(expected.mean())
    assert comparison.differences["true"].values == pytest.approx(expected)
    (classes,) = result.classes
    assert classes.scores.keys() == {"background", "object"}
    assert all(math.isnan(mean) for of in result.displaced for mean in (of.x.drift_mean.mean, of.y.drift_mean.mean))
    written = {path.name: path.read_text() for path in report.write(result, root)}
    assert all(f"{value.mean():.2f}" in written["report.md"] for value in map(np.array, by_variant.values()))
