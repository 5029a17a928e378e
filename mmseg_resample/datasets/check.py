"""A check of label maps before anything is trained: which would mmseg read wrongly, or not at all?

mmseg converts whatever it decodes to one byte a pixel, so 1000 becomes 232 without a word, and a label that is no class
ends a training with an index error, on a GPU without a place.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image, UnidentifiedImageError

from .label_offsets import flat_pipeline
from .wrapped import leaves

MODES = ("all", "sample", "none")
"""How many label maps are read whole; of the others ``"sample"`` reads the headers."""

_SAMPLE = 64  # label maps of a data set that are read whole
_PLAIN = ("L", "1")  # modes of Pillow that are one byte a pixel
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")  # that Pillow surely knows
_PNG_END = b"IEND\xaeB`\x82"
_ROTATED = 5  # EXIF orientations from here on turn height into width

OnProgress = Callable[[str, int, int], None]
"""Called with the key of a data set, the label maps looked at so far, and their number."""


@dataclass(frozen=True)
class Finding:
    """Label map that cannot be trained or tested with.

    Attributes:
        key: of the data set in the config.
        file: the label map.
        problem: what it has and what is expected.
        fix: what to do.
    """

    key: str
    file: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.key}: {self.file}: {self.problem} {self.fix}"


@dataclass(frozen=True)
class _Labels:
    """Label maps of one data set.

    Attributes:
        key: of the data set in the config.
        pairs: what the data set says of each image and its label map.
        loader: the step of the pipeline that reads them.
        classes: labels are below.
        ignored: labels that may occur besides.
    """

    key: str
    pairs: Sequence[Mapping[str, Any]]
    loader: LoadAnnotations
    classes: int
    ignored: frozenset[int]


def check_labels(
    loaders: Iterable[tuple[Config, str]],
    mode: str = "sample",
    on_progress: OnProgress = lambda key, done, total: None,
) -> list[Finding]:
    """Look at the label maps of data sets, each set once.

    Looked at are local files that ``LoadAnnotations`` reads, in data sets that list them as mmseg's do, wrapped ones
    too: the header of every one, and all of a sample spread evenly. What is no image of one byte a pixel is read whole.

    Args:
        loaders: configs and the keys of their data loaders, such as ``"train_dataloader"``; one that a config lacks is
            left out.
        mode: one of ``MODES``.
        on_progress: called now and then.

    Returns:
        What is wrong, in the order of the files.

    Raises:
        ValueError: another mode.
    """
    if mode not in MODES:
        raise ValueError(f"check_labels: expected mode to be one of {', '.join(MODES)}, got {mode!r}.")
    found: list[Finding] = []
    if mode == "none":
        return found
    seen = set()
    for cfg, loader in loaders:
        init_default_scope(cfg.get("default_scope") or "mmseg")
        for key, dataset in leaves((cfg.get(loader) or {}).get("dataset"), f"{loader}.dataset"):
            steps = [step for step in flat_pipeline(dataset.get("pipeline") or []) if _is_loader(step)]
            identity = repr(({**dataset, "pipeline": steps}, _range(cfg)))
            if steps and _is_local(dataset, steps[0]) and identity not in seen:
                seen.add(identity)
                found += _check(_open(cfg, key, dataset, steps[0]), mode, on_progress)
    return found


def _is_loader(step: Mapping[str, Any]) -> bool:
    kind = step.get("type")
    return (TRANSFORMS.get(kind) if isinstance(kind, str) else kind) is LoadAnnotations  # others may need the image


def _is_local(*configs: Mapping[str, Any]) -> bool:
    return all((config.get("backend_args") or {}).get("backend", "local") == "local" for config in configs)


def _range(cfg: Config) -> tuple[list[int], set[int]]:
    """Return the numbers of classes and the ignored labels of the decode heads, of which a cascade has several."""
    heads = (cfg.get("model") or {}).get("decode_head") or {}
    heads = heads if isinstance(heads, list | tuple) else [heads]
    return [h["num_classes"] for h in heads if h.get("num_classes")], {h.get("ignore_index", 255) for h in heads}


def _open(cfg: Config, key: str, config: Mapping[str, Any], step: Mapping[str, Any]) -> _Labels:
    dataset = DATASETS.build({**config, "pipeline": [], "lazy_init": False})
    counts, ignored = _range(cfg)
    if names := (getattr(dataset, "metainfo", None) or {}).get("classes"):
        counts = [*counts, len(names)]
    pairs = [dataset.get_data_info(index) for index in range(len(dataset))] if counts else []
    pairs = [pair for pair in pairs if isinstance(pair.get("seg_map_path"), str)]
    ignored = ignored | {getattr(dataset, "ignore_index", 255)}
    return _Labels(key, pairs, TRANSFORMS.build(dict(step)), min(counts, default=0), frozenset(ignored))


def _check(labels: _Labels, mode: str, on_progress: OnProgress) -> list[Finding]:
    total = len(labels.pairs)
    sampled = set(range(total)) if mode == "all" else set(np.linspace(0, total - 1, min(total, _SAMPLE)).astype(int))
    found = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        look = partial(_look, labels)
        for done, finding in enumerate(pool.map(look, range(total), (i in sampled for i in range(total))), 1):
            on_progress(labels.key, done, total)
            if finding is not None:
                found.append(finding)
    return found


def _look(labels: _Labels, index: int, whole: bool) -> Finding | None:
    """Look at one label map; None if nothing is wrong with it."""
    pair = labels.pairs[index]
    finding = partial(Finding, labels.key, pair["seg_map_path"])
    headers = []
    for file, load in ((pair["seg_map_path"], False), (pair.get("img_path") or "", whole)):
        try:
            headers.append(_header(file, load))
        except _UnreadableError as error:
            return Finding(labels.key, file, f"{error}.", "Get it again, or take it out of the data set.")
    header, image = headers
    if header is not None and image is not None and not _same_size(header, image, pair["img_path"]):
        return finding(
            f"it is {header.size[0]}x{header.size[1]}, and its image {pair['img_path']} is "
            f"{image.size[0]}x{image.size[1]}.",
            "Make them from the same frame.",
        )
    plain = (*_PLAIN, "P") if labels.loader.imdecode_backend == "pillow" else _PLAIN  # others turn indices into colours
    odd = header is not None and header.mode not in plain
    return _look_at_pixels(labels, pair, header, finding) if whole or odd else None


def _look_at_pixels(
    labels: _Labels, pair: Mapping[str, Any], header: "_Header | None", finding: Callable[..., Finding]
) -> Finding | None:
    if header is not None and header.mode not in (*_PLAIN, "P", "RGB", "RGBA", "LA", "PA", "CMYK"):
        with Image.open(pair["seg_map_path"]) as opened:
            values = np.asarray(opened)
        far = values[(values < 0) | (values > 255) | (values != np.floor(values))]
        if far.size:
            return finding(
                f"it has label {far.flat[0]} in {8 * values.itemsize} bits a pixel, which mmseg cuts to 8.",
                "Store the numbers of the classes, 0 to 254, and 255 for none, as an 8-bit PNG.",
            )
    try:
        results = labels.loader({**pair, "seg_fields": []})
    except Exception as error:  # whatever a decoder raises for a broken file
        return finding(f"it cannot be read ({type(error).__name__}: {error}).", "Get it again, or take it out.")
    found = results["gt_seg_map"]
    if found.ndim != 2:
        indexed = header is not None and header.mode == "P"
        return finding(
            f"it is read as {' x '.join(map(str, found.shape))}, and a label map has one number a pixel.",
            "It has a palette: read it with LoadAnnotations(imdecode_backend='pillow')."
            if indexed
            else "Convert its colours to the numbers of the classes, in an 8-bit PNG.",
        )
    counts = np.bincount(found.ravel(), minlength=256)
    known = labels.ignored.union(range(labels.classes))
    wrong = [value for value in np.flatnonzero(counts).tolist() if value not in known]
    if wrong:
        zero = " after reduce_zero_label" if labels.loader.reduce_zero_label else ""
        ignored = " or ".join(map(str, sorted(labels.ignored)))
        return finding(
            f"{counts[wrong].sum()} pixels have label {', '.join(map(str, wrong[:5]))}{zero}: with {labels.classes} "
            f"classes labels are 0 to {labels.classes - 1}, and {ignored} for none.",
            "Correct the file, reduce_zero_label or classes of the data set, or num_classes of the decode head.",
        )
    return None


class _UnreadableError(Exception):
    """Error of a file that is no whole image."""


@dataclass(frozen=True)
class _Header:
    """Header of an image: Pillow's mode, and (width, height)."""

    mode: str
    size: tuple[int, int]


