from math import exp, sqrt

import pytest
import torch
from mmseg.registry import MODELS

import mmseg_resample
from mmseg_resample.launch.upsampler_keys import loftup_keys
from mmseg_resample.resamplers import LoftUp
from mmseg_resample.resamplers.loftup import places_of
from tests.conftest import assert_close


def build(*args, **kwargs):
    """Build one in float64 whose weights and running statistics all do something."""
    module = LoftUp(*args, **{"num_heads": 2, "frequencies": 3, **kwargs}).double().eval()
    for name, p in module.named_parameters():
        if not name.endswith("phases"):
            torch.nn.init.normal_(p, std=0.3)
    for layer in (module.encoder[1], module.encoder[4]):
        torch.nn.init.normal_(layer.running_mean, std=0.3)
        torch.nn.init.uniform_(layer.running_var, 0.5, 2)
    return module


def inputs(size, batch=2, source=(3, 4), guides=3):
    return (
        torch.randn(batch, 4, *source, dtype=torch.float64),
        torch.randn(batch, guides, *size, dtype=torch.float64),
    )


def normalised(v, layer):
    if isinstance(layer, torch.nn.Identity):
        return v
    return (v - v.mean()) / (v.var(unbiased=False) + layer.eps).sqrt() * layer.weight + layer.bias


def waves(values, phases):
    """Sines at all frequencies, each of all values, then cosines."""
    n = phases.shape[1]
    rates = [exp(-2 + 12 * i / (n - 1)) for i in range(n)]
    return torch.cat(
        [
            wave(values * rate + phases[k, i])
            for k, wave in enumerate((torch.sin, torch.cos))
            for i, rate in enumerate(rates)
        ]
    )


def convolved(image, convolution, norm):
    """``image`` is a dict from (row, column) to a vector; what it lacks is 0."""
    out = {}
    for i, j in image:
        taps = [(dy, dx) for dy in range(3) for dx in range(3) if (i + dy - 1, j + dx - 1) in image]
        v = convolution.bias + sum(convolution.weight[:, :, dy, dx] @ image[i + dy - 1, j + dx - 1] for dy, dx in taps)
        v = (v - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        out[i, j] = v.clamp(min=0)
    return out


def attended(query, samples, layer):
    """One query, a list of samples."""
    q = layer.query.weight @ normalised(query, layer.norm_pixels) + layer.query.bias
    read = [normalised(s, layer.norm_samples) for s in samples]
    keys = torch.stack([layer.key.weight @ s + layer.key.bias for s in read])
    values = torch.stack([layer.value.weight @ s + layer.value.bias for s in read])
    found, width = [], len(q) // layer.heads
    for head in range(layer.heads):
        run = slice(head * width, (head + 1) * width)
        scores = (keys[:, run] @ q[run] / sqrt(width)).exp()
        found.append(scores / scores.sum() @ values[:, run])
    query = query + layer.merge.weight @ torch.cat(found) + layer.merge.bias
    hidden = layer.expand.weight @ normalised(query, layer.norm_hidden) + layer.expand.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / sqrt(2)))
    return query + layer.reduce.weight @ hidden + layer.reduce.bias


def by_loops(module, x, like, pixel_of):
    """``pixel_of(i, n, extent)`` is the pixel where feature ``i`` of ``n`` sits."""
    (h, w), (height, width) = x.shape[2:], like.shape[2:]

    def place(pixel, extent):
        return 2 * pixel / max(extent - 1, 1) - 1

    out = torch.zeros(*x.shape[:2], height, width, dtype=torch.float64)
    for n in range(len(x)):
        samples = [
            torch.cat(
                [
                    normalised(x[n, :, i, j], module.norm_x),
                    waves(torch.tensor(at, dtype=torch.float64), module.sample_phases),
                ]
            )
            for i in range(h)
            for j in range(w)
            for at in [(place(pixel_of(i, h, height), height), place(pixel_of(j, w, width), width))]
        ]
        pixels = {}
        for i in range(height):
            for j in range(width):
                spread = (like if module.convention else like[n : n + 1]).transpose(0, 1).flatten(1)
                low, high = spread.min(1).values, spread.max(1).values
                colour = (like[n, :, i, j] - low) / (high - low).clamp(min=1e-4) - 0.5
                at = torch.tensor([place(i, height), place(j, width)], dtype=torch.float64)
                encoded = torch.cat([waves(torch.cat([at, colour]), module.pixel_phases), colour])
                pixels[i, j] = normalised(encoded, module.norm_pixels)
        for k in (0, 3):
            pixels = convolved(pixels, module.encoder[k], module.encoder[k + 1])
        for (i, j), query in pixels.items():
            for layer in module.layers:
                query = attended(query, samples, layer)
            query = module.project.weight @ normalised(query, module.norm) + module.project.bias
            out[n, :, i, j] = normalised(query, module.norm_out)
    return out


