"""Boundary IoU and trimaps against loops over pixels, and against erosion as the paper defines it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from mmseg_resample.evaluation import area_iou, boundary_areas, confusion_matrix, trimap_areas
from mmseg_resample.evaluation.boundary import band_radius, width_name

from .maps import patches


def in_band(x, counted, row, column, radius, frame):
    """Tell whether there is another class within ``radius``, looking at every pixel around."""
    h, w = x.shape
    for r in range(row - radius, row + radius + 1):
        for c in range(column - radius, column + radius + 1):
            if not (0 <= r < h and 0 <= c < w):
                if frame:
                    return True
            elif counted[r, c] and x[r, c] != x[row, column]:
                return True
    return False


def brute_force(pred, label, num_classes, radius, frame):
    areas = np.zeros((3, num_classes), int)
    counted = label != 255
    for row, column in zip(*counted.nonzero(), strict=True):
        of_pred, of_label = (in_band(x, counted, row, column, radius, frame) for x in (pred, label))
        areas[1, pred[row, column]] += of_pred
        areas[2, label[row, column]] += of_label
        areas[0, label[row, column]] += of_pred and of_label and pred[row, column] == label[row, column]
    return areas


class TestBoundaryAreas:
    @given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.booleans())
    def test_equals_a_loop_over_pixels(self, seed, radius, frame):
        pred, label = patches(seed, size=(8, 11))
        expected = brute_force(pred.numpy(), label.numpy(), 4, radius, frame)
        np.testing.assert_equal(boundary_areas(pred, label, 4, (radius,), frame=frame)[0].numpy(), expected)

    @pytest.mark.parametrize("frame", [True, False])
    @pytest.mark.parametrize("width", [1, 2, 5, 0.1])
    def test_equals_erosion(self, width, frame):
        pred, label = (torch.randint(3, (8, 12)).repeat_interleave(6, 0).repeat_interleave(6, 1) for _ in range(2))
        radius = band_radius(width, pred.shape)
        expected = np.zeros((3, 3), int)
        for c in range(3):
            bands = []
            for mask in (pred.numpy() == c, label.numpy() == c):
                kept = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=radius, border_value=not frame)
                bands.append(mask & ~kept)
            expected[:, c] = (bands[0] & bands[1]).sum(), bands[0].sum(), bands[1].sum()
        np.testing.assert_equal(boundary_areas(pred, label, 3, (width,), frame=frame)[0].numpy(), expected)

    def test_widths_in_any_order(self):
        pred, label = patches(5)
        widths = (5, 0.05, 1, 5, 100, 2)
        expected = torch.cat([boundary_areas(pred, label, 4, (width,)) for width in widths])
        assert torch.equal(boundary_areas(pred, label, 4, widths), expected)

    def test_ignored_pixels_make_no_boundary(self):
        """One ignored column within a class, and one between two classes, which are then two columns apart."""
        label = torch.tensor([[0, 0, 255, 0, 0, 255, 1, 1]]).expand(3, -1)
        areas = boundary_areas(label.where(label != 255, 7), label, 2, (1, 2), frame=False)
        assert areas[0].sum() == 0
        assert areas[1, 2].tolist() == [3, 3]  # the columns next to the ignored one between the classes

    def test_the_frame_is_a_boundary_unless_told_otherwise(self):
        empty = torch.zeros(10, 20, dtype=torch.int64)
        assert boundary_areas(empty, empty, 1, (1, 2)).tolist() == [[[56]] * 3, [[104]] * 3]
        assert np.isnan(area_iou(boundary_areas(empty, empty, 1, (1, 2), frame=False))).all()

    def test_a_shift_costs_more_in_narrow_bands(self):
        label = torch.zeros(64, 64, dtype=torch.int64)
        label[16:48, 16:48] = 1
        areas = boundary_areas(label.roll(2, 1), label, 2, (1, 3, 8, 16), frame=False).numpy()
        values = area_iou(areas)[:, 1]
        assert (np.diff(values) > 0).all()
        # Inside, a band of 1 px keeps the 30 common pixels of its upper and of its lower side.
        assert values[0] == 60 / (2 * 124 - 60)


class TestTrimapAreas:
    @given(st.integers(0, 2**32 - 1), st.integers(1, 9))
    def test_equals_confusion_matrices_of_trimaps(self, seed, radius):
        pred, label = patches(seed, size=(8, 11))
        counted = label.numpy() != 255
        trimap = np.full(label.shape, 255)
        for row, column in zip(*counted.nonzero(), strict=True):
            if in_band(label.numpy(), counted, row, column, radius, frame=False):
                trimap[row, column] = label[row, column]
        confusion = confusion_matrix(pred, torch.from_numpy(trimap), 4).numpy()
        expected = np.stack([confusion.diagonal(), confusion.sum(0), confusion.sum(1)])
        np.testing.assert_equal(trimap_areas(pred, label, 4, (radius,))[0].numpy(), expected)

    def test_the_widest_is_the_image(self):
        pred, label = patches(6)
        confusion = confusion_matrix(pred, label, 4)
        assert torch.equal(trimap_areas(pred, label, 4, (100,))[0, 2], confusion.sum(1))

    def test_errors_away_from_boundaries_do_not_count(self):
        label = (torch.arange(20) >= 10).long().expand(6, -1)
        pred = label.clone()
        pred[:, :4] = 1
        assert area_iou(trimap_areas(pred, label, 2, (6, 7)))[:, 0].tolist() == [1, 6 / 7]


class TestWidths:
    @pytest.mark.parametrize(
        ("width", "size", "radius", "name"),
        [
            (3, (10, 10), 3, "3px"),
            (3.0, (10, 10), 3, "3px"),
            (0.02, (1024, 2048), 46, "2pct"),
            (0.005, (1024, 2048), 11, "0.5pct"),
            (0.02, (3, 4), 1, "2pct"),
        ],
    )
    def test_by_hand(self, width, size, radius, name):
        assert band_radius(width, size) == radius
        assert width_name(width) == name

    @pytest.mark.parametrize("width", [0, -1, 1.5, -0.02])
    def test_errors(self, width):
        with pytest.raises(ValueError, match=rf"number in \(0, 1\) \(fraction of the diagonal\), got {width}"):
            boundary_areas(*torch.zeros(2, 4, 4, dtype=torch.int64), 2, (width,))
