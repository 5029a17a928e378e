import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from mmseg_resample.ops import flow_warp, resize
from mmseg_resample.resamplers import FlowAlign


@pytest.mark.parametrize(("channels", "parameters"), [(64, 5248), (128, 18688), (256, 70144)])
def test_parameters_are_the_published_ones(channels, parameters):
    module = FlowAlign(channels, channels, align_corners=True)
    assert sum(p.numel() for p in module.parameters()) == parameters == channels**2 + 18 * channels


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("size", [(16, 18), (15, 17), (8, 9), (1, 5), (3, 4)])
def test_zero_flow_is_bilinear_resize(flag, size):
    module = FlowAlign(6, 4, align_corners=flag)
    torch.nn.init.zeros_(module.flow.weight)
    x = torch.randn(2, 6, 8, 9)
    expected = resize(x, size, mode="bilinear", align_corners=flag, warning=False)
    torch.testing.assert_close(module(x, torch.randn(2, 4, *size)), expected, atol=2e-5, rtol=2e-5)


def test_sfsegnets_convention_is_the_published_module():
    """The module as the facts describe the released code: align-corners everywhere, flow over size, zeros outside."""
    module = FlowAlign(8, 8, align_corners=True, convention="sfsegnets")
    torch.nn.init.normal_(module.flow.weight)
    low, high = torch.randn(2, 8, 12, 14), torch.randn(2, 8, 6, 7)
    reduced = F.interpolate(F.conv2d(high, module.reduce_x.weight), (12, 14), mode="bilinear", align_corners=True)
    flow = F.conv2d(torch.cat([reduced, F.conv2d(low, module.reduce_like.weight)], 1), module.flow.weight, padding=1)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 12), torch.linspace(-1, 1, 14), indexing="ij")
    grid = torch.stack((columns, rows), -1) + flow.permute(0, 2, 3, 1) / torch.tensor([14.0, 12.0])
    torch.testing.assert_close(module(high, low), F.grid_sample(high, grid, align_corners=True), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("flag", [True, False])
def test_learns_a_known_displacement(flag):
    """Trained to undo a shift, the flow becomes that shift: the sign and unit of the flow are right."""
    torch.manual_seed(1)
    scene = F.interpolate(torch.randn(1, 1, 6, 6), (24, 24), mode="bicubic", align_corners=flag)
    x = F.interpolate(scene, (12, 12), mode="bilinear", align_corners=flag)
    shift = torch.zeros(1, 2, 24, 24)
    shift[:, 0] = 2.0
    target = flow_warp(x, shift, align_corners=flag)
    module = FlowAlign(1, 1, channels=4, align_corners=flag)
    bias = torch.nn.Parameter(torch.zeros(2))
    module.flow.bias = bias  # a constant flow is all that is needed here
    torch.nn.init.zeros_(module.flow.weight)
    optimizer = torch.optim.Adam([bias], lr=0.1)
    for _ in range(120):
        optimizer.zero_grad()
        F.mse_loss(module(x, scene), target).backward()
        optimizer.step()
    torch.testing.assert_close(bias.detach(), torch.tensor([2.0, 0.0]), atol=0.05, rtol=0)


def test_every_parameter_gets_a_gradient():
    module = FlowAlign(6, 4, align_corners=False)
    module(torch.randn(2, 6, 5, 5), torch.randn(2, 4, 9, 10)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(in_channels=4, guide_channels=4), "align_corners=True or False"),
        (dict(in_channels=4, guide_channels=4, align_corners=False, convention="sfsegnets"), "was published with"),
        (dict(in_channels=4, guide_channels=4, align_corners=True, convention="sfnet"), "'exact' or 'sfsegnets'"),
        (dict(align_corners=True), "in_channels and guide_channels"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        FlowAlign(**kwargs)


def test_registered_in_mmseg():
    assert MODELS.get("FlowAlign") is FlowAlign
