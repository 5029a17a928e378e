"""Matched boundary pixels against loops over pixels."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmseg_resample.evaluation import contour_matches, contour_scores

from .maps import patches


def boundary(x, c):
    """The boundary pixels of class c, by looking at every pixel and its three neighbours."""
    h, w = x.shape
    points = []
    for row, column in itertools.product(range(h), range(w)):
        for r, k in ((row, column + 1), (row + 1, column), (row + 1, column + 1)):
            inside = r < h and k < w and x[row, column] != 255 and x[r, k] != 255
            if inside and (x[row, column] == c) != (x[r, k] == c):
                points.append((row, column))
                break
    return points


def brute_force(pred, label, num_classes, radius):
    pred = np.where(label == 255, 255, pred)
    counts = np.zeros((4, num_classes), int)
    for c in range(num_classes):
        points = boundary(pred, c), boundary(label, c)
        for first, (these, others) in zip((0, 2), (points, points[::-1]), strict=True):
            near = [any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in others) for y, x in these]
            counts[first : first + 2, c] = sum(near), len(these)
    return counts


class TestContourMatches:
    @given(st.integers(0, 2**32 - 1), st.integers(1, 6))
    def test_equals_a_loop_over_pixels(self, seed, radius):
        pred, label = patches(seed, size=(8, 11))
        expected = brute_force(pred.numpy(), label.numpy(), 4, radius)
        np.testing.assert_equal(contour_matches(pred, label, 4, (radius,))[0].numpy(), expected)

    def test_a_shift_is_tolerated_up_to_the_tolerance(self):
        label = (torch.arange(20) >= 10).long().expand(8, -1)
        matches = contour_matches(label.roll(3, 1).where(torch.arange(20) >= 3, 0), label, 2, (2, 3))
        assert matches.tolist() == [[[0, 0], [8, 8], [0, 0], [8, 8]], [[8, 8]] * 4]

    def test_a_tolerance_is_the_radius_of_a_disc(self):
        pred, label = torch.zeros(2, 30, 30, dtype=torch.int64)
        label[10, 10] = pred[14, 13] = 1
        # The boundary pixels of each are itself and those left, above and upper left of it. The nearest to (10, 10) are
        # (13, 12), 3.6 px away, (13, 13), 4.2 px, (14, 12), 4.5 px, and (14, 13), exactly 5 px.
        assert contour_matches(pred, label, 2, (3, 4, 5))[:, 0, 1].tolist() == [0, 1, 4]

    def test_fractions_of_the_diagonal_are_rounded_up(self):
        pred, label = patches(7, size=(30, 40))  # 0.008 of it is 0.4 px, 0.05 is 2.5 px
        assert torch.equal(contour_matches(pred, label, 4, (0.008, 0.05)), contour_matches(pred, label, 4, (1, 3)))

    def test_ignored_regions_and_the_frame_have_no_boundary(self):
        label = torch.tensor([[0, 0, 255, 0, 0, 255, 1, 1]]).expand(3, -1)
        assert contour_matches(label.where(label != 255, 1), label, 2, (1,)).sum() == 0

    def test_no_tolerance_in_range(self):
        with pytest.raises(ValueError, match=r"got 1.5"):
            contour_matches(*torch.zeros(2, 4, 4, dtype=torch.int64), 2, (1.5,))


class TestContourScores:
    def test_by_hand(self):
        """Classes: found in part, not predicted, invented, neither, predicted and labelled but not matched."""
        matches = np.array([[3, 0, 0, 0, 0], [4, 0, 5, 0, 5], [6, 0, 0, 0, 0], [12, 5, 0, 0, 5]])
        precision, recall, f_score = contour_scores(matches)
        np.testing.assert_equal(precision, [3 / 4, np.nan, 0, np.nan, 0])
        np.testing.assert_equal(recall, [1 / 2, 0, np.nan, np.nan, 0])
        np.testing.assert_allclose(f_score, [0.6, 0, 0, np.nan, 0])
