import pytest
import torch
import torch.nn.functional as F

from mmseg_resample.ops import flow_warp, reference, resize
from tests.conftest import ONE_GRAPH, assert_close

SIZES = [
    ((5, 7), (9, 4)),
    ((4, 4), (4, 4)),
    ((1, 6), (5, 1)),
    ((6, 1), (1, 1)),
    ((3, 5), (12, 20)),
    ((16, 16), (1, 33)),
]
FLAGS = [True, False]


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize(("source", "size"), SIZES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("unit", ["pixel", "sfnet"])
def test_zero_flow_is_resize(flag, source, size, dtype, unit):
    x = torch.randn(2, 3, *source, dtype=dtype)
    warped = flow_warp(x, torch.zeros(2, 2, *size, dtype=dtype), align_corners=flag, unit=unit)
    assert_close(warped, resize(x, size, mode="bilinear", align_corners=flag, warning=False))


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("unit", ["pixel", "sfnet"])
@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
@pytest.mark.parametrize(("source", "size"), SIZES[:4])
def test_reference(flag, unit, padding_mode, source, size):
    x = torch.randn(2, 2, *source, dtype=torch.float64)
    flow = 1.5 * torch.randn(2, 2, *size, dtype=torch.float64)
    actual = flow_warp(x, flow, align_corners=flag, unit=unit, padding_mode=padding_mode)
    expected = reference.flow_warp(x, flow, flag, unit, padding_mode)
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize(("channel", "axis"), [(0, -1), (1, -2)])
def test_a_flow_of_one_moves_one_output_pixel(flag, channel, axis):
    x = torch.randn(1, 1, 6, 6, dtype=torch.float64)
    still = resize(x, (12, 12), mode="bilinear", align_corners=flag, warning=False)
    flow = torch.zeros(1, 2, 12, 12, dtype=torch.float64)
    flow[:, channel] = 1
    moved = flow_warp(x, flow, align_corners=flag)
    torch.testing.assert_close(moved.narrow(axis, 0, 11), still.narrow(axis, 1, 11))


def published_sfnet(x, flow):
    """The formula of the released code (SFSegNets, since 2022-07), from its description."""
    h, w = flow.shape[-2:]
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    grid = torch.stack((columns, rows), -1).to(x) + flow.permute(0, 2, 3, 1) / torch.tensor([w, h]).to(x)
    return F.grid_sample(x, grid, align_corners=True)


def test_sfnet_unit_with_zero_padding_is_the_published_code():
    x, flow = torch.randn(2, 3, 8, 9), 3 * torch.randn(2, 2, 16, 18)
    ours = flow_warp(x, flow, align_corners=True, unit="sfnet", padding_mode="zeros")
    torch.testing.assert_close(ours, published_sfnet(x, flow), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("flag", FLAGS)
def test_flips_commute(flag):
    x, flow = torch.randn(1, 2, 5, 6, dtype=torch.float64), torch.randn(1, 2, 9, 7, dtype=torch.float64)
    mirrored = flow.flip(-1) * torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(
        flow_warp(x.flip(-1), mirrored, align_corners=flag), flow_warp(x, flow, align_corners=flag).flip(-1)
    )


@pytest.mark.parametrize("flag", FLAGS)
def test_gradcheck(flag):
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    flow = (0.3 * torch.rand(1, 2, 5, 4, dtype=torch.float64) + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, f: flow_warp(x, f, align_corners=flag), (x, flow))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("flag", FLAGS)
def test_coordinates_stay_precise_in_half(dtype, flag):
    # Over 512 pixels, a bfloat16 grid would be off by up to half a source pixel.
    x = torch.arange(512.0).remainder(2).mul(64).view(1, 1, 1, 512).to(dtype)
    flow = torch.zeros(1, 2, 1, 1024)
    assert flow_warp(x, flow, align_corners=flag).dtype == dtype
    expected = resize(x.double(), (1, 1024), mode="bilinear", align_corners=flag, warning=False)
    difference = (flow_warp(x, flow, align_corners=flag).double() - expected).abs().max()
    assert difference <= 64 * torch.finfo(dtype).eps


@pytest.mark.parametrize("flag", FLAGS)
def test_autocast_memory_format_empty_batch_compile(flag):
    x, flow = torch.randn(2, 3, 6, 5), torch.randn(2, 2, 9, 7)
    expected = flow_warp(x, flow, align_corners=flag)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(flow_warp(x, flow, align_corners=flag), expected)
    last = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(flow_warp(last, flow, align_corners=flag), expected)
    assert flow_warp(x[:0], flow[:0], align_corners=flag).shape == (0, 3, 9, 7)
    compiled = torch.compile(lambda x, f: flow_warp(x, f, align_corners=flag), fullgraph=ONE_GRAPH, backend="aot_eager")
    torch.testing.assert_close(compiled(x, flow), expected)


def test_meta_tensors():
    x, flow = torch.zeros(1, 2, 4, 5, device="meta"), torch.zeros(1, 2, 7, 9, device="meta")
    assert flow_warp(x, flow, align_corners=True).shape == (1, 2, 7, 9)


@pytest.mark.parametrize(
    ("x", "flow", "kwargs", "error", "message"),
    [
        (torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 8, 8), {}, ValueError, r"flow \(N, 2, Ho, Wo\)"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(1, 2, 8, 8), {}, ValueError, "equal N"),
        (torch.zeros(1, 4, 4), torch.zeros(1, 2, 8, 8), {}, ValueError, "expected input"),
        (torch.zeros(1, 1, 4, 4).long(), torch.zeros(1, 2, 8, 8), {}, TypeError, "input of a floating dtype"),
        (torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 8, 8).int(), {}, TypeError, "flow of a floating dtype"),
        (torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 8, 8), dict(unit="pixels"), ValueError, "Did you mean 'pixel'"),
        (torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 8, 8), dict(padding_mode="wrap"), ValueError, "padding_mode"),
        (torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 8, 8), dict(backend="x"), ValueError, "backend"),
        (torch.zeros(1, 1, 0, 4), torch.zeros(1, 2, 8, 8), {}, ValueError, "at least one sample"),
        (torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 8, 0), {}, ValueError, "at least one sample"),
    ],
)
def test_errors(x, flow, kwargs, error, message):
    with pytest.raises(error, match=message):
        flow_warp(x, flow, align_corners=True, **kwargs)
