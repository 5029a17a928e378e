"""Variants that are one network are found by where their resizes read, and trained once."""

import pytest

from mmseg_resample.study import loading, records, report, twins
from mmseg_resample.study.plan import StudyError

from .synthetic import write_scores

STUDY = """
base = 'mmseg_resample::shapes/fcn_r18-d8-tiny_1xb8-400_shapes-128x128.py'
def input_size(n):
    return {'model.data_preprocessor.size': (n, n), 'train_dataloader.dataset.size': (n, n),
            'test_dataloader.dataset.size': (n, n)}
axes = dict(
    pixel_model=dict(false={}, true={'model.decode_head.align_corners': True}, exact={'policy': 'exact'}),
    input={'65': input_size(65), '70': input_size(70)})
seeds = [0, 1]
compare = 'pixel_model'
"""


def load(path, **keys):
    path.write_text(STUDY + "".join(f"{key} = {value!r}\n" for key, value in keys.items()))
    return loading.load(path)


def test_exact_is_true_where_true_fits_and_trained_once(tmp_path):
    study = twins.merged(load(tmp_path / "study.py"))
    assert [tuple(twin.values()) for twin, _ in study.twins] == [("exact", "65")]
    assert [tuple(same.values()) for _, same in study.twins] == [("true", "65")]
    assert len(study.runs()) == 2 * 5
    assert [(dict(each.combination)["input"], each.variant) for each in study.family] == [
        ("65", "true"), ("70", "true"), ("70", "exact"),
    ]  # fmt: skip
    records.open_study(tmp_path / "runs", study.describe())
    write_scores(tmp_path / "runs", {"pixel_model": "true", "input": "65"}, 0, {"own": {"mIoU": 50.0}})
    result = report.build(tmp_path / "runs")
    assert any("exact, input=65 is the same network as pixel_model=true" in line for line in result.missing)


def test_a_test_that_tells_them_apart(tmp_path):
    evaluations = dict(own={}, larger=dict(input={"65": "70", "70": "70"}))
    assert twins.merged(load(tmp_path / "study.py", evaluations=evaluations)).twins == ()


def test_what_was_declared_of_a_twin_is_declared_of_the_network_that_it_is(tmp_path):
    study = load(tmp_path / "study.py", family=[dict(pixel_model="exact", input="65")], train=dict(input="65"))
    assert [each.variant for each in twins.merged(study).family] == ["true"]
    along = [dict(pixel_model="exact", interaction=dict(input=["65", "70"]), evaluation="own")]
    assert twins.merged(load(tmp_path / "along.py", family=along)).twins == ()  # both ends are needed
    flags = load(tmp_path / "flags.py", train=dict(pixel_model=["false", "true"]))
    assert twins.merged(flags) is flags


def test_a_network_is_not_declared_against_itself(tmp_path):
    train = dict(input="65", pixel_model=["true", "exact"])
    with pytest.raises(StudyError, match=r"network with itself .pixel_model=exact, input=65 is pixel_model=true"):
        twins.merged(load(tmp_path / "study.py", train=train))
