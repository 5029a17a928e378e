"""``ResampledSegmentor``: the type by which a config puts any segmentor of mmseg under a ``ResizePolicy``."""

import logging
from inspect import signature
from typing import Any

from mmengine.logging import print_log
from mmseg.registry import MODELS
from torch import nn

from ...ops import _check
from ...policy import ResizePolicy, is_active


class _ToRunnersLog(logging.Handler):
    """Writes what policies say into the log of the runner at work."""

    def emit(self, record: logging.LogRecord) -> None:
        print_log(record.getMessage(), "current", record.levelno)


logging.getLogger("mmseg_resample").addHandler(_ToRunnersLog())


@MODELS.register_module()
def ResampledSegmentor(
    resize_policy: dict[str, Any] | None = None,
    segmentor: str | None = None,
    fast_resize: bool = False,
    **kwargs: Any,
) -> nn.Module:
    """Build a segmentor of mmseg under a ``ResizePolicy``; its parameters and checkpoints are the stock ones.

    In a config, behind any stock base: ``model = dict(type='ResampledSegmentor', resize_policy=dict(exact=True))``.

    Args:
        resize_policy: arguments of ``ResizePolicy``; ``dict(exact=False)`` is the stock segmentor, for studies.
        segmentor: the type that the config had before. None: ``CascadeEncoderDecoder`` where there are stages, as for
            PointRend and OCRNet, else ``EncoderDecoder``.
        fast_resize: short for ``fast_resize`` of the policy, which can be all of it.
        **kwargs: the arguments of that type.

    Raises:
        KeyError: mmseg's registry has no such segmentor.
        TypeError: ``segmentor`` is not the name of a class.
        ValueError: ``resize_policy`` has a key that is no argument of ``ResizePolicy``, or is refused by it.
    """
    resize_policy = dict(resize_policy or {})
    for key in resize_policy:
        _check.one_of("ResampledSegmentor", "keys of resize_policy", key, tuple(signature(ResizePolicy).parameters))
    if fast_resize:
        resize_policy["fast_resize"] = True
    if segmentor is None:
        segmentor = "mmseg.CascadeEncoderDecoder" if "num_stages" in kwargs else "mmseg.EncoderDecoder"
    cls = MODELS.get(segmentor)
    if cls is None:
        raise KeyError(f"ResampledSegmentor: no segmentor {segmentor!r} in mmseg's registry. Check the type's name.")
    if not isinstance(cls, type):
        raise TypeError(
            f"ResampledSegmentor: expected segmentor to name a class, got {segmentor!r}, which builds segmentors "
            f"itself. Nest them the other way: type={segmentor!r}, segmentor='ResampledSegmentor'."
        )
    if not (is_active(resize_policy) or resize_policy.get("fast_resize")):
        return cls(**kwargs)
    model = cls(**kwargs)
    policy = ResizePolicy(**resize_policy)
    policy.install(model)
    if policy.rules and policy.size_dependent and policy.pad is None:
        print_log(
            f"ResizePolicy: maps depend on the input size at {policy.size_dependent}; each is audited.", "current"
        )
    return model
