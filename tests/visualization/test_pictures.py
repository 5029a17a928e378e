"""What pictures say in words."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from mmseg_resample.visualization import pictures

IMAGE = np.full((64, 96, 3), 90, np.uint8)


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, in order."""
    drawn: list[Figure] = []
    to_rgb = pictures._to_rgb

    def keep(figure):
        drawn.append(figure)
        return to_rgb(figure)

    monkeypatch.setattr(pictures, "_to_rgb", keep)
    return drawn


def titles(figure):
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


def test_a_flow_says_of_which_grid_its_pixels_are(figures):
    flow = torch.zeros(1, 2, 16, 24)
    flow[:, 0], flow[:, 1] = 3.0, -4.0
    ((module, picture),) = pictures.explanation_pictures({"neck.top_down.0": {"flow": flow}}, IMAGE, "street")
    assert module == "neck.top_down.0" and picture.dtype == np.uint8
    assert figures[0].get_suptitle() == "street: neck.top_down.0"
    assert titles(figures[0]) == [
        "image, 64x96",
        "flow, 16x24: 1 px here is 4 px of the image\nmean (+3.00, -4.00) px, median length 5.00 px",
    ]


def test_a_grid_that_does_not_divide_the_image():
    title = pictures.flow_title(np.ones((2, 17, 24)), "flow_like", (64, 96, 3))
    assert title.startswith("flow like, 17x24: 1 px here is 4 x 3.76 px of the image\n")


def test_offsets_of_several_groups_are_shown_by_their_mean_unless_a_flow_says_the_same(figures):
    offset = torch.zeros(1, 2, 2, 8, 12)
    offset[:, 0, 0], offset[:, 1, 0] = 1.0, 2.0
    (_,) = pictures.explanation_pictures({"a": {"offset": offset}}, IMAGE, "street")
    assert "offset, 8x12" in titles(figures[0])[1] and "mean (+1.50, +0.00) px" in titles(figures[0])[1]
    (_,) = pictures.explanation_pictures({"a": {"offset": offset, "flow": offset.mean(1)}}, IMAGE, "street")
    assert [title.partition(",")[0] for title in titles(figures[1])] == ["image", "flow"]


def test_what_has_no_place_in_a_picture_is_left_out():
    assert list(pictures.explanation_pictures({"a": {"kernel": torch.ones(1, 1, 25, 8, 12)}}, IMAGE, "street")) == []


@pytest.mark.parametrize("palette", [None, [[255, 0, 0], [0, 255, 0], [0, 0, 255]]])
def test_maps_are_titled_and_name_the_classes_that_occur(figures, palette):
    label = np.zeros((64, 96), np.int64)
    label[:, 50:] = 2
    ignored = np.where(np.arange(96) < 10, 255, label)
    painted = pictures.segmentation_picture(
        {"label": ignored, "prediction": label}, IMAGE, ("sky", "pole", "road"), palette, "street"
    )
    assert painted.shape[2] == 3
    assert figures[0].get_suptitle() == "street: label and prediction"
    assert titles(figures[0]) == ["image, 64x96", "label", "prediction"]
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["sky", "road"]
    shown = figures[0].axes[1].images[0].get_array()
    assert (shown[:, :10] == 90).all() and not (shown[:, 10:] == 90).all(-1).any()
    if palette:
        assert tuple(shown[0, 20]) == (189, 36, 36) and tuple(shown[0, 80]) == (36, 36, 189)


def test_errors_at_boundaries_say_of_which_image(figures):
    pred, label = np.zeros((64, 96), np.int64), np.zeros((64, 96), np.int64)
    pred[:, 48:], label[:, 50:] = 1, 1
    pictures.boundary_picture(pred, label, IMAGE, name="street")
    assert figures[0].get_suptitle() == "street: errors at boundaries, 2.1 % of the pixels"
