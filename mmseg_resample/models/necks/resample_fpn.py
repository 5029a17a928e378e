"""``ResampleFPN``: mmseg's feature pyramid with a resampler of choice."""

from typing import Any

import torch.nn.functional as F
from mmengine.model import ModuleList
from mmseg.models.necks import FPN
from mmseg.registry import MODELS
from torch import Tensor

from ...resamplers import ImageGuided, build_resampler, fuse, guide_of


@MODELS.register_module()
class ResampleFPN(FPN):
    """mmseg's ``FPN`` whose top-down steps are resamplers. Its arguments and state dict are those of ``FPN``.

    ``resampler=dict(type='Interpolate', mode='nearest')`` is ``FPN`` as it stands.

    Resamplers that are guided by the image take it from ``WithImage``: it comes in front of the levels and is none of
    them, and every step reads it at the size of the level that it goes to.

    Args:
        in_channels: channels of the levels, without the image.
        resampler: config of the resampler; every top-down step gets its own.
        align_corners: pixel model of the resamplers, unless ``resampler`` says otherwise.

    Raises:
        ValueError: ``upsample_cfg`` is given; ``resampler`` takes its place.
    """

    def __init__(
        self,
        in_channels: list[int],
        out_channels: int,
        num_outs: int,
        *args: Any,
        resampler: dict[str, Any] | None = None,
        align_corners: bool = False,
        **kwargs: Any,
    ) -> None:
        if "upsample_cfg" in kwargs:
            raise ValueError(
                f"ResampleFPN: upsample_cfg={kwargs['upsample_cfg']} has no effect here. "
                f"Write resampler=dict(type='Interpolate', mode=...) instead."
            )
        super().__init__(in_channels, out_channels, num_outs, *args, **kwargs)
        self.align_corners = align_corners
        cfg = resampler or dict(type="Interpolate", mode="bilinear")
        self.by_image = _is_image_guided(cfg)
        self.resamplers = ModuleList(  # mmengine's: FPN's init_cfg must not have the last word on their weights
            build_resampler(
                cfg,
                in_channels=out_channels,
                guide_channels=3 if self.by_image else out_channels,
                align_corners=align_corners,
            )
            for _ in self.lateral_convs[1:]
        )

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Turn (N, in_channels[i], h_i, w_i) per level into ``num_outs`` maps of ``out_channels``, finest first."""
        image, inputs = (inputs[0], inputs[1:]) if self.by_image else (None, inputs)
        if len(inputs) != len(self.in_channels):
            behind = " behind the image, as backbone=dict(type='WithImage', ...) has them" if self.by_image else ""
            raise ValueError(f"ResampleFPN: expected {len(self.in_channels)} levels{behind}, got {len(inputs)}.")
        levels = inputs[self.start_level : self.backbone_end_level]
        laterals = [conv(level) for conv, level in zip(self.lateral_convs, levels, strict=True)]
        for i in reversed(range(len(laterals) - 1)):
            if image is None:
                laterals[i] = fuse(self.resamplers[i], laterals[i + 1], laterals[i])
            else:
                size = (laterals[i].shape[2], laterals[i].shape[3])
                guide = guide_of(self.resamplers[i], image, size)
                laterals[i] = laterals[i] + self.resamplers[i](laterals[i + 1], guide)
        outs = [conv(lateral) for conv, lateral in zip(self.fpn_convs, laterals, strict=False)]
        return (*outs, *self._extra_levels(inputs[self.backbone_end_level - 1], laterals[-1], outs[-1], len(outs)))

    def _extra_levels(self, last_input: Tensor, last_lateral: Tensor, last_out: Tensor, used: int) -> list[Tensor]:
        """Make the levels coarser than the backbone's, one stride-2 step each (as ``FPN`` makes them)."""
        extra: list[Tensor] = []
        if not self.add_extra_convs:
            for _ in range(self.num_outs - used):
                extra.append(F.max_pool2d(extra[-1] if extra else last_out, 1, stride=2))
            return extra
        source = {"on_input": last_input, "on_lateral": last_lateral, "on_output": last_out}[self.add_extra_convs]
        for conv in self.fpn_convs[used:]:
            if extra:
                source = F.relu(extra[-1]) if self.relu_before_extra_convs else extra[-1]
            extra.append(conv(source))
        return extra


def _is_image_guided(cfg: Any) -> bool:
    named = cfg.get("type") if isinstance(cfg, dict) else None
    made = MODELS.get(named) if isinstance(named, str) else named
    return isinstance(made, type) and issubclass(made, ImageGuided)
