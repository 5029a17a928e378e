"""``audit`` and ``exact`` of networks of any framework: what goes in, what comes out, what is refused."""

import copy
import pickle
import sys
import types
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmseg_resample import audit, exact
from mmseg_resample.grids import build, network_of
from mmseg_resample.ops import PixelGrid

LEVELS = [(4.0, 0.0), (8.0, 0.0)]


class Backbone(nn.Module):
    """Levels of stride 4 and 8 from offset 0."""

    def __init__(self, channels=3):
        super().__init__()
        self.stem = nn.Conv2d(channels, 4, 7, 4, 3)
        self.down = nn.Conv2d(4, 4, 3, 2, 1)

    def forward(self, x):
        fine = self.stem(x)
        return [fine, self.down(fine)]


class Segmentor(nn.Module):
    """A pyramid of two levels, whose logits have the size of the image."""

    def __init__(self, name="backbone", channels=3):
        super().__init__()
        self.name = name
        setattr(self, name, Backbone(channels))
        self.classify = nn.Conv2d(8, 2, 1)

    def features(self, x):
        fine, coarse = getattr(self, self.name)(x)
        coarse = F.interpolate(coarse, fine.shape[2:], mode="bilinear", align_corners=False)
        return self.classify(torch.cat([fine, coarse], 1))

    def forward(self, x):
        return F.interpolate(self.features(x), x.shape[2:], mode="bilinear", align_corners=False)


@dataclass
class Prediction:
    logits: torch.Tensor
    features: torch.Tensor


class Wrapped(Segmentor):
    """A segmentor that puts its output into something."""

    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(super().forward(x), self.features(x))


def as_pairs(levels):
    return [(level.stride[0], level.offset[0]) for level in levels]


@pytest.mark.parametrize(
    ("wrap", "names"),
    [
        (lambda logits, features: logits, [""]),
        (lambda logits, features: (logits, features), ["0", "1"]),
        (lambda logits, features: [features, logits], ["0", "1"]),
        (lambda logits, features: {"out": logits, "aux": features}, ["out", "aux"]),
        (lambda logits, features: Prediction(logits, features), ["logits", "features"]),
        (lambda logits, features: {"pyramid": [features, None], "out": logits}, ["pyramid.0", "out"]),
        (lambda logits, features: logits[:, 0], [""]),
        (lambda logits, features: logits[:, :1].squeeze(1).sigmoid(), [""]),
        (lambda logits, features: {"out": logits.argmax(1)}, ["out"]),
        (lambda logits, features: logits.permute(0, 2, 3, 1), [""]),
    ],
    ids=["tensor", "tuple", "list", "dict", "dataclass", "nested", "channel", "binary", "labels", "channels last"],
)
def test_any_output(wrap, names):
    found = audit(Wrapped(wrap), (64, 96))
    assert list(found.now.outputs) == names
    assert (found.final.y.first, found.final.x.last) == (-1.5, -1.5)
    assert found.final.path == next(n for n in names if n in ("", "0", "1", "out", "logits") and sized(found, n))
    assert as_pairs(found.levels) == LEVELS
    assert found.worst == 2 and found.exact.worst < 1e-6


def sized(found, name):
    return found.now.outputs[name].grid.size == (64, 96)


@pytest.mark.parametrize("name", ["backbone", "encoder"])
def test_levels_are_those_of_the_feature_extractor(name):
    assert as_pairs(audit(Segmentor(name), 64).levels) == LEVELS
    assert as_pairs(audit(nn.DataParallel(Segmentor(name)), 64).levels) == LEVELS


def test_a_network_that_returns_features_has_them_as_levels():
    found = audit(Backbone(), 64)
    assert as_pairs(found.levels) == LEVELS
    assert found.final is None and found.resizes == []
    text = str(found)
    assert (
        "The largest output, of '0', is 16x16, not the 64x64 of the input: nothing is compared with labels."
        in " ".join(text.replace("│", "").split())
    )


