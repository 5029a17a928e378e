from math import exp, floor

import pytest
import torch
from mmseg.registry import MODELS

from mmseg_resample.launch.upsampler_keys import joint_bilateral_keys
from mmseg_resample.resamplers import JointBilateral
from mmseg_resample.resamplers.windows import compare, reflect, weigh
from tests.conftest import assert_close


def build(*args, **kwargs):
    module = JointBilateral(*args, **{"key_channels": 4, "up_kernel": 3, "steps": 2, **kwargs}).double().eval()
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return module


def inputs(size, source=(2, 3), batch=2):
    return (
        torch.randn(batch, 4, *source, dtype=torch.float64),
        torch.randn(batch, 3, *size, dtype=torch.float64),
    )


def cubic(values, u):
    """Keys' kernel with a = -0.75, on a list of vectors whose edge repeats."""
    first, out = floor(u) - 1, 0
    for i in range(first, first + 4):
        d = abs(u - i)
        near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
        out = out + (near if d <= 1 else far) * values[min(max(i, 0), len(values) - 1)]
    return out


def mirrored(i, n):
    while not 0 <= i < n:
        i = 0 if n == 1 else -i if i < 0 else 2 * (n - 1) - i
    return i


def two_layers(v, layers):
    v = layers[0].weight[:, :, 0, 0] @ v + layers[0].bias
    v = v * 0.5 * (1 + torch.erf(v / 2**0.5))
    return layers[3].weight[:, :, 0, 0] @ v + layers[3].bias


def filtered(module, filter_, fine, guide):
    """One image: ``fine`` and ``guide`` are (C, H, W)."""
    (height, width), reach = fine.shape[1:], module.up_kernel // 2
    sigma = float(filter_.sigma if hasattr(filter_, "sigma") else filter_.sigma_spatial)
    out = torch.zeros_like(fine)
    for i in range(height):
        for j in range(width):
            weights, values = [], []
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    at = mirrored(i + dy, height), mirrored(j + dx, width)
                    here, there = guide[:, i, j], guide[:, at[0], at[1]]
                    if hasattr(filter_, "project"):
                        alike = two_layers(here, filter_.project) @ two_layers(there, filter_.project)
                        alike = (filter_.log_scale.exp() * alike).exp()
                    else:
                        alike = (-(here - there).square().sum() / (2 * filter_.sigma_range**2)).exp()
                    weights.append(alike * exp(-((dy / reach) ** 2 + (dx / reach) ** 2) / (2 * sigma**2)))
                    values.append(fine[:, at[0], at[1]])
            kernel = torch.stack(weights) / sum(weights)
            if hasattr(filter_, "correct"):
                kernel = kernel + 0.1 * two_layers(torch.cat([kernel, here]), filter_.correct)
            out[:, i, j] = kernel @ torch.stack(values)
    return out


def by_loops(module, x, like, index_of):
    """``index_of(pixel, n, extent)`` is the index among ``n`` features that a pixel has."""
    out = []
    for source, image in zip(x, like, strict=True):
        if not isinstance(module.norm_x, torch.nn.Identity):
            centred = source - source.mean(0)
            source = centred / (source.var(0, unbiased=False) + module.norm_x.eps).sqrt()
            source = source * module.norm_x.weight[:, None, None] + module.norm_x.bias[:, None, None]
        target = image.shape[1:]
        for step, filter_ in enumerate(module.filters):
            last = step + 1 == len(module.filters)
            size = [t if last else min(2 * n, t) for n, t in zip(source.shape[1:], target, strict=True)]
            fine = source
            for axis in (0, 1):
                n, extent = source.shape[1 + axis], target[axis]
                at = [
                    index_of((i + 0.5) * extent / size[axis] - 0.5, n, extent)
                    if step == 0
                    else (i + 0.5) * n / size[axis] - 0.5
                    for i in range(size[axis])
                ]
                fine = torch.stack([cubic(fine.unbind(1 + axis), u) for u in at], 1 + axis)
            source = filtered(module, filter_, fine, torch.nn.functional.adaptive_avg_pool2d(image, size))
        if module.correct is not None:
            weight, bias = module.correct.weight[:, :, 0, 0], module.correct.bias
            source = source + 0.1 * (torch.einsum("oc,chw->ohw", weight, source) + bias[:, None, None])
        out.append(source)
    return torch.stack(out)


def half_pixel(p, n, extent):
    return (p + 0.5) * n / extent - 0.5


def end_to_end(p, n, extent):
    if n == 1:
        return half_pixel(p, n, extent)
    return p * (n - 1) / (extent - 1) if extent > 1 else p * n


def patches(p, n, extent):
    return p * n / extent


@pytest.mark.parametrize("size", [(8, 12), (9, 7), (2, 3), (1, 5)])
@pytest.mark.parametrize(
    ("kwargs", "index_of"),
    [
        ({}, half_pixel),
        (dict(align_corners=True, learned=False), end_to_end),
        (dict(coordinates="asymmetric", norm=True), patches),
        (dict(learned=False, steps=1), half_pixel),
    ],
    ids=["half_pixel", "end_to_end", "patches", "one step"],
)
def test_matches_loops(kwargs, index_of, size):
    module = build(4, 3, **kwargs)
    x, like = inputs(size, batch=1)
    with torch.no_grad():
        torch.testing.assert_close(module(x, like), by_loops(module, x, like, index_of), atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("source", "target", "sizes"),
    [
        ((2, 3), (32, 48), [(4, 6), (8, 12), (16, 24), (32, 48)]),
        ((2, 3), (28, 42), [(4, 6), (8, 12), (16, 24), (28, 42)]),
        ((4, 6), (32, 48), [(8, 12), (16, 24), (32, 48), (32, 48)]),
        ((1, 1), (50, 7), [(2, 2), (4, 4), (8, 7), (50, 7)]),
        ((9, 9), (3, 20), [(3, 18), (3, 20), (3, 20), (3, 20)]),
    ],
)
def test_steps_double_up_to_the_target(source, target, sizes):
    module = build(4, 3, steps=4)
    x, like = torch.zeros(1, 4, *source), torch.zeros(1, 3, *target)
    assert [size for _, size, _ in module._steps(x, like, module._maps(source, target))] == sizes


