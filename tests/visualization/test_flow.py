import numpy as np
import pytest

from mmseg_resample.visualization import flow_to_rgb, flow_wheel


def color(dx, dy, longest=1.0):
    return tuple(flow_to_rgb(np.array([[[dx]], [[dy]]], np.float32), longest)[0, 0])


def test_directions_have_the_usual_hues():
    assert color(0, 0) == (255, 255, 255)
    assert color(1, 0) == (255, 0, 0)  # right: red
    r, g, b = color(-1, 0)
    assert r == 0 and b > g > 150  # left: cyan to blue
    r, g, b = color(0, 1)
    assert r == 255 and g > 200 and b == 0  # down: yellow
    r, g, b = color(0, -1)
    assert b == 255 and g == 0 and 100 < r < 200  # up: violet


def test_length_is_saturation():
    assert color(0.5, 0) == (255, 128, 128)
    assert color(3, 0, longest=6) == color(0.5, 0)
    assert color(2, 0) == (191, 0, 0)  # beyond: darker


def test_what_is_not_a_flow_is_grey():
    assert color(float("nan"), 0) == (128, 128, 128)


def test_hue_turns_all_the_way_without_a_seam():
    angle = np.linspace(-np.pi, np.pi, 3601)
    rgb = flow_to_rgb(np.stack([np.cos(angle), np.sin(angle)])[:, None], 1 + 1e-9)[0].astype(int)
    assert abs(np.diff(rgb, axis=0)).max() <= 3
    assert abs(rgb[0] - rgb[-1]).max() <= 1


def test_wheel_is_every_flow_at_its_tip():
    wheel = flow_wheel(101)
    assert tuple(wheel[50, 100]) == (255, 0, 0, 255) and tuple(wheel[50, 50]) == (255, 255, 255, 255)
    assert wheel[0, 0, 3] == 0


@pytest.mark.parametrize(("shape", "longest"), [((3, 4, 4), 1), ((2, 4), 1), ((2, 4, 4), 0)])
def test_refuses(shape, longest):
    with pytest.raises(ValueError, match="flow_to_rgb: expected flow"):
        flow_to_rgb(np.zeros(shape), longest)
