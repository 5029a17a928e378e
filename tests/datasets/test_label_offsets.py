import numpy as np
import pytest
from mmengine.config import Config

from mmseg_resample.datasets.label_offsets import label_offsets


def offsets(**entry):
    cfg = Config(dict(default_scope="mmseg", train_pipeline=[dict(type="RandomFlip", prob=0.5), entry]))
    return label_offsets(cfg)


def test_random_resize_moves_labels_half_a_pixel_right_and_down():
    (found,) = offsets(type="RandomResize", scale=(512, 384), ratio_range=(0.5, 2.0), keep_ratio=True)
    assert found.transform == "RandomResize"
    assert found.y == pytest.approx(0.5, abs=0.03) and found.x == pytest.approx(0.5, abs=0.03)


def test_aligned_resize_does_not():
    (found,) = offsets(
        type="RandomResize", scale=(512, 384), ratio_range=(0.5, 2.0), keep_ratio=True, resize_type="AlignedResize"
    )
    assert abs(found.y) < 0.02 and abs(found.x) < 0.02


def test_the_sign():
    # Half the size: nearest reads source 2 x, the image is centred on 2 x + 0.5: a quarter of an output pixel.
    (halved,) = offsets(type="Resize", scale_factor=0.5)
    assert halved.y == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("scale", [(320, 160), 300])
def test_a_fixed_scale_moves_labels_too(scale):
    (found,) = offsets(type="Resize", scale=scale, keep_ratio=True)
    assert found.x == pytest.approx(0.5, abs=0.03)


def test_leaves_the_global_generator_alone():
    np.random.seed(3)
    expected = np.random.rand(2)
    np.random.seed(3)
    first = np.random.rand()
    offsets(type="RandomResize", scale=(64, 64), ratio_range=(0.5, 2.0))
    assert [first, np.random.rand()] == list(expected)


def test_no_pipeline_no_offsets():
    assert label_offsets(Config(dict(default_scope="mmseg"))) == []


RESIZE = dict(type="Resize", scale=(320, 160), keep_ratio=True)
LOADS = dict(type="LoadAnnotations")


@pytest.mark.parametrize(
    "cfg",
    [
        dict(train_pipeline=[dict(type="RandomChoice", transforms=[[RESIZE], [dict(type="RandomFlip", prob=0.5)]])]),
        dict(train_pipeline=[dict(type="RandomApply", transforms=[RESIZE], prob=0.5)]),
        dict(train_pipeline=[dict(type="RandomMosaic", prob=0.5, img_scale=(160, 320))]),
        dict(train_dataloader=dict(dataset=dict(type="RepeatDataset", dataset=dict(pipeline=[LOADS, RESIZE])))),
        dict(
            train_dataloader=dict(
                dataset=dict(type="ConcatDataset", datasets=[dict(pipeline=[]), dict(pipeline=[RESIZE])])
            )
        ),
        dict(
            train_dataloader=dict(
                dataset=dict(type="MultiImageMixDataset", dataset=dict(pipeline=[LOADS]), pipeline=[RESIZE])
            )
        ),
        dict(tta_pipeline=[dict(type="TestTimeAug", transforms=[[LOADS], [RESIZE]])]),
    ],
    ids=["choice", "apply", "mosaic", "repeated", "concatenated", "mixed", "tta"],
)
def test_resizes_are_found_wherever_they_are(cfg):
    (found,) = label_offsets(Config(dict(cfg, default_scope="mmseg")))
    assert found.x == pytest.approx(0.5, abs=0.05) and found.y == pytest.approx(0.5, abs=0.05)


def test_labels_that_are_loaded_behind_a_resize_do_not_move():
    pipeline = [dict(type="TestTimeAug", transforms=[[RESIZE], [LOADS]])]
    assert label_offsets(Config(dict(default_scope="mmseg", tta_pipeline=pipeline))) == []
