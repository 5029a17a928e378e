"""Areas by distance from the frame and by size of objects, against loops over pixels."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmseg_resample.evaluation import area_iou, confusion_matrix, frame_areas, object_areas

from .maps import patches


def areas_of(pred, label, num_classes):
    confusion = confusion_matrix(pred, label, num_classes).numpy()
    return np.stack([confusion.diagonal(), confusion.sum(0), confusion.sum(1)])


def components(label):
    """Sets of connected pixels of one class, by flooding."""
    h, w = label.shape
    left = {(y, x) for y, x in itertools.product(range(h), range(w)) if label[y, x] != 255}
    while left:
        frontier, found = [left.pop()], set()
        while frontier:
            y, x = frontier.pop()
            found.add((y, x))
            for v, u in itertools.product((y - 1, y, y + 1), (x - 1, x, x + 1)):
                if (v, u) in left and label[v, u] == label[y, x]:
                    left.remove((v, u))
                    frontier.append((v, u))
        yield label[y, x], found


def brute_force(pred, label, num_classes, radii):
    """Least and greatest possible areas: where objects are as near, a wrong pixel may be in the bin of either."""
    low, high = np.zeros((2, len(radii) + 2, 3, num_classes), int)
    objects = [
        (c, pixels, sum(r <= math.sqrt(len(pixels) / math.pi) for r in radii)) for c, pixels in components(label)
    ]
    for c, pixels, size in objects:
        low[size, 2, c] += len(pixels)
        low[size, :2, c] += sum(pred[pixel] == c for pixel in pixels)
    high[:] = low
    for y, x in zip(*((label != 255) & (pred != label)).nonzero(), strict=True):
        distances = [
            (min((y - v) ** 2 + (x - u) ** 2 for v, u in pixels), size)
            for c, pixels, size in objects
            if c == pred[y, x]
        ] or [(0, len(radii) + 1)]
        nearest = {size for distance, size in distances if distance == min(distances)[0]}
        for size in nearest:
            high[size, 1, pred[y, x]] += 1
            low[size, 1, pred[y, x]] += len(nearest) == 1
    return low, high


class TestFrameAreas:
    @given(st.integers(0, 2**32 - 1), st.sets(st.sampled_from([0.5, 1, 2, 2.5, 4, 7, 30]), min_size=1))
    def test_equals_masks(self, seed, distances):
        pred, label = patches(seed)
        edges = sorted(distances)
        h, w = label.shape
        distance = torch.tensor([[min(y, x, h - 1 - y, w - 1 - x) for x in range(w)] for y in range(h)])
        actual = frame_areas(pred, label, 4, edges).numpy()
        for i, (low, high) in enumerate(itertools.pairwise([0, *edges, math.inf])):
            part = torch.where((distance >= low) & (distance < high), label, 255)
            np.testing.assert_equal(actual[i], areas_of(pred, part, 4))

    def test_errors_at_the_frame_are_in_the_first_bin(self):
        label = torch.zeros(10, 20, dtype=torch.int64)
        pred = label.clone()
        pred[0], pred[:, -1] = 1, 1
        assert area_iou(frame_areas(pred, label, 2, (1, 3)))[:, 0].tolist() == [27 / 56, 1, 1]


class TestObjectAreas:
    @given(st.integers(0, 2**32 - 1))
    def test_equals_a_loop_over_pixels(self, seed):
        pred, label = patches(seed, size=(9, 12))
        low, high = brute_force(pred.numpy(), label.numpy(), 4, (1, 1.5, 3))
        actual = object_areas(pred, label, 4, (1, 1.5, 3)).numpy()
        assert (low <= actual).all() and (actual <= high).all()
        np.testing.assert_equal(actual.sum(0), areas_of(pred, label, 4))

    def test_an_error_belongs_to_the_nearest_object(self):
        label = torch.zeros(12, 40, dtype=torch.int64)
        label[2:4, 2:4] = 1  # radius 1.1
        label[2:10, 20:28] = 1  # radius 4.5
        pred = label.clone()
        pred[2:4, 4:6] = 1  # the small object is twice as large
        pred[2:10, 27] = 0  # the large one lacks an eighth
        pred[11, 39] = 2  # and there is what is not in the label
        areas = object_areas(pred, label, 3, (2, 8))
        assert areas[:, :, 1].tolist() == [[4, 8, 4], [56, 56, 64], [0, 0, 0], [0, 0, 0]]
        assert areas[3].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]

    def test_diagonal_neighbours_are_one_object(self):
        label = torch.eye(5, dtype=torch.int64)
        assert object_areas(label, label, 2, (1,))[:, 2, 1].tolist() == [0, 5, 0]

    def test_ignored_pixels_cut_objects(self):
        label = torch.tensor([[1, 1, 255, 1]])
        assert object_areas(label.clamp(max=1), label, 2, (0.7,))[:, 2, 1].tolist() == [1, 2, 0]


@pytest.mark.parametrize("edges", [(), (0, 2), (3, 3), (4, 2)])
def test_bin_edges_ascend(edges):
    maps = torch.zeros(2, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"frame_areas: expected distances to ascend from above 0, got \("):
        frame_areas(*maps, 2, edges)
    with pytest.raises(ValueError, match=r"object_areas: expected radii to ascend from above 0, got \("):
        object_areas(*maps, 2, edges)
