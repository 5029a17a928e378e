"""Released weights of upsamplers guided by the image, under the names of the resamplers here."""

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Rules = Mapping[str, str | tuple[str | None, ...]]
"""Pattern of a key there -> name here, or names of the equal parts of its tensor; None is a part that nothing uses."""


def jafar_keys(source: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Rename the weights of a JAFAR.

    Raises:
        ValueError: keys that it does not have.
    """
    return _rename("jafar_keys", source, _JAFAR)


def anyup_keys(source: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Rename the weights of an AnyUp.

    Raises:
        ValueError: keys that it does not have.
    """
    return _rename("anyup_keys", source, _ANYUP)


def _encoder(theirs: str, ours: str) -> Rules:
    rules = {rf"{theirs}\.0\.(weight|bias)": rf"{ours}.stem.\1", rf"{theirs}\.0\.basis": f"{ours}.stem.filters"}
    layers = {"norm1": "norm1|block.0", "conv1": "conv1|block.2", "norm2": "norm2|block.3", "conv2": "conv2|block.5"}
    for block in (0, 1):
        for name, names in layers.items():
            rules[rf"{theirs}\.{block + 1}\.(?:{names})\.(weight|bias)"] = rf"{ours}.blocks.{block}.{name}.\1"
    return rules


# The released attention projects values, and its output, and takes the weights alone.
_ATTENTION = r"cross_decode\.cross_attn\."
_ANYUP: Rules = {
    r"rope\.freqs": "frequency",
    r"cross_decode\.conv2d\.weight": "attention.smooth.weight",
    _ATTENTION + r"norm_q\.weight": "attention.norm_query.weight",
    _ATTENTION + r"norm_k\.weight": "attention.norm_key.weight",
    _ATTENTION + r"attention\.in_proj_(weight|bias)": (r"attention.query.\1", r"attention.key.\1", None),
    _ATTENTION + r"attention\.out_proj\.(weight|bias)": (None,),
    **_encoder("image_encoder", "image_encoder"),
    **_encoder("query_encoder", "query_encoder"),
    **_encoder("key_encoder", "key_encoder"),
    **_encoder("key_features_encoder", "features_encoder"),
    **_encoder("aggregation", "aggregate"),
}
_JAFAR: Rules = {
    **_ANYUP,
    _ATTENTION + r"attention\.q_proj_weight": "attention.query.weight",
    _ATTENTION + r"attention\.k_proj_weight": "attention.key.weight",
    _ATTENTION + r"attention\.v_proj_weight": (None,),
    _ATTENTION + r"norm_v\.weight": (None,),
    r"sft_key\.(gamma|beta)\.weight": r"\1.weight",
}


def loftup_keys(source: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Rename the weights of a LoftUp with sine encodings of place, ``lr_pe_type="sine"``, as all published ones have.

    Args:
        source: the state dict of the upsampler; of the published module, which normalises features first; or of a
            training run. The backbone of the latter is left out.

    Returns:
        A state dict of ``LoftUp``; with ``norm=False`` where ``source`` has no normalisation of the features.

    Raises:
        ValueError: keys that a LoftUp does not have.
    """
    source = {key: value for key, value in source.items() if not key.startswith("model.0.")}
    state = {}
    for name, value in _rename("loftup_keys", source, _LOFTUP).items():
        if name.endswith("phases"):  # read there as (2, frequencies, values), whatever their shape says
            state[name] = value.reshape(2, value.shape[2], value.shape[1])
        else:
            state[name] = value.flatten(1) if name == "project.weight" else value
    return state


_LAYER = r"(?:upsampler\.)?ca_transformer\.layers\.(\d+)\."
_LOFTUP: Rules = {
    r"(?:channelnorm|model\.1)\.norm\.(weight|bias)": r"norm_x.\1",
    r"(?:upsampler\.)?lr_pe\.biases": "sample_phases",
    r"(?:upsampler\.)?fourier_feat\.1\.biases": "pixel_phases",
    r"(?:upsampler\.)?first_conv\.0\.norm\.(weight|bias)": r"norm_pixels.\1",
    r"(?:upsampler\.)?first_conv\.1\.(\w+)": r"encoder.0.\1",
    r"(?:upsampler\.)?first_conv\.2\.(\w+)": r"encoder.1.\1",
    r"(?:upsampler\.)?first_conv\.4\.(\w+)": r"encoder.3.\1",
    r"(?:upsampler\.)?first_conv\.5\.(\w+)": r"encoder.4.\1",
    _LAYER + r"0\.norm_q\.(\w+)": r"layers.\1.norm_pixels.\2",
    _LAYER + r"0\.norm_kv\.(\w+)": r"layers.\1.norm_samples.\2",
    _LAYER + r"0\.attention\.in_proj_(\w+)": tuple(rf"layers.\1.{part}.\2" for part in ("query", "key", "value")),
    _LAYER + r"0\.attention\.out_proj\.(\w+)": r"layers.\1.merge.\2",
    _LAYER + r"1\.net\.0\.(\w+)": r"layers.\1.norm_hidden.\2",
    _LAYER + r"1\.net\.1\.(\w+)": r"layers.\1.expand.\2",
    _LAYER + r"1\.net\.4\.(\w+)": r"layers.\1.reduce.\2",
    r"(?:upsampler\.)?ca_transformer\.norm\.(\w+)": r"norm.\1",
    r"(?:upsampler\.)?final_conv\.0\.(\w+)": r"project.\1",
    r"(?:upsampler\.)?final_conv\.1\.(\w+)": r"norm_out.\1",
}


def naf_keys(source: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Rename the weights of a NAF. None depends on the features, so they serve any ``in_channels``.

    Raises:
        ValueError: keys that a NAF does not have.
    """
    state = _rename("naf_keys", source, _NAF)
    return {name: 2 * math.pi / value if name == "frequency" else value for name, value in state.items()}


_NAF: Rules = {
    r"image_encoder\.rope\.periods": "frequency",
    **_encoder(r"image_encoder\.encoder", "pixels"),
    **_encoder(r"image_encoder\.sem_encoder", "surroundings"),
}


def joint_bilateral_keys(source: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Rename the weights of FeatUp's stack of joint bilateral upsamplers.

    Args:
        source: the state dict of the stack, of a network with it, or of a training run. Backbone, downsampler and the
            network of scales, which upsampling does not need, are left out.

    Returns:
        A state dict of ``JointBilateral``; with ``norm=True`` where features are normalised first.

    Raises:
        ValueError: keys that none of these have.
    """
    unused = r"model\.(0|model)\.|downsampler\.|scale_net\."
    source = {key: value for key, value in source.items() if not re.match(unused, key)}
    state = _rename("joint_bilateral_keys", source, _JOINT_BILATERAL)
    steps = sorted({int(name.split(".")[1]) for name in state if name.startswith("filters.")})
    return {
        re.sub(r"(?<=^filters\.)\d+", lambda match: str(steps.index(int(match[0]))), name): value
        for name, value in state.items()
    }


_UP = r"(?:upsampler\.)?up(\d+)\."
_JOINT_BILATERAL: Rules = {
    r"model\.1\.norm\.(weight|bias)": r"norm_x.\1",
    _UP + "range_temp": r"filters.\1.log_scale",
    _UP + "sigma_spatial": r"filters.\1.sigma",
    _UP + r"range_proj\.([03])\.(weight|bias)": r"filters.\1.project.\2.\3",
    _UP + r"fixup_proj\.([03])\.(weight|bias)": r"filters.\1.correct.\2.\3",
    r"(?:upsampler\.)?fixup_proj\.1\.(weight|bias)": r"correct.\1",
}


def _rename(owner: str, source: "Mapping[str, Tensor]", rules: Rules) -> "dict[str, Tensor]":
    """Return ``source`` under the names that the rules give; the first that matches a whole key counts.

    Raises:
        ValueError: keys that match no rule.
    """
    state, unknown = {}, []
    for key, value in source.items():
        found = ((match, names) for pattern, names in rules.items() if (match := re.fullmatch(pattern, key)))
        match, names = next(found, (None, ()))
        if match is None:
            unknown.append(key)
            continue
        names = (names,) if isinstance(names, str) else names
        for name, part in zip(names, value.chunk(len(names)) if len(names) > 1 else (value,), strict=True):
            if name is not None:
                state[match.expand(name)] = part
    if unknown:
        raise ValueError(
            f"{owner}: {len(unknown)} key{'s' * (len(unknown) > 1)} of the source belong to no model known here: "
            f"{', '.join(unknown)}."
        )
    return state
