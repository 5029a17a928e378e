import hashlib
import math
import pickle
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine import fileio
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, HOOKS, VISUALIZERS
from scipy import ndimage
from torch.utils.data import DataLoader

from mmseg_resample.datasets import LoadShapes, ShapesDataset, ShapesScene, shapes

ROOT = Path(__file__).parents[2]
STOCK_LOADING = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmseg")


def digest(scene):
    img, seg = scene.render()
    return hashlib.sha256(img.tobytes() + seg.tobytes()).hexdigest()[:16]


# --------------------------------------------------------------------------------------------------------------------
# Always the same


@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        (ShapesScene(), "02b9fba910d30ba9"),
        (ShapesScene(seed=7, index=3, size=(65, 130)), "3fb9f3aac798c7ca"),
        (ShapesScene(seed=2**40, index=10**6, size=(64, 64), density=9, noise=0), "4c4e7e44ee2a8572"),
    ],
)
def test_golden(scene, expected):
    # Made by digest(scene), in another process with another hash seed. Changing it makes all earlier results on Shapes
    # incomparable.
    assert digest(scene) == expected


@pytest.mark.parametrize("num_workers", [1, 2])
def test_same_for_any_number_of_workers(num_workers):
    dataset = ShapesDataset(length=5, size=(40, 40), pipeline=[LoadShapes(), dict(type="PackSegInputs")])

    def samples(workers):
        loader = DataLoader(dataset, batch_size=2, num_workers=workers, collate_fn=pseudo_collate)
        for batch in loader:
            for img, data in zip(batch["inputs"], batch["data_samples"], strict=True):
                yield img.numpy(), data.gt_sem_seg.data.numpy()

    alone, shared = list(samples(0)), list(samples(num_workers))
    assert len(alone) == len(shared) == 5
    for (img, seg), (other_img, other_seg) in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(img, other_img)
        np.testing.assert_array_equal(seg, other_seg)


def test_global_random_state_is_neither_read_nor_written():
    np.random.seed(0)
    before = digest(ShapesScene())
    state = np.random.get_state()[1].copy()
    assert digest(ShapesScene()) == before
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_seed_and_index_change_the_scene():
    scenes = [ShapesScene(seed, index, (32, 32)) for seed in range(4) for index in range(4)]
    assert len({digest(scene) for scene in scenes}) == 16


@pytest.mark.parametrize("small", [(1, 1), (17, 40), (64, 63), (128, 128), (129, 129)])
def test_a_larger_window_contains_the_smaller_one(small):
    for index in range(3):
        img, seg = ShapesScene(1, index, small).render()
        large_img, large_seg = ShapesScene(1, index, (150, 200)).render()
        assert img.shape == (*small, 3) and seg.shape == small
        np.testing.assert_array_equal(img, large_img[: small[0], : small[1]])
        np.testing.assert_array_equal(seg, large_seg[: small[0], : small[1]])


# --------------------------------------------------------------------------------------------------------------------
# Geometry


def polygons(kind, y, x, r, angle):
    """Corners (dx, dy) of the convex polygons that make up an object."""

    def turned(corners):
        cos, sin = math.cos(angle), math.sin(angle)
        return [(x + cos * u - sin * v, y + sin * u + cos * v) for u, v in corners]

    def rectangle(a, b):
        return turned([(a * r, b * r), (-a * r, b * r), (-a * r, -b * r), (a * r, -b * r)])

    def regular(n, first):
        angles = (first + k * math.tau / n for k in range(n))
        return turned([(r * math.cos(q), r * math.sin(q)) for q in angles])

    if kind == "square":
        return [regular(4, math.pi / 4)]
    if kind == "triangle":
        return [regular(3, math.pi / 2)]
    if kind == "cross":
        return [rectangle(0.94, 0.34), rectangle(0.34, 0.94)]
    return [rectangle(0.96, 0.25)]


