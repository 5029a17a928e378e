"""``Interpolate``: resampling by rule."""

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from ..ops import AxisMap, Coordinates, Mode, resize
from ._arguments import parse_coordinates
from .base import Resampler

_AXES = {"linear": 1, "trilinear": 3}


@MODELS.register_module()
class Interpolate(Resampler):
    """``ops.resize`` to the size of ``like``, in any mode and under any pixel model.

    Args:
        in_channels: not used; for the interface.
        guide_channels: not used; for the interface.
        align_corners: ignored by the modes that have no such choice, so that one config can set it for all of them.
        mode: as ``resize`` has it; ``"linear"`` is for sequences and ``"trilinear"`` for volumes.
        coordinates: a convention by its ONNX name, or ``dict(scale=..., offset=...)``, one for all
            spatial axes or one each (source = scale * destination + offset), instead of ``align_corners``.
        antialias: low-pass before shrinking.
        warning: warn when the sizes met speak against ``align_corners``.

    Raises:
        ValueError: an option that ``resize`` refuses, at construction.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        mode: Mode = "bilinear",
        coordinates: Coordinates | AxisMap | Sequence[AxisMap | dict[str, float]] | None = None,
        antialias: bool = False,
        warning: bool = True,
    ) -> None:
        super().__init__(in_channels, guide_channels, align_corners)
        self.mode = mode
        self.coordinates = parse_coordinates(coordinates)
        self.antialias = antialias
        self.warning = warning
        axes = len(self.coordinates) if isinstance(self.coordinates, tuple) else _AXES.get(mode, 2)
        probe = torch.zeros(1, 1, *[2] * axes)
        self(probe, probe)  # a bad combination fails here, not after the data have been loaded

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return resize(
            x,
            like.shape[2:],
            mode=self.mode,
            align_corners=self.align_corners,
            coordinates=self.coordinates,
            antialias=self.antialias,
            warning=self.warning,
        )

    def extra_repr(self) -> str:
        options: dict[str, Any] = {"mode": self.mode, "align_corners": self.align_corners}
        if self.coordinates is not None:
            options |= {"coordinates": self.coordinates}
        if self.antialias:
            options |= {"antialias": True}
        return ", ".join(f"{key}={value!r}" for key, value in options.items())
