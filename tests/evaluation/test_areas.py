"""What all functions of two maps have in common: checks, ignored pixels, dtypes, and the IoU of areas."""

from functools import partial

import numpy as np
import pytest
import torch

from mmseg_resample.evaluation import (
    area_iou,
    boundary_areas,
    confusion_matrix,
    contour_matches,
    edge_counts,
    frame_areas,
    iou,
    object_areas,
    trimap_areas,
)

from .maps import patches

FUNCTIONS = {
    "boundary_areas": partial(boundary_areas, widths=(1, 3)),
    "trimap_areas": partial(trimap_areas, widths=(1, 3)),
    "contour_matches": partial(contour_matches, tolerances=(1, 3)),
    "frame_areas": partial(frame_areas, distances=(2, 5)),
    "object_areas": partial(object_areas, radii=(1, 2)),
    "edge_counts": lambda *args, **kwargs: edge_counts(*args, max_displacement=1, **kwargs).pred,
}


@pytest.fixture(params=FUNCTIONS)
def function(request):
    return FUNCTIONS[request.param]


def areas_of(confusion):
    return np.stack([confusion.diagonal(), confusion.sum(0), confusion.sum(1)])


class TestAreaIoU:
    def test_equals_iou_of_the_confusion_matrix(self):
        pred, label = patches(0)
        confusion = confusion_matrix(pred, label, 6).numpy()  # classes 4 and 5 do not occur
        np.testing.assert_equal(area_iou(areas_of(confusion)), iou(confusion))
        assert np.isnan(iou(confusion)[4:]).all()

    def test_stacks(self):
        areas = np.random.default_rng(0).integers(9, size=(4, 2, 3, 5))
        np.testing.assert_equal(area_iou(areas)[2, 1], area_iou(areas[2, 1]))


class TestMaps:
    def test_a_prediction_does_not_matter_where_the_label_is_ignored(self, function):
        pred, label = patches(1)
        other = torch.where(label == 255, torch.randint(-9, 300, label.shape), pred)
        assert (other != pred).any()
        assert torch.equal(function(pred, label, 4), function(other, label, 4))

    def test_depends_on_the_prediction(self, function):
        pred, label = patches(1)
        assert not torch.equal(function(pred, label, 4), function(label, label, 4))

    @pytest.mark.parametrize("ignore_index", [-1, -100, 4, 65535, 0, 3])
    def test_any_ignore_index(self, function, ignore_index):
        pred, label = patches(2)
        label = torch.where(label == ignore_index, 255, label)  # a class that is not scored is one more ignored label
        renamed = torch.where(label == 255, ignore_index, label)
        assert torch.equal(function(pred, renamed, 4, ignore_index=ignore_index), function(pred, label, 4))

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
    def test_any_integer_dtype(self, function, dtype):
        pred, label = patches(3)
        assert torch.equal(function(pred.to(dtype), label.to(dtype), 4), function(pred, label, 4))

    def test_more_classes_than_a_byte_holds(self, function):
        pred, label = patches(4)
        many = function(pred + 297, torch.where(label == 255, -1, label + 297), 301, ignore_index=-1)
        few = function(pred, label, 4)
        assert torch.equal(many if function is FUNCTIONS["edge_counts"] else many[..., 297:], few)

    def test_wrong_shapes(self, function):
        with pytest.raises(ValueError, match=r"one shape \(h, w\), got \(2, 3\) and \(3, 2\)"):
            function(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.int64), 4)
        with pytest.raises(ValueError, match=r"one shape \(h, w\), got \(1, 2, 3\)"):
            function(*torch.zeros(2, 1, 2, 3, dtype=torch.int64), 4)

    @pytest.mark.parametrize("wrong", [torch.float32, torch.bool])
    def test_wrong_dtype(self, function, wrong):
        with pytest.raises(TypeError, match=r"integer classes, got pred torch.int64 and label torch"):
            function(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, dtype=wrong), 4)

    @pytest.mark.parametrize(("name", "value"), [("prediction", 4), ("prediction", -1), ("label", 4), ("label", -3)])
    def test_out_of_range(self, function, name, value):
        maps = torch.zeros(2, 2, 3, dtype=torch.int64)
        maps[int(name == "label"), 1, 1] = value
        with pytest.raises(ValueError, match=rf"in \[0, 4\) or 255 \(ignored\), got a {name} of {value}. Check"):
            function(*maps, 4)

    def test_a_byte_does_not_wrap_around(self, function):
        label = torch.full((2, 3), 255, dtype=torch.uint8)
        with pytest.raises(ValueError, match="got a label of 255"):
            function(torch.zeros_like(label), label, 4, ignore_index=-1)
        pred, label = patches(5)
        few = function(pred, label, 4)
        for classes in (256, 300):
            many = function(pred.to(torch.uint8), label.to(torch.uint8), classes, ignore_index=255)
            assert torch.equal(many if function is FUNCTIONS["edge_counts"] else many[..., :4], few)
