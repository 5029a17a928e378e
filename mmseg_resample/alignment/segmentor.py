"""``ResampledSegmentor``: the type by which a config puts any segmentor of mmseg under a ``ResizePolicy``."""

from typing import Any

from mmengine.logging import print_log
from mmseg.registry import MODELS
from torch import nn

from ..ops import _check
from .intercept import with_policy
from .policy import ResizePolicy


@MODELS.register_module()
def ResampledSegmentor(resize_policy: dict[str, Any], segmentor: str | None = None, **kwargs: Any) -> nn.Module:
    """A segmentor of mmseg under a ``ResizePolicy``; its parameters and checkpoints are the stock ones.

    In a config, behind any stock base: ``model = dict(type='ResampledSegmentor', resize_policy=dict(exact=True))``.

    Args:
        resize_policy: arguments of ``ResizePolicy``; ``dict(exact=False)`` is the stock segmentor, for studies.
        segmentor: the type that the config had before. None: ``CascadeEncoderDecoder`` where there are stages, as for
            PointRend and OCRNet, else ``EncoderDecoder``.
        **kwargs: the arguments of that type.

    Raises:
        KeyError: mmseg's registry has no such segmentor.
        TypeError: ``segmentor`` is not the name of a class.
        ValueError: ``resize_policy`` has a key that is no argument of ``ResizePolicy``, or is refused by it.
    """
    for key in resize_policy:
        _check.one_of("ResampledSegmentor", "keys of resize_policy", key, ("exact", "rules", "sizes"))
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
    if not resize_policy.get("exact") and not resize_policy.get("rules"):
        return cls(**kwargs)
    model = with_policy(cls)(**kwargs)
    model.resize_policy = ResizePolicy(**resize_policy)  # type: ignore[assignment]
    model.resize_policy.install(model)  # type: ignore[operator, union-attr]
    varying = model.resize_policy.report()["by input size"]  # type: ignore[operator, union-attr]
    if varying:
        print_log(f"ResizePolicy: maps depend on the input size at {varying}; each size is audited.", "current")
    return model
