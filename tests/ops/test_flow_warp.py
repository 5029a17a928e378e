import pytest
import torch
import torch.nn.functional as F

from mmseg_resample.ops import _backends, _torch, flow_warp, reference, resize
from tests.conftest import ONE_GRAPH, assert_close, needs_plain

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


def channels_last(*shape):
    return torch.randn(*shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last)


needs_numba = pytest.mark.skipif("numba" not in _backends.available("flow_warp", "cpu"), reason="needs Numba")


@needs_numba
@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
@pytest.mark.parametrize(("source", "size"), SIZES)
def test_numba_is_the_reference_and_has_pytorchs_gradients(flag, padding_mode, source, size):
    x = channels_last(2, 3, *source).requires_grad_()
    flow = (2 * torch.randn(2, 2, *size, dtype=torch.float64)).requires_grad_()
    options = dict(align_corners=flag, padding_mode=padding_mode)
    actual = flow_warp(x, flow, **options, backend="numba")
    expected = reference.flow_warp(x.detach(), flow.detach(), flag, "pixel", padding_mode)
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)
    grad = torch.randn_like(actual)
    ours, theirs = (
        torch.autograd.grad(flow_warp(x, flow, **options, backend=backend), (x, flow), grad)
        for backend in ("numba", "torch")
    )
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


@needs_plain
@needs_numba
@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
def test_numba_reads_nothing_outside_whatever_the_flow(padding_mode):
    x = channels_last(1, 16, 4, 5).float()
    flow = torch.zeros(1, 2, 4, 5)
    flow.view(-1)[:8] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 4e9, -4e9, 1e19])
    warped = flow_warp(x, flow, align_corners=False, padding_mode=padding_mode, backend="numba")
    assert warped.isfinite().all() and warped.abs().max() <= x.abs().max()


@needs_plain
@needs_numba
def test_numba_warps_channels_last_images_of_many_channels(monkeypatch):
    x, flow = channels_last(1, 16, 8, 9).float(), torch.randn(1, 2, 16, 18)
    seen = []
    select = _backends.select

    def noting(*args):
        seen.append(select(*args))
        return seen[-1]

    monkeypatch.setattr(_backends, "select", noting)
    warped = flow_warp(x, flow, align_corners=True)
    assert seen.pop() is not _torch.flow_warp and warped.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(warped, flow_warp(x, flow, align_corners=True, backend="torch"), atol=1e-5, rtol=1e-5)
    seen.clear()
    flow_warp(x.contiguous(), flow, align_corners=True)
    flow_warp(x[:, :8].contiguous(memory_format=torch.channels_last), flow, align_corners=True)
    graph = torch.export.export(Warp(), (x, flow)).graph
    torch.jit.trace(Warp(), (x, flow), check_trace=False)
    torch.func.vmap(Warp())(x[None], flow[None])
    assert all(kernel is _torch.flow_warp for kernel in seen)
    assert "grid_sampler" in str(graph)
    half = flow_warp(x.bfloat16(), flow, align_corners=True)
    assert half.dtype == torch.bfloat16 and half.is_contiguous(memory_format=torch.channels_last)


class Warp(torch.nn.Module):
    def forward(self, x, flow):
        return flow_warp(x, flow, align_corners=True)


@needs_plain
def test_grids_are_made_once_per_size_dtype_and_pixel_model():
    _torch._kept_centres.cache_clear()
    x, flow = torch.randn(1, 2, 4, 5), torch.randn(1, 2, 7, 9, requires_grad=True)
    with torch.inference_mode():
        flow_warp(x, flow.detach(), align_corners=True)
    for _ in range(2):
        flow_warp(x, flow, align_corners=True).sum().backward()
    assert _torch._kept_centres.cache_info().misses == 2
    kept = _torch._kept_centres(9, True, torch.float32, flow.device)
    assert not kept.requires_grad and not kept.is_inference() and kept.grad_fn is None
    flow_warp(x.double(), flow, align_corners=True)
    flow_warp(x, flow, align_corners=False)
    assert _torch._kept_centres.cache_info().currsize == 6
    dynamic = {"x": None, "flow": {2: torch.export.Dim("height", min=4, max=64)}}
    exported = torch.export.export(Warp(), (x, flow.detach()), dynamic_shapes=dynamic).module()
    longer = torch.randn(1, 2, 11, 9)
    torch.testing.assert_close(exported(x, longer), flow_warp(x, longer, align_corners=True))
    assert _torch._kept_centres.cache_info().currsize == 7


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
