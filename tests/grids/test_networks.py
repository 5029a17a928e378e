"""Networks of mmseg: the published answers, and each confirmed by positions sent through the network itself."""

from functools import cache

import pytest
import torch
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_resample.grids import TOLERANCE, fake_tensors, follow, follow_exact
from mmseg_resample.launch.auditing import build_segmentor

CONFIGS = {
    "pspnet": "mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py",
    "upernet": "mmseg::upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py",
    "upernet_r18": "mmseg::upernet/upernet_r18_4xb2-40k_cityscapes-512x1024.py",
    "unet": "mmseg::unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024.py",
    "bisenetv2": "mmseg::bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py",
    "hrnet": "mmseg::hrnet/fcn_hr18_4xb2-40k_cityscapes-512x1024.py",
    "segformer": "mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py",
    "swin": "mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py",
    "fpn": "mmseg::sem_fpn/fpn_r50_4xb2-80k_cityscapes-512x1024.py",
}


@cache
def audited(name, size=(512, 1024), exact=False):
    with fake_tensors():
        model = build_segmentor(get_config(CONFIGS[name]))
        return (follow_exact if exact else follow)(model, size)


def inside(result):
    return sorted({round(m.worst, 3) for m in result.misregistered})


def final(result):
    return [(o.first, o.middle, o.last) for o in (result.final.y, result.final.x)]


@pytest.mark.parametrize(
    ("name", "meetings", "prediction"),
    [
        ("pspnet", [], -3.5),
        ("upernet", [2, 4, 8, 14], -1.5),
        ("unet", [], 0),
        ("bisenetv2", [12], -3.5),
        ("segformer", [14], -1.5),
        ("swin", [], 0),
        ("fpn", [2, 4, 6, 8, 14], -1.5),
    ],
)
def test_known_answers(name, meetings, prediction):
    result = audited(name)
    assert inside(result) == meetings
    assert final(result) == [(prediction,) * 3] * 2
    assert result.trace.unknown == []


def test_known_answers_of_hrnet():
    result = audited("hrnet")
    assert {2, 6, 14} <= set(inside(result)) and max(inside(result)) == 14
    assert final(result) == [(-1.5,) * 3] * 2


def test_backbone_levels():
    result = audited("upernet")
    assert [level.stride[0] for level in result.levels] == [4, 8, 16, 32]
    assert {offset for level in result.levels for offset in level.offset} == {0}
    result = audited("pspnet")
    assert (result.levels[-1].stride, result.levels[-1].offset) == ((8, 8), (0, 0))
    result = audited("swin")
    assert [level.offset[0] for level in result.levels] == [1.5, 3.5, 7.5, 15.5]


@pytest.mark.parametrize("name", ["pspnet", "upernet", "unet", "bisenetv2", "hrnet", "segformer", "swin", "fpn"])
def test_exact_registers_everything(name):
    result = audited(name, exact=True)
    assert result.worst < TOLERANCE
    if name in ("unet", "swin"):
        assert result.maps == {}


def test_average_pool_shortcuts_cannot_be_repaired():
    with fake_tensors():
        cfg = get_config(CONFIGS["pspnet"])
        cfg.model.backbone.update(type="ResNetV1d", depth=50)
        cfg.model.decode_head.in_channels, cfg.model.auxiliary_head.in_channels = 2048, 1024
        result = follow_exact(build_segmentor(cfg), (512, 512))
    # The 2x2 average in front of the strided 1x1 shortcut sits half a sample of stride 4 off the 3x3 path.
    assert [(m.path, m.op, m.worst, m.site) for m in result.misregistered] == [("backbone.layer2.0", "add", 2.0, None)]


# --- the independent measurement --------------------------------------------------------------------------------------


class Positions(TorchDispatchMode):
    """Notes the operands of every addition and concatenation of features, and goes on with the first alone.

    So a meeting is measured by itself: what was misplaced before it does not move its sum.
    """

    def __init__(self):
        super().__init__()
        self.operands = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if name == "aten::cat":
            first, *others = args[0]
            self._note([first, *others])
            return func([first, *(torch.zeros_like(x) for x in others)], *args[1:], **(kwargs or {}))
        if name in ("aten::add", "aten::add_") and all(isinstance(x, torch.Tensor) and x.ndim == 4 for x in args[:2]):
            self._note(args[:2])
            return args[0]
        return func(*args, **(kwargs or {}))

    def _note(self, tensors):
        planes = [x.mean(1)[0] for x in tensors if min(x.shape[2:]) > 1]
        if len(planes) > 1:
            self.operands.append([x[x.shape[0] // 2, x.shape[1] // 2].item() for x in planes])


def linearise(model):
    """The network's linear twin: uniform weights, no activation or normalisation; what it computes are averages."""
    for module in list(model.modules()):
        for child_name, child in list(module.named_children()):
            if isinstance(child, (nn.modules.batchnorm._BatchNorm, nn.ReLU, nn.Dropout2d)):
                setattr(module, child_name, nn.Identity())
            if isinstance(child, nn.MaxPool2d):
                pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, child_name, pool)
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if type(module).__name__ == "PPM":  # averages over large bins: their weight would hide the rest
            for parameter in module.parameters():
                nn.init.zeros_(parameter)
    return model


def meetings_by_position(name, size):
    """Per meeting the largest difference of its operands' positions along y, in the middle; and the prediction's."""
    init_default_scope("mmseg")
    cfg = get_config(CONFIGS[name])
    cfg.model.pretrained = None
    cfg.model.pop("auxiliary_head", None)
    model = linearise(MODELS.build(cfg.model).eval())
    meta = dict(img_shape=size, ori_shape=size, pad_shape=size, padding_size=[0] * 4)
    rows = torch.arange(float(size[0]))[:, None].expand(*size)
    noted = []
    for plane in (rows, torch.ones(size)):
        with torch.no_grad(), Positions() as mode:
            logits = model.encode_decode(plane.expand(1, 3, *size).contiguous(), [meta])
        noted.append((mode.operands, logits[0].mean(0)[size[0] // 2, size[1] // 2].item()))
    (moments, moment), (masses, mass) = noted
    found = []
    for operands, weights in zip(moments, masses, strict=True):
        positions = [m / w for m, w in zip(operands, weights, strict=True) if w > 0]
        found.append(max(positions) - min(positions))
    return found, moment / mass - size[0] // 2


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("pspnet", (512, 512)), ("unet", (256, 256))])
def test_positions_sent_through_the_network_confirm_the_audit(name, size):
    differences, prediction = meetings_by_position(name, size)
    result = audited(name, size)
    expected = inside(result)
    measured = sorted(differences)
    # The image's border cuts receptive fields a little; findings are 1.5 px or more apart.
    for value in expected:  # every finding is there ...
        assert any(abs(value - m) < 0.3 for m in measured), (value, measured)
    for value in measured:  # ... and nothing else is
        assert value < 0.3 or any(abs(value - e) < 0.3 for e in expected), (value, expected)
    assert prediction == pytest.approx(result.final.y.middle, abs=0.3)
