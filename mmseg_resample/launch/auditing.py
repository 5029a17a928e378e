"""Audits of configs: the segmentor as configured, with either flag and with exact resizes, and the labels' pipeline."""

import copy
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import load_state_dict
from mmseg.registry import MODELS
from torch import nn

from ..datasets.label_offsets import label_offsets
from ..grids import Audit, ForwardPass, LevelShift, fake_tensors, follow, follow_both, follow_exact, level_shifts
from ..grids.audit import covering_size
from ..grids.evidence import as_shifts
from ..grids.sites import Size
from .checkpoints import check_weights, read_checkpoint, shapes_of, state_of
from .configs import policy_of, without_policy
from .messages import logs_silenced


def audit_config(
    cfg: Config,
    name: str,
    sizes: Sequence[Size],
    flags: bool = True,
    weights: Sequence[LevelShift | None] = (),
) -> Audit:
    """Audit ``cfg`` at ``sizes`` as it stands and exact and, with ``flags``, with ``align_corners`` False and True.

    The flags are those of the network without a policy, under which they mean nothing. With ``weights``, from
    ``measure_weights``, levels lie where these look.
    """
    shifts = as_shifts(weights)
    passes: dict[str, list[ForwardPass]] = {}
    labels = label_offsets(cfg)
    with fake_tensors():
        model = build_segmentor(cfg)
        both = [follow_both(model, size, shifts) for size in sizes]
        passes["config"], passes["exact"] = [one for one, _ in both], [exact for _, exact in both]
        exact = passes["exact"][0]
        covering = covering_size(exact, lambda size: follow_exact(model, size, exact.maps, shifts))
        result = Audit(name, list(sizes), passes, labels=labels, covering=covering, weights=list(weights))
        result.pretrained = _pretrained(cfg.model)
        policy = policy_of(cfg.model)
        if policy is not None:
            arguments = ", ".join(f"{key}={value!r}" for key, value in policy.items() if value)
            result.policy = f"resize_policy=dict({arguments})" if len(arguments) < 80 else "The resize_policy"
            installed: Any = model.resize_policy
            padding = installed.padding(sizes[0])
            result.padded = padding.size(sizes[0]) if padding else None
        if not flags:
            return result
        flagged, stock = model, without_policy(cfg)
        for value in (False, True):
            flagged_cfg = with_align_corners(stock, value)
            if policy is None and flagged_cfg.model == stock.model:
                flagged, passes[str(value)] = model, passes["config"]
                continue
            try:
                flagged = build_segmentor(flagged_cfg)
            except TypeError:  # heads of mask classification have no flag
                return result
            passes[str(value)] = [follow(flagged, size, level_shifts=shifts) for size in sizes]
        size = _size_for_true(passes["True"][0])
        if size is not None:
            with suppress(RuntimeError):  # networks that fix their inner sizes cannot take this one
                result.fitting = (size, follow(flagged, size, level_shifts=shifts))
    false, true = (passes[key][0].trace.resizes for key in ("False", "True"))
    result.hard_coded = [
        a.site
        for a, b in zip(false, true, strict=True)
        if a.align_corners is not None and a.align_corners == b.align_corners
    ]
    return result


def _pretrained(model: Any) -> str | None:
    """Return the weights that the backbone of a model, or all of it, begins with."""
    for part in (model.get("backbone") or {}, model):
        init = part.get("init_cfg")
        named = [each for each in (init if isinstance(init, (list, tuple)) else [init]) if each]
        own = next((each["checkpoint"] for each in named if each.get("type") == "Pretrained"), None)
        found = own or part.get("pretrained")
        if found:
            return str(found)
    return None


def input_size(cfg: Config) -> tuple[int, int]:
    """Return the (h, w) that a config trains at: its crop, else that of its preprocessor, else 512x1024."""
    size = cfg.get("crop_size") or (cfg.model.get("data_preprocessor") or {}).get("size") or (512, 1024)
    if isinstance(size, int):
        return size, size
    height, width = size
    return height, width


def measure_weights(cfg: Config, checkpoint: str | None) -> list[LevelShift | None]:
    """Build the segmentor of a config with its weights, without its policy, and measure where these look.

    Args:
        cfg: says which weights it begins with, in ``init_cfg`` or ``pretrained``.
        checkpoint: of trained weights; None for those that it begins with.
    """
    init_default_scope(cfg.get("default_scope") or "mmseg")
    model = MODELS.build(copy.deepcopy(without_policy(cfg).model))
    if checkpoint is None:
        with logs_silenced(logging.WARNING):
            model.init_weights()
    else:
        content = read_checkpoint(checkpoint)
        check_weights(model, shapes_of(content), checkpoint)
        load_state_dict(model, state_of(content))
    return level_shifts(model, progress=True)


def build_segmentor(cfg: Config) -> nn.Module:
    """Build the segmentor of a config for evaluation, with random weights; under ``fake_tensors`` without memory."""
    init_default_scope(cfg.get("default_scope") or "mmseg")
    model_cfg = copy.deepcopy(cfg.model)
    model_cfg.pop("pretrained", None)
    return MODELS.build(model_cfg).eval()


def with_align_corners(cfg: Config, value: bool) -> Config:
    """Copy ``cfg`` with ``align_corners=value`` in every head and wherever else the model has the key."""
    cfg = copy.deepcopy(cfg)
    for name in ("decode_head", "auxiliary_head"):
        heads = cfg.model.get(name) or []
        for head in heads if isinstance(heads, (list, tuple)) else [heads]:
            head["align_corners"] = value
    _replace_key(cfg.model, "align_corners", value)
    return cfg


def _replace_key(cfg: Any, key: str, value: Any) -> None:
    for entry in cfg.values() if isinstance(cfg, dict) else cfg if isinstance(cfg, (list, tuple)) else ():
        _replace_key(entry, key, value)
    if isinstance(cfg, dict) and key in cfg:
        cfg[key] = value


def _size_for_true(audited: ForwardPass) -> Size | None:
    """Return the nearest ``n * stride + 1``, if the backbone's features sit on multiples of their stride."""
    levels = [level for level in audited.levels if level is not None]
    if not levels or any(offset != 0 for level in levels for offset in level.offset):
        return None
    stride = int(max(max(level.stride) for level in levels))
    height, width = (max(round((n - 1) / stride), 1) * stride + 1 for n in audited.size)
    return height, width