def half_pixel(i, n, extent):
    return (i + 0.5) * extent / n - 0.5


def end_to_end(i, n, extent):
    if n == 1:
        return half_pixel(i, n, extent)
    return i * (extent - 1) / (n - 1) if extent > 1 else i / n


def patches(i, n, extent):
    return i * extent / n


@pytest.mark.parametrize("size", [(5, 7), (2, 3), (1, 4), (1, 1)])
@pytest.mark.parametrize(
    ("kwargs", "pixel_of"),
    [
        ({}, half_pixel),
        (dict(align_corners=True), end_to_end),
        (dict(coordinates="asymmetric", norm=False), patches),
    ],
    ids=["half_pixel", "end_to_end", "patches"],
)
def test_matches_loops(kwargs, pixel_of, size):
    module = build(4, 3, **kwargs)
    x, like = inputs(size)
    with torch.no_grad():
        torch.testing.assert_close(module(x, like), by_loops(module, x, like, pixel_of), atol=1e-10, rtol=0)


def test_the_preset_spreads_features_end_to_end_and_scales_a_batch():
    module = build(4, 3, convention="loftup")
    x, like = inputs((5, 7))
    with torch.no_grad():
        torch.testing.assert_close(module(x, like), by_loops(module, x, like, end_to_end), atol=1e-10, rtol=0)
        ends = build(4, 3, True)
        ends.load_state_dict(module.state_dict())
        assert_close(module(x[:1], like[:1]), ends(x[:1], like[:1]))


@pytest.mark.parametrize(
    ("kwargs", "first", "last"),
    [
        ({}, 2 * 7.5 / 63 - 1, 2 * 55.5 / 63 - 1),
        (dict(align_corners=True), -1, 1),
        (dict(convention="loftup"), -1, 1),
        (dict(coordinates="asymmetric"), -1, 2 * 48 / 63 - 1),
        (dict(coordinates=dict(scale=1 / 16, offset=0.25)), 2 * -4 / 63 - 1, 2 * 44 / 63 - 1),
    ],
    ids=str,
)
def test_features_have_the_coordinates_of_their_pixels(kwargs, first, last):
    """Four patches of 16 pixels."""
    module = build(4, 3, **kwargs)
    rows, _ = module._maps((4, 4), (64, 64))
    places = places_of(rows, 4, 64, torch.empty(0))
    assert places[[0, -1]].tolist() == pytest.approx([first, last])


def test_an_audit_sees_that_the_published_grid_runs_end_to_end():
    class Net(torch.nn.Module):
        def __init__(self, **kwargs):
            super().__init__()
            self.patches, self.up = torch.nn.Conv2d(3, 4, 16, 16), build(4, 3, **kwargs).float()

        def forward(self, image):
            return self.up(self.patches(image), image)

    assert mmseg_resample.audit(Net(), 64).worst == 0
    published = Net(convention="loftup")
    assert mmseg_resample.audit(published, 64).worst == pytest.approx(7.5)
    image = torch.randn(1, 3, 64, 64)
    registered = build(4, 3).float()
    registered.load_state_dict(published.up.state_dict())
    assert_close(mmseg_resample.exact(published)(image), registered(published.patches(image), image))