def _same_size(label: _Header, image: _Header, file: str) -> bool:
    """Compare the size of a label map with that of the image ``file``, which EXIF may turn when it is read."""
    if label.size == image.size:
        return True
    with Image.open(file) as opened:
        return label.size == image.size[::-1] and opened.getexif().get(0x0112, 1) >= _ROTATED


def _header(file: str, load: bool) -> _Header | None:
    """Read the header of a file, and all with ``load`` or if it may be cut; None for what Pillow may not know."""
    if not file.lower().endswith(_SUFFIXES):
        return None
    try:
        if os.path.getsize(file) == 0:
            raise _UnreadableError("it is empty")
        with Image.open(file) as image:
            header = _Header(image.mode, image.size)
            if load or (image.format == "PNG" and not _ends_as_png(file)):
                image.load()
        return header
    except FileNotFoundError as error:
        raise _UnreadableError("there is no such file") from error
    except Image.DecompressionBombError:  # large, and not for Pillow to judge
        return None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if file.lower().endswith((".tif", ".tiff")):  # of more kinds than Pillow knows
            return None
        raise _UnreadableError(f"it is no image that can be read ({type(error).__name__}: {error})") from error


def _ends_as_png(file: str) -> bool:
    with open(file, "rb") as opened:
        opened.seek(max(0, os.path.getsize(file) - 64))
        return _PNG_END in opened.read()
