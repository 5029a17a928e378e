import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from mmseg_resample.models import ResampleFPN
from mmseg_resample.ops import resize
from mmseg_resample.resamplers import DeformAlign, fuse
from tests.conftest import ONE_GRAPH
from tests.ops.test_deform_conv2d import by_loops

FLAGS = [True, False]
SIZES = [((3, 4), (6, 8)), ((2, 3), (5, 4)), ((4, 2), (2, 3)), ((2, 2), (1, 1)), ((1, 1), (2, 3))]


def build(in_channels=4, guide_channels=6, deform_groups=2, **kwargs):
    return DeformAlign(in_channels, guide_channels, deform_groups=deform_groups, **kwargs)


def randomised(module):
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.4)
    return module.double()


def test_parameters_are_those_of_the_description():
    """Count at 256 channels: selection 2 * C^2, offsets 2 * C^2 + 216 (9 C + 1), convolution 9 C^2 + C."""
    module = DeformAlign(256, 256, align_corners=False)
    c = 256
    expected = 4 * c * c + 216 * (9 * c + 1) + 9 * c * c + c
    assert sum(p.numel() for p in module.parameters()) == expected == 1_350_104


def pointwise(x, weight):
    return torch.einsum("nchw,oc->nohw", x, weight[:, :, 0, 0])


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize(("source", "size"), SIZES)
def test_against_the_definition(flag, source, size):
    """Compute it from the paper's figures, the deformable convolution by loops."""
    module = randomised(build(align_corners=flag))
    x, like = torch.randn(2, 4, *source).double(), torch.randn(2, 6, *size).double()
    with torch.no_grad():
        means = like.sum((2, 3), keepdim=True) / (size[0] * size[1])
        gate = 1 / (1 + (-pointwise(means, module.attention.weight)).exp())
        selected = pointwise(like + like * gate, module.select.weight)
        up = resize(x, size, mode="bilinear", align_corners=flag, warning=False)
        hidden = pointwise(torch.cat([selected, up * 2], 1), module.reduce.conv.weight)
        predicted = F.conv2d(hidden, module.offset_mask.weight, module.offset_mask.bias, padding=1)
        offset, mask = predicted[:, :36], 1 / (1 + (-predicted[:, 36:]).exp())
        aligned = by_loops(up, offset, module.conv.weight, module.conv.bias, mask)
        torch.testing.assert_close(module(x, like), selected + aligned.clamp(min=0), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("flag", FLAGS)
def test_starts_as_a_plain_convolution_of_the_resized_feature(flag):
    module = build(align_corners=flag)
    x, like = torch.randn(1, 4, 3, 4), torch.randn(1, 6, 7, 9)
    up = resize(x, (7, 9), mode="bilinear", align_corners=flag, warning=False)
    gate = module.explain(x, like)["gate"]
    expected = module.select(like * (1 + gate)) + F.conv2d(up, module.conv.weight / 2, padding=1).relu()
    torch.testing.assert_close(module(x, like), expected)


def test_explain():
    module = build(align_corners=False)
    module.offset_mask.bias.data[1::2] = 2.0  # among the offsets, every second channel is dx
    told = module.explain(torch.randn(1, 4, 3, 4), torch.randn(1, 6, 7, 9))
    assert told["offset"].shape == (1, 18, 2, 7, 9) and told["mask"].shape == (1, 18, 7, 9)
    assert told["gate"].shape == (1, 6, 1, 1)
    torch.testing.assert_close(told["offset"].mean((0, 1, 3, 4)), torch.tensor([2.0, 0.0]))


@pytest.mark.parametrize("flag", FLAGS)
def test_gradcheck(flag):
    module = randomised(build(align_corners=flag))
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    like = torch.randn(1, 6, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x, like))


def test_autocast_memory_format_empty_batch_compile():
    module = build(align_corners=False)
    x, like = torch.randn(2, 4, 4, 5), torch.randn(2, 6, 9, 7)
    expected = module(x, like)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(module(x, like).float(), expected, atol=0.1, rtol=0.1)
    last = dict(memory_format=torch.channels_last)
    torch.testing.assert_close(module(x.to(**last), like.to(**last)), expected)
    assert module(x[:0], like[:0]).shape == (0, 4, 9, 7)
    compiled = torch.compile(module, fullgraph=ONE_GRAPH, backend="aot_eager")
    torch.testing.assert_close(compiled(x, like), expected, atol=1e-5, rtol=1e-5)


def test_in_the_pyramid():
    assert MODELS.get("DeformAlign") is DeformAlign
    neck = ResampleFPN([2, 3], 8, 2, resampler=dict(type="DeformAlign"))
    neck.init_weights()
    assert not any(p.any() for p in neck.resamplers[0].offset_mask.parameters())
    x, like = torch.randn(1, 8, 4, 5), torch.randn(1, 8, 9, 7)
    torch.testing.assert_close(fuse(neck.resamplers[0], x, like), neck.resamplers[0](x, like))
    outs = neck((torch.randn(1, 2, 9, 7), torch.randn(1, 3, 4, 5)))
    outs[0].square().mean().backward()
    assert all(p.grad is not None for p in neck.resamplers.parameters())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(), "DeformAlign: expected align_corners=True or False, got None"),
        (dict(align_corners=False, deform_groups=3), "in_channels to be a multiple of 3, got 4"),
        (dict(align_corners=False, deform_groups=0), "deform_groups to be a whole number >= 1, got 0"),
        (dict(align_corners=False, kernel_size=2), "kernel_size to be odd and >= 1, got 2"),
        (dict(align_corners=False, kernel_size=-1), "kernel_size to be odd and >= 1, got -1"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)
