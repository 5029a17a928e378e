"""Points that a network chooses: what the audit says of them is what an image of coordinates shows."""

import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import point_sample
from mmengine.config import ConfigDict
from mmseg.models.decode_heads import PointHead
from torch import nn

from mmseg_resample import audit, exact

CFG = ConfigDict(subdivision_num_points=560)  # all pixels of the map, in an order that values choose


def uncertainty(logits):
    return logits[:, :1] + logits[:, 1:]


def of_mmseg(logits):
    return PointHead.get_points_test(None, logits, uncertainty, CFG)


def stacked(logits):
    """Compute the coordinates of the most uncertain pixels in other words."""
    height, width = logits.shape[2:]
    _, indices = uncertainty(logits).flatten(1).sort(dim=1, descending=True)
    indices = indices[:, : height * width]
    y = torch.div(indices, width, rounding_mode="floor")
    x = torch.fmod(indices, width).to(logits.dtype)
    return indices, torch.stack([(2 * x + 1) / (2 * width), (y.to(logits.dtype) + 0.5) / height], dim=-1)


class Refine(nn.Module):
    """Samples features of stride 4 anew at pixels of a map of stride 2, as PointRend does."""

    def __init__(self, align_corners, points=of_mmseg):
        super().__init__()
        self.align_corners, self.points = align_corners, points
        self.features = nn.Conv2d(2, 2, 1, stride=4, bias=False)
        self.features.weight.data = torch.eye(2)[..., None, None]

    def forward(self, image):
        features = self.features(image)
        logits = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=self.align_corners)
        indices, points = self.points(logits)
        sampled = point_sample(features, points, align_corners=self.align_corners)
        n, channels, height, width = logits.shape
        refined = logits.reshape(n, channels, -1)
        refined = refined.scatter(2, indices.unsqueeze(1).expand(-1, channels, -1), sampled)
        refined = refined.view(n, channels, height, width)
        return F.interpolate(refined, scale_factor=2, mode="bilinear", align_corners=self.align_corners)


def displacement(model, height, width):
    """Return what an image of its own coordinates shows: the position that each output reads minus its own."""
    rows, columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    image = torch.stack([rows, columns])[None]
    with torch.no_grad():
        return (model(image) - image)[..., 8:-8, 8:-8]


@pytest.mark.parametrize("points", [of_mmseg, stacked])
@pytest.mark.parametrize("align_corners", [False, True])
def test_points_are_judged_and_made_exact(align_corners, points):
    model = Refine(align_corners, points).eval()
    size = (40, 56)
    found = audit(model, size)
    assert not found.unknown
    (sampling,) = [r for r in found.resizes if r.mode == "point_sample"]
    assert sampling.size == (20, 28)
    measured = displacement(model, *size)
    (scattered,) = [m for m in found.meetings if m.op == "scatter"]
    for axis, n in enumerate(size):
        final, points_less_map = ((m.y, m.x)[axis] for m in (found.final, scattered))
        first, last = (getattr(final, end) + getattr(points_less_map, end) for end in ("first", "last"))
        expected = torch.linspace(first, last, n)[8:-8]
        expected = (expected[:, None] if axis == 0 else expected).expand(24, 40)
        torch.testing.assert_close(measured[0, axis], expected, atol=1e-3, rtol=0)
    exact(model, sizes=[size, (48, 44)])
    for height, width in (size, (48, 44), (36, 60)):
        assert audit(model, (height, width)).worst < 1e-6
        assert displacement(model, height, width).abs().max() < 1e-3


def test_points_and_map_that_disagree_meet():
    """The map is resized by one flag, the points sampled by the other."""
    model = Refine(True).eval()
    found = audit(model, (40, 56))
    (meeting,) = [m for m in found.meetings if m.op == "scatter"]
    # Pixel i of the map reads sample i * 9 / 19, the point of that pixel sample (i + 0.5) / 20 * 9.
    assert meeting.y.first == pytest.approx(0.5 / 20 * 9 * 4)
    assert meeting.y.last == pytest.approx(((19.5) / 20 - 1) * 9 * 4)


class Gathered(nn.Module):
    """Picks features at indices, and puts them back where they were, or where another map chose."""

    def __init__(self, twice):
        super().__init__()
        self.twice = twice

    def forward(self, image):
        flat = image[..., ::2, ::2].flatten(2)
        first, second = flat[:, 0].topk(9, dim=1)[1], flat[:, 1].topk(9, dim=1)[1]
        index = first[:, None].expand(-1, flat.shape[1], -1)
        picked = flat.gather(2, index)
        if self.twice:
            return picked + flat.gather(2, second[:, None].expand_as(index))
        return flat.scatter(2, index, picked * 2).view_as(image[..., ::2, ::2])


def test_features_are_followed_through_their_indices():
    found = audit(Gathered(False), (16, 20))
    assert not found.unknown
    assert [(m.op, m.worst) for m in found.meetings if m.op == "scatter"] == [("scatter", 0)]


def test_points_that_were_chosen_apart_are_not_compared():
    assert any("points that were chosen apart" in what for _, what in audit(Gathered(True), (16, 20)).unknown)


class Clobbered(Refine):
    """Computes coordinates that are no longer those of pixels."""

    def __init__(self, how):
        super().__init__(False, self.moved)
        self.how = how

    def moved(self, logits):
        indices, points = of_mmseg(logits)
        if self.how == "noise":
            points = points + torch.rand_like(points) * 0.1
        if self.how == "in place":
            points.add_(torch.rand_like(points))
        if self.how == "one column":
            points[:, :, 0] = points[:, :, 0] ** 2
        return indices, points


@pytest.mark.parametrize("how", ["noise", "in place", "one column"])
def test_other_coordinates_are_said_not_to_be_judged(how):
    found = audit(Clobbered(how), (40, 56))
    assert any("not judged" in what for _, what in found.now.trace.notes)
    assert not any(r.mode == "point_sample" for r in found.resizes)
