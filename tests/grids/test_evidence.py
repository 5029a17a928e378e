"""Where weights look: against networks whose evidence is known, and in what audits and policies make of it."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import mmseg_resample
from mmseg_resample.grids import LevelShift, fake_tensors, level_shifts
from mmseg_resample.policy import ResizePolicy


class Taps(nn.Module):
    """Each convolution has one tap, so that a feature is one pixel of the image."""

    def __init__(self, tap, levels=1, align_corners=False):
        super().__init__()
        self.backbone = Backbone(tap, levels)
        self.align_corners = align_corners

    def forward(self, x):
        y = self.backbone(x)[-1]
        return F.interpolate(y, x.shape[2:], mode="bilinear", align_corners=self.align_corners)


class Backbone(nn.Module):
    def __init__(self, tap, levels):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False) for _ in range(2 + levels))
        self.levels = levels
        for conv in self.convs:
            nn.init.zeros_(conv.weight)
            nn.init.ones_(conv.weight[0, 0, tap[0], tap[1]])

    def forward(self, x):
        found = []
        for conv in self.convs:
            x = conv(x)
            found.append(x)
        return found[-self.levels :]


def ramps(size):
    y, x = torch.meshgrid(*map(torch.arange, size), indexing="ij")
    return {"y": y[None, None].float(), "x": x[None, None].float()}


@pytest.mark.parametrize("tap", [(1, 1), (0, 2), (2, 1)])
def test_one_tap_says_where_it_is(tap):
    """A tap one step from the centre of its window is one pixel away, then two, then four."""
    first, second = level_shifts(Taps(tap, levels=2), (128, 128), samples=4)
    for level, stride in ((first, 8), (second, 16)):
        assert level.grid.stride == (stride, stride) and level.grid.offset == (0, 0)
        assert level.shift == pytest.approx([(t - 1) * (stride - 1) for t in tap], abs=0.01)
        assert level.offset == level.shift and max(level.error) < 1e-6


def test_weights_that_lean_nowhere():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3 if i == 0 else 16, 16, 3, 2, 1) for i in range(3)]
    (level,) = level_shifts(nn.Sequential(*[each for conv in layers for each in (conv, nn.ReLU())]), (96, 96))
    assert all(abs(s) < 4 * e < 1 for s, e in zip(level.shift, level.error, strict=True))
    assert level_shifts(nn.Sequential(*layers), (64, 64), samples=4, seed=3) == level_shifts(
        nn.Sequential(*layers), (64, 64), samples=4, seed=3
    )


@pytest.mark.parametrize("size", [(64, 64), (61, 70)])
@pytest.mark.parametrize("pad", [None, "replicate"])
def test_exact_resizes_read_where_the_weights_look(size, pad):
    """On a ramp every feature is its own position, so that a registered prediction is the ramp itself."""
    model = Taps((0, 2))
    (level,) = level_shifts(model, (128, 128), samples=4)
    inside = (slice(None), slice(None), slice(16, -16), slice(16, -16))
    images = ramps(size)
    off = {axis: (model(image) - image)[inside].abs().max() for axis, image in images.items()}
    assert min(off.values()) > 3
    with ResizePolicy(exact=True, pad=pad, level_shifts=[level.shift]).applied(model):
        for image in images.values():
            torch.testing.assert_close(model(image)[inside], image[inside])
        assert mmseg_resample.audit(model, size).worst < 1e-6
    assert mmseg_resample.audit(model, size).worst == pytest.approx(3.5, abs=0.1)


def test_exact_measures_where_the_weights_look():
    model = mmseg_resample.exact(Taps((2, 0)), weights=True)
    assert model.resize_policy.level_shifts == ((7.0, -7.0),)
    image = ramps((64, 64))["x"]
    torch.testing.assert_close(model(image)[..., 16:-16, 16:-16], image[..., 16:-16, 16:-16])


def test_weights_are_measured_under_a_policy_too():
    """Shifts are from where layers put levels, whatever a policy pads or knows of them already."""
    model = mmseg_resample.exact(Taps((2, 0)), pad="replicate", weights=True)
    assert [level.shift for level in level_shifts(model, (128, 128), samples=4)] == [(7.0, -7.0)]
    assert mmseg_resample.audit(model, 128, weights=True).worst < 1e-6
    assert mmseg_resample.exact(model, pad="replicate", weights=True).resize_policy.level_shifts == ((7.0, -7.0),)
    patches = nn.Sequential(nn.Conv2d(1, 1, 16, 16))
    nn.init.ones_(patches[0].weight)
    model = Around(patches, lambda net, x: F.interpolate(net(x), x.shape[2:], mode="bilinear"))
    mmseg_resample.exact(model, pad="replicate")
    assert model.resize_policy.padding((128, 128)).y[0] > 0
    (level,) = level_shifts(model, (128, 128), samples=4)
    assert level.shift == pytest.approx((0, 0), abs=0.01)


class Around(nn.Module):
    def __init__(self, backbone, run):
        super().__init__()
        self.backbone, self.run = backbone, run

    def forward(self, x):
        return self.run(self.backbone, x)


def changed(function):
    """A backbone whose levels are changed before it returns them."""
    backbone = Backbone((2, 0), 1)
    forward = backbone.forward
    backbone.forward = lambda x: function(forward(x)[0])
    return backbone


WAYS = {
    "pads before": (Backbone((2, 0), 1), lambda net, x: net(F.pad(x, (16,) * 4))),
    "writes into its image": (Backbone((2, 0), 1), lambda net, x: net(x.sub_(1))),
    "rows in front of channels": (
        changed(lambda y: [y.repeat(1, 52, 1, 1).permute(0, 2, 3, 1)]),
        lambda net, x: net(x),
    ),
    "a level twice": (changed(lambda y: [y, y]), lambda net, x: net(x)),
    "another method": (nn.Module(), lambda net, x: net.features(x)),
}
WAYS["another method"][0].features = Backbone((2, 0), 1)


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_run_a_backbone(way):
    for level in level_shifts(Around(*WAYS[way]), samples=4):
        assert level.shift == pytest.approx((7, -7), abs=0.01)


def test_a_level_that_is_listed_twice_is_moved_once():
    model = Around(changed(lambda y: [y, y]), lambda net, x: F.interpolate(net(x)[0], x.shape[2:], mode="bilinear"))
    mmseg_resample.exact(model, weights=True)
    image = ramps((64, 64))["x"]
    torch.testing.assert_close(model(image)[..., 16:-16, 16:-16], image[..., 16:-16, 16:-16])


def test_levels_of_several_runs_are_refused():
    def two_scales(net, x):
        coarse = net(F.avg_pool2d(x, 2))[0]
        return F.interpolate(net(x)[0], coarse.shape[2:]) + coarse

    with pytest.raises(ValueError, match="backbone runs 2 times"):
        level_shifts(Around(Backbone((1, 1), 1), two_scales), samples=2)
    with pytest.raises(ValueError, match="backbone runs more than once"):
        ResizePolicy(exact=True, level_shifts=[(1, 1)]).install(Around(Backbone((1, 1), 1), two_scales))


def test_the_size_that_a_network_takes():
    class Fixed(Backbone):
        img_size, strict_img_size = (96, 128), True

        def forward(self, x):
            if x.shape[2:] != (96, 128):
                raise RuntimeError("takes 96x128")
            return super().forward(x)

    model = Around(Fixed((2, 0), 1), lambda net, x: net(x))
    assert level_shifts(model, samples=2)[0].shift == (7, -7)
    with pytest.raises(ValueError, match=r"Around could not be run \(64x64: RuntimeError: takes 96x128\). Give a size"):
        level_shifts(model, (64, 64))


def test_an_audit_judges_where_the_weights_look():
    model = Taps((2, 2))  # features of stride 8 sit at 7, and half-pixel resizes take them to sit at 3.5
    weights = level_shifts(model, (128, 128), samples=4)
    by_layers, by_weights = mmseg_resample.audit(model, 64), mmseg_resample.audit(model, 64, weights=True)
    assert by_layers.final.y.largest == pytest.approx(-3.5) and by_weights.final.y.largest == pytest.approx(3.5)
    assert by_weights.levels[0].offset == by_weights.weights[0].offset == weights[0].offset
    assert [each.action for each in by_weights.advice] == ["register"]
    assert "level_shifts=[(7, 7)]" in by_weights.advice[0].text
    text = str(by_weights)
    assert "Judged where the weights look" in text and "7.0 ± 0.0, 7.0 ± 0.0" in text
    assert json.loads(json.dumps(by_weights.to_json()))["weights"][0]["shift"] == [7.0, 7.0]
    assert not by_layers.weights and by_layers.to_json()["weights"] == []


def test_configs_with_pretrained_weights_are_told_to_measure_them():
    found = mmseg_resample.audit("mmseg::fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py", 512)
    assert found.pretrained == "open-mmlab://resnet18_v1c"
    assert [each.action for each in found.advice][-1] == "measure"
    assert "begins with open-mmlab://resnet18_v1c" in found.advice[-1].text
    own = mmseg_resample.audit("mmseg_resample::efficientnet/sfnet-fpn_lite0-s8_1xb8-600_camvid-160x224.py")
    assert own.pretrained == "package://efficientnet_lite0"


class Branches(nn.Module):
    """A level of stride 2, its mean, and the level again, as ``last`` returns it."""

    def __init__(self, last):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.conv, self.backbone.last = nn.Conv2d(3, 4, 3, 2, 1), last
        self.backbone.forward = lambda x: self.levels(self.backbone.conv(x))

    def levels(self, y):
        return [y, y.mean((2, 3), keepdim=True), self.backbone.last(y)]

    def forward(self, x):
        return self.backbone(x)[0]


def test_levels_without_a_position_have_no_shift():
    level, pooled, last = level_shifts(Branches(nn.Identity()), (64, 64), samples=2)
    assert isinstance(level, LevelShift) and pooled is None and last.grid == level.grid


class Detached(nn.Module):
    def forward(self, x):
        return x.detach()


def test_a_level_that_cannot_be_asked_is_named():
    with pytest.raises(ValueError, match="expected level 2 of Branches to depend on the image"):
        level_shifts(Branches(Detached()), (64, 64), samples=2)


class WithoutGradients(nn.Module):
    """A network whose backbone is not trained, in one of the ways that this is done."""

    def __init__(self, way):
        super().__init__()
        self.backbone = Backbone((0, 2), 1)
        self.backbone.requires_grad_(False)
        forward = self.backbone.forward
        if way == "no_grad":
            self.backbone.forward = torch.no_grad()(forward)
        elif way == "set_grad_enabled":
            self.backbone.forward = torch.set_grad_enabled(False)(forward)
        elif way == "checkpoint":
            self.backbone.forward = lambda x: checkpoint(lambda y: tuple(forward(y)), x, use_reentrant=True)

    def forward(self, x):
        return F.interpolate(self.backbone(x)[-1], x.shape[2:], mode="bilinear")


@pytest.mark.parametrize("way", ["requires_grad", "no_grad", "set_grad_enabled", "checkpoint"])
def test_backbones_that_are_not_trained(way):
    (level,) = level_shifts(WithoutGradients(way), (128, 128), samples=4)
    assert level.shift == pytest.approx((-7, 7), abs=0.01)


def test_modes_and_gradients_stay_as_they_were():
    model = Taps((1, 1)).train()
    model.backbone.convs[0].requires_grad_(False)
    level_shifts(model, (64, 64), samples=2)
    assert model.training and all(each.grad is None for each in model.parameters())
    assert [each.requires_grad for each in model.parameters()] == [False, True, True]
    with torch.no_grad():
        level_shifts(model, (64, 64), samples=2)


def test_what_cannot_be_measured_is_refused():
    with fake_tensors():
        model = Taps((1, 1))
    with pytest.raises(ValueError, match="has no weights"):
        level_shifts(model)
    with pytest.raises(ValueError, match="samples >= 2"):
        level_shifts(Taps((1, 1)), samples=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(rules=[dict(align_corners=True)], level_shifts=[(1, 1)]), "Add exact=True"),
        (dict(exact=True, level_shifts=[1, 2]), r"one \(y, x\) for each level"),
    ],
)
def test_policies_refuse_shifts_that_say_nothing(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResizePolicy(**arguments)


def test_a_policy_wants_one_shift_for_each_level():
    with pytest.raises(ValueError, match=r"each of the 1 levels of the backbone, got 2"):
        ResizePolicy(exact=True, level_shifts=[(1, 1), (2, 2)]).install(Taps((1, 1)))
