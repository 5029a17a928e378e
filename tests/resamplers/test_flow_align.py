import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from mmseg_resample.models import ResampleFPN, SFNetHead
from mmseg_resample.ops import flow_warp, reference, resize
from mmseg_resample.resamplers import DualFlowAlign, FlowAlign, GatedFlowAlign, fuse
from tests.conftest import ONE_GRAPH

FLAGS = [True, False]
# (source, target): up, odd, up along one axis and down along the other, one pixel, equal
SIZES = [((4, 5), (8, 10)), ((3, 5), (8, 7)), ((6, 2), (4, 5)), ((3, 4), (1, 1)), ((1, 1), (3, 2)), ((3, 3), (3, 3))]


def dual(**kwargs):
    return {
        "spatial": lambda: GatedFlowAlign(4, 4, gate="spatial", **kwargs),
        "spatial_atten": lambda: GatedFlowAlign(4, 4, gate="spatial_atten", **kwargs),
        "sum": lambda: DualFlowAlign(4, 4, **kwargs),
    }


KINDS = list(dual())


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


@pytest.mark.parametrize("cls", [FlowAlign, GatedFlowAlign])
@pytest.mark.parametrize(("source", "size"), SIZES)
def test_sfsegnets_2020_convention_reads_corners_as_half_pixels(cls, source, size):
    """The code before 2022-07 on torch >= 1.3: ``grid_sample`` at its default, all else as it is now."""
    module = randomised(cls(4, 4, align_corners=True, convention="sfsegnets-2020"))
    x, like = torch.randn(2, 4, *source).double(), torch.randn(2, 4, *size).double()
    rows, columns = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in size)
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)

    def warp(feature, flow):
        step = flow.permute(0, 2, 3, 1) / torch.tensor([size[1], size[0]])
        return F.grid_sample(feature, grid + step, align_corners=False)

    reduced = F.interpolate(F.conv2d(x, module.reduce_x.weight), size, mode="bilinear", align_corners=True)
    both = torch.cat([reduced, F.conv2d(like, module.reduce_like.weight)], 1)
    flow = F.conv2d(both, module.flow.weight, padding=1)
    expected = warp(x, flow[:, :2])
    if cls is GatedFlowAlign:
        pair = reduced, like
        evidence = torch.cat([t.mean(1, keepdim=True) for t in pair] + [t.amax(1, keepdim=True) for t in pair], 1)
        gate = F.conv2d(evidence, module.gate.weight, padding=1).sigmoid()
        expected = gate * expected + (1 - gate) * warp(like, flow[:, 2:])
    torch.testing.assert_close(module(x, like), expected, atol=1e-12, rtol=1e-12)


