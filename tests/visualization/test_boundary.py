import numpy as np
import pytest

from mmseg_resample.visualization import boundary_errors
from mmseg_resample.visualization.pictures import boundary_picture


def scene(dx=0, dy=0):
    label = np.zeros((40, 60), np.uint8)
    label[10 + dy : 30 + dy, 20 + dx : 40 + dx] = 1
    return label


@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (-2, 0), (0, 4)])
def test_a_displaced_object_points_where_it_went(dx, dy):
    moved = boundary_errors(scene(dx, dy), scene())
    wrong = scene(dx, dy) != scene()
    assert not moved[:, ~wrong].any()
    for component, shift in zip(moved, (dx, dy), strict=True):
        if shift:
            along = component[wrong] * np.sign(shift)
            assert along.min() >= 0 and (along > 0).mean() > 0.8  # at corners another side may be nearer
            assert along.max() == abs(shift)
        else:
            assert abs(component[wrong].mean()) < 0.1


def test_right_and_ignored_pixels_have_none():
    label = scene()
    label[:, 39:] = 255
    assert not boundary_errors(scene(5), np.where(scene(5) != scene(), 255, scene())).any()
    assert not boundary_errors(label * 0, label * 0).any()


def test_errors_elsewhere_are_nan():
    pred = scene()
    pred[2, 2] = 5  # a class that is not there
    pred[35, 2] = 1  # far from its class
    moved = boundary_errors(pred, scene(), limit=10)
    assert np.isnan(moved[:, 2, 2]).all() and np.isnan(moved[:, 35, 2]).all()
    assert np.isfinite(boundary_errors(pred, scene(), limit=30)[:, 35, 2]).all()


def test_refuses_two_sizes():
    with pytest.raises(ValueError, match="two maps"):
        boundary_errors(scene()[:5], scene())


@pytest.mark.parametrize("pred", [scene(), scene(3), scene() * 0 + 7])
def test_picture(pred):
    picture = boundary_picture(pred, scene(), np.full((40, 60, 3), 90, np.uint8), name="scene")
    assert picture.dtype == np.uint8 and picture.shape[1] > 3 * picture.shape[0] > 0
    assert picture.std() > 5
