"""Shapes, the embedded data set: scenes of small shapes drawn from (seed, index), without files or downloads.

A scene is a window onto an endless plane. The plane is drawn tile by tile, each from a generator of its own, so a
larger window shows the smaller one again, pixel for pixel, and more around it: sizes 128, 129 and 256 can be compared
on the same objects, edges, texture and noise. Pixel (i, j) has its centre at (y, x) = (i, j) on the plane.

Generators are numpy's PCG64 keyed by ``SeedSequence``, and pixels come from correctly rounded operations alone (no
sine, no power), so a scene is the same in every process and on every platform.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from numbers import Integral, Real
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.fileio import BaseStorageBackend, register_backend
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, TRANSFORMS

# The five shapes are kinds 1 to 5 of object. Kind 0 is the bar, a distractor: painted like them, labelled background.
_CLASSES = ("background", "disc", "square", "triangle", "ring", "cross")
_BAR, _DISC, _SQUARE, _TRIANGLE, _RING, _CROSS = range(6)

_TILE = 64  # px
_MIN_RADIUS, _MAX_RADIUS = 4, 24  # px, of the circle around an object
_REACH = _MAX_RADIUS + 1  # px from the centre of an object to the last pixel it can touch
_COARSE, _FINE = 16, 4  # px between the random values of background and grain: powers of two, no larger than _REACH

_URI = re.compile(r"shapes://seed(\d+)/(\d+)x(\d+)_density(\d+)_noise([\d.e+-]+)/(\d+)(?:_labels)?\.png")

# How kinds are painted: mean colour (BGR, from mid-grey) and grain, and the width of their distributions.
_COLOR = np.array([[0, 0, 0], [-60, -60, 80], [80, -40, -60], [-60, 80, -50], [60, -70, 60], [-70, 50, 70]])
_GRAIN = np.array([0.3, 0.2, 0.45, 0.6, 0.1, 0.35])
_COLOR_SPREAD, _GRAIN_SPREAD = 70, 0.4
_BACKGROUND_COLOR, _BACKGROUND_GRAIN = 0.3, 0.3
_NOISE_STD = math.sqrt((256**2 - 1) / 6)  # of the sum of two random octets


@dataclass(frozen=True)
class ShapesScene:
    """One scene of the Shapes data set.

    Attributes:
        seed: Family of scenes, >= 0. Train and test on different seeds.
        index: Number of the scene in its family, >= 0.
        size: (h, w) of the window in pixels. The plane behind it does not depend on it.
        density: Objects per tile of 64x64 pixels; one in six is a bar, which is labelled background.
        noise: Standard deviation of the pixel noise, in grey levels.

    Raises:
        ValueError: An attribute is out of its range.
    """

    seed: int = 0
    index: int = 0
    size: tuple[int, int] = (128, 128)
    density: int = 5
    noise: float = 10.0

    def __post_init__(self) -> None:
        size = tuple(self.size) if isinstance(self.size, Sequence) else ()  # configs read from JSON have lists
        if len(size) != 2 or not all(isinstance(n, Integral) and int(n) >= 1 for n in size):
            raise ValueError(f"ShapesScene: expected size (h, w) of two integers >= 1, got {self.size!r}.")
        object.__setattr__(self, "size", size)
        for name in ("seed", "index", "density"):
            value = getattr(self, name)
            if not (isinstance(value, Integral) and int(value) >= 0):
                raise ValueError(f"ShapesScene: expected {name} to be an integer >= 0, got {value!r}.")
        if not (isinstance(self.noise, Real) and 0 <= self.noise < math.inf):
            raise ValueError(f"ShapesScene: expected noise to be a number >= 0, got {self.noise!r}.")

    def uri(self, labels: bool = False) -> str:
        """Return an address of the image, or of its label map, that mmengine's file functions can read."""
        (h, w), suffix = self.size, "_labels" if labels else ""
        folder = f"seed{self.seed}/{h}x{w}_density{self.density}_noise{float(self.noise)!r}"
        return f"shapes://{folder}/{self.index:06d}{suffix}.png"

    @classmethod
    def from_uri(cls, uri: str) -> "ShapesScene":
        """Return the scene behind an address made by ``uri``.

        Raises:
            ValueError: The address has another form.
        """
        match = _URI.fullmatch(uri)
        if match is None:
            example = cls().uri()
            raise ValueError(f"ShapesScene.from_uri: expected an address like {example!r}, got {uri!r}.")
        seed, h, w, density, noise, index = match.groups()
        return cls(int(seed), int(index), (int(h), int(w)), int(density), float(noise))

    def render(self) -> tuple[np.ndarray, np.ndarray]:
        """Draw the scene.

        Labels are exact at pixel centres: the topmost object whose signed distance there is <= 0 gives the label. The
        image is anti-aliased: an edge covers a pixel by a linear ramp, one pixel wide, of its signed distance to the
        pixel's centre; edges that bound a convex part multiply. Everywhere that is within 0.12 of the share of the
        pixel's square that is covered, and within 0.02 in the mean over the pixels on an edge.

        Returns:
            Image (h, w, 3), uint8, BGR, and label map (h, w), uint8.
        """
        h, w = self.size
        tiles = [
            [_draw_tile(self, ty, tx) for tx in range(-1, (w - 1 + _REACH) // _TILE + 1)]
            for ty in range(-1, (h - 1 + _REACH) // _TILE + 1)
        ]
        grain = _upsample(_plane(tiles, "fine").astype(np.float32) - 127.5, _FINE, self.size)
        color = _upsample(_plane(tiles, "coarse").astype(np.float32) - 127.5, _COARSE, self.size)
        img = 127.5 + _BACKGROUND_COLOR * color + _BACKGROUND_GRAIN * grain
        seg = np.zeros(self.size, np.uint8)

        for kind, y, x, r, cos, sin, paint, gain, (y0, x0), (y1, x1) in _objects(tiles, self.size):
            dy, dx = np.arange(y0, y1) - y, np.arange(x0, x1) - x
            u = (sin * dy)[:, None] + cos * dx
            v = (cos * dy)[:, None] - sin * dx
            inside, coverage = _cover(_parts(kind, u, v, r))
            box = img[y0:y1, x0:x1]
            box += coverage.astype(np.float32)[..., None] * (paint + gain * grain[y0:y1, x0:x1] - box)
            seg[y0:y1, x0:x1][inside] = kind

        octets = _plane(tiles, "noise")[:h, :w]
        noise = np.add(octets[..., 0], octets[..., 1], dtype=np.float32) - 255
        img += np.float32(self.noise / _NOISE_STD) * noise
        return np.rint(np.clip(img, 0, 255)).astype(np.uint8), seg


class _Tile(NamedTuple):
    """Random numbers of one tile, as far as the window shows it. ``objects`` has a row for each: y, x, 12 uniforms."""

    objects: np.ndarray
    coarse: np.ndarray | None = None
    fine: np.ndarray | None = None
    noise: np.ndarray | None = None


def _draw_tile(scene: ShapesScene, ty: int, tx: int) -> _Tile:
    # Objects reach in from the tiles numbered -1; a spawn key takes no negative numbers.
    seeds = np.random.SeedSequence(scene.seed, spawn_key=(scene.index, ty + 1, tx + 1))
    rng = np.random.Generator(np.random.PCG64(seeds))
    objects = rng.random((scene.density, 14))
    objects[:, :2] = _TILE * (objects[:, :2] + (ty, tx))
    if ty < 0 or tx < 0:
        return _Tile(objects)

    def octets(*shape: int) -> np.ndarray:
        return np.frombuffer(rng.bytes(math.prod(shape)), np.uint8).reshape(shape)

    coarse = octets(_TILE // _COARSE, _TILE // _COARSE, 3)
    fine = octets(_TILE // _FINE, _TILE // _FINE, 1)
    if ty * _TILE >= scene.size[0] or tx * _TILE >= scene.size[1]:
        return _Tile(objects, coarse, fine)
    return _Tile(objects, coarse, fine, octets(_TILE, _TILE, 3, 2))


def _plane(tiles: list[list[_Tile]], field: str) -> np.ndarray:
    rows = [[part for tile in row if (part := getattr(tile, field)) is not None] for row in tiles]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows if row])


def _upsample(lattice: np.ndarray, step: int, size: tuple[int, int]) -> np.ndarray:
    """Resize bilinearly, lattice point (0, 0) on pixel (0, 0)."""
    for axis, n in enumerate(size):
        i, rest = np.divmod(np.arange(n), step)
        weight = (rest / step).astype(np.float32).reshape(-1, *(1,) * (2 - axis))
        low, high = lattice.take(i, axis), lattice.take(i + 1, axis)
        lattice = low + (high - low) * weight
    return lattice


def _objects(tiles: list[list[_Tile]], size: tuple[int, int]) -> Iterator[tuple]:
    """List the objects that touch the window, deepest first, each with its box of pixels ((y0, x0), (y1, x1))."""
    objects = np.concatenate([tile.objects for row in tiles for tile in row])
    objects = objects[np.argsort(objects[:, 2], kind="stable")]
    centre = objects[:, :2]
    kind, disguise, growth, turn, rough = objects[:, 3:8].T

    r = _MIN_RADIUS + (_MAX_RADIUS - _MIN_RADIUS) * growth * growth  # many small ones
    t = 2 * turn - 1  # tangent of half the angle, which is thereby within a quarter turn of zero
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)

    kind = (len(_CLASSES) * kind).astype(int)
    look = np.where(kind == _BAR, (len(_CLASSES) * disguise).astype(int), kind)
    color = 127.5 + _COLOR[look] + _COLOR_SPREAD * (objects[:, 8:11] + objects[:, 11:14] - 1)
    gain = _GRAIN[look] + _GRAIN_SPREAD * (rough - 0.5)

    low = np.maximum(np.ceil(centre - r[:, None] - 1), 0).astype(int)
    high = np.minimum(np.floor(centre + r[:, None] + 1) + 1, size).astype(int)
    seen = (low < high).all(axis=1)
    columns = kind, *centre.T, r, cos, sin, color.astype(np.float32), gain.astype(np.float32), low, high
    return zip(*(column[seen] for column in columns), strict=True)


def _parts(kind: int, u: np.ndarray, v: np.ndarray, r: float) -> list[list[np.ndarray]]:
    """Return the object as a union of convex parts, each bounded by edges: signed distances in px, negative inside."""
    if kind == _DISC:
        return [[np.sqrt(u * u + v * v) - 0.8 * r]]
    if kind == _RING:
        d = np.sqrt(u * u + v * v)
        return [[d - 0.85 * r, 0.35 * r - d]]
    if kind == _TRIANGLE:
        slant = math.sqrt(0.75) * u
        return [[-v - 0.5 * r, slant + 0.5 * (v - r), 0.5 * (v - r) - slant]]
    u, v = np.abs(u), np.abs(v)
    if kind == _SQUARE:
        return [[u - math.sqrt(0.5) * r, v - math.sqrt(0.5) * r]]
    if kind == _CROSS:
        return [[u - 0.94 * r, v - 0.34 * r], [u - 0.34 * r, v - 0.94 * r]]
    return [[u - 0.96 * r, v - 0.25 * r]]


def _cover(parts: list[list[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return whether pixel centres are inside, and how much of each pixel is."""
    inside: Any = False
    bare: Any = 1.0
    for edges in parts:
        inside = inside | (reduce(np.maximum, edges) <= 0)
        bare = bare * (1 - reduce(np.multiply, [np.minimum(np.maximum(0.5 - d, 0), 1) for d in edges]))
    return inside, 1 - bare


@register_backend("shapes", prefixes="shapes")
class ShapesBackend(BaseStorageBackend):
    """A file backend that reads ``shapes://`` addresses as PNG files.

    So everything in mmseg that goes back to ``img_path`` works on scenes too: ``LoadImageFromFile``, test-time
    augmentation, ``inference_model``, and the visualization hook behind ``mmseg-resample test --show-dir``.
    """

    def get(self, filepath: str) -> bytes:
        img, seg = ShapesScene.from_uri(filepath).render()
        return cv2.imencode(".png", seg if filepath.endswith("_labels.png") else img)[1].tobytes()

    def get_text(self, filepath: str, encoding: str = "utf-8") -> str:
        raise ValueError(f"ShapesBackend.get_text: {filepath} is an image; read it with get.")


@TRANSFORMS.register_module()
class LoadShapes(BaseTransform):
    """A step that draws image and label map of a Shapes scene: ``LoadImageFromFile`` and ``LoadAnnotations`` in one.

    Required keys: img_path, label_map, reduce_zero_label, seg_fields.
    Added keys: img (uint8, BGR), img_shape, ori_shape, gt_seg_map (uint8).

    Args:
        cache: keep the drawn scenes: 4 bytes a pixel for every scene of the data set, in every worker process. Worth it
            where scenes return, that is when training for more than one epoch.
    """

    def __init__(self, cache: bool = False) -> None:
        self.cache: dict[str, tuple[np.ndarray, np.ndarray]] | None = {} if cache else None

    def transform(self, results: dict) -> dict:
        uri = results["img_path"]
        if self.cache is None:
            img, seg = ShapesScene.from_uri(uri).render()
        else:
            if uri not in self.cache:
                self.cache[uri] = ShapesScene.from_uri(uri).render()
            img, seg = (array.copy() for array in self.cache[uri])
        results["img"] = img
        results["img_shape"] = results["ori_shape"] = img.shape[:2]
        results["gt_seg_map"] = _map_labels(results)[seg]
        results["seg_fields"].append("gt_seg_map")
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(cache={self.cache is not None})"


def _map_labels(results: dict) -> np.ndarray:
    """Return the table from drawn labels to those asked for, in the order of mmseg's ``LoadAnnotations``."""
    table = np.arange(256, dtype=np.uint8)
    if results["reduce_zero_label"]:
        table = np.array([255, *range(255)], np.uint8)
    mapped = table.copy()
    for old, new in (results["label_map"] or {}).items():
        mapped[table == old] = new
    return mapped


@DATASETS.register_module()
class ShapesDataset(BaseSegDataset):
    """Scenes of discs, squares, triangles, rings and crosses on a textured background, drawn by ``LoadShapes``.

    A small stride-8 network learns it in a minute on one CPU core, and most of its errors are at boundaries, so the
    registration of features shows in the mIoU. Bars that look like a class are labelled background.

    Args:
        length: Number of scenes.
        size: (h, w) of the scenes in pixels. A larger one shows the same scenes and more around them.
        seed: Family of scenes. Give train and test different ones.
        density: Objects per tile of 64x64 pixels.
        noise: Standard deviation of the pixel noise, in grey levels.
        **kwargs: Those of ``BaseSegDataset`` that do not concern files: pipeline, metainfo, indices, test_mode, ...

    Raises:
        ValueError: length or one of the attributes of ``ShapesScene`` is out of range.
    """

    METAINFO = dict(
        classes=_CLASSES,
        palette=[[60, 60, 60], [230, 60, 60], [50, 110, 230], [60, 180, 75], [200, 60, 220], [240, 190, 40]],
    )

    def __init__(
        self,
        length: int,
        size: tuple[int, int] = (128, 128),
        seed: int = 0,
        density: int = 5,
        noise: float = 10.0,
        **kwargs: Any,
    ) -> None:
        if length < 1:
            raise ValueError(f"ShapesDataset: expected length >= 1, got {length!r}.")
        self.length = length
        self.scene = ShapesScene(seed=seed, size=size, density=density, noise=noise)
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        scenes = [replace(self.scene, index=index) for index in range(self.length)]
        return [
            dict(
                img_path=scene.uri(),
                seg_map_path=scene.uri(labels=True),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            for scene in scenes
        ]
