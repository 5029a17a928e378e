"""``SFNetLiteHead``: pyramid pooling, one gated alignment of the coarsest level with the finest, one fusion."""

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...resamplers import build_resampler, fuse
from .sfnet_head import Config, PooledHead


@MODELS.register_module()
class SFNetLiteHead(PooledHead):
    """The decoder of SFNet-Lite: the pooled coarsest level meets the finest one in a single, gated alignment.

    The result and one level in between, resized, are concatenated, convolved and classified. As released, there is no
    deep supervision: the published code builds such classifiers and never calls them.

    Args:
        in_channels: channels of the finest level, the one in between, and the coarsest (strides 4, 16 and 32).
        channels: width of the decoder, 128 as published.
        resampler: config of the alignment; ``GatedFlowAlign`` as published.
        pool_resampler: config for the branches of the pooling module.
        fusion_resampler: config for bringing the level in between to the finest.
        pool_scales: bins per axis of the pooling branches.
        **kwargs: as ``BaseDecodeHead`` takes them; ``in_index`` selects the three levels.

    Raises:
        ValueError: not three levels.

    Source: Li et al., "SFNet: Faster and Accurate Semantic Segmentation via Semantic Flow", IJCV 2023,
    arXiv:2207.04415.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        resampler: Config | None = None,
        pool_resampler: Config | None = None,
        fusion_resampler: Config | None = None,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        **kwargs: Any,
    ) -> None:
        if len(in_channels) != 3:
            raise ValueError(
                f"SFNetLiteHead: expected in_channels of three levels, the finest, one in between and the coarsest, "
                f"got {list(in_channels)}."
            )
        super().__init__(list(in_channels), channels, input_transform="multiple_select", **kwargs)
        interpolate: Config = dict(type="Interpolate", mode="bilinear")

        def build(cfg: Config) -> nn.Module:
            return build_resampler(cfg, in_channels=channels, guide_channels=channels, align_corners=self.align_corners)

        self.pool = self._pooling(in_channels[-1], pool_scales, pool_resampler)
        self.laterals = nn.ModuleList(self._conv(level, 1, bias=True) for level in in_channels[:-1])
        self.align = build(resampler or dict(type="GatedFlowAlign"))
        self.fusion_resampler = build(fusion_resampler or interpolate)
        self.fusion = self._conv(2 * channels, 3)
        self.dropout = None  # published without one before the classifier; the pooling module has it

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Turn features of the three levels into logits (N, out_channels, h, w) at the finest level's size."""
        finest, middle, coarsest = self._transform_inputs(inputs)
        finest, middle = (lateral(level) for lateral, level in zip(self.laterals, (finest, middle), strict=True))
        aligned = fuse(self.align, self.pool(coarsest), finest)
        return self.cls_seg(self.fusion(torch.cat([aligned, self.fusion_resampler(middle, finest)], dim=1)))
