"""Pictures of whatever can be tested: data sets by their metainfo, wrapped and mapped ones, and heads of every kind."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_resample import launch
from mmseg_resample.visualization.inference import _picture, draw, load_sample

NORM = dict(type="BN")
STEPS = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
BACKBONE = dict(type="ResNetV1c", depth=18, base_channels=4, stem_channels=4, norm_cfg=NORM)
FCN = dict(type="FCNHead", in_channels=32, channels=4, num_convs=1, num_classes=3, norm_cfg=NORM, align_corners=False)
FPN = dict(type="FPN", in_channels=[4, 8, 16, 32], out_channels=8, num_outs=4)
CASCADE = [
    {**FCN, "in_index": 3},
    {**{key: FCN[key] for key in FCN if key != "num_convs"}, "type": "OCRHead", "in_index": 3, "ocr_channels": 4},
]
POINTREND = [
    dict(
        type="FPNHead", in_channels=[8] * 4, in_index=[0, 1, 2, 3], feature_strides=[4, 8, 16, 32], channels=8,
        num_classes=3, norm_cfg=NORM, align_corners=False,
    ),
    dict(
        type="PointHead", in_channels=[8], in_index=[0], channels=8, num_fcs=1, coarse_pred_each_layer=True,
        num_classes=3, dropout_ratio=-1, align_corners=False,
    ),
]  # fmt: skip
POINTS = dict(mode="whole", subdivision_steps=1, subdivision_num_points=64, scale_factor=2)


@DATASETS.register_module(force=True)
class FourKinds(BaseSegDataset):
    METAINFO = dict(classes=("sky", "pole", "road", "car"), palette=[[0, 0, 200], [9, 9, 9], [99, 0, 0], [0, 200, 0]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for kind, shape, classes in (("images", (64, 64, 3), 256), ("labels", (64, 64), 3)):
        (folder / kind).mkdir()
        values = np.random.default_rng(0).integers(classes, size=shape, dtype=np.uint8)
        Image.fromarray(values).save(folder / kind / "a.png")
    return folder


def dataset(folder, **changes):
    paths = dict(data_root=str(folder), data_prefix=dict(img_path="images", seg_map_path="labels"))
    metainfo = dict(classes=("sky", "road", "car"), palette=[[0, 0, 200], [99, 0, 0], [0, 200, 0]])
    plain = dict(type="BaseSegDataset", img_suffix=".png", seg_map_suffix=".png", metainfo=metainfo, pipeline=STEPS)
    return {**plain, **paths, **changes}


def pictures(folder, tmp_path, dataset, image, label=None, kind="EncoderDecoder", head=FCN, **model):
    """Return what ``draw`` writes for a network of random weights."""
    preprocessor = dict(type="SegDataPreProcessor", size_divisor=1, test_cfg=dict(size_divisor=1))
    cfg = Config(
        dict(
            default_scope="mmseg",
            experiment_name=str(tmp_path),  # by the second, mmengine would go on with the visualizer of the test before
            work_dir=str(tmp_path),
            launcher="none",
            model=dict(
                type=kind, data_preprocessor=preprocessor, backbone=BACKBONE, decode_head=head,
                **{"test_cfg": dict(mode="whole"), **model},
            ),
            test_dataloader=dict(batch_size=1, sampler=dict(type="DefaultSampler", shuffle=False), dataset=dataset),
            test_cfg=dict(type="TestLoop"),
            test_evaluator=dict(type="IoUMetric"),
            visualizer=dict(
                type="SegLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")], save_dir=str(tmp_path)
            ),
        )
    )  # fmt: skip
    sample = load_sample(cfg, image, label)
    names = draw(launch.build_runner(cfg), sample, "picture")
    files = {path.name.removesuffix("_0.png"): cv2.imread(str(path)) for path in tmp_path.rglob("vis_image/*.png")}
    assert files.keys() == set(names)
    assert all(picture.std() > 5 for picture in files.values())
    return sample, files


@pytest.mark.parametrize("wrapped", ["metainfo", "ConcatDataset", "RepeatDataset"])
@pytest.mark.parametrize("image", ["test:0", "file"])
def test_data_sets(folder, tmp_path, wrapped, image):
    config = dataset(folder)
    if wrapped == "ConcatDataset":
        config = dict(type="ConcatDataset", datasets=[config, config])
    elif wrapped == "RepeatDataset":
        config = dict(type="RepeatDataset", times=2, dataset=config)
    paths = (image,) if image != "file" else (str(folder / "images" / "a.png"), str(folder / "labels" / "a.png"))
    sample, files = pictures(folder, tmp_path, config, *paths)
    assert files.keys() == {"picture_prediction", "picture_boundary_errors"}
    expected = np.array(Image.open(folder / "labels" / "a.png"))
    np.testing.assert_array_equal(sample["data_samples"].gt_sem_seg.data[0], expected)


@pytest.mark.parametrize("image", ["test:0", "file"])
def test_a_data_set_of_fewer_classes_than_its_labels(folder, tmp_path, image):
    """Its ``label_map`` numbers the labels anew, of a file too."""
    config = dataset(folder, type="FourKinds", metainfo=dict(classes=("road", "sky")))
    paths = (image,) if image != "file" else (str(folder / "images" / "a.png"), str(folder / "labels" / "a.png"))
    sample, _ = pictures(folder, tmp_path, config, *paths, head={**FCN, "num_classes": 2})
    stored = np.array(Image.open(folder / "labels" / "a.png"))
    expected = np.select([stored == 0, stored == 2], [1, 0], 255)
    np.testing.assert_array_equal(sample["data_samples"].gt_sem_seg.data[0], expected)


@pytest.mark.parametrize(
    ("head", "model"),
    [(CASCADE, dict(num_stages=2)), (POINTREND, dict(num_stages=2, neck=FPN, test_cfg=POINTS))],
    ids=["OCRNet", "PointRend"],
)
def test_cascades(folder, tmp_path, head, model):
    _, files = pictures(folder, tmp_path, dataset(folder), "test:0", None, "CascadeEncoderDecoder", head, **model)
    assert files.keys() == {"picture_prediction", "picture_boundary_errors"}


def test_what_is_no_number(folder):
    cfg = Config(dict(test_dataloader=dict(dataset=dataset(folder))))
    with pytest.raises(ValueError, match=r"expected test:N with the number of a sample, such as test:0, got test:a"):
        load_sample(cfg, "test:a")


@pytest.mark.parametrize("bands", [1, 3, 5])
def test_images_of_any_bands(bands):
    inputs = torch.arange(bands * 6, dtype=torch.uint8).view(bands, 2, 3)
    shown = _picture(inputs)
    assert shown.shape == (2, 3, 3)
    np.testing.assert_array_equal(shown[..., 0], inputs[min(bands - 1, 2)])
    assert _picture(inputs.float() * 1000).max() == 255