def test_sfsegnets_2020_convention_darkens_the_border_at_zero_flow():
    """The known values: a map of ones becomes 0.25 in the corners and 0.5 along the edges."""
    module = FlowAlign(4, 4, align_corners=True, convention="sfsegnets-2020")
    torch.nn.init.zeros_(module.flow.weight)
    out = module(torch.ones(1, 4, 8, 8), torch.ones(1, 4, 16, 16))[0, 0]
    torch.testing.assert_close(out[0, 0], torch.tensor(0.25))
    torch.testing.assert_close(out[0, 1:-1], torch.full((14,), 0.5))
    torch.testing.assert_close(out[1:-1, 1:-1], torch.ones(14, 14))


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
        (dict(in_channels=4, guide_channels=4, align_corners=False, convention="sfsegnets-2020"), "published with"),
        (
            dict(in_channels=4, guide_channels=4, align_corners=True, convention="sfnet"),
            "'exact' or 'sfsegnets' or 'sfsegnets-2020', got 'sfnet'",
        ),
        (dict(align_corners=True), "FlowAlign: expected in_channels, got None"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        FlowAlign(**kwargs)


@pytest.mark.parametrize("cls", [FlowAlign, GatedFlowAlign, DualFlowAlign])
def test_registered_in_mmseg(cls):
    assert MODELS.get(cls.__name__) is cls


# ----------------------------------------------------------------------------------------------------------------------
# Two flows


@pytest.mark.parametrize(("gate", "parameters"), [("spatial", 22144), ("spatial_atten", 21028)])
def test_gated_parameters_are_the_published_ones(gate, parameters):
    module = GatedFlowAlign(128, 128, align_corners=True, gate=gate)
    assert sum(p.numel() for p in module.parameters()) == parameters


def test_dual_parameters():
    module = DualFlowAlign(16, 16, align_corners=True)
    assert sum(p.numel() for p in module.parameters()) == 2 * (2 * 16 * 16 + 2 * 16 + 9 * 16 * 2)


def conv(x, weight, padding=0):
    """A convolution, sample by sample of the output."""
    x = F.pad(x, [padding] * 4)
    k = weight.shape[-1]
    rows, columns = x.shape[2] - k + 1, x.shape[3] - k + 1
    out = x.new_zeros(x.shape[0], weight.shape[0], rows, columns)
    for i in range(rows):
        for j in range(columns):
            out[:, :, i, j] = torch.einsum("nchw,ochw->no", x[:, :, i : i + k, j : j + k], weight)
    return out


def reference_of(module, x, like):
    """The modules with two flows from their definitions, by loops: no normalised grid, no ``grid_sample``."""
    flag, published = module.align_corners, module.convention == "sfsegnets"
    unit, padding = ("sfnet", "zeros") if published else ("pixel", "border")
    size = tuple(like.shape[2:])
    still = torch.zeros(len(x), 2, *size)
    with torch.no_grad():
        if isinstance(module, DualFlowAlign):
            x = reference.flow_warp(x, still, flag)
            flows = []
            for branch in (module.flow, module.flow_like):
                hidden = conv(torch.cat([like, x], 1), branch[0].conv.weight)
                bn = branch[0].bn
                hidden = (hidden - bn.running_mean.view(-1, 1, 1)) / (bn.running_var.view(-1, 1, 1) + bn.eps).sqrt()
                hidden = hidden * bn.weight.view(-1, 1, 1) + bn.bias.view(-1, 1, 1)
                flows.append(conv(torch.where(hidden > 0, hidden, 0.01 * hidden), branch[1].weight, 1))
            return reference.flow_warp(x, flows[0], flag) + reference.flow_warp(like, flows[1], flag)
        h = reference.flow_warp(conv(x, module.reduce_x.weight), still, flag)
        both = torch.cat([h, conv(like, module.reduce_like.weight)], 1)
        flows = conv(both, module.flow.weight, 1)
        evidence = both
        if module.gate_input == "spatial_atten":
            statistics = [h.sum(1) / h.shape[1], like.sum(1) / like.shape[1], h.amax(1), like.amax(1)]
            evidence = torch.stack(statistics, 1)
        gate = 1 / (1 + (-conv(evidence, module.gate.weight, 1)).exp())
        warped = reference.flow_warp(x, flows[:, :2], flag, unit, padding)
        return gate * warped + (1 - gate) * reference.flow_warp(like, flows[:, 2:], flag, unit, padding)


def randomised(module):
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return module.double().eval()


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("source", "size"), SIZES)
def test_two_flows_against_the_reference(kind, flag, source, size):
    module = randomised(dual(align_corners=flag)[kind]())
    x, like = torch.randn(2, 4, *source).double(), torch.randn(2, 4, *size).double()
    torch.testing.assert_close(module(x, like), reference_of(module, x, like), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("gate", ["spatial", "spatial_atten"])
def test_gated_sfsegnets_convention_against_the_reference(gate):
    module = randomised(GatedFlowAlign(4, 4, align_corners=True, convention="sfsegnets", gate=gate))
    x, like = torch.randn(1, 4, 3, 4).double(), torch.randn(1, 4, 7, 8).double()
    torch.testing.assert_close(module(x, like), reference_of(module, x, like), atol=1e-10, rtol=1e-10)


def test_alignseg_convention_is_the_published_sampling():
    """The released code on paper: a corner-aligned resize, then grids of corners that are read as half pixels."""
    module = randomised(DualFlowAlign(4, 4, align_corners=True, convention="alignseg"))
    x, like = torch.randn(2, 4, 4, 5).double(), torch.randn(2, 4, 9, 7).double()
    resized = F.interpolate(x, (9, 7), mode="bilinear", align_corners=True)
    both = torch.cat([like, resized], 1)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 9), torch.linspace(-1, 1, 7), indexing="ij")
    grid = torch.stack((columns, rows), -1).double()
    expected = torch.zeros_like(like)
    for feature, branch in ((resized, module.flow), (like, module.flow_like)):
        step = branch(both).permute(0, 2, 3, 1) / torch.tensor([7.0, 9.0])
        expected += F.grid_sample(feature, grid + step, align_corners=False)
    torch.testing.assert_close(module(x, like), expected, atol=1e-6, rtol=1e-6)  # linspace is float32


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize(("source", "size"), SIZES)
def test_dual_flow_starts_as_resize_plus_like(flag, source, size):
    module = DualFlowAlign(4, 4, align_corners=flag)
    x, like = torch.randn(2, 4, *source), torch.randn(2, 4, *size)
    expected = like + resize(x, size, mode="bilinear", align_corners=flag, warning=False)
    torch.testing.assert_close(module.eval()(x, like), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("kind", KINDS)
def test_equal_constants_stay_constant(kind, flag):
    module = dual(align_corners=flag)[kind]().eval()
    for p in module.parameters():
        torch.nn.init.normal_(p)
    out = module(torch.ones(1, 4, 3, 4), torch.ones(1, 4, 7, 5))
    torch.testing.assert_close(out, torch.full_like(out, 2.0 if kind == "sum" else 1.0))


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind, flag):
    module = randomised(dual(align_corners=flag)[kind]())
    x = torch.randn(1, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    like = torch.randn(1, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x, like))


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_memory_format_empty_batch_compile(kind):
    module = dual(align_corners=False)[kind]().eval()
    x, like = torch.randn(2, 4, 4, 5), torch.randn(2, 4, 9, 7)
    expected = module(x, like)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(module(x, like).float(), expected, atol=0.1, rtol=0.1)
    last = dict(memory_format=torch.channels_last)
    torch.testing.assert_close(module(x.to(**last), like.to(**last)), expected)
    assert module(x[:0], like[:0]).shape == (0, 4, 9, 7)
    compiled = torch.compile(module, fullgraph=ONE_GRAPH, backend="aot_eager")
    torch.testing.assert_close(compiled(x, like), expected)


