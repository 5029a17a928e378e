import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_resample.models import SFNetLiteHead

CHANNELS, SIZES = [4, 6, 8, 10], [(17, 21), (9, 11), (5, 6), (3, 3)]


def head(**kwargs):
    options = dict(in_channels=[4, 8, 10], in_index=[0, 2, 3], num_classes=5, norm_cfg=dict(type="BN"))
    return SFNetLiteHead(channels=8, **{**options, **kwargs})


def features():
    return [torch.randn(2, c, *size) for c, size in zip(CHANNELS, SIZES, strict=True)]


@pytest.mark.parametrize("resampler", [None, dict(type="FlowAlign"), dict(type="Interpolate")], ids=str)
@pytest.mark.parametrize("flag", [True, False])
def test_trains_with_any_resampler(resampler, flag):
    module = head(align_corners=flag, resampler=resampler)
    samples = []
    for _ in range(2):
        samples.append(SegDataSample())
        samples[-1].gt_sem_seg = PixelData(data=torch.randint(0, 5, (1, 65, 81)))
    losses = module.loss(features(), samples, None)
    assert set(losses) == {"loss_ce", "acc_seg"}  # no deep supervision, as released
    losses["loss_ce"].backward()
    assert [n for n, p in module.named_parameters() if p.grad is None] == []
    assert {m.align_corners for m in module.modules() if hasattr(m, "guide_channels")} == {flag}
    assert module(features()).shape == (2, 5, *SIZES[0])


def test_the_gated_alignment_is_the_default_and_not_added_to_the_finest_level():
    module = head(align_corners=True).eval()
    assert type(module.align).__name__ == "GatedFlowAlign" and module.align.gate_input == "spatial_atten"
    seen = {}
    module.fusion.register_forward_pre_hook(lambda m, args: seen.update(fused=args[0]))
    module.align.register_forward_hook(lambda m, args, out: seen.update(aligned=out))
    module(features())
    assert torch.equal(seen["fused"][:, :8], seen["aligned"])


def test_what_does_not_contain_the_finest_level_is_added_to_it():
    module = head(resampler=dict(type="Interpolate")).eval()
    seen = {}
    module.fusion.register_forward_pre_hook(lambda m, args: seen.update(fused=args[0]))
    module.align.register_forward_hook(lambda m, args, out: seen.update(aligned=out, like=args[1]))
    module(features())
    assert torch.equal(seen["fused"][:, :8], seen["aligned"] + seen["like"])


def test_registered_in_mmseg():
    assert MODELS.get("SFNetLiteHead") is SFNetLiteHead


def test_errors():
    with pytest.raises(ValueError, match=r"SFNetLiteHead: expected in_channels of three levels, .* got \[4, 8\]"):
        head(in_channels=[4, 8], in_index=[0, 1])
