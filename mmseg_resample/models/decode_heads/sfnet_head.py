"""``SFNetHead``: pyramid pooling, a top-down pathway and a fusion, each with its own resampler."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.utils import ConfigType, SampleList, add_prefix
from torch import Tensor, nn

from ...resamplers import build_resampler, fuse

Config = dict[str, Any]


class PyramidPooling(nn.Module):
    """The pooling module of SFNet: averages over bins, a 1x1 convolution and normalisation each, no activation.

    Args:
        in_channels: channels of the input.
        channels: channels of every pooled branch and of the output.
        pool_scales: bins per axis of each branch.
        resampler: config of what brings a branch back to the size of the input.
        align_corners: pixel model of the resamplers. Adaptive bins have half-pixel centres by construction.
        norm_cfg: config of the normalisation layers.
        act_cfg: config of the activation behind the last convolution.
        dropout_ratio: share of channels dropped at the end.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        pool_scales: Sequence[int],
        resampler: Config,
        align_corners: bool,
        norm_cfg: Config | None,
        act_cfg: Config | None,
        dropout_ratio: float,
    ) -> None:
        super().__init__()
        self.pool_scales = tuple(pool_scales)
        self.branches = nn.ModuleList(
            ConvModule(in_channels, channels, 1, bias=False, norm_cfg=norm_cfg, act_cfg=None) for _ in pool_scales
        )
        self.resamplers = nn.ModuleList(
            build_resampler(resampler, in_channels=channels, guide_channels=in_channels, align_corners=align_corners)
            for _ in pool_scales
        )
        self.bottleneck = ConvModule(
            in_channels + len(self.pool_scales) * channels, channels, 1, bias=False, norm_cfg=norm_cfg, act_cfg=act_cfg
        )
        self.dropout = nn.Dropout2d(dropout_ratio)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [
            resampler(branch(F.adaptive_avg_pool2d(x, bins)), x)
            for bins, branch, resampler in zip(self.pool_scales, self.branches, self.resamplers, strict=True)
        ]
        return self.dropout(self.bottleneck(torch.cat([x, *pooled], dim=1)))


class PooledHead(BaseDecodeHead):
    """Base of the decoders of SFNet and SFNet-Lite: their convolutions, and the pooling of the coarsest level."""

    def _conv(self, inputs: int, kernel: int, bias: bool = False) -> ConvModule:
        return ConvModule(
            inputs,
            self.channels,
            kernel,
            padding=kernel // 2,
            bias=bias,
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )

    def _pooling(self, in_channels: int, pool_scales: Sequence[int], resampler: Config | None) -> PyramidPooling:
        return PyramidPooling(
            in_channels,
            self.channels,
            pool_scales,
            # Bins are no strided features: the sizes say nothing about them, so nothing to warn of.
            resampler or dict(type="Interpolate", mode="bilinear", warning=False),
            self.align_corners,
            self.norm_cfg,
            self.act_cfg,
            self.dropout_ratio,
        )


@MODELS.register_module()
class SFNetHead(PooledHead):
    """The decoder of SFNet, with every resampling step from the config.

    With ``resampler=dict(type='FlowAlign')`` it is SFNet, with ``dict(type='Interpolate')`` the paper's FPN baseline.
    All resamplers, the loss and the prediction follow ``align_corners`` unless a resampler's config says otherwise.

    Args:
        in_channels: channels of the backbone's levels, finest first.
        channels: width of the decoder (128 for ResNet-18, 256 for ResNet-50).
        resampler: config of the top-down steps.
        pool_resampler: config for the branches of the pooling module.
        fusion_resampler: config for bringing all levels to the finest.
        pool_scales: bins per axis of the pooling branches.
        deep_supervision_weight: weight of a loss on each top-down level; 0 for none.
        **kwargs: as ``BaseDecodeHead`` takes them.

    Raises:
        ValueError: fewer than two levels, or a negative weight.

    Source: Li et al., "Semantic Flow for Fast and Accurate Scene Parsing", ECCV 2020, arXiv:2002.10120.
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
        deep_supervision_weight: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if len(in_channels) < 2 or deep_supervision_weight < 0:
            raise ValueError(
                f"SFNetHead: expected two or more levels and deep_supervision_weight >= 0, "
                f"got in_channels={list(in_channels)} and {deep_supervision_weight}."
            )
        super().__init__(list(in_channels), channels, input_transform="multiple_select", **kwargs)
        self.deep_supervision_weight = deep_supervision_weight
        interpolate: Config = dict(type="Interpolate", mode="bilinear")
        *finer_channels, coarsest_channels = in_channels

        def resamplers(cfg: Config | None, default: Config) -> nn.ModuleList:
            return nn.ModuleList(
                build_resampler(
                    cfg or default, in_channels=channels, guide_channels=channels, align_corners=self.align_corners
                )
                for _ in finer_channels
            )

        self.pool = self._pooling(coarsest_channels, pool_scales, pool_resampler)
        self.laterals = nn.ModuleList(self._conv(level, 1, bias=True) for level in finer_channels)
        self.top_down = resamplers(resampler, dict(type="FlowAlign"))
        self.outputs = nn.ModuleList(self._conv(channels, 3) for _ in finer_channels)
        self.fusion_resamplers = resamplers(fusion_resampler, interpolate)
        self.fusion = self._conv(len(in_channels) * channels, 3)
        self.dropout = None  # published without one before the classifier; the pooling module has it
        self.supervision = nn.ModuleList()
        if deep_supervision_weight > 0:
            self.supervision.extend(
                nn.Sequential(
                    self._conv(channels, 3, bias=True),
                    nn.Dropout2d(self.dropout_ratio),
                    nn.Conv2d(channels, self.out_channels, 1),
                )
                for _ in finer_channels
            )

    def _pyramid(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the levels after the top-down pathway, finest first; the last is the pooled one."""
        *finer, coarsest = self._transform_inputs(inputs)
        levels = [self.pool(coarsest)]
        for level, lateral, resampler in reversed(list(zip(finer, self.laterals, self.top_down, strict=True))):
            feature = lateral(level)
            levels.insert(0, fuse(resampler, levels[0], feature))
        return levels

    def _logits(self, levels: list[Tensor]) -> Tensor:
        *finer, pooled = levels
        outputs = [conv(level) for conv, level in zip(self.outputs, finer, strict=True)] + [pooled]
        finest = outputs[0]
        resampled = [resampler(x, finest) for resampler, x in zip(self.fusion_resamplers, outputs[1:], strict=True)]
        return self.cls_seg(self.fusion(torch.cat([finest, *resampled], dim=1)))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Turn features of all levels, finest first, into logits (N, out_channels, h, w) at the finest level's size."""
        return self._logits(self._pyramid(inputs))

    def loss(self, inputs: Sequence[Tensor], batch_data_samples: SampleList, train_cfg: ConfigType) -> dict:
        """Compute the losses of the logits and, with deep supervision, of every top-down level."""
        levels = self._pyramid(inputs)
        losses = self.loss_by_feat(self._logits(levels), batch_data_samples)
        for i, (classify, level) in enumerate(zip(self.supervision, levels, strict=False)):
            level_losses = self.loss_by_feat(classify(level), batch_data_samples)
            for name, value in add_prefix(level_losses, f"dsn{i}").items():
                losses[name] = value * self.deep_supervision_weight if "loss" in name else value
        return losses