@pytest.mark.parametrize("convention", ["exact", "sfsegnets", "alignseg"])
def test_explain_gives_the_flow_in_output_pixels(convention):
    """A constant flow, said in the unit of each convention, moves a ramp by what ``explain`` says."""
    cls = DualFlowAlign if convention == "alignseg" else FlowAlign
    module = cls(1, 1, channels=1, align_corners=True, convention=convention).eval()
    last = module.flow[-1] if convention == "alignseg" else module.flow
    last.bias = torch.nn.Parameter(torch.tensor([1.5, -1.0]))
    torch.nn.init.zeros_(last.weight)
    x = torch.arange(9.0).view(1, 1, 1, 9) + 100 * torch.arange(7.0).view(1, 1, 7, 1)
    like = torch.zeros(1, 1, 7, 9)
    flow = module.explain(x, like)["flow"]
    moved = (module(x, like) - x)[..., 2:-2, 2:-2]
    torch.testing.assert_close(moved, (flow[:, :1] + 100 * flow[:, 1:])[..., 2:-2, 2:-2], atol=1e-3, rtol=1e-4)


def test_explain_is_what_forward_does():
    x, like = torch.randn(1, 4, 3, 4), torch.randn(1, 4, 7, 8)
    module = GatedFlowAlign(4, 4, align_corners=False)
    told = module.explain(x, like)
    warped = [flow_warp(t, told[k], align_corners=False) for t, k in ((x, "flow"), (like, "flow_like"))]
    assert torch.equal(module(x, like), told["gate"] * warped[0] + (1 - told["gate"]) * warped[1])


