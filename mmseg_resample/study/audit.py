"""Audits of the configs of a study, once per process: the shift that they foresee, and where their resizes read."""

import json
from dataclasses import asdict
from typing import Any

from mmengine.config import Config

from mmseg_resample.grids import ForwardPass, fake_tensors, follow
from mmseg_resample.grids.sites import Size
from mmseg_resample.launch.auditing import build_segmentor

_audits: dict[tuple[str, Size], ForwardPass | Exception] = {}


def followed(config: Config, size: Size) -> ForwardPass:
    """Follow positions through the ``model`` of a config, once per process for the same model and size.

    Raises:
        Exception: whatever the network raises for an input of ``size``.
    """
    key = json.dumps([config.get("default_scope"), config.model.to_dict()], default=repr), size
    if key not in _audits:
        try:
            with fake_tensors():
                _audits[key] = follow(build_segmentor(config), size)
        except Exception as error:
            _audits[key] = error.with_traceback(None)  # frames would keep the network
    found = _audits[key]
    if isinstance(found, Exception):
        raise found
    return found


def predicted_shift(config: Config, size: tuple[int, int]) -> dict[str, Any]:
    """Audit the misregistration of the prediction with the labels, for an input of ``size``.

    Args:
        config: its ``model`` is audited.
        size: (h, w) of the input of the network.

    Returns:
        ``size``, and along ``x`` and ``y`` the shift in pixels at the first, middle and last position: a network whose
        logits read evidence e px to the right has e, and without training predicts e px to the left. Or ``error``,
        where the audit cannot follow the network.
    """
    try:
        final = followed(config, size).final
    except Exception as error:  # an aid to read the scores: whatever it cannot do must not cost them
        return {"error": f"{type(error).__name__}: {error}"}
    if final is None or final.x is None or final.y is None:
        return {"error": "The positions of the prediction could not be followed."}
    x, y = ([float(value) for value in asdict(offset).values()] for offset in (final.x, final.y))
    return {"size": list(size), "x": x, "y": y}