def contains(corners, y, x):
    edges = zip(corners, corners[1:] + corners[:1], strict=True)
    return all((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) >= 0 for (x0, y0), (x1, y1) in edges)


def oracle_labels(scene):
    """Pixel by pixel, object by object, from the random numbers of the tiles."""
    objects = []
    for ty in range(-1, 4):
        for tx in range(-1, 4):
            objects += shapes._draw_tile(scene, ty, tx).objects.tolist()
    names = ["bar", *ShapesDataset.METAINFO["classes"][1:]]
    prepared = []
    for y, x, depth, kind, _, growth, turn, *_ in sorted(objects, key=lambda values: -values[2]):
        name, r = names[int(6 * kind)], 4 + 20 * growth**2
        prepared.append((name, y, x, r, depth, polygons(name, y, x, r, 2 * math.atan(2 * turn - 1))))
    seg = np.zeros(scene.size, np.uint8)
    topmost = set()
    for i in range(scene.size[0]):
        for j in range(scene.size[1]):
            for name, y, x, r, _, corners in prepared:
                distance = math.hypot(i - y, j - x)
                if name == "disc":
                    hit = distance <= 0.8 * r
                elif name == "ring":
                    hit = 0.35 * r <= distance <= 0.85 * r
                else:
                    hit = distance <= r and any(contains(polygon, i, j) for polygon in corners)
                if hit:
                    seg[i, j] = names.index(name)
                    topmost.add(name)
                    break
    return seg, topmost


def test_labels_are_exact_at_pixel_centres():
    seen = set()
    for index in range(2):
        scene = ShapesScene(seed=11, index=index, size=(70, 100), density=6)
        expected, topmost = oracle_labels(scene)
        np.testing.assert_array_equal(scene.render()[1], expected)
        seen |= topmost
    assert seen == {"bar", "disc", "square", "triangle", "ring", "cross"}


@pytest.mark.parametrize("kind", range(6))
def test_coverage_is_the_share_of_the_pixel(kind):
    rng = np.random.default_rng(kind)
    fine = 16
    mean_errors = []
    for r in (4, 4.7, 6, 9, 14, 24):
        y, x, angle = rng.random(3) * (1, 1, 2 * np.pi)
        cos, sin = np.cos(angle), np.sin(angle)

        def cover(pixels, y=y, x=x, r=r, cos=cos, sin=sin):
            dy, dx = (pixels - y)[:, None], pixels - x
            return shapes._cover(shapes._parts(kind, sin * dy + cos * dx, cos * dy - sin * dx, r))

        n = 2 * int(r) + 6
        pixels = np.arange(n) - n // 2
        points = (np.arange(n * fine) + 0.5) / fine - 0.5 - n // 2
        share = cover(points)[0].reshape(n, fine, n, fine).mean((1, 3))
        coverage = cover(pixels)[1]
        error = np.abs(coverage - share)
        edge = ((share > 0) & (share < 1)) | ((coverage > 0) & (coverage < 1))
        assert edge.any() and error.max() < 0.12
        mean_errors.append(error[edge].mean())
    assert np.mean(mean_errors) < 0.02


def test_image_and_labels_are_registered():
    """Compare edges: neighbours that differ in colour differ in label, to a small part of a pixel, in both axes."""
    correlations = np.zeros((2, 3))
    for index in range(20):
        img, seg = ShapesScene(index=index, noise=0).render()
        for axis in (0, 1):
            colour_edges = np.abs(np.diff(img.astype(float), axis=axis)).sum(-1)
            label_edges = np.diff(seg.astype(int), axis=axis) != 0
            for k, shift in enumerate((-1, 0, 1)):
                moved = np.roll(label_edges, shift, axis)
                correlations[axis, k] += np.corrcoef(colour_edges[2:-2, 2:-2].ravel(), moved[2:-2, 2:-2].ravel())[0, 1]
    before, at, after = correlations.T
    peak = 0.5 * (before - after) / (before - 2 * at + after)
    assert (at > 1.5 * before).all() and (np.abs(peak) < 0.02).all()


