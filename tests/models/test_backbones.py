import pytest
import torch
from mmseg.models.backbones import ResNetV1c, STDCNet
from mmseg.models.backbones.resnet import BasicBlock
from mmseg.registry import MODELS

from mmseg_resample.models import SFNetResNet, STDCPyramid

STRIDES = (4, 8, 16, 32)


@pytest.mark.parametrize("stdc_type", ["STDCNet1", "STDCNet2"])
def test_stdc_pyramid_is_stdc_with_one_more_output(stdc_type):
    ours = STDCPyramid(stdc_type).eval()
    stock = STDCNet(
        stdc_type, 3, (32, 64, 256, 512, 1024), "cat", norm_cfg=dict(type="BN"), act_cfg=dict(type="ReLU")
    ).eval()
    ours.load_state_dict(stock.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        outs, expected = ours(x), stock(x)
    assert [tuple(o.shape) for o in outs] == [
        (1, c, 64 // s, 96 // s) for c, s in zip((64, 256, 512, 1024), STRIDES, strict=True)
    ]
    assert all(torch.equal(a, b) for a, b in zip(outs[1:], expected, strict=True))


@pytest.mark.parametrize("depth", [18, 50])
def test_sfnet_resnet_keeps_its_strides_and_dilates_the_3x3_convolution_behind_them(depth):
    model = SFNetResNet(depth)
    model.eval()  # returns nothing
    with torch.no_grad():
        outs = model(torch.randn(1, 3, 64, 96))
    assert [o.shape[2:] for o in outs] == [(64 // s, 96 // s) for s in STRIDES]
    assert model.stem[6].out_channels == model.layer1[0].conv1.in_channels == 128
    for stage, dilation in zip((model.layer1, model.layer2, model.layer3, model.layer4), (1, 1, 2, 4), strict=True):
        for block in stage:
            assert block.conv2.dilation == block.conv2.padding == (dilation, dilation)
            assert block.conv1.dilation == (1, 1)
            if isinstance(block, BasicBlock):
                assert block.conv1.padding == (1, 1)


def test_sfnet_resnet_has_the_state_dict_of_resnet_v1c():
    stock = ResNetV1c(depth=18, stem_channels=128)
    assert {k: v.shape for k, v in SFNetResNet(18).state_dict().items()} == {
        k: v.shape for k, v in stock.state_dict().items()
    }


@pytest.mark.parametrize("cls", [SFNetResNet, STDCPyramid])
def test_registered_in_mmseg(cls):
    assert MODELS.get(cls.__name__) is cls