def test_levels_whose_channels_come_last():
    class Last(Backbone):
        def forward(self, x):
            return [level.permute(0, 2, 3, 1) for level in super().forward(x)]

    assert as_pairs(audit(Last(), 64).levels) == LEVELS


def test_levels_of_an_extractor_that_is_never_called_are_the_outputs():
    class Model(Backbone):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Identity()

    assert as_pairs(audit(Model(), 64).levels) == LEVELS


def test_the_encoder_may_return_the_image_first():
    class Encoder(Backbone):
        def forward(self, x):
            return [x, *super().forward(x)]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = Encoder()

        def forward(self, x):
            return self.encoder(x)[0]

    assert as_pairs(audit(Model(), 64).levels) == [(1, 0), *LEVELS]


def test_logits_of_another_size_are_not_judged():
    class Coarse(Segmentor):
        def forward(self, x):
            return {"out": self.features(x)}

    found = audit(Coarse(), 64)
    assert found.final is None and found.worst == 2
    assert "'out', is 16x16" in str(found)


def test_a_prediction_that_cannot_be_followed_is_said_to_be_so_once():
    class Spectral(Segmentor):
        def forward(self, x):
            return torch.fft.ifft2(torch.fft.fft2(super().forward(x))).real

    found = audit(Spectral(), 64)
    assert found.final is None and found.unknown
    assert str(found).count("could not be followed to the labels") == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_other_precision(dtype):
    assert audit(Segmentor().to(dtype), 64).worst == 2


def test_images_have_the_channels_of_the_feature_extractor():
    model = Segmentor(channels=5)
    ordered = nn.Module.__new__(Segmentor)
    nn.Module.__init__(ordered)
    ordered.name, ordered.classify, ordered.backbone = "backbone", model.classify, model.backbone
    assert next(m for m in ordered.modules() if isinstance(m, nn.Conv2d)).in_channels == 8  # the classifier comes first
    assert audit(ordered, 64).worst == 2


class Fixed(Segmentor):
    """A segmentor that takes images of 48x64 alone."""

    def forward(self, x):
        if x.shape[2:] != (48, 64):
            raise AssertionError(f"this takes 48x64, not {tuple(x.shape[2:])}")
        return super().forward(x)


def test_a_size_that_a_network_refuses():
    with pytest.raises(ValueError, match=r"Fixed could not be run on an image of 512x512 \(AssertionError: .*audit\("):
        audit(Fixed())
    assert audit(Fixed(), (48, 64)).worst == 2


def named_by_its_card(model):
    model.pretrained_cfg = {"input_size": (3, 48, 64)}
    return model


def named_by_a_part(model):
    model.backbone.strict_img_size, model.backbone.img_size = True, (48, 64)
    return model


def named_by_the_card_of_a_part(model):
    model.backbone.pretrained_cfg = {"input_size": (3, 48, 64), "fixed_input_size": True}
    return model


@pytest.mark.parametrize("naming", [named_by_its_card, named_by_a_part, named_by_the_card_of_a_part])
def test_a_network_that_names_its_size_is_audited_at_it(naming):
    model = naming(Fixed())
    assert network_of(model).size(model) == (48, 64)
    found = audit(model)
    assert found.sizes == [(48, 64)] and found.worst == 2
    exact(model)
    assert model(torch.zeros(1, 3, 48, 64)).shape == (1, 2, 48, 64)
    assert audit(model).worst < 1e-6


def test_a_size_that_is_given_wins():
    model = named_by_its_card(Segmentor())
    assert audit(model, 32).sizes == [(32, 32)]


def test_parts_that_take_any_size_name_none():
    model = Segmentor()
    model.backbone.img_size = (48, 64)
    model.backbone.pretrained_cfg = {"input_size": (3, 48, 64)}
    assert network_of(model).size(model) is None
    assert audit(model).sizes == [(512, 512)]


def test_exact_refuses_a_network_that_can_be_run_nowhere():
    with pytest.raises(ValueError, match=r"takes none of the sizes .*this takes 48x64.*sizes="):
        exact(Fixed())


