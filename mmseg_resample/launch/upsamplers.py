"""Released weights of JAFAR and AnyUp, renamed for the resamplers here."""

import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .upsampler_keys import joint_bilateral_keys, loftup_keys

if TYPE_CHECKING:
    from torch import Tensor

UPSAMPLERS = ("JAFAR", "AnyUp", "NAF", "LoftUp", "JointBilateral")


def convert_upsampler(name: str, source: "Mapping[str, Tensor]") -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Rename the weights of a released upsampler, and read off their shapes how it is configured.

    Args:
        name: in ``UPSAMPLERS``.
        source: its state dict.

    Returns:
        The state dict, which loads strictly, and the config of the resampler.

    Raises:
        ValueError: keys that it does not have, or weights that are missing or do not fit together.
    """
    from mmseg.registry import MODELS

    rename, read_off = _KINDS[name]
    state = rename(source)
    try:
        channels, settings = read_off(state)
        config = dict(type=name, **settings)
        MODELS.build(dict(config, in_channels=channels, guide_channels=3)).load_state_dict(state, strict=True)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"incomplete, or not of {name}. {error}") from error
    return state, config


_ENCODERS = {
    "image_encoder": "image_encoder",
    "query_encoder": "query_encoder",
    "key_encoder": "key_encoder",
    "key_features_encoder": "features_encoder",
    "aggregation": "aggregate",
}
_LAYERS = {"block.0": "norm1", "block.2": "conv1", "block.3": "norm2", "block.5": "conv2"}

# Pattern of a key there -> names here of the equal parts of its tensor; None is a part that nothing uses. The official
# attention projects values, and its output, and takes the weights alone.
_Rules = dict[str, tuple[str | None, ...]]
_ATTENTION: _Rules = {
    r"rope\.freqs": ("frequency",),
    r"cross_decode\.conv2d\.weight": ("attention.smooth.weight",),
    r"cross_decode\.cross_attn\.norm_q\.weight": ("attention.norm_query.weight",),
    r"cross_decode\.cross_attn\.norm_k\.weight": ("attention.norm_key.weight",),
    r"cross_decode\.cross_attn\.attention\.in_proj_(weight|bias)": (r"attention.query.\1", r"attention.key.\1", None),
    r"cross_decode\.cross_attn\.attention\.out_proj\.(weight|bias)": (None,),
}
_JAFAR: _Rules = {
    **_ATTENTION,
    r"cross_decode\.cross_attn\.attention\.q_proj_weight": ("attention.query.weight",),
    r"cross_decode\.cross_attn\.attention\.k_proj_weight": ("attention.key.weight",),
    r"cross_decode\.cross_attn\.attention\.v_proj_weight": (None,),
    r"cross_decode\.cross_attn\.norm_v\.weight": (None,),
    r"sft_key\.(gamma|beta)\.weight": (r"\1.weight",),
}


def jafar_keys(source: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Rename the weights of the released JAFAR for ``resamplers.JAFAR``.

    Raises:
        ValueError: keys that it does not have.
    """
    return _rename("jafar_keys", source, _JAFAR)


def anyup_keys(source: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Rename the weights of the released AnyUp for ``resamplers.AnyUp``.

    Raises:
        ValueError: keys that it does not have.
    """
    return _rename("anyup_keys", source, _ATTENTION)


def _rename(owner: str, source: "Mapping[str, Tensor]", rules: _Rules) -> "dict[str, Tensor]":
    state, unknown = {}, []
    for key, value in source.items():
        names = _names(key, rules)
        if names is None:
            unknown.append(key)
            continue
        parts = value.chunk(len(names))
        state.update({name: part for name, part in zip(names, parts, strict=True) if name is not None})
    if unknown:
        raise ValueError(f"{owner}: expected the keys of the released code, got unknown ones: {', '.join(unknown)}.")
    return state


def _names(key: str, rules: _Rules) -> tuple[str | None, ...] | None:
    """Return the names here of the parts of the tensor ``key``, or None for a key that there is no rule for."""
    for pattern, names in rules.items():
        if match := re.fullmatch(pattern, key):
            return tuple(name and match.expand(name) for name in names)
    if not (match := re.fullmatch(r"(\w+)\.(\d)\.(?:(block\.\d|norm[12]|conv[12])\.)?(weight|bias|basis)", key)):
        return None
    part, position, layer, kind = match.groups()
    if part not in _ENCODERS or (layer is None) != (position == "0"):
        return None
    if layer is None:
        return (f"{_ENCODERS[part]}.stem.{'filters' if kind == 'basis' else kind}",)
    return (f"{_ENCODERS[part]}.blocks.{int(position) - 1}.{_LAYERS.get(layer, layer)}.{kind}",)


# --- what shapes tell of the channels of the features and the options -------------------------------------------------


def _read_jafar(state: "Mapping[str, Tensor]") -> tuple[int, dict[str, Any]]:
    width, channels = state["features_encoder.stem.weight"].shape[:2]
    return channels, dict(qk_channels=width)


def _read_anyup(state: "Mapping[str, Tensor]") -> tuple[int, dict[str, Any]]:
    width, _, size, _ = state["features_encoder.stem.filters"].shape
    return width, dict(qk_channels=width, filter_size=size)


def _read_loftup(state: "Mapping[str, Tensor]") -> tuple[int, dict[str, Any]]:
    layers = len({name.split(".")[1] for name in state if name.startswith("layers.")})
    settings = dict(num_layers=layers, frequencies=state["pixel_phases"].shape[1], norm="norm_x.weight" in state)
    return len(state["norm_out.weight"]), dict(convention="loftup", **settings)


def _read_joint_bilateral(state: "Mapping[str, Tensor]") -> tuple[int, dict[str, Any]]:
    taps = state["filters.0.correct.3.weight"].shape[0]
    return len(state["correct.weight"]), dict(
        steps=len({name.split(".")[1] for name in state if name.startswith("filters.")}),
        up_kernel=math.isqrt(taps),
        key_channels=state["filters.0.project.3.weight"].shape[0],
        norm="norm_x.weight" in state,
    )


_Kind = tuple[Callable[["Mapping[str, Tensor]"], "dict[str, Tensor]"], Callable[..., tuple[int, dict[str, Any]]]]
_KINDS: dict[str, _Kind] = {
    "JAFAR": (jafar_keys, _read_jafar),
    "AnyUp": (anyup_keys, _read_anyup),
    "LoftUp": (loftup_keys, _read_loftup),
    "JointBilateral": (joint_bilateral_keys, _read_joint_bilateral),
}