@pytest.mark.parametrize("flag", [False, True])
def test_the_plain_filter_keeps_constants(flag):
    x, like = inputs((13, 9))
    out = build(4, 3, flag, learned=False)(torch.full_like(x, 3.0), like)
    assert_close(out, torch.full_like(out, 3.0))
    assert not list(JointBilateral(4, 3, learned=False).parameters())


def test_a_boundary_of_the_image_is_kept():
    """Columns 0 to 4 are dark; bilinear or bicubic upsampling leaves a ramp there."""
    x, like = torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 16, 16)
    like[..., 7:], x[..., 2:] = 2, 1
    out = JointBilateral(1, 3, steps=2, learned=False)(x, like)
    assert (out[..., :7] < 0.3).all()
    assert (out[..., 7:] > 0.7).all()


@pytest.mark.parametrize("kwargs", [{}, dict(coordinates="asymmetric"), dict(coordinates=dict(scale=0.25, offset=0.3))])
def test_ramps_lie_where_the_pixel_model_says(kwargs):
    """A uniform image: the filter is symmetric, so a ramp stays one away from the edge."""
    module = build(1, 3, learned=False, steps=2, **kwargs)
    x = torch.arange(12, dtype=torch.float64).expand(1, 1, 12, 12)
    rows, _ = module._maps((12, 12), (48, 48))
    out = module(x, torch.zeros(1, 3, 48, 48, dtype=torch.float64))[0, 0, 24, 20:28]
    expected = torch.tensor([rows(i) for i in range(20, 28)], dtype=torch.float64)
    torch.testing.assert_close(out, expected, atol=0.01, rtol=0)  # bicubic ripples


def test_dropout_is_for_training():
    module = build(4, 3, dropout=0.4)
    x, like = inputs((7, 9))
    assert_close(module(x, like), module(x, like))
    module.train()
    assert (module(x, like) - module(x, like)).abs().max() > 0.01


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 3), (9, 8)])
def test_windows_are_padded_slices(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    query, kernel = torch.randn_like(x, requires_grad=True), torch.randn(2, 25, *size, dtype=torch.float64)
    kernel.requires_grad_()
    padded = reflect(x, 2)
    if min(size) > 2:
        assert_close(padded, torch.nn.functional.pad(x, (2, 2, 2, 2), mode="reflect"))
    unfolded = torch.nn.functional.unfold(padded, 5).view(2, 3, 25, *size)
    for actual, expected in (
        (weigh(padded, kernel), (unfolded * kernel[:, None]).sum(2)),
        (compare(padded, query), (unfolded * query[:, :, None]).sum(1)),
    ):
        assert_close(actual, expected)
        wanted = (x, query, kernel)
        grads = [
            torch.autograd.grad(out.square().sum(), wanted, allow_unused=True, retain_graph=True)
            for out in (actual, expected)
        ]
        for one, other in zip(*grads, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other)


def published(channels=4):
    shapes = {"fixup_proj.1.weight": (channels, channels, 1, 1), "fixup_proj.1.bias": (channels,)}
    for step in range(1, 5):
        shapes |= {f"up{step}.range_temp": (), f"up{step}.sigma_spatial": ()}
        for name, first, width in (("range_proj", 3, 32), ("fixup_proj", 52, 49)):
            shapes |= {f"up{step}.{name}.0.weight": (width, first, 1, 1), f"up{step}.{name}.0.bias": (width,)}
            shapes |= {f"up{step}.{name}.3.weight": (width, width, 1, 1), f"up{step}.{name}.3.bias": (width,)}
    return {key: torch.randn(shape) for key, shape in shapes.items()}


def test_published_keys():
    source = published()
    state = joint_bilateral_keys(source)
    JointBilateral(4, 3).load_state_dict(state)
    assert state["filters.3.sigma"] is source["up4.sigma_spatial"]
    trained = {f"upsampler.{key}": value for key, value in source.items()}
    trained |= {"model.1.norm.weight": torch.randn(4), "model.1.norm.bias": torch.randn(4)}
    trained |= {
        "model.0.model.cls_token": torch.zeros(1),
        "downsampler.w": torch.zeros(1),
        "scale_net.net.0": torch.zeros(1),
    }
    JointBilateral(4, 3, norm=True).load_state_dict(joint_bilateral_keys(trained))
    with pytest.raises(ValueError, match=r"joint_bilateral_keys: 2 keys .*: up1\.other, what\."):
        joint_bilateral_keys({**source, "up1.other": torch.zeros(1), "what": torch.zeros(1)})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(guide_channels=3), "in_channels, got None"),
        (dict(in_channels=4), "guide_channels, got None"),
        (dict(in_channels=4, guide_channels=3, up_kernel=4), "up_kernel to be odd"),
        (dict(in_channels=4, guide_channels=3, steps=0), "steps to be a whole number"),
        (dict(in_channels=4, guide_channels=3, sigma_range=0), "sigma_range > 0, got 0"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        JointBilateral(**kwargs)


def test_registered_in_mmseg():
    assert MODELS.get("JointBilateral") is JointBilateral
