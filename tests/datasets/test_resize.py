import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS

from mmseg_resample.datasets import AlignedResize


def sample(height, width):
    rng = np.random.default_rng(0)
    return dict(
        img=rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        img_shape=(height, width),
        gt_seg_map=rng.integers(0, 9, (height, width), dtype=np.uint8),
        seg_fields=["gt_seg_map"],
    )


@pytest.mark.parametrize("scale", [(37, 53), (200, 100), (64, 48)])
@pytest.mark.parametrize("keep_ratio", [True, False])
def test_labels_are_nearest_exact_and_the_image_is_untouched(scale, keep_ratio):
    ours = AlignedResize(scale=scale, keep_ratio=keep_ratio)(sample(48, 64))
    stock = TRANSFORMS.build(dict(type="Resize", scale=scale, keep_ratio=keep_ratio))(sample(48, 64))
    assert np.array_equal(ours["img"], stock["img"]) and ours["gt_seg_map"].shape == stock["gt_seg_map"].shape
    rows, columns = (
        [math.floor(Fraction(2 * x + 1, 2) * Fraction(n, size)) for x in range(size)]
        for n, size in zip((48, 64), ours["img"].shape[:2], strict=True)
    )
    assert ours["gt_seg_map"].dtype == np.uint8
    assert np.array_equal(ours["gt_seg_map"], sample(48, 64)["gt_seg_map"][np.ix_(rows, columns)])


def test_is_nearest_exact_of_torch():
    results = AlignedResize(scale=(37, 53))(sample(48, 64))
    labels = torch.from_numpy(sample(48, 64)["gt_seg_map"])[None, None].double()
    expected = F.interpolate(labels, results["img"].shape[:2], mode="nearest-exact")[0, 0]
    assert np.array_equal(results["gt_seg_map"], expected.numpy())


def test_random_resize_takes_it():
    init_default_scope("mmseg")
    transform = TRANSFORMS.build(
        dict(type="RandomResize", scale=(64, 48), ratio_range=(0.5, 2.0), keep_ratio=True, resize_type="AlignedResize")
    )
    results = transform(sample(48, 64))
    assert results["img"].shape[:2] == results["gt_seg_map"].shape
    assert isinstance(transform.resize, AlignedResize)


def test_images_without_labels():
    results = sample(8, 8)
    del results["gt_seg_map"]
    results["seg_fields"] = []
    assert AlignedResize(scale=(4, 4))(results)["img"].shape == (4, 4, 3)