def test_every_class_occurs_and_so_do_small_and_large_objects():
    pixels, areas = np.zeros(6), []
    for index in range(30):
        seg = ShapesScene(index=index).render()[1]
        pixels += np.bincount(seg.ravel(), minlength=6)
        parts, count = ndimage.label(seg)
        areas += np.bincount(parts.ravel())[1 : count + 1].tolist()
    share = pixels / pixels.sum()
    assert share.shape == (6,) and 0.6 < share[0] < 0.85 and (share[1:] > 0.02).all()
    assert np.percentile(areas, 20) < 40 and np.percentile(areas, 90) > 500


def test_density_and_noise():
    flat = ShapesScene(density=0, noise=0)
    img, seg = flat.render()
    assert not seg.any()
    noisy = ShapesScene(density=0, noise=10).render()[0]
    assert (noisy.astype(float) - img).std() == pytest.approx(10, rel=0.02)
    assert (ShapesScene(density=10).render()[1] > 0).mean() > (ShapesScene(density=5).render()[1] > 0).mean() > 0


# --------------------------------------------------------------------------------------------------------------------
# In mmseg


def sample_of(pipeline, **kwargs):
    dataset = DATASETS.build(dict(type="ShapesDataset", length=3, size=(48, 56), pipeline=pipeline, **kwargs))
    return dataset[2]


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        dict(reduce_zero_label=True),
        dict(metainfo=dict(classes=("background", "ring", "disc"))),
        dict(reduce_zero_label=True, metainfo=dict(classes=("triangle", "disc"))),
    ],
)
def test_loads_what_mmseg_would_load_from_files(kwargs):
    ours, stock = sample_of([LoadShapes()], **kwargs), sample_of(STOCK_LOADING, **kwargs)
    assert ours.keys() == stock.keys()
    for key in ours:
        np.testing.assert_array_equal(ours[key], stock[key])
    assert ours["img"].dtype == ours["gt_seg_map"].dtype == np.uint8
    assert ours["img_path"] == "shapes://seed0/48x56_density5_noise10.0/000002.png"
    if kwargs:
        assert not np.array_equal(ours["gt_seg_map"], sample_of([LoadShapes()])["gt_seg_map"])


@pytest.mark.parametrize("cache", [False, True])
def test_augmentations_do_not_reach_into_the_next_epoch(cache):
    load = LoadShapes(cache=cache)
    augment = [
        dict(type="RandomResize", scale=(56, 48), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type="RandomCrop", crop_size=(32, 32), cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=1.0),
        dict(type="PhotoMetricDistortion"),
        dict(type="PackSegInputs"),
    ]
    dataset = ShapesDataset(length=2, size=(48, 56), pipeline=[load, *augment])
    for _ in range(2):
        sample = dataset[1]
        assert sample["inputs"].shape[0] == 3 and max(sample["inputs"].shape) <= 32
        assert sample["data_samples"].gt_sem_seg.data.shape[1:] == sample["inputs"].shape[1:]
        assert sample["data_samples"].ori_shape == (48, 56) and sample["data_samples"].flip
    first = load(dataset.get_data_info(1))
    first["img"][:], first["gt_seg_map"][:] = 0, 0
    again = load(dataset.get_data_info(1))
    np.testing.assert_array_equal(again["img"], ShapesScene(0, 1, (48, 56)).render()[0])
    np.testing.assert_array_equal(again["gt_seg_map"], ShapesScene(0, 1, (48, 56)).render()[1])


def test_cache_draws_a_scene_once(monkeypatch):
    load = LoadShapes(cache=True)
    dataset = ShapesDataset(length=1, size=(16, 16), pipeline=[load])
    expected = dataset[0]["img"]
    monkeypatch.setattr(ShapesScene, "render", lambda self: pytest.fail("drawn again"))
    np.testing.assert_array_equal(dataset[0]["img"], expected)
    with pytest.raises(pytest.fail.Exception):
        ShapesDataset(length=1, size=(16, 16), pipeline=[LoadShapes()])[0]


