"""Released upsamplers, as resamplers here: their weights, and the config that these belong to."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .upsampler_keys import anyup_keys, jafar_keys, joint_bilateral_keys, loftup_keys, naf_keys

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


# What shapes tell of the channels of the features, and of the options.


def _read_jafar(state: "Mapping[str, Tensor]") -> tuple[int, dict[str, Any]]:
    width, channels = state["features_encoder.stem.weight"].shape[:2]
    return channels, dict(qk_channels=width)


def _read_anyup(state: "Mapping[str, Tensor]") -> tuple[int, dict[str, Any]]:
    width, _, size, _ = state["features_encoder.stem.filters"].shape
    return width, dict(qk_channels=width, filter_size=size)


def _read_naf(state: "Mapping[str, Tensor]") -> tuple[int, dict[str, Any]]:
    width = 2 * len(state["pixels.stem.weight"])
    return width, dict(qk_channels=width)  # which serve any number of channels


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
    "NAF": (naf_keys, _read_naf),
    "LoftUp": (loftup_keys, _read_loftup),
    "JointBilateral": (joint_bilateral_keys, _read_joint_bilateral),
}
