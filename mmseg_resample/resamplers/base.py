"""The resampler interface, and how a neck or head builds one from its config."""

from abc import ABC, abstractmethod
from typing import Any

from mmseg.registry import MODELS
from torch import Tensor, nn


class Resampler(nn.Module, ABC):
    """Base of modules that bring a feature map to the spatial size of another: ``forward(x, like)``.

    Unguided resamplers read only ``like.shape``, guided ones its content too. Every resampler takes any target size.

    Args:
        in_channels: channels of ``x``. Filled in by the neck or head that owns the resampler.
        guide_channels: channels of ``like``. Filled in likewise.
        align_corners: pixel model, see docs/conventions.md. The owner's value where the config does not say.

    Attributes:
        guided: it reads the content of ``like``, not only its size.
        fuses: the result of ``forward`` already contains ``like``; ``fuse`` does not add it again.
    """

    guided = False
    fuses = False

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.guide_channels = guide_channels
        self.align_corners = align_corners

    @abstractmethod
    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """Bring ``x`` (N, in_channels, h, w) to the spatial size of ``like`` (N, guide_channels, H, W)."""

    def explain(self, x: Tensor, like: Tensor) -> dict[str, Tensor]:
        """Return ``flow``, ``offset``, ``kernel`` and ``gate`` of ``forward`` on these inputs, where it has them.

        A flow is in pixels of the output, (dx, dy), relative to the resize of the module's pixel model.
        """
        return {}

    def extra_repr(self) -> str:
        return f"align_corners={self.align_corners}"


def fuse(resampler: nn.Module, x: Tensor, like: Tensor) -> Tensor:
    """Return the sum of ``like`` and of ``x`` brought to its size, whichever of the two the resampler returns."""
    out = resampler(x, like)
    return out if getattr(resampler, "fuses", False) else like + out


def build_resampler(
    cfg: dict[str, Any], *, in_channels: int, guide_channels: int, align_corners: bool | None
) -> nn.Module:
    """Build a resampler from mmseg's ``MODELS``; what ``cfg`` leaves open is filled in by its owner.

    Args:
        cfg: ``dict(type=..., ...)``. An ``align_corners`` or ``coordinates`` in it wins over the owner's flag.
        in_channels: channels of the features it will resample.
        guide_channels: channels of the features it will bring them to.
        align_corners: the owner's pixel model.

    Raises:
        TypeError: ``cfg`` is no dict with a ``type``.
    """
    if not isinstance(cfg, dict) or "type" not in cfg:
        raise TypeError(f"build_resampler: expected a config such as dict(type='Interpolate'), got {cfg!r}.")
    filled: dict[str, Any] = {"in_channels": in_channels, "guide_channels": guide_channels}
    if cfg.get("coordinates") is None:
        filled["align_corners"] = align_corners
    return MODELS.build({**filled, **cfg})