def test_dataset_interface():
    kwargs = dict(size=(16, 16), pipeline=[LoadShapes()])
    dataset = ShapesDataset(length=6, **kwargs)
    assert len(dataset) == 6
    assert dataset.metainfo["classes"] == ("background", "disc", "square", "triangle", "ring", "cross")
    assert len(dataset.metainfo["palette"]) == 6 and dataset.metainfo["label_map"] is None
    for subset in (
        ShapesDataset(length=6, indices=[4], **kwargs),
        dataset.get_subset([4]),
        ShapesDataset(length=6, indices=[4], serialize_data=False, test_mode=True, **kwargs),
        pickle.loads(pickle.dumps(ShapesDataset(length=6, indices=[4], lazy_init=True, **kwargs))),
    ):
        assert len(subset) == 1
        np.testing.assert_array_equal(subset[0]["img"], dataset[4]["img"])


def test_visualization(tmp_path):
    dataset = ShapesDataset(length=1, size=(48, 56), pipeline=[LoadShapes(), dict(type="PackSegInputs")])
    data = dataset[0]["data_samples"]
    backends = [dict(type="LocalVisBackend")]
    cfg = dict(type="SegLocalVisualizer", name="shapes", vis_backends=backends, save_dir=str(tmp_path))
    visualizer = VISUALIZERS.build(cfg)
    visualizer.dataset_meta = dataset.metainfo
    data.pred_sem_seg = PixelData(data=data.gt_sem_seg.data)
    hook = HOOKS.build(dict(type="SegVisualizationHook", draw=True, interval=1))
    hook._visualizer = visualizer

    hook._after_iter(SimpleNamespace(iter=1), 0, {}, [data], "test")  # reads the image back from img_path
    (painted,) = tmp_path.rglob("*.png")
    assert cv2.imread(str(painted)).shape == (48, 2 * 56, 3)  # labels beside prediction


@pytest.mark.parametrize(
    "scene", [ShapesScene(), ShapesScene(2**63, 12345678, (1, 999), 0, 0.1), ShapesScene(noise=1e-07)]
)
def test_uri_round_trip(scene):
    assert ShapesScene.from_uri(scene.uri()) == ShapesScene.from_uri(scene.uri(labels=True)) == scene


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ShapesDataset(length=0), "ShapesDataset: expected length >= 1, got 0."),
        (lambda: ShapesDataset(length=1, size=128), "expected size (h, w) of two integers >= 1, got 128."),
        (lambda: ShapesScene(size=(128, 0)), "expected size (h, w) of two integers >= 1, got (128, 0)."),
        (lambda: ShapesScene(size=(128.0, 5)), "expected size (h, w) of two integers >= 1, got (128.0, 5)."),
        (lambda: ShapesScene(seed=-1), "expected seed to be an integer >= 0, got -1."),
        (lambda: ShapesScene(density=1.5), "expected density to be an integer >= 0, got 1.5."),
        (lambda: ShapesScene(noise=math.nan), "expected noise to be a number >= 0, got nan."),
        (lambda: ShapesScene.from_uri("shapes/1.png"), "expected an address like 'shapes://seed0/128x128_density5_no"),
        (lambda: fileio.get_text(ShapesScene().uri()), "is an image; read it with get."),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)


def test_config():
    cfg = Config.fromfile(ROOT / "configs/_base_/datasets/shapes.py")
    batches = {}
    for split in ("train", "val", "test"):
        loader = Runner.build_dataloader(cfg[f"{split}_dataloader"], seed=0)
        batches[split] = batch = next(iter(loader))
        assert [tuple(img.shape) for img in batch["inputs"]] == [(3, 128, 128)] * 8
        assert batch["data_samples"][0].gt_sem_seg.data.shape == (1, 128, 128)
    assert len({batch["data_samples"][0].img_path for batch in batches.values()}) == 3
