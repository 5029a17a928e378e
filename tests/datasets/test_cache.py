"""Samples from memory: the same as loaded ones, loaded once, safe against kills, full disks and foreign directories."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset
from torch.utils.data import DataLoader

from mmseg_resample.datasets import CachedLoading, LoadShapes, ShapesDataset, cache

FILES = [
    {"type": "LoadImageFromFile"},
    {"type": "Resize", "scale": (30, 20), "keep_ratio": False},
    {"type": "LoadAnnotations"},
]
SHAPES = [{"type": "LoadShapes"}]


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    init_default_scope("mmseg")
    monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / "cache"))
    return tmp_path / "cache" / f"mmseg_resample-{os.getuid()}" / "samples"


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.jpg"), rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        cv2.imwrite(str(tmp_path / f"{name}.png"), rng.integers(0, 5, (48, 64), dtype=np.uint8))
    return tmp_path


def files(folder, transforms, **kwargs):
    metainfo = {"classes": ("x", "y", "z"), "label_map": {0: 1, 1: 0}}
    return BaseSegDataset(
        data_root=str(folder),
        data_prefix={"img_path": "", "seg_map_path": ""},
        metainfo=metainfo,
        reduce_zero_label=True,
        pipeline=transforms,
        **kwargs,
    )


def shapes(folder, transforms, **kwargs):
    return ShapesDataset(length=3, size=(20, 31), pipeline=transforms, **kwargs)


def cached(transforms):
    return [{"type": "CachedLoading", "transforms": transforms}]


def assert_same(actual, expected):
    assert list(actual) == list(expected)
    for key, value in expected.items():
        assert type(actual[key]) is type(value), key
        if isinstance(value, np.ndarray):
            assert (actual[key].dtype, actual[key].shape) == (value.dtype, value.shape), key
            assert actual[key].tobytes() == value.tobytes(), key
            assert actual[key].flags.writeable, key
        else:
            assert actual[key] == value, key


@pytest.mark.parametrize(
    ("build", "transforms"), [pytest.param(files, FILES, id="files"), pytest.param(shapes, SHAPES, id="shapes")]
)
@pytest.mark.parametrize("test_mode", [False, True])
def test_samples_are_those_of_the_transforms(folder, build, transforms, test_mode, monkeypatch):
    plain = build(folder, transforms, test_mode=test_mode)
    dataset = build(folder, cached(transforms), test_mode=test_mode)
    for i in range(len(plain)):
        assert_same(dataset[i], plain[i])
    expected = [plain[i] for i in range(len(plain))]
    again = build(folder, cached(transforms), test_mode=test_mode)  # as in another run

    def load(self, results):
        raise AssertionError("loaded twice")

    monkeypatch.setattr(CachedLoading, "_load", load)
    for i, sample in enumerate(expected):
        assert_same(again[i], sample)


def test_the_rest_of_a_pipeline_may_write_into_samples(folder):
    dataset = files(folder, cached(FILES))
    expected = files(folder, FILES)[0]
    for _ in range(3):
        sample = dataset[0]
        assert_same(sample, expected)
        sample["img"][:] = 0
        sample["gt_seg_map"][:] = 7
        sample["seg_fields"].append("other")


def test_a_file_that_changes_is_loaded_again(folder):
    dataset = files(folder, cached(FILES))
    before = dataset[0]["img"]
    cv2.imwrite(str(folder / "a.jpg"), np.zeros((48, 64, 3), np.uint8))
    assert before.any() and not dataset[0]["img"].any()


def test_other_transforms_have_other_samples(folder):
    sizes = {
        files(folder, cached([FILES[0], {**FILES[1], "scale": scale}, FILES[2]]))[0]["img"].shape[:2]
        for scale in ((30, 20), (31, 20))
    }
    assert sizes == {(20, 30), (20, 31)}


def test_another_source_text_has_other_samples(folder, monkeypatch):
    """Two checkouts share the directory."""
    shapes(folder, cached(SHAPES))[0]
    monkeypatch.setattr(cache, "_source", lambda transform: ("elsewhere/shapes.py", 1, 1))
    monkeypatch.setattr(LoadShapes, "transform", lambda self, results: {"drawn": "elsewhere"})
    assert shapes(folder, cached(SHAPES))[0]["drawn"] == "elsewhere"


def test_input_that_is_no_plain_data_is_loaded_every_time(directory):
    load = Compose(cached([{"type": "LoadImageFromNDArray"}]))
    for value in (1, 2):
        assert (load({"img": np.full((2000, 2, 3), value, np.uint8)})["img"] == value).all()
    assert not directory.exists()


def test_a_sample_that_is_refused_is_refused_again(folder, monkeypatch):
    monkeypatch.setattr(LoadShapes, "transform", lambda self, results: None)
    load = CachedLoading(SHAPES)
    assert load({"img_path": "x"}) is None and load({"img_path": "x"}) is None


def test_processes_of_a_data_loader_share_samples(folder, directory):
    dataset = shapes(folder, [*cached(SHAPES), {"type": "PackSegInputs"}])
    dataset.full_init()
    loader = DataLoader(dataset, batch_size=None, num_workers=2, collate_fn=lambda sample: sample["inputs"].clone())
    expected = [shapes(folder, [*SHAPES, {"type": "PackSegInputs"}])[i]["inputs"] for i in range(3)]
    assert all((a == b).all() for a, b in zip(loader, expected, strict=True))
    assert len(list(directory.iterdir())) == 3


class TestRoom:
    @pytest.mark.parametrize(
        ("total", "free", "kept"),
        [(1000, 199, False), (1000, 201, True), (1 << 40, 3 << 30, False), (1 << 40, 5 << 30, True)],
    )
    def test_a_file_system_that_is_nearly_full_gets_no_more(self, folder, directory, monkeypatch, total, free, kept):
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(total, total - free, free))
        assert_same(files(folder, cached(FILES))[0], files(folder, FILES)[0])
        assert bool(list(directory.iterdir())) is kept

    def test_a_write_that_fails_leaves_nothing(self, folder, directory, monkeypatch):
        def replace(*args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", replace)
        assert_same(files(folder, cached(FILES))[0], files(folder, FILES)[0])
        assert not list(directory.iterdir())

    def test_a_directory_that_disappears_is_no_reason_to_stop(self, folder, directory):
        dataset = files(folder, cached(FILES))
        dataset[0]
        shutil.rmtree(directory)
        assert_same(dataset[0], files(folder, FILES)[0])


def test_a_directory_that_others_can_write_is_refused(folder, directory):
    directory.mkdir(parents=True)
    directory.parent.chmod(0o777)
    with pytest.raises(
        RuntimeError, match=r"must be writable by this user alone, .* mode 777. Remove it, or set MMSEG"
    ):
        files(folder, cached(FILES))[0]


READER = """
import sys, time
import mmseg_resample
from mmengine.registry import init_default_scope
from mmseg_resample.datasets import ShapesDataset
init_default_scope("mmseg")
loading = dict(type="CachedLoading", transforms=[dict(type="LoadShapes")])
dataset = ShapesDataset(length=100000, size=(128, 128), pipeline=[loading])
for i in range(int(sys.argv[1])):
    dataset[i]
print("done", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_kills_and_the_end_of_processes(directory):
    def start(count):
        return subprocess.Popen(
            [sys.executable, "-c", READER, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    killed = start(100000)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(list(directory.glob("?" * 64))) < 20:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)  # most of the time in the middle of a sample
    killed.communicate()
    left = {path.name for path in directory.glob("?" * 64)}
    assert len(left) >= 20

    first, second = start(5), start(5)
    assert first.stdout.readline() == second.stdout.readline() == "done\n"
    assert {path.name for path in directory.glob("?" * 64)} == left  # they used them: the same keys in every process
    plain, dataset = (
        ShapesDataset(length=100000, size=(128, 128), pipeline=pipeline) for pipeline in (SHAPES, cached(SHAPES))
    )
    base = directory.parent
    key = CachedLoading(SHAPES)
    for i in range(20):
        assert_same(cache._read(directory / key._key(dataset.get_data_info(i))), plain[i])

    first.communicate("")
    assert directory.exists()
    second.communicate("")
    assert base.exists() and not directory.exists()
