import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_resample.models import SFNetHead

BN = dict(type="BN")
CHANNELS, SIZES = [4, 6, 8, 10], [(17, 21), (9, 11), (5, 6), (3, 3)]


def head(**kwargs):
    return SFNetHead(CHANNELS, 8, in_index=[0, 1, 2, 3], num_classes=5, norm_cfg=BN, **kwargs)


def features():
    return [torch.randn(2, c, *size) for c, size in zip(CHANNELS, SIZES, strict=True)]


def samples(size):
    out = []
    for _ in range(2):
        sample = SegDataSample()
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 5, (1, *size)))
        out.append(sample)
    return out


@pytest.mark.parametrize(("weight", "millions"), [(0.0, 12.870), (1.0, 13.321)])
def test_parameters_are_the_published_ones(weight, millions):
    model = MODELS.build(
        dict(
            type="EncoderDecoder",
            backbone=dict(type="ResNetV1c", depth=18, stem_channels=128, norm_cfg=BN),
            decode_head=dict(
                type="SFNetHead",
                in_channels=[64, 128, 256, 512],
                in_index=[0, 1, 2, 3],
                channels=128,
                num_classes=19,
                norm_cfg=BN,
                deep_supervision_weight=weight,
            ),
        )
    )
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=5e-4)


@pytest.mark.parametrize("flag", [True, False])
def test_one_flag_reaches_every_resampler_the_loss_and_the_prediction(flag):
    module = head(align_corners=flag)
    resamplers = [*module.top_down, *module.fusion_resamplers, *module.pool.resamplers]
    assert len(resamplers) == 3 + 3 + 4 and all(r.align_corners is flag for r in resamplers)
    logits = torch.randn(2, 5, 17, 21)
    predicted = module.predict_by_feat(logits, [dict(img_shape=(65, 81))] * 2)
    assert torch.equal(predicted, F.interpolate(logits, (65, 81), mode="bilinear", align_corners=flag))
    batch = samples((65, 81))
    labels = torch.cat([s.gt_sem_seg.data for s in batch])
    torch.testing.assert_close(module.loss_by_feat(logits, batch)["loss_ce"], F.cross_entropy(predicted, labels))


def test_each_part_has_its_own_resampler():
    module = head(
        align_corners=True,
        resampler=dict(type="Interpolate", mode="nearest"),
        pool_resampler=dict(type="Interpolate", align_corners=False),
        fusion_resampler=dict(type="FlowAlign"),
    )
    assert {type(r).__name__ for r in module.top_down} == {"Interpolate"}
    assert {r.align_corners for r in module.pool.resamplers} == {False}
    assert {type(r).__name__ for r in module.fusion_resamplers} == {"FlowAlign"}
    assert module(features()).shape == (2, 5, *SIZES[0])


def test_zero_flow_is_the_fpn_baseline():
    flow, fpn = head(), head(resampler=dict(type="Interpolate"))
    fpn.load_state_dict(flow.state_dict(), strict=False)
    for resampler in flow.top_down:
        torch.nn.init.zeros_(resampler.flow.weight)
    x = features()
    torch.testing.assert_close(flow.eval()(x), fpn.eval()(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_deep_supervision(weight):
    module = head(deep_supervision_weight=weight, dropout_ratio=0.0)
    losses = module.loss(features(), samples((33, 41)), None)
    names = {"loss_ce", "acc_seg"} | (
        {f"dsn{i}.{n}" for i in range(3) for n in ("loss_ce", "acc_seg")} if weight else set()
    )
    assert set(losses) == names
    total = sum(v for k, v in losses.items() if "loss" in k)
    total.backward()
    unused = [n for n, p in module.named_parameters() if p.grad is None]
    assert unused == []


def test_supervision_is_weighted_and_read_before_the_output_convolutions():
    torch.manual_seed(3)
    one = head(deep_supervision_weight=1.0, dropout_ratio=0.0)
    half = head(deep_supervision_weight=0.5, dropout_ratio=0.0)
    half.load_state_dict(one.state_dict())
    x, batch = features(), samples((33, 41))
    a, b = one.loss(x, batch, None), half.loss(x, batch, None)
    torch.testing.assert_close(a["dsn1.loss_ce"] * 0.5, b["dsn1.loss_ce"])
    level = one._pyramid(x)[1]
    expected = one.loss_by_feat(one.supervision[1](level), batch)["loss_ce"]
    torch.testing.assert_close(a["dsn1.loss_ce"], expected)


@pytest.mark.parametrize("kwargs", [dict(in_channels=[4]), dict(deep_supervision_weight=-1.0)])
def test_errors(kwargs):
    args = dict(in_channels=CHANNELS, channels=8, in_index=[0, 1, 2, 3], num_classes=5) | kwargs
    with pytest.raises(ValueError, match="SFNetHead: expected two or more levels"):
        SFNetHead(**args)
