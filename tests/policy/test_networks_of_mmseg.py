"""Segmentors of mmseg whose parts call resizes past ``F.interpolate``; every family counts once."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch.nn.functional import interpolate

from mmseg_resample.grids import audit, fake_tensors, follow, network_of
from mmseg_resample.launch.auditing import build_segmentor
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


RESNET = dict(type="ResNetV1c", depth=18, stem_channels=8, base_channels=8, norm_cfg=BN)
CE = dict(type="CrossEntropyLoss")
OHEM = dict(type="OhemCrossEntropy", thres=0.9, min_kept=10)
UPDATE = dict(
    type="KernelUpdateHead", num_classes=4, num_ffn_fcs=2, num_heads=1, num_mask_fcs=1, feedforward_channels=8
)
UPDATE |= dict(in_channels=8, out_channels=8, conv_kernel_size=1, ffn_act_cfg=dict(type="ReLU", inplace=True))
UPDATE |= dict(feat_transform_cfg=dict(conv_cfg=dict(type="Conv2d"), act_cfg=None))
UPDATE |= dict(kernel_updator_cfg=dict(type="KernelUpdator", in_channels=8, feat_channels=8, out_channels=8))
FCN = dict(type="FCNHead", in_channels=64, channels=8, num_convs=1, num_classes=4, norm_cfg=BN)
SEVERAL = {
    "pidnet": (
        dict(type="PIDNet", channels=8, ppm_channels=8, num_stem_blocks=1, num_branch_blocks=1, norm_cfg=BN),
        dict(type="PIDHead", in_channels=32, loss_decode=[CE, OHEM, dict(type="BoundaryLoss"), OHEM]),
        3,
    ),
    "ddrnet": (
        dict(type="DDRNet", channels=8, ppm_channels=8, norm_cfg=BN),
        dict(type="DDRHead", in_channels=32, loss_decode=[OHEM, OHEM]),
        2,
    ),
    "danet": (RESNET, dict(type="DAHead", in_channels=64, pam_channels=4), 3),
    "knet": (
        RESNET,
        dict(type="IterativeDecodeHead", num_stages=2, kernel_generate_head=FCN, kernel_update_head=[UPDATE, UPDATE]),
        3,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SEVERAL)
def test_all_logits_of_training_are_audited_and_exact(name, caplog):
    backbone, head, count = SEVERAL[name]
    init_default_scope("mmseg")
    if name != "knet":
        head = dict(head, channels=8, num_classes=4, norm_cfg=BN)
    cfg = dict(type="EncoderDecoder", data_preprocessor=dict(type="SegDataPreProcessor"), backbone=backbone)
    model = MODELS.build(ConfigDict(cfg, decode_head=head, auxiliary_head=dict(FCN, in_channels=32, in_index=2)
                                    if backbone is RESNET else None))  # fmt: skip
    size, labels = (64, 96), torch.zeros(1, 64, 96, dtype=torch.int64)
    sample = SegDataSample(gt_sem_seg=PixelData(data=labels), gt_edge_map=PixelData(data=labels))
    policy = Recorder(exact=True, sizes=[size])
    policy.install(model.train())
    assert not caplog.messages
    ASKED.clear()
    model(torch.rand(2, 3, *size), [sample, sample], mode="loss")
    assert set(ASKED) == policy._in_training.calls
    logits = {site: maps for site, maps in policy._in_training.exact.items() if site[0].endswith("head.logits")}
    assert len([site for site in logits if "auxiliary" not in site[0]]) == count
    assert {m for maps in logits.values() for m in maps} <= {
        AxisMap(1 / 8, 0.0),
        AxisMap(1 / 16, 0.0),
        AxisMap(1 / 32, 0.0),
    }


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_audits_and_policies_count_the_same_calls_in_every_family(family, monkeypatch):
    warnings.simplefilter("ignore")
    with fake_tensors():
        try:
            cfg = Config.fromfile(representative(family))
            size = tuple(cfg.get("crop_size", (512, 512)))
            model = build_segmentor(cfg)
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