def test_an_image_does_not_depend_on_its_batch():
    module = build(4, 3)
    x, like = inputs((5, 7))
    assert_close(module(x, like)[:1], module(x[:1], like[:1]))


@pytest.mark.parametrize("chunk_size", [1, 20, 1000])
def test_chunks_change_nothing(chunk_size):
    module = build(4, 3)
    x, like = inputs((5, 7))
    expected = module(x, like)
    module.chunk_size = chunk_size
    assert_close(module(x, like), expected)


def published(channels=8, frequencies=20):
    """The names and shapes of a published checkpoint."""
    width, encoded = channels + 20, 10 * frequencies + 3
    shapes = {
        "lr_pe.biases": (2, 2, 5),
        "fourier_feat.1.biases": (2, 5, frequencies),
        "first_conv.0.norm.weight": (encoded,),
        "first_conv.0.norm.bias": (encoded,),
        "first_conv.1.weight": (width, encoded, 3, 3),
        "first_conv.4.weight": (width, width, 3, 3),
        "final_conv.0.weight": (channels, width, 1, 1),
        "final_conv.0.bias": (channels,),
        "final_conv.1.weight": (channels,),
        "final_conv.1.bias": (channels,),
        "ca_transformer.norm.weight": (width,),
        "ca_transformer.norm.bias": (width,),
    }
    for k in (1, 4):
        shapes[f"first_conv.{k}.bias"] = (width,)
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"first_conv.{k + 1}.{name}"] = (width,)
        shapes[f"first_conv.{k + 1}.num_batches_tracked"] = ()
    for k in range(2):
        attention, mlp = f"ca_transformer.layers.{k}.0.", f"ca_transformer.layers.{k}.1.net."
        for name in ("weight", "bias"):
            shapes |= {f"{attention}norm_q.{name}": (width,), f"{attention}norm_kv.{name}": (width,)}
            shapes[f"{mlp}0.{name}"] = (width,)
        shapes |= {f"{attention}attention.in_proj_weight": (3 * width, width)}
        shapes |= {f"{attention}attention.in_proj_bias": (3 * width,), f"{attention}attention.out_proj.bias": (width,)}
        shapes |= {f"{attention}attention.out_proj.weight": (width, width)}
        shapes |= {f"{mlp}1.weight": (channels, width), f"{mlp}1.bias": (channels,)}
        shapes |= {f"{mlp}4.weight": (width, channels), f"{mlp}4.bias": (width,)}
    return {key: torch.randn(shape) for key, shape in shapes.items()}


def test_published_keys():
    source = published()
    LoftUp(8, 3, norm=False).load_state_dict(loftup_keys(source))
    norm = {"weight": torch.randn(8), "bias": torch.randn(8)}
    hub = {f"upsampler.{key}": value for key, value in source.items()}
    trained = {**hub, "model.0.blocks.0.weight": torch.randn(1)}
    for prefix, with_norm in (("channelnorm.norm.", hub), ("model.1.norm.", trained)):
        state = loftup_keys({**with_norm, **{prefix + key: value for key, value in norm.items()}})
        LoftUp(8, 3).load_state_dict(state)
        assert state["norm_x.bias"] is norm["bias"]
    with pytest.raises(ValueError, match=r"loftup_keys: 1 key .*: lr_pe\.other"):
        loftup_keys({**source, "lr_pe.other": torch.zeros(1)})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(guide_channels=3), "in_channels, got None"),
        (dict(in_channels=4), "guide_channels, got None"),
        (dict(in_channels=5, guide_channels=3), r"in_channels \+ 20 to be a multiple of num_heads, got 25 and 4"),
        (dict(in_channels=4, guide_channels=3, convention="jafar"), "convention None or 'loftup', got 'jafar'"),
        (dict(in_channels=4, guide_channels=3, convention="loftup", coordinates="asymmetric"), "no coordinates="),
        (dict(in_channels=4, guide_channels=3, chunk_size=0), "chunk_size to be a whole number"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LoftUp(**kwargs)


def test_registered_in_mmseg():
    assert MODELS.get("LoftUp") is LoftUp
