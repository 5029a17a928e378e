"""The shift of the predictions that an audit of the network foresees, stored beside the measured one."""

import json
from dataclasses import asdict
from typing import Any

from mmengine.config import Config

from mmseg_resample.grids import fake_tensors, follow
from mmseg_resample.launch.auditing import build_fake

_audits: dict[tuple[str, tuple[int, int]], dict[str, Any]] = {}


def predicted_shift(config: Config, size: tuple[int, int]) -> dict[str, Any]:
    """Audit the misregistration of the prediction with the labels, for an input of ``size``.

    Args:
        config: its ``model`` is audited, once per process for the same model and size.
        size: (h, w) of the input of the network.

    Returns:
        ``size``, and along ``x`` and ``y`` the shift in pixels at the first, middle and last position: a network whose
        logits read evidence e px to the right has e, and without training predicts e px to the left. Or ``error``,
        where the audit cannot follow the network.
    """
    key = json.dumps([config.get("default_scope"), config.model.to_dict()], default=repr), size
    if key not in _audits:
        _audits[key] = _audit(config, size)
    return _audits[key]


def _audit(config: Config, size: tuple[int, int]) -> dict[str, Any]:
    try:
        with fake_tensors():
            final = follow(build_fake(config), size).final
    except Exception as error:  # an aid to read the scores: whatever it cannot do must not cost them
        return {"error": f"{type(error).__name__}: {error}"}
    if final is None or final.x is None or final.y is None:
        return {"error": "The positions of the prediction could not be followed."}
    x, y = ([float(value) for value in asdict(offset).values()] for offset in (final.x, final.y))
    return {"size": list(size), "x": x, "y": y}
