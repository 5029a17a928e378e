"""mmseg's heads for pyramids with a resampler of choice: UPerNet, Semantic FPN, SegFormer and DeepLabV3+.

Arguments and state dicts are those of mmseg's heads, plus the parameters of the resamplers. With ``Interpolate``, the
default, checkpoints of mmseg load and give the same logits. The last resize, from logits to labels, stays mmseg's.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmengine.model import ModuleList, Sequential
from mmseg.models.decode_heads import DepthwiseSeparableASPPHead, FPNHead, SegformerHead, UPerHead
from mmseg.models.utils import Upsample
from mmseg.registry import MODELS
from torch import Tensor

from ...ops import resize
from ...resamplers import build_resampler, fuse
from .sfnet_head import Config

_BILINEAR: Config = dict(type="Interpolate", mode="bilinear")


@MODELS.register_module()
class ResampleUPerHead(UPerHead):
    """mmseg's ``UPerHead`` whose resizes are resamplers.

    Args:
        *args: as ``UPerHead`` takes them.
        resampler: config of the top-down steps, each from one level to the next finer one.
        pool_resampler: config for bringing the bins of the pooling module to the coarsest level.
        fusion_resampler: config for bringing all levels to the finest.
        **kwargs: as ``UPerHead`` takes them.
    """

    def __init__(
        self,
        *args: Any,
        resampler: Config | None = None,
        pool_resampler: Config | None = None,
        fusion_resampler: Config | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)

        def build(cfg: Config | None, count: int, guide_channels: int) -> ModuleList:
            return ModuleList(
                build_resampler(
                    cfg or _BILINEAR,
                    in_channels=self.channels,
                    guide_channels=guide_channels,
                    align_corners=self.align_corners,
                )
                for _ in range(count)
            )

        steps = len(self.lateral_convs)
        self.resamplers = build(resampler, steps, self.channels)
        self.pool_resamplers = build(pool_resampler, len(self.psp_modules), self.in_channels[-1])
        self.fusion_resamplers = build(fusion_resampler, steps, self.channels)

    def psp_forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Fuse the coarsest level with its averages over bins: (N, in_channels[-1], h, w) to (N, channels, h, w)."""
        x = inputs[-1]
        pooled = [
            resampler(branch(x), x) for branch, resampler in zip(self.psp_modules, self.pool_resamplers, strict=True)
        ]
        return self.bottleneck(torch.cat([x, *pooled], dim=1))

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        inputs = self._transform_inputs(inputs)
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, inputs, strict=False)]
        levels = [self.psp_forward(inputs)]
        for lateral, resampler in reversed(list(zip(laterals, self.resamplers, strict=True))):
            levels.insert(0, fuse(resampler, levels[0], lateral))
        *finer, coarsest = levels
        outs = [conv(level) for conv, level in zip(self.fpn_convs, finer, strict=True)] + [coarsest]
        finest = outs[0]
        resampled = [resampler(x, finest) for resampler, x in zip(self.fusion_resamplers, outs[1:], strict=True)]
        return self.fpn_bottleneck(torch.cat([finest, *resampled], dim=1))


