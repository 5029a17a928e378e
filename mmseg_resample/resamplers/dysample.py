"""``DySample``: resampling at learned positions."""

from typing import Literal

import torch
import torch.nn.functional as F
from mmengine.model import constant_init, normal_init
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..ops import AxisMap, flow_warp, resize
from ..ops.grid import axis_maps
from ._arguments import need_channels, need_whole
from .base import Resampler

Style = Literal["lp", "pl"]


@MODELS.register_module()
class DySample(Resampler):
    """Bilinear resize at positions displaced by offsets that are predicted from ``x``, per group of channels.

    A 1x1 convolution predicts ``scale_factor``^2 offsets per source sample, in source pixels, one for the centre of
    each cell that the sample is divided into. A target position reads source coordinate ``u`` under ``align_corners``;
    its offset is read bilinearly from that field at ``u``, and ``x`` is sampled at ``u`` plus the offset, edges
    repeated. Zero offsets are bilinear ``resize`` for either flag and any size.

    From ``n`` to ``scale_factor * n`` samples under ``align_corners=False`` this is the published operator, whose
    weights load with ``strict=False`` (it keeps the initial grid as a buffer ``init_pos``).

    Args:
        in_channels: channels of ``x``; a multiple of ``groups``, and of ``scale_factor``^2 for ``style="pl"``.
        guide_channels: not used; for the interface.
        align_corners: pixel model; ``None`` is ``False``, which is the published one.
        scale_factor: cells per source sample and axis, the (rounded up) ratio it is meant for. Any other target size is
            served by the same field.
        style: ``"lp"``: predict, then shuffle pixels. ``"pl"``: shuffle pixels, then predict (DySample-S).
        groups: runs of channels with offsets of their own; 4 for ``"lp"`` and 8 for ``"pl"``, as published, by default.
        dyscope: scale the offsets by a predicted factor in [0, 0.5] (DySample+) in place of a fixed 0.25.

    Raises:
        ValueError: unknown style, channels missing or not divisible.

    Source: Liu et al., "Learning to Upsample by Learning to Sample", ICCV 2023, arXiv:2308.15085.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        scale_factor: int = 2,
        style: Style = "lp",
        groups: int | None = None,
        dyscope: bool = False,
    ) -> None:
        super().__init__(in_channels, guide_channels, bool(align_corners))
        if style not in ("lp", "pl"):
            raise ValueError(f"DySample: expected style 'lp' or 'pl', got {style!r}.")
        self.scale_factor = need_whole("DySample", "scale_factor", scale_factor)
        self.style = style
        self.groups = need_whole("DySample", "groups", {"lp": 4, "pl": 8}[style] if groups is None else groups)
        channels = need_channels("DySample", "in_channels", in_channels, multiple_of=self.groups)
        cells = self.scale_factor**2
        outputs = 2 * self.groups
        if style == "pl":
            channels = need_channels("DySample", "in_channels", channels, multiple_of=cells) // cells
        else:
            outputs *= cells
        self.offset = nn.Conv2d(channels, outputs, 1)
        self.scope = nn.Conv2d(channels, outputs, 1, bias=False) if dyscope else None
        self.init_weights()

    def init_weights(self) -> None:
        """Start with nearly bilinear sampling."""
        normal_init(self.offset, std=0.001)
        if self.scope is not None:
            constant_init(self.scope, 0)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        flow = self._flow(x, self._offset(x, like))
        batch, channels, height, width = x.shape
        grouped = x.reshape(batch * self.groups, channels // self.groups, height, width)
        out = flow_warp(grouped, flow.flatten(0, 1), align_corners=bool(self.align_corners))
        return out.reshape(batch, channels, *out.shape[2:])

    def explain(self, x: Tensor, like: Tensor) -> dict[str, Tensor]:
        """Return ``offset`` (N, groups, 2, H, W) in source pixels and ``flow`` (N, 2, H, W), its mean in output pixels.

        Both are (dx, dy).
        """
        offset = self._offset(x, like)
        return {"offset": offset, "flow": self._flow(x, offset).mean(1)}

    def _offset(self, x: Tensor, like: Tensor) -> Tensor:
        """Predict the offsets (N, groups, 2, H, W), (dx, dy) in source pixels."""
        features = F.pixel_shuffle(x, self.scale_factor) if self.style == "pl" else x
        raw = self.offset(features)
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        raw = raw * 0.25 if self.scope is None else raw * self.scope(features).sigmoid() * 0.5
        field = raw if self.style == "pl" else F.pixel_shuffle(raw, self.scale_factor)
        size = tuple(like.shape[2:])
        if self.align_corners or size != tuple(field.shape[2:]):
            s = self.scale_factor
            maps = axis_maps("align_corners" if self.align_corners else "half_pixel", x.shape[2:], size)
            cells = [AxisMap(s * m.scale, s * m.offset + (s - 1) / 2) for m in maps]
            field = resize(field, size, mode="bilinear", coordinates=cells)
        return field.unflatten(1, (2, self.groups)).transpose(1, 2)

    def _flow(self, x: Tensor, offset: Tensor) -> Tensor:
        """Return ``offset`` in output pixels, as ``flow_warp`` takes it."""
        per_axis = []
        for axis, component in ((3, 0), (2, 1)):
            source, target = x.shape[axis], offset.shape[axis + 1]
            if self.align_corners:  # a single source sample is read wherever the position lies
                ratio = max(target - 1, 1) / (source - 1) if source > 1 else 0.0
            else:
                ratio = target / source
            per_axis.append(offset[:, :, component] * ratio)
        return torch.stack(per_axis, dim=2)

    def extra_repr(self) -> str:
        return (
            f"align_corners={self.align_corners}, scale_factor={self.scale_factor}, style={self.style!r}, "
            f"groups={self.groups}, dyscope={self.scope is not None}"
        )
