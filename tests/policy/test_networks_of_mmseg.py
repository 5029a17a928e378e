"""Segmentors of mmseg whose parts call resizes past ``F.interpolate``; every family counts once."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS
from torch.nn.functional import interpolate

from mmseg_resample.grids import audit, fake_tensors, follow, network_of
from mmseg_resample.launch.auditing import build_fake
from mmseg_resample.ops import AxisMap, resize
from mmseg_resample.policy import ResizePolicy

from ..families import FAMILIES, representative
from ..grids.test_networks import linearise

SIZES = [(128, 128), (160, 224)]
BN = dict(type="BN")
CHANNELS = [8, 16, 32, 64]


class OwnNeck(torch.nn.Module):
    """Calls a resize of ours beside PyTorch's."""

    def forward(self, f):
        s = f[0].shape[2:]
        a = resize(f[1], s, mode="bilinear", coordinates=AxisMap(0.5, 0.0))
        b = F.interpolate(f[2], s, mode="bilinear", align_corners=False)
        return [torch.cat([f[0], a, b], 1), *f[1:]]


class ImportingHead(FCNHead):
    """Calls ``interpolate`` by its name, imported by value."""

    def forward(self, inputs):
        size = inputs[0].shape[2:]
        x = torch.cat([inputs[0], *(interpolate(x, size, mode="bilinear", align_corners=False) for x in inputs[1:])], 1)
        return self.cls_seg(self.convs(x))


def build(neck=None, **arguments):
    init_default_scope("mmseg")
    backbone = dict(type="ResNetV1c", depth=18, stem_channels=8, base_channels=8, norm_cfg=BN)
    common = dict(channels=8, num_convs=1, num_classes=4, norm_cfg=BN, dropout_ratio=0.0)
    cfg = dict(type="EncoderDecoder", data_preprocessor=dict(type="SegDataPreProcessor"), backbone=backbone)
    cfg |= dict(decode_head=dict(type="FCNHead", **common, **arguments), test_cfg=dict(mode="whole"))
    model = MODELS.build(ConfigDict(cfg))
    model.neck = neck
    if neck is None:
        model.decode_head.__class__ = ImportingHead
    return model.eval()


def displacement(model, size=(289, 257)):
    """Return the mean over the middle of where the prediction looks, minus where the label is, by position."""
    height, width = size
    rows = torch.arange(float(height))[:, None].expand(size)
    with torch.no_grad():
        moment, mass = (
            model(p.expand(1, 3, -1, -1).contiguous(), mode="predict")[0].seg_logits.data.mean(0)
            for p in (rows, torch.ones(size))
        )
    y, x = height // 2, width // 2
    return float(((moment / mass) - rows)[y - 16 : y + 16, x - 16 : x + 16].mean())


def own_neck():
    return build(OwnNeck(), in_channels=sum(CHANNELS[:3]), in_index=0)


def importing():
    return build(in_channels=CHANNELS, in_index=[0, 1, 2, 3], input_transform="resize_concat")


def test_a_resize_of_ours_beside_one_of_pytorch():
    model = own_neck()
    assert audit(model, (128, 128)).worst > 5
    ResizePolicy(exact=True, sizes=SIZES).install(model)
    result = audit(model, (128, 128))
    assert result.worst < 1e-6 and not result.unreachable
    assert model.resize_policy.report()["exact"].keys() >= {("neck", 0), ("neck", 1), ("decode_head.logits", 0)}


@pytest.mark.parametrize("make", [own_neck, importing])
def test_exact_reads_where_the_labels_are(make):
    model, stock = linearise(make()), linearise(make())
    ResizePolicy(exact=True, sizes=SIZES).install(model)
    assert abs(displacement(model)) < 0.01
    assert displacement(stock, (288, 257)) < -1


class Recorder(ResizePolicy):
    """A policy that changes nothing, and notes what it is asked."""

    def decide(self, site, call, input_size=None):
        ASKED.append((site, call.source_size, call.size))
        return None


ASKED = []


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_audits_and_policies_count_the_same_calls_in_every_family(family, monkeypatch):
    warnings.simplefilter("ignore")
    with fake_tensors():
        try:
            cfg = Config.fromfile(representative(family))
            size = tuple(cfg.get("crop_size", (512, 512)))
            model = build_fake(cfg)
            stock = follow(model, size)
        except Exception as error:
            pytest.skip(f"cannot be built or run here: {str(error).splitlines()[:1]}")
        monkeypatch.setattr(ResizePolicy, "_audits", lambda self, *_: [stock])
        monkeypatch.setattr(ResizePolicy, "_audits_in_training", lambda self, *_: None)
        Recorder(rules=[dict(set_mode="bilinear")]).install(model)
        ASKED.clear()
        network = network_of(model)
        with torch.no_grad():  # no audit around it, which would see more than a policy does by itself
            list(network.run(model, network.image(model, size)))
    audited = [(r.site, r.source_size, r.called_with) for r in stock.trace.resizes if r.reachable]
    if family.name == "san":  # whose image encoder is counted anew in each of the two passes that run it
        audited = [(path, *sizes) for (path, _), *sizes in audited]
        ASKED[:] = [(path, *sizes) for (path, _), *sizes in ASKED]
    assert audited == ASKED
