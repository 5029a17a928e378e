"""Released weights by their names, and what the released code makes of known ones.

Golden values: PaulCouairon/JAFAR at 94d4d54 and wimmerth/anyup at 351807a, in float64, with these ``weights``:
``JAFAR(qk_dim=16, v_dim=6, num_heads=2)(image, x, (17, 23))[0, :2, ::8, ::11]``, and ``AnyUp(qk_dim=16, num_heads=2)``.
"""

import pytest
import torch

from mmseg_resample.launch.upsampler_keys import anyup_keys, jafar_keys
from mmseg_resample.resamplers import JAFAR, AnyUp

C = 16
ATTENTION = {
    "rope.freqs": (2, C),
    "cross_decode.conv2d.weight": (C, C, 3, 3),
    "cross_decode.cross_attn.norm_q.weight": (C,),
    "cross_decode.cross_attn.norm_k.weight": (C,),
    "cross_decode.cross_attn.attention.in_proj_bias": (3 * C,),
    "cross_decode.cross_attn.attention.out_proj.weight": (C, C),
    "cross_decode.cross_attn.attention.out_proj.bias": (C,),
}


def blocks(part, norm1, conv1, norm2, conv2):
    shapes = {}
    for block in (1, 2):
        for norm in (norm1, norm2):
            shapes |= {f"{part}.{block}.{norm}.weight": (C,), f"{part}.{block}.{norm}.bias": (C,)}
        shapes |= {f"{part}.{block}.{conv}.weight": (C, C, 1, 1) for conv in (conv1, conv2)}
    return shapes


def jafar_shapes():
    shapes = dict(ATTENTION)
    for part, inputs in dict(image_encoder=3, query_encoder=C, key_encoder=C, key_features_encoder=6).items():
        shapes |= {f"{part}.0.weight": (C, inputs, 1, 1), **blocks(part, "norm1", "conv1", "norm2", "conv2")}
    attention = "cross_decode.cross_attn.attention"
    shapes |= {f"{attention}.q_proj_weight": (C, C), f"{attention}.k_proj_weight": (C, C)}
    shapes |= {f"{attention}.v_proj_weight": (C, 6), "cross_decode.cross_attn.norm_v.weight": (6,)}
    return shapes | {"sft_key.gamma.weight": (C, C, 1, 1), "sft_key.beta.weight": (C, C, 1, 1)}


def anyup_shapes():
    shapes = {**ATTENTION, "cross_decode.cross_attn.attention.in_proj_weight": (3 * C, C)}
    for part, inputs in dict(image_encoder=3, query_encoder=C, key_encoder=C).items():
        shapes[f"{part}.0.weight"] = (C, inputs, 1, 1)
    shapes |= {"key_features_encoder.0.basis": (C, 1, 5, 5), "aggregation.0.weight": (C, 2 * C, 3, 3)}
    for part in ("image_encoder", "query_encoder", "key_encoder", "key_features_encoder", "aggregation"):
        shapes |= blocks(part, "block.0", "block.2", "block.3", "block.5")
    return shapes


def wave(*shape, at):
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return ((count + at) * 37 % 101 / 101 - 0.5).view(shape)


def weights(shapes):
    return {key: 2 * wave(*shape, at=i) for i, (key, shape) in enumerate(sorted(shapes.items()))}


CASES = {
    "JAFAR": (
        (JAFAR, jafar_keys, jafar_shapes()),
        [
            [0.022162034240, -0.030105277400, 0.016554277869],
            [-0.147910499706, 0.007190655698, 0.054347712300],
            [-0.186773996691, 0.052349771805, 0.024470210675],
        ],
        [
            [0.022035095158, -0.045811260549, -0.013625070168],
            [-0.172224794002, 0.032062026203, 0.031152449135],
            [-0.215212482524, 0.043337180068, 0.041030357854],
        ],
    ),
    "AnyUp": (
        (AnyUp, anyup_keys, anyup_shapes()),
        [
            [-0.136055932612, 0.014289484018, 0.088676290849],
            [-0.192737904206, 0.155465282291, 0.112079703944],
            [-0.263020023054, -0.036194815290, 0.218867532459],
        ],
        [
            [0.101613416353, -0.025314476378, 0.049072330453],
            [-0.016644314973, 0.115861321895, 0.072475743548],
            [0.250741655955, -0.075798775686, 0.179263572063],
        ],
    ),
}
each_case = pytest.mark.parametrize(("model", "first", "second"), CASES.values(), ids=list(CASES))


@each_case
@torch.no_grad()
def test_released_weights_give_the_released_result(model, first, second):
    cls, rename, shapes = model
    module = cls(6, 3, qk_channels=C, num_heads=2).double()
    module.load_state_dict(rename(weights(shapes)))
    out = module(wave(1, 6, 12, 10, at=1), wave(1, 3, 17, 23, at=2))
    torch.testing.assert_close(out[0, :2, ::8, ::11], torch.tensor([first, second]).double(), atol=2e-8, rtol=0)


@each_case
def test_every_key_is_known(model, first, second):
    _, rename, shapes = model
    source = weights(shapes) | {"image_encoder.3.shortcut.weight": torch.zeros(1), "norm.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"2 keys .*: image_encoder\.3\.shortcut\.weight, norm\.weight\."):
        rename(source)


def test_jafar_whose_features_have_as_many_channels_as_its_keys():
    """There the official attention keeps three projections in one matrix."""
    shapes = {key: shape for key, shape in jafar_shapes().items() if "_proj_weight" not in key}
    source = weights(shapes) | {"cross_decode.cross_attn.attention.in_proj_weight": wave(3 * C, C, at=0)}
    state = jafar_keys(source)
    assert torch.equal(state["attention.query.weight"], wave(3 * C, C, at=0)[:C])
    assert torch.equal(state["attention.key.weight"], wave(3 * C, C, at=0)[C : 2 * C])
