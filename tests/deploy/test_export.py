"""Files that ONNX Runtime computes as PyTorch computes the network, at sizes that they were not traced at."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mmseg_resample
from mmseg_resample.deploy import graph, parity
from mmseg_resample.deploy import to_onnx as exporting
from mmseg_resample.deploy.deployed import DeployedNetwork, Normalisation
from mmseg_resample.deploy.to_onnx import ExportError, Options
from mmseg_resample.ops import AxisMap, resize
from mmseg_resample.resamplers import build_resampler

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


class Pyramid(nn.Module):
    """Strides 2 and 8, bins, and whatever resizes are given on the way up."""

    def __init__(self, *ups, classes=5):
        super().__init__()
        torch.manual_seed(0)
        self.fine = nn.Conv2d(3, 8, 3, 2, 1)
        self.coarse = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
        self.ups = ups or [interpolated("bilinear", align_corners=False)]
        self.head = nn.Conv2d(8 + 8 * len(self.ups), classes, 1)
        nn.init.normal_(self.head.weight, 0, 2)

    def forward(self, image):
        fine = self.fine(image)
        coarse = self.coarse(fine)
        bins = F.adaptive_avg_pool2d(coarse, 3)
        coarse = coarse + F.interpolate(bins, coarse.shape[2:], mode="bilinear", align_corners=False)
        logits = self.head(torch.cat([fine, *(up(coarse, fine) for up in self.ups)], 1))
        return {"out": F.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=False)}


def mapped(mode, *maps):
    return lambda x, like: resize(x, like.shape[2:], mode=mode, coordinates=maps)


def interpolated(mode, **kwargs):
    return lambda x, like: F.interpolate(x, like.shape[2:], mode=mode, **kwargs)


QUARTERS = mapped("bilinear", AxisMap(0.25, 0.0), AxisMap(0.25, -0.25))
FLAGS = (
    interpolated("bilinear", align_corners=True),
    interpolated("bicubic", align_corners=False),
    interpolated("nearest"),
    interpolated("nearest-exact"),
)
MAPS = (
    QUARTERS,
    mapped("bilinear", AxisMap(0.3, 0.1), AxisMap(0.3, -0.4)),
    mapped("bicubic", AxisMap(0.25, 0.0), AxisMap(0.25, 0.0)),
    mapped("nearest", AxisMap(0.25, 0.0), AxisMap(0.25, 0.3)),
)


def exported(network, path, options=None, **kwargs):
    options = options or Options()
    deployed = DeployedNetwork(network.eval(), **kwargs)
    deployed.find_logits(options.traced_size)
    model = exporting.export(deployed, options)
    graph.save(model, path)
    return deployed, model


def assert_equal(deployed, path, sizes):
    found = parity.compare(deployed, path, sizes)
    assert len(found) == len(sizes)
    assert all(each.equal and each.difference < 1e-4 * each.spread for each in found), [str(each) for each in found]


@pytest.mark.parametrize("ups", [FLAGS, MAPS], ids=["flags", "maps"])
def test_one_file_for_every_size(ups, tmp_path):
    path = tmp_path / "network.onnx"
    deployed, _ = exported(Pyramid(*ups), path)
    assert_equal(deployed, path, [(103, 139), (160, 128), (96, 97), (41, 40)])
    images = parity.image(deployed, (50, 60), batch=3)
    _, logits = onnxruntime.InferenceSession(path).run(["labels", "logits"], {"image": images.numpy()})
    np.testing.assert_allclose(logits, deployed(images)[1].detach(), atol=1e-4)


def test_an_exact_network_is_exact_at_sizes_whose_corners_happen_to_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "TRACED_SIZE", (97, 129))  # align_corners is exact there, and nowhere else
    network = mmseg_resample.exact(Pyramid(FLAGS[0], FLAGS[2]).eval())
    path = tmp_path / "network.onnx"
    deployed, _ = exported(network, path)
    assert_equal(deployed, path, [(97, 129), (96, 128), (103, 139)])


@pytest.mark.parametrize("options", [Options(opset=17), Options(opset=23, form="fast")])
def test_opsets_and_forms(options, tmp_path):
    path = tmp_path / "network.onnx"
    deployed, model = exported(Pyramid(QUARTERS), path, options)
    assert model.opset_import[0].version == options.opset
    assert_equal(deployed, path, [(103, 139), (64, 80)])


@pytest.mark.parametrize("form", ["portable", "fast"])
def test_an_audit_of_the_file_says_how_far_features_reach(form, tmp_path):
    """The portable form repeats edge samples in the graph; they are no features there either."""
    network = mmseg_resample.exact(Pyramid().eval())
    exported(network, tmp_path / "network.onnx", Options(size=(64, 80), form=form))
    expected, found = (mmseg_resample.audit(of, (64, 80)) for of in (network, str(tmp_path / "network.onnx")))
    sides = [[each.y.pixels_after for each in audit.uncovered if not each.pooled] for audit in (expected, found)]
    assert sides[0] and len(sides[0]) == len(sides[1])
    for of_network, of_file in zip(*sides, strict=True):  # which may compute one more output, and cut it off
        assert of_network <= of_file <= of_network + 2


def test_a_padded_network_is_exported_for_one_size(tmp_path):
    network = mmseg_resample.exact(Pyramid().eval(), pad="replicate")
    with pytest.raises(ExportError, match=r"depend on their size\. Give a size"):
        exported(network, tmp_path / "network.onnx")
    deployed, model = exported(network, tmp_path / "network.onnx", Options(size=(64, 80)))
    assert_equal(deployed, tmp_path / "network.onnx", [(64, 80)])
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 64, 80]


def test_maps_that_depend_on_the_size_are_refused_with_their_sites(tmp_path):
    network = mmseg_resample.exact(Pyramid().eval())
    network.resize_policy._known.varying.add(("", 1))
    with pytest.raises(ExportError, match=r"depend on the size of the input at the network, resize 1\. Give a size"):
        exported(network, tmp_path / "network.onnx")


def test_a_branch_that_only_some_sizes_take_is_refused(tmp_path):
    class Branching(Pyramid):
        def forward(self, image):
            out = super().forward(image)["out"]
            return out if image.shape[3] % 2 else out + 1

    with pytest.raises(ExportError, match=r"otherwise at 160x128 than at 103x139, by what its sizes equal or divide"):
        exported(Branching(), tmp_path / "network.onnx")


class ByFactor(Pyramid):
    """Levels upsampled by factors, as HRNet and UNet do it, and brought to one size behind."""

    def __init__(self, factor):
        from mmseg.models.utils import Upsample

        super().__init__()
        self.factor = factor
        self.upsample = Upsample(scale_factor=factor, mode="bilinear", align_corners=True)

    def forward(self, image):
        out = super().forward(image)["out"]
        up = F.avg_pool2d(out, 3, 2, 1)
        for one in (
            self.upsample(up),
            F.interpolate(up, scale_factor=self.factor, mode="bilinear", recompute_scale_factor=True),
            F.interpolate(up, None, (self.factor, 2), "bicubic", True),
            F.interpolate(up, scale_factor=(2, self.factor)),
        ):
            out = out + F.interpolate(one, out.shape[2:], mode="bilinear")
        return out


def test_whole_factors_keep_sizes_open(tmp_path):
    deployed, _ = exported(ByFactor(2.0), tmp_path / "network.onnx")
    assert_equal(deployed, tmp_path / "network.onnx", [(103, 139), (160, 128), (97, 68)])


def test_other_factors_are_refused_for_every_size(tmp_path):
    with pytest.raises(ExportError, match=r"by what its sizes equal or divide\. Give a size"):
        exported(ByFactor(1.5), tmp_path / "network.onnx")
    deployed, _ = exported(ByFactor(1.5), tmp_path / "network.onnx", Options(size=(24, 32)))
    assert_equal(deployed, tmp_path / "network.onnx", [(24, 32)])


def test_what_a_trace_cannot_follow_is_an_error(tmp_path):
    class Wilful(Pyramid):
        def forward(self, image):
            out = super().forward(image)["out"]
            return out if out.mean() > 0 else -out

    with pytest.raises(ExportError, match="Wilful cannot be exported for any size"):
        exported(Wilful(), tmp_path / "network.onnx")
    assert not (tmp_path / "network.onnx").exists()


def test_a_network_without_logits_of_the_image_is_an_error():
    with pytest.raises(ValueError, match="expected logits of the image's size, 32x32, got outputs of"):
        DeployedNetwork(nn.Conv2d(3, 4, 3, 2)).find_logits((32, 32))
    with pytest.raises(ValueError, match="Linear cannot take an image of 32x32"):
        DeployedNetwork(nn.Linear(3, 4)).find_logits((32, 32))


@pytest.mark.parametrize(("classes", "dtype"), [(1, np.uint8), (256, np.uint8), (257, np.int32)])
def test_labels(classes, dtype, tmp_path):
    path = tmp_path / "network.onnx"
    deployed, _ = exported(Pyramid(classes=classes), path, Options(size=(24, 32)), threshold=0.3)
    image = parity.image(deployed, (24, 32))
    labels, logits = onnxruntime.InferenceSession(path).run(["labels", "logits"], {"image": image.numpy()})
    assert labels.dtype == dtype and labels.shape == (1, 24, 32)
    probability = 1 / (1 + np.exp(-logits[:, 0]))
    assert np.array_equal(labels, probability > 0.3 if classes == 1 else logits.argmax(1))


def test_normalisation_in_the_graph_and_one_output(tmp_path):
    normalisation = Normalisation((10.0, 20.0, 30.0), (2.0, 3.0, 4.0))
    deployed, model = exported(Pyramid(), tmp_path / "a.onnx", Options(size=(24, 32)), normalisation=normalisation)
    graph.save(graph.select_outputs(model, {"logits"}), tmp_path / "b.onnx")
    image = torch.randint(0, 256, (1, 3, 24, 32)).float()
    session = onnxruntime.InferenceSession(tmp_path / "b.onnx")
    (logits,) = session.run(None, {"image": image.numpy()})
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in normalisation.__dict__.values())
    np.testing.assert_allclose(logits, deployed.network((image - mean) / std)["out"].detach(), atol=1e-4)
    assert "ArgMax" not in {node.op_type for node in onnx.load(tmp_path / "b.onnx").graph.node}


def test_metadata_says_what_every_resize_has_to_do(tmp_path):
    _, model = exported(Pyramid(QUARTERS), tmp_path / "network.onnx", Options(size=(24, 32)))
    resizes = graph.description(model)["resizes"]
    assert [(r["call"], r["mode"], r["coordinates"]) for r in resizes] == [
        (0, "bilinear", "half_pixel"),
        (1, "bilinear", [[0.25, 0.0], [0.25, -0.25]]),
        (2, "bilinear", "half_pixel"),
    ]
    assert resizes[2]["source_size"] == [12, 16] and resizes[2]["size"] == [24, 32]
    assert json.dumps(resizes)


def test_resizes_say_nothing_that_holds_without_being_said(tmp_path):
    _, model = exported(Pyramid(), tmp_path / "network.onnx", Options(size=(24, 32)))
    said = {a.name for node in model.graph.node if node.op_type == "Resize" for a in node.attribute}
    assert said <= {"mode", "coordinate_transformation_mode"}


def test_parity_finds_another_pixel_model(tmp_path):
    deployed, model = exported(Pyramid(), tmp_path / "network.onnx", Options(size=(24, 32)))
    (*_, last) = [node for node in model.graph.node if node.op_type == "Resize"]
    last.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
    graph.save(model, tmp_path / "other.onnx")
    (found,) = parity.compare(deployed, tmp_path / "other.onnx", [(24, 32)])
    assert not found.equal and found.labels - found.ties > 10
    assert "labels differ" in str(found)


def test_a_tie_is_no_difference_and_a_large_error_excuses_none():
    logits = np.zeros((1, 2, 1, 4), np.float32)
    logits[0, 0] = [[1.0, 1e-6, -2.0, 3.0]]
    labels = logits.argmax(1)
    own = logits.copy()
    own[0, 0, 0, 1] = -1e-6
    tie = parity._compared("x", (1, 4), (labels, logits), {"labels": own.argmax(1), "logits": own})
    assert (tie.labels, tie.ties, tie.equal) == (1, 1, True)
    own[0, 0, 0, 0] = -1.0
    wrong = parity._compared("x", (1, 4), (labels, logits), {"labels": own.argmax(1), "logits": own})
    assert (wrong.labels, wrong.ties, wrong.equal) == (2, 1, False)


def test_options_are_checked():
    with pytest.raises(ValueError, match="expected form to be one of 'portable', 'fast', got 'portabel'"):
        Options(form="portabel")
    with pytest.raises(ValueError, match="expected an opset from 17 to 23, got 16"):
        Options(opset=16)


@pytest.mark.parametrize("kind", [dict(type="JAFAR", qk_channels=16), dict(type="JointBilateral", steps=2)], ids=str)
def test_attention_is_no_resize_of_the_file(kind, tmp_path):
    class Guided(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.backbone = nn.Conv2d(3, 4, 8, 8)
            self.up = build_resampler(kind, in_channels=4, guide_channels=3, align_corners=False)

        def forward(self, image):
            return {"out": self.up(self.backbone(image), image)}

    deployed, model = exported(Guided(), tmp_path / "network.onnx", Options(size=(24, 32)))
    assert_equal(deployed, tmp_path / "network.onnx", [(24, 32)])
    (described,) = graph.description(model)["resizes"]
    assert (described["path"], described["mode"], described["coordinates"]) == ("up", "attention", "half_pixel")
    assert "Not as trained" not in str(mmseg_resample.audit(str(tmp_path / "network.onnx")))
