"""``FlowAlign``: resampling by a learned flow."""

from typing import Literal

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..ops import FlowUnit, PaddingMode, flow_warp, resize
from .base import Resampler

Convention = Literal["exact", "sfsegnets"]


@MODELS.register_module()
class FlowAlign(Resampler):
    """The flow alignment module (FAM) of SFNet: warp ``x`` onto ``like`` by a flow predicted from both.

    Both features are reduced by a 1x1 convolution, ``x`` is brought to the size of ``like``, and one 3x3 convolution
    predicts the flow, two channels (dx, dy). The unreduced ``x`` is then sampled at the resize grid plus the flow.

    Args:
        in_channels: channels of ``x``.
        guide_channels: channels of ``like``.
        channels: width of the two reductions; half of ``in_channels`` as published.
        align_corners: pixel model of the inner resize and of the warp.
        convention: ``"exact"``: flow in output pixels, edges repeated, zero flow is bilinear ``resize`` for either
            flag. ``"sfsegnets"``: as the released code since 2022-07 samples, that is ``align_corners=True``, flow in
            units of 1/size on the [-1, 1] grid, zeros outside.

    Raises:
        ValueError: unknown convention; ``align_corners`` not given, or not the one of the convention; channels
            missing.

    Source: Li et al., "Semantic Flow for Fast and Accurate Scene Parsing", ECCV 2020, arXiv:2002.10120.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        channels: int | None = None,
        align_corners: bool | None = None,
        convention: Convention = "exact",
    ) -> None:
        super().__init__(in_channels, guide_channels, align_corners)
        if in_channels is None or guide_channels is None:
            raise ValueError(
                f"FlowAlign: expected in_channels and guide_channels, got {in_channels} and {guide_channels}. "
                f"A neck or head fills them in; alone, pass the channels of x and of like."
            )
        if convention not in ("exact", "sfsegnets"):
            raise ValueError(f"FlowAlign: expected convention 'exact' or 'sfsegnets', got {convention!r}.")
        if align_corners is None or (convention == "sfsegnets" and not align_corners):
            rule = "True or False" if convention == "exact" else "True, which convention='sfsegnets' was published with"
            raise ValueError(f"FlowAlign: expected align_corners={rule}, got {align_corners}.")
        self.convention = convention
        self.unit: FlowUnit = "pixel" if convention == "exact" else "sfnet"
        self.padding_mode: PaddingMode = "border" if convention == "exact" else "zeros"
        channels = channels or max(1, in_channels // 2)
        self.reduce_x = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.reduce_like = nn.Conv2d(guide_channels, channels, 1, bias=False)
        self.flow = nn.Conv2d(2 * channels, 2, 3, padding=1, bias=False)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        reduced = resize(
            self.reduce_x(x), like.shape[2:], mode="bilinear", align_corners=self.align_corners, warning=False
        )
        flow = self.flow(torch.cat([reduced, self.reduce_like(like)], dim=1))
        return flow_warp(
            x,
            flow,
            align_corners=bool(self.align_corners),
            unit=self.unit,
            padding_mode=self.padding_mode,
        )

    def extra_repr(self) -> str:
        return f"align_corners={self.align_corners}, convention={self.convention!r}"
