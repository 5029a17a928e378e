"""Checks of a checkpoint: that it can be read, fits the model, and was trained with the same pixel model."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader

from ..policy import is_active
from ..suggest import did_you_mean_file
from ..unpickle import RefusedError
from .configs import dotted_items, type_name
from .dumped import read_setting
from .messages import UsageError, say

Shapes = dict[str, tuple[int, ...]]


def read_weights(checkpoint: str) -> Shapes:
    """Return the shape of each weight in a checkpoint, by the name under which mmengine loads it.

    Raises:
        UsageError: there is no such file, or it is not a checkpoint, is truncated, or holds objects that torch refuses.
    """
    return shapes_of(read_checkpoint(checkpoint))


def shapes_of(content: Mapping[str, Any]) -> Shapes:
    """Return the shape of each weight in the content of a checkpoint."""
    return {key: tuple(getattr(value, "shape", ())) for key, value in state_of(content).items()}


def state_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights in the content of a checkpoint, as mmengine loads them: without ``module.`` of a wrapper."""
    return {re.sub(r"^module\.", "", key): value for key, value in content.get("state_dict", content).items()}


def read_checkpoint(checkpoint: str) -> Mapping[str, Any]:
    """Read a checkpoint; see ``read_weights`` for what it raises."""
    content = read_file(checkpoint)
    try:
        shapes_of(content)
    except (AttributeError, TypeError) as error:
        raise UsageError(
            f"checkpoint {checkpoint}: expected weights by name, got a {type(content).__name__}."
        ) from error
    return content


def read_file(checkpoint: str) -> Any:
    """Read what ``torch.save`` wrote to a file or below a URL, as data; see ``read_weights`` for what it raises."""
    if "://" not in checkpoint and not Path(checkpoint).is_file():
        raise UsageError(f"checkpoint {checkpoint}: no such file.{did_you_mean_file(Path(checkpoint))}")
    try:
        return CheckpointLoader.load_checkpoint(checkpoint, map_location="cpu", logger="silent")
    except RefusedError as error:
        raise UsageError(f"checkpoint {checkpoint}: {error}{_how_to_trust(error.name)}") from error
    except Exception as error:  # whatever a broken file makes torch raise
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UsageError(f"checkpoint {checkpoint}: not a checkpoint, or truncated ({reason:.120}).") from error


def _how_to_trust(name: str | None) -> str:
    if name is None:
        return ""
    if not hasattr(torch.serialization, "add_safe_globals"):
        return " If you trust the file, load it with torch.load and save its state_dict alone."
    return (
        f" If you trust the file, import a module that calls torch.serialization.add_safe_globals([{name}]) in "
        f"custom_imports of the config."
    )


def compare_geometry(model: Mapping[str, Any], content: Mapping[str, Any], checkpoint: str) -> None:
    """Warn if ``model`` reads its features at other positions than the model that the checkpoint was trained as."""
    meta = content.get("meta")
    trained = read_setting(meta.get("cfg"), "model") if isinstance(meta, Mapping) else None
    if not isinstance(trained, dict):
        return
    before, now = _geometry(trained), _geometry(model)
    keys = [key for key in {**before, **now} if (before.get(key) or None) != (now.get(key) or None)]
    if keys:
        differences = ", ".join(f"{key}={before.get(key)} (now {now.get(key)})" for key in keys)
        say(f"warning: checkpoint {checkpoint}: trained with {differences}.")


def _geometry(model: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the settings of a model that decide where its features are read, without wrappers that change nothing."""
    model = dict(model)
    if type_name(model) == "LeanSegmentor":
        below = model.pop("segmentor", "EncoderDecoder")
        model.update(below if isinstance(below, Mapping) else dict(type=below))
    segmentor, policy = type_name(model), {}
    if segmentor == "ResampledSegmentor":
        segmentor, policy = model.get("segmentor", "EncoderDecoder"), model.pop("resize_policy", {})
    active = {key: _as_lists(value) for key, value in policy.items() if value and key != "fast_resize"}
    found = {"model.type": segmentor, "model.resize_policy": active if is_active(active) else None}
    settings = {f"model.{key}": value for key, value in dotted_items(model)}
    return found | {
        key: settings[key] for key in settings if key.rpartition(".")[2] in ("align_corners", "coordinates")
    }


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, list | tuple) else value


def check_weights(model: Any, weights: Shapes, checkpoint: str) -> None:
    """Refuse a checkpoint that lacks weights of the model; mmengine would log a warning and test random ones.

    Weights are parameters and floating-point buffers. What a test does not use may be missing: the counters of batch
    norms and the auxiliary heads. Weights that the model lacks are left out, with a warning on stderr.

    Args:
        model: before it loads; it may be wrapped.
        weights: from ``read_weights`` or ``prepare_test``.
        checkpoint: its name, for messages.

    Raises:
        UsageError: a weight of the model is missing in the checkpoint, or has another shape there.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    state = {key: value for key, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    expected = {key: tuple(value.shape) for key, value in state.items() if value.is_floating_point()}
    missing = {key: shape for key, shape in expected.items() if key not in weights}
    unused = {key: shape for key, shape in weights.items() if key not in state and shape}
    idle = {key for key in expected if key.startswith("auxiliary_head.")}
    other = {key: shape for key, shape in expected.items() if weights.get(key, shape) != shape}
    if missing.keys() - idle or other.keys() - idle:
        raise UsageError(
            f"checkpoint {checkpoint}: {len(missing) + len(other)} of the {len(expected)} weights of the model "
            f"cannot be loaded from it, and would be random."
            + (f"\n  {len(missing)} missing: {_sample(missing)}" if missing else "")
            + (f"\n  {len(other)} of another shape: {_sample(other, weights)}" if other else "")
            + (f"\n  {len(unused)} that only the checkpoint has: {_sample(unused)}" if unused else "")
            + "\nUse the config it was trained with."
        )
    if missing or other:
        say(
            f"warning: checkpoint {checkpoint}: {len(missing) + len(other)} weights of auxiliary heads are not in it; "
            f"a test does not use them."
        )
    if unused:
        say(f"warning: checkpoint {checkpoint}: {len(unused)} left out, not in the model: {_sample(unused)}.")


def _sample(shapes: Shapes, found: Shapes | None = None) -> str:
    """List the first of them, each with the shape that was found in the checkpoint instead, if any."""
    first = [
        f"{key} {shape}" + (f" in the model, {found[key]} in the checkpoint" if found else "")
        for key, shape in list(shapes.items())[:3]
    ]
    return "; ".join([*first, "..."] if len(shapes) > 3 else first)