@pytest.mark.parametrize("what", [3, None, [Segmentor]])
def test_what_is_no_network(what):
    with pytest.raises(TypeError, match=r"expected an nn\.Module, an \.onnx file or a config"):
        audit(what)


def test_exact_changes_the_resizes_and_nothing_else():
    torch.manual_seed(0)
    model = Segmentor().eval()
    stock, keys, image = copy.deepcopy(model), list(model.state_dict()), torch.rand(1, 3, 61, 93)
    assert exact(model) is model
    assert list(model.state_dict()) == keys and type(model).__name__ == "Segmentor"
    assert audit(model, (61, 93)).worst < 1e-6
    out = model(image)
    assert not torch.allclose(out, stock(image), atol=1e-4)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(image), out)


def test_exact_is_what_the_grids_say():
    """Give a ramp that the levels hold back, up to the last sample."""
    model = Segmentor().eval()
    with torch.no_grad():
        for conv in (model.backbone.stem, model.backbone.down):
            conv.weight.zero_()
            conv.weight[:, 0, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = 1  # reads the centre
            conv.bias.zero_()
        model.classify.weight.zero_()
        model.classify.weight[0, 0], model.classify.weight[1, 4] = 1, 1  # the fine level, the coarse one
        model.classify.bias.zero_()
        image = torch.arange(96.0).expand(1, 3, 64, 96).contiguous()
        fine, coarse = model(image)[0, :, 32]
        assert fine[40] == pytest.approx(38.5) and coarse[40] == pytest.approx(36.5)  # 1.5, and 1.5 + 2, to the left
        fine, coarse = exact(model)(image)[0, :, 32]
        torch.testing.assert_close(fine[:89], torch.arange(89.0))
        torch.testing.assert_close(coarse[:89], torch.arange(89.0))


# --- networks by the names of what makes them -------------------------------------------------------------------------


@pytest.fixture
def shop(monkeypatch):
    """A module with callables to build from."""
    module = types.ModuleType("shop_of_networks")
    module.Segmentor, module.Inner, module.number = Segmentor, types.SimpleNamespace(Segmentor=Segmentor), lambda: 3
    module.seen = []
    module.noting = lambda *args, **kwargs: module.seen.append((args, kwargs)) or Segmentor()
    module.reading = lambda: nn.Sequential(Segmentor()) if torch.ones(1).item() else None
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_build_makes_networks_without_memory(shop):
    model = build("shop_of_networks:Segmentor", ["encoder", "channels=4"])
    assert model.name == "encoder" and audit(model, 64).worst == 2
    assert build("shop_of_networks:Inner.Segmentor").name == "backbone"


def test_arguments_are_literals_or_texts(shop):
    build("shop_of_networks:noting", ["7", "a/b=c", "x=None", "y=(1, 2.5)", "z=resnet18", "flag=False", "e="])
    assert shop.seen == [((7, "a/b=c"), {"x": None, "y": (1, 2.5), "z": "resnet18", "flag": False, "e": ""})]


def test_a_constructor_that_reads_values_is_called_again_with_memory(shop):
    assert audit(build("shop_of_networks:reading"), 64).worst == 2


@pytest.mark.parametrize(
    ("spec", "arguments", "error", "message"),
    [
        ("torch.nn", [], ValueError, "expected 'module:callable', got 'torch.nn'"),
        (":Conv2d", [], ValueError, "expected 'module:callable'"),
        ("no_such_module:Net", [], ValueError, "no_such_module cannot be imported .*Is it installed"),
        ("torch.nn.modulse:Identity", [], ValueError, r"Is it installed\? Did you mean 'torch.nn.modules'\?"),
        ("torch.nn:Idetity", [], ValueError, r"has no attribute 'Idetity'. Did you mean 'Identity'\?"),
        ("torch.nn:NoSuchNet", [], ValueError, "torch.nn:NoSuchNet: .*NoSuchNet"),
        ("shop_of_networks:Segmentor", ["colour=3"], ValueError, r"Segmentor\(colour=3\) cannot be built \(TypeError"),
        ("shop_of_networks:number", [], TypeError, "to make an nn.Module, got int"),
    ],
)
def test_what_cannot_be_built(shop, spec, arguments, error, message):
    with pytest.raises(error, match=message):
        build(spec, arguments)


# --- the frameworks themselves, where they are installed --------------------------------------------------------------


def test_torchvision():
    pytest.importorskip("torchvision")
    model = build(
        "torchvision.models.segmentation:lraspp_mobilenet_v3_large", ["weights=None", "weights_backbone=None"]
    )
    found = audit(model, (256, 384))
    assert as_pairs(found.levels) == [(8, 0), (16, 0)] and found.final.path == "out"
    assert found.final.x.first == -3.5 and found.exact.worst < 1e-6 and found.unknown == []


@pytest.mark.parametrize(
    ("decoder", "meeting", "prediction"), [("FPN", 28, 0), ("Unet", 8, -0.5), ("UPerNet", 14, 0), ("Segformer", 15, 1)]
)
def test_smp(decoder, meeting, prediction):
    pytest.importorskip("segmentation_models_pytorch")
    found = audit(build(f"segmentation_models_pytorch:{decoder}", ["resnet18", "encoder_weights=None"]))
    inner = max(m.worst for m in found.meetings if m.op != "labels" and not m.pooled)
    assert (inner, found.final.y.first) == (meeting, prediction)
    assert found.levels[0] == PixelGrid((1, 1), (0, 0), (512, 512)) and len(found.levels) == 6
    assert found.exact.worst < 1e-6 and found.unknown == []


@pytest.mark.parametrize(
    ("name", "size", "levels"),
    [
        ("resnet18", 224, [(2, 0), (4, 0), (8, 0), (16, 0), (32, 0)]),
        ("convnext_atto", 224, [(4, 1.5), (8, 3.5), (16, 7.5), (32, 15.5)]),
        ("vit_tiny_patch16_224", 224, [(16, 7.5)] * 3),
    ],
)
def test_timm(name, size, levels):
    pytest.importorskip("timm")
    found = audit(build("timm:create_model", [name, "features_only=True", "pretrained=False"]))
    assert found.sizes == [(size, size)] and as_pairs(found.levels) == levels and found.unknown == []


def test_exact_on_a_network_of_smp():
    smp = pytest.importorskip("segmentation_models_pytorch")
    model = smp.FPN("resnet18", encoder_weights=None).eval()
    keys = list(model.state_dict())
    exact(model)
    assert audit(model).worst < 1e-6 and list(model.state_dict()) == keys
    with torch.no_grad():
        image = torch.rand(1, 3, 96, 160)
        assert torch.equal(copy.deepcopy(model)(image), model(image))


@pytest.mark.parametrize(("before", "after"), [(0, 2), (1, 1)])
@pytest.mark.parametrize("mode", ["replicate", "constant", "reflect"])
def test_what_padding_put_around_features_is_no_feature(mode, before, after):
    """The same pixels by a map, and by aligned corners of features with their edges repeated."""

    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Sequential(*(nn.Conv2d(n, 8, 3, 2, 1) for n in (3, 8, 8)))

        def forward(self, image):
            x = F.pad(self.backbone(image), (before, after) * 2, mode=mode)
            size = [8 * (n - 1) + 1 for n in x.shape[2:]]
            x = F.interpolate(x, size, mode="bilinear", align_corners=True)
            return x[:, :, 8 * before :, 8 * before :][:, :, : image.shape[2], : image.shape[3]]

    padded = audit(Padded(), (64, 80))
    assert padded.worst == 0
    (found,) = padded.uncovered
    assert (found.y.after, found.y.pixels_after, found.x.after, found.x.pixels_after) == (7, 7, 7, 7)
    assert found.y.before == found.x.before == 0
    assert not audit(Padded(), (65, 81)).uncovered