@MODELS.register_module()
class ResampleFPNHead(FPNHead):
    """mmseg's ``FPNHead`` whose doublings are resamplers; for those of its neck there is ``ResampleFPN``.

    Each doubling is guided by the input level of its stride. Where that level is not twice as large, because the image
    is no multiple of the coarsest stride, it is brought there bilinearly first, and the sum at the finest level takes
    mmseg's own resize: the sizes are those of ``FPNHead``.

    Args:
        feature_strides: stride of each input level, the finest first, each once or twice the one before.
        *args: as ``FPNHead`` takes them.
        resampler: config of the doublings.
        **kwargs: as ``FPNHead`` takes them.

    Raises:
        ValueError: a stride is left out between two levels, so that nothing could guide a doubling.
    """

    def __init__(
        self, feature_strides: Sequence[int], *args: Any, resampler: Config | None = None, **kwargs: Any
    ) -> None:
        super().__init__(feature_strides, *args, **kwargs)
        strides = list(feature_strides)
        if any(coarser not in (finer, 2 * finer) for finer, coarser in pairwise(strides)):
            raise ValueError(
                f"ResampleFPNHead: expected each of feature_strides to be once or twice the one before, got {strides}."
            )
        self.guides: list[list[int]] = []  # of each level: which level guides each of its doublings
        for i, scale_head in enumerate(self.scale_heads):
            stride, guides, layers = strides[i], [], []
            for layer in scale_head:
                if isinstance(layer, Upsample):
                    stride //= 2
                    guides.append(strides.index(stride))
                    layer = build_resampler(
                        resampler or _BILINEAR,
                        in_channels=self.channels,
                        guide_channels=self.in_channels[guides[-1]],
                        align_corners=self.align_corners,
                    )
                layers.append(layer)
            self.scale_heads[i] = Sequential(*layers)
            self.guides.append(guides)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Turn features of all levels, finest first, into logits (N, out_channels, h, w) at the finest level's size."""
        levels = self._transform_inputs(inputs)
        output = self._scale(0, levels)
        for i in range(1, len(levels)):
            output = output + self._resize(self._scale(i, levels), output.shape[2:])
        return self.cls_seg(output)

    def _scale(self, i: int, levels: Sequence[Tensor]) -> Tensor:
        x, guides = levels[i], iter(self.guides[i])
        for layer in self.scale_heads[i]:
            if isinstance(layer, ConvModule):
                x = layer(x)
            else:
                x = layer(x, self._resize(levels[next(guides)], torch.Size(2 * n for n in x.shape[2:])))
        return x

    def _resize(self, x: Tensor, size: torch.Size) -> Tensor:
        if x.shape[2:] == size:
            return x
        return resize(x, size, mode="bilinear", align_corners=self.align_corners, warning=False)


@MODELS.register_module()
class ResampleSegformerHead(SegformerHead):
    """mmseg's ``SegformerHead`` whose resizes are resamplers.

    Args:
        *args: as ``SegformerHead`` takes them.
        resampler: config of the resamplers; ``Interpolate`` in ``interpolate_mode`` by default.
        stepwise: bring a level to the finest one through all levels between, each step with a resampler of its own and
            guided by the level it arrives at: six in all for four levels, as learned upsamplers, which double, are
            compared on SegFormer in the literature. Otherwise in one step.
        **kwargs: as ``SegformerHead`` takes them.
    """

    def __init__(self, *args: Any, resampler: Config | None = None, stepwise: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Of each level but the finest: the levels on its way there.
        self.ways = [range(i - 1, -1, -1) if stepwise else range(1) for i in range(1, len(self.in_channels))]
        self.resamplers = ModuleList(
            ModuleList(
                build_resampler(
                    resampler or dict(type="Interpolate", mode=self.interpolate_mode),
                    in_channels=self.channels,
                    guide_channels=self.channels,
                    align_corners=self.align_corners,
                )
                for _ in way
            )
            for way in self.ways
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Turn features of all levels, finest first, into logits (N, out_channels, h, w) at the finest level's size."""
        levels = [conv(x) for conv, x in zip(self.convs, self._transform_inputs(inputs), strict=True)]
        outs = levels[:1]
        for x, way, resamplers in zip(levels[1:], self.ways, self.resamplers, strict=True):
            for target, resampler in zip(way, resamplers, strict=True):
                x = resampler(x, levels[target])
            outs.append(x)
        return self.cls_seg(self.fusion_conv(torch.cat(outs, dim=1)))


@MODELS.register_module()
class ResampleDeepLabV3PlusHead(DepthwiseSeparableASPPHead):
    """mmseg's ``DepthwiseSeparableASPPHead``, the head of DeepLabV3+, whose resize to the low-level feature is a
    resampler.

    Args:
        *args: as ``DepthwiseSeparableASPPHead`` takes them; ``c1_in_channels`` is not 0 here.
        resampler: config of the resampler.
        **kwargs: as ``DepthwiseSeparableASPPHead`` takes them.

    Raises:
        ValueError: ``c1_in_channels`` is 0; there is nothing to resample to.
    """

    def __init__(self, *args: Any, resampler: Config | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.c1_bottleneck is None:
            raise ValueError("ResampleDeepLabV3PlusHead: expected c1_in_channels > 0, got 0. Use mmseg's head.")
        self.resampler = build_resampler(
            resampler or _BILINEAR,
            in_channels=self.channels,
            guide_channels=self.c1_bottleneck.out_channels,
            align_corners=self.align_corners,
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Turn features of the backbone into logits (N, out_channels, h, w) at the size of the first."""
        low = self.c1_bottleneck(inputs[0])
        output = torch.cat([self.resampler(self._forward_feature(inputs), low), low], dim=1)
        return self.cls_seg(self.sep_bottleneck(output))
