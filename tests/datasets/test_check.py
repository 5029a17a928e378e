"""Label maps that cannot be trained with are found by what is wrong with them, and good ones are left alone."""

import shutil

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmseg_resample import launch
from mmseg_resample.datasets.check import check_labels

CLASSES = ("sky", "road", "car")
STEPS = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]


def label(seed=0, size=(32, 40), classes=3):
    return np.random.default_rng(seed).integers(classes, size=size, dtype=np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Six images with labels of three classes, void, and a palette in one."""
    folder = tmp_path_factory.mktemp("data")
    for index in range(6):
        values = label(index)
        values[0, 0] = 255
        save(folder / "labels" / f"{index}.png", values)
        image = np.random.default_rng(index).integers(256, size=(32, 40, 3), dtype=np.uint8)
        save(folder / "images" / f"{index}.png", image)
    indexed = Image.fromarray(label(3), mode="P")
    indexed.putpalette([0, 0, 0, 99, 0, 0, 0, 99, 0])
    indexed.save(folder / "labels" / "3.png")
    return folder


@pytest.fixture
def folder(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / "data")


def config(folder, steps=STEPS, heads=None, **changes):
    dataset = dict(
        type="BaseSegDataset",
        data_root=str(folder),
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        img_suffix=".png",
        seg_map_suffix=".png",
        metainfo=dict(classes=CLASSES, palette=[[0, 0, 0]] * 3),
        pipeline=steps,
    )
    head = heads or dict(num_classes=3)
    return Config(dict(model=dict(decode_head=head), val_dataloader=dict(dataset={**dataset, **changes})))


def findings(cfg, mode="sample"):
    return check_labels([(cfg, "train_dataloader"), (cfg, "val_dataloader")], mode)


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


def rewrite(array):
    return lambda path: save(path, array)


DEEP = label().astype(np.uint16)
DEEP[3, 4] = 1000
BAD = {
    "empty": (lambda path: path.write_bytes(b""), "it is empty. Get it again"),
    "text": (lambda path: path.write_text("no image"), "it is no image that can be read (UnidentifiedImageError"),
    "cut": (cut, "it is no image that can be read (OSError: image file is truncated"),
    "removed": (lambda path: path.unlink(), "there is no such file. Get it again"),
    "16 bits": (rewrite(DEEP), "it has label 1000 in 16 bits a pixel, which mmseg cuts to 8. Store the numbers"),
    "colours": (
        rewrite(np.zeros((32, 40, 3), np.uint8)),
        "it is read as 32 x 40 x 3, and a label map has one number a",
    ),
    "size": (rewrite(label(size=(40, 32))), "it is 32x40, and its image"),
    "range": (
        rewrite(np.where(label() == 2, 7, 0).astype(np.uint8)),
        "pixels have label 7: with 3 classes labels are 0 to 2",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_each_label_map_that_is_wrong_is_found(folder, name):
    spoil, problem = BAD[name]
    spoil(folder / "labels" / "4.png")
    (found,) = findings(config(folder))
    assert found.key == "val_dataloader.dataset" and found.file == str(folder / "labels" / "4.png")
    assert str(found).startswith(f"val_dataloader.dataset: {found.file}: ") and problem in str(found)
    assert len(found.fix) > 20
    assert findings(config(folder), "none") == []


def test_good_ones_are_left_alone(clean):
    assert findings(config(clean), "all") == []
    cascade = [dict(num_classes=3), dict(num_classes=3)]
    assert findings(config(clean, heads=cascade)) == []


def test_a_palette_is_refused_where_the_decoder_turns_it_into_colours(clean):
    steps = [STEPS[0], dict(type="LoadAnnotations", imdecode_backend="cv2"), STEPS[2]]
    (found,) = findings(config(clean, steps))
    assert found.file.endswith("3.png") and "read it with LoadAnnotations(imdecode_backend='pillow')" in found.fix


def test_labels_are_what_the_data_set_makes_of_them(folder):
    for index in range(6):
        save(folder / "labels" / f"{index}.png", label(index, classes=4))  # 0 is none
    assert len(findings(config(folder))) == 6
    assert findings(config(folder, reduce_zero_label=True)) == []
    assert len(findings(config(folder, reduce_zero_label=True, metainfo=dict(classes=CLASSES[:2])))) == 6
    assert findings(config(folder, heads=dict(num_classes=3, ignore_index=3))) == []


def test_wrapped_and_cached(folder):
    cut(folder / "labels" / "0.png")
    inner = config(folder, [dict(type="CachedLoading", transforms=STEPS[:2]), STEPS[2]]).val_dataloader.dataset
    clean = config(folder, indices=[1, 2]).val_dataloader.dataset
    wrapped = dict(type="RepeatDataset", times=2, dataset=dict(type="ConcatDataset", datasets=[clean, inner, inner]))
    cfg = Config(dict(model=dict(decode_head=dict(num_classes=3)), val_dataloader=dict(dataset=wrapped)))
    assert [found.key for found in findings(cfg)] == ["val_dataloader.dataset.dataset.datasets.1"]  # once


def test_a_sample_is_spread_and_all_is_all(folder, monkeypatch):
    monkeypatch.setattr("mmseg_resample.datasets.check._SAMPLE", 2)
    for index in (3, 5):
        save(folder / "labels" / f"{index}.png", np.full((32, 40), 9, np.uint8))
    seen = []
    cfg = config(folder)
    found = check_labels([(cfg, "val_dataloader")], "sample", lambda *progress: seen.append(progress))
    assert [each.file[-5] for each in found] == ["5"]
    assert seen == [("val_dataloader.dataset", done, 6) for done in range(1, 7)]
    assert [each.file[-5] for each in findings(cfg, "all")] == ["3", "5"]
    with pytest.raises(ValueError, match="expected mode to be one of all, sample, none, got 'some'"):
        findings(cfg, "some")


def test_a_cut_image_is_found_too(folder):
    cut(folder / "images" / "1.png")
    (found,) = findings(config(folder))
    assert found.file == str(folder / "images" / "1.png") and "truncated" in found.problem


def test_an_image_that_is_turned_when_it_is_read(folder):
    for index in range(6):
        (folder / "images" / f"{index}.png").unlink()
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(np.zeros((40, 32, 3), np.uint8)).save(folder / "images" / f"{index}.jpg", exif=exif)
    assert findings(config(folder, img_suffix=".jpg")) == []


def test_what_is_not_read_from_local_label_maps_is_left_alone(folder):
    shutil.rmtree(folder / "labels")
    for cfg in (
        config(folder, [STEPS[0], STEPS[2]]),
        config(folder, type="ShapesDataset", length=2, size=(32, 32), seed=0, pipeline=[dict(type="LoadShapes")]),
        config(folder, backend_args=dict(backend="petrel")),
    ):
        assert findings(cfg) == []


def test_the_message(folder, capsys):
    for index in range(6):
        cut(folder / "labels" / f"{index}.png")
    with pytest.raises(launch.UsageError) as error:
        launch.check_data([(config(folder), "val_dataloader")], "sample")
    lines = str(error.value).splitlines()
    assert lines[0] == "6 label maps cannot be used:" and lines[6] == "  and 1 more"
    assert lines[7] == "--check-data none starts all the same; --check-data all reads every label map whole."
    assert len(lines) == 8 and capsys.readouterr().err == ""