def test_explain_of_sfsegnets_2020_is_relative_to_the_half_pixel_resize():
    x, like = torch.randn(1, 4, 3, 4).double(), torch.randn(1, 4, 7, 8).double()
    module = randomised(FlowAlign(4, 4, align_corners=True, convention="sfsegnets-2020"))
    warped = flow_warp(x, module.explain(x, like)["flow"], align_corners=False, padding_mode="zeros")
    torch.testing.assert_close(module(x, like), warped)


@pytest.mark.parametrize("kind", KINDS)
def test_what_contains_like_is_not_added_again(kind):
    module = dual(align_corners=False)[kind]().eval()
    x, like = torch.randn(1, 4, 3, 4), torch.randn(1, 4, 7, 8)
    assert torch.equal(fuse(module, x, like), module(x, like))
    single = FlowAlign(4, 4, align_corners=False)
    assert torch.equal(fuse(single, x, like), like + single(x, like))


@pytest.mark.parametrize("cfg", [dict(type="GatedFlowAlign", gate="spatial"), dict(type="DualFlowAlign")], ids=str)
def test_in_the_pyramid(cfg):
    neck = ResampleFPN([2, 3], 8, 2, resampler=cfg).eval()
    features = torch.randn(1, 2, 9, 7), torch.randn(1, 3, 4, 5)
    fine, coarse = (conv(f) for conv, f in zip(neck.lateral_convs, features, strict=True))
    expected = neck.fpn_convs[0](neck.resamplers[0](coarse, fine))
    torch.testing.assert_close(neck(features)[0], expected)


@pytest.mark.parametrize("cfg", [dict(type="FlowAlign"), dict(type="GatedFlowAlign")], ids=str)
def test_in_the_head(cfg):
    head = SFNetHead([4, 6], 8, in_index=[0, 1], num_classes=3, align_corners=False, pool_scales=(1,), resampler=cfg)
    fine, coarse = torch.randn(1, 4, 9, 7), torch.randn(1, 6, 4, 5)
    feature, pooled = head.laterals[0](fine), head.eval().pool(coarse)
    out = head.top_down[0](pooled, feature)
    expected = out if cfg["type"] == "GatedFlowAlign" else feature + out
    torch.testing.assert_close(head._pyramid([fine, coarse])[0], expected)


def test_the_necks_initialisation_leaves_zero_flows():
    neck = ResampleFPN([2, 3], 8, 2, resampler=dict(type="DualFlowAlign"))
    neck.init_weights()
    assert not any(b[-1].weight.any() for b in (neck.resamplers[0].flow, neck.resamplers[0].flow_like))


@pytest.mark.parametrize(
    ("cls", "kwargs", "message"),
    [
        (GatedFlowAlign, dict(in_channels=4, guide_channels=3, align_corners=True), "in_channels == guide_channels"),
        (DualFlowAlign, dict(in_channels=4, guide_channels=3, align_corners=True), "in_channels == guide_channels"),
        (GatedFlowAlign, dict(in_channels=4, guide_channels=4, align_corners=True, gate="x"), "'spatial_atten', got"),
        (
            DualFlowAlign,
            dict(in_channels=4, guide_channels=4, align_corners=True, convention="sfsegnets"),
            "'exact' or 'alignseg'",
        ),
        (
            DualFlowAlign,
            dict(in_channels=4, guide_channels=4, align_corners=False, convention="alignseg"),
            "was published with",
        ),
    ],
)
def test_errors_of_two_flows(cls, kwargs, message):
    with pytest.raises(ValueError, match=message):
        cls(**kwargs)
