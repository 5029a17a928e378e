"""``LinearProbeHead``: one linear layer on upsampled features, which shows what upsampling alone is worth."""

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import ModuleList
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor

from ...resamplers import build_resampler, guide_of


@MODELS.register_module()
class LinearProbeHead(BaseDecodeHead):
    """A normalisation and a 1x1 convolution on features that resamplers bring to the image, or to a part of its size.

    It stands behind ``WithImage``. Any resampler can be used; those guided by the image read it, others its size.

    Args:
        in_channels: channels of the image and of every level that is read.
        resampler: config of the resamplers, one per level.
        guide_stride: pixels per side of an output. Above 1 the image is averaged over cells of that size, and logits
            are resized to labels as those of other heads are.
        norm_cfg: normalisation of the upsampled features, concatenated.
        **kwargs: as ``BaseDecodeHead`` takes them; ``in_index`` names the image, 0, and the levels behind it.

    Raises:
        ValueError: no level behind the image, or ``guide_stride`` below 1.

    Source: the probe of Fu et al., "FeatUp: A Model-Agnostic Framework for Features at Any Resolution", ICLR 2024,
        arXiv:2403.10516, and of those who compare with it.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        resampler: dict[str, Any] | None = None,
        guide_stride: int = 1,
        norm_cfg: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(in_channels, int) or len(in_channels) < 2:
            raise ValueError(
                f"LinearProbeHead: expected in_channels of the image and of one or more levels, got {in_channels!r}. "
                f"The image is level 0 behind backbone=dict(type='WithImage', backbone=...)."
            )
        if not isinstance(guide_stride, int) or guide_stride < 1:
            raise ValueError(f"LinearProbeHead: expected guide_stride to be a whole number >= 1, got {guide_stride!r}.")
        norm_cfg = norm_cfg or dict(type="BN")
        image, *levels = in_channels
        kwargs = {"in_index": list(range(len(in_channels))), "dropout_ratio": 0.0, **kwargs, "channels": sum(levels)}
        super().__init__(list(in_channels), input_transform="multiple_select", norm_cfg=norm_cfg, **kwargs)
        self.guide_stride = guide_stride
        self.norm = build_norm_layer(norm_cfg, self.channels)[1]
        self.resamplers = ModuleList(
            build_resampler(
                resampler or dict(type="Interpolate", mode="bilinear"),
                in_channels=channels,
                guide_channels=image,
                align_corners=self.align_corners,
            )
            for channels in levels
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Turn the image and levels behind it into logits (N, out_channels, H / guide_stride, W / guide_stride)."""
        image, *levels = self._transform_inputs(inputs)
        size = (-(-image.shape[2] // self.guide_stride), -(-image.shape[3] // self.guide_stride))
        upsampled = [
            resampler(level, guide_of(resampler, image, size))
            for resampler, level in zip(self.resamplers, levels, strict=True)
        ]
        return self.cls_seg(self.norm(torch.cat(upsampled, 1)))
