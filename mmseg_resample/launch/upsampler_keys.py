"""Published checkpoints of LoftUp, NAF and FeatUp's joint bilateral upsampler, as weights of the modules here."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Rule = tuple[str, str]
"""A pattern of keys, and the name here of those that match it."""


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
        elif match := re.fullmatch(r"(.*)\.in_proj\.(\w+)", name):
            state |= {
                f"{match[1]}.{part}.{match[2]}": run
                for part, run in zip(("query", "key", "value"), value.chunk(3), strict=True)
            }
        else:
            state[name] = value.flatten(1) if name == "project.weight" else value
    return state


_LAYER = r"(?:upsampler\.)?ca_transformer\.layers\.(\d+)\."
_LOFTUP: tuple[Rule, ...] = (
    (r"(?:channelnorm|model\.1)\.norm\.(weight|bias)", r"norm_x.\1"),
    (r"(?:upsampler\.)?lr_pe\.biases", "sample_phases"),
    (r"(?:upsampler\.)?fourier_feat\.1\.biases", "pixel_phases"),
    (r"(?:upsampler\.)?first_conv\.0\.norm\.(weight|bias)", r"norm_pixels.\1"),
    (r"(?:upsampler\.)?first_conv\.1\.(\w+)", r"encoder.0.\1"),
    (r"(?:upsampler\.)?first_conv\.2\.(\w+)", r"encoder.1.\1"),
    (r"(?:upsampler\.)?first_conv\.4\.(\w+)", r"encoder.3.\1"),
    (r"(?:upsampler\.)?first_conv\.5\.(\w+)", r"encoder.4.\1"),
    (_LAYER + r"0\.norm_q\.(\w+)", r"layers.\1.norm_pixels.\2"),
    (_LAYER + r"0\.norm_kv\.(\w+)", r"layers.\1.norm_samples.\2"),
    (_LAYER + r"0\.attention\.in_proj_(\w+)", r"layers.\1.in_proj.\2"),
    (_LAYER + r"0\.attention\.out_proj\.(\w+)", r"layers.\1.merge.\2"),
    (_LAYER + r"1\.net\.0\.(\w+)", r"layers.\1.norm_hidden.\2"),
    (_LAYER + r"1\.net\.1\.(\w+)", r"layers.\1.expand.\2"),
    (_LAYER + r"1\.net\.4\.(\w+)", r"layers.\1.reduce.\2"),
    (r"(?:upsampler\.)?ca_transformer\.norm\.(\w+)", r"norm.\1"),
    (r"(?:upsampler\.)?final_conv\.0\.(\w+)", r"project.\1"),
    (r"(?:upsampler\.)?final_conv\.1\.(\w+)", r"norm_out.\1"),
)


def naf_keys(source: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Rename the weights of a NAF. None depends on the features, so they serve any ``in_channels``.

    Raises:
        ValueError: keys that a NAF does not have.
    """
    state = _rename("naf_keys", source, _NAF)
    return {name: 2 * math.pi / value if name == "frequency" else value for name, value in state.items()}


_NAF: tuple[Rule, ...] = (
    (r"image_encoder\.rope\.periods", "frequency"),
    *(
        rule
        for theirs, ours in (("encoder", "pixels"), ("sem_encoder", "surroundings"))
        for rule in (
            (rf"image_encoder\.{theirs}\.0\.(weight|bias)", rf"{ours}.stem.\1"),
            (rf"image_encoder\.{theirs}\.1\.((?:norm|conv)[12]\.\w+)", rf"{ours}.blocks.0.\1"),
            (rf"image_encoder\.{theirs}\.2\.((?:norm|conv)[12]\.\w+)", rf"{ours}.blocks.1.\1"),
        )
    ),
)


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
_JOINT_BILATERAL: tuple[Rule, ...] = (
    (r"model\.1\.norm\.(weight|bias)", r"norm_x.\1"),
    (_UP + "range_temp", r"filters.\1.log_scale"),
    (_UP + "sigma_spatial", r"filters.\1.sigma"),
    (_UP + r"range_proj\.([03])\.(weight|bias)", r"filters.\1.project.\2.\3"),
    (_UP + r"fixup_proj\.([03])\.(weight|bias)", r"filters.\1.correct.\2.\3"),
    (r"(?:upsampler\.)?fixup_proj\.1\.(weight|bias)", r"correct.\1"),
)


def _rename(owner: str, source: "Mapping[str, Tensor]", rules: Sequence[Rule]) -> "dict[str, Tensor]":
    """Return ``source`` under the names that the rules give; the first that matches a whole key counts.

    Raises:
        ValueError: keys that match no rule.
    """
    state, unknown = {}, []
    for key, value in source.items():
        names = (match.expand(name) for pattern, name in rules if (match := re.fullmatch(pattern, key)))
        if name := next(names, None):
            state[name] = value
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(
            f"{owner}: {len(unknown)} key{'s' * (len(unknown) > 1)} of the source belong to no model known here: "
            f"{', '.join(unknown)}."
        )
    return state
