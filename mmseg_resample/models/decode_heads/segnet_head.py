"""``SegNetHead``: the decoder of SegNet, with the resampler of choice."""

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...resamplers import build_resampler


@MODELS.register_module()
class SegNetHead(BaseDecodeHead):
    """The decoder of SegNet: one resampler and a stack of 3x3 convolutions per stage of the encoder, coarsest first.

    The features of the encoder guide the resamplers and are used for nothing else: with ``MaxUnpool``, the default, all
    that passes from the encoder beside its result is where its maxima were. The last stack has ``channels`` outputs,
    which a 1x1 convolution classifies.

    Args:
        in_channels: channels of the encoder's outputs, finest first, the pooled one last: those of the ``SegNet``
            backbone, whose last two are equal.
        channels: width of the last stack.
        resampler: config of the resamplers, one per stage.
        num_convs: convolutions of each stack, finest first.
        **kwargs: as ``BaseDecodeHead`` takes them.

    Raises:
        ValueError: ``in_channels`` and ``num_convs`` do not fit each other.

    Source: Badrinarayanan et al., "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation",
    TPAMI 2017, arXiv:1511.00561.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        resampler: dict[str, Any] | None = None,
        num_convs: Sequence[int] = (2, 2, 3, 3, 3),
        **kwargs: Any,
    ) -> None:
        if len(in_channels) != len(num_convs) + 1:
            raise ValueError(
                f"SegNetHead: expected in_channels of every stage and of the pooled feature, "
                f"got {list(in_channels)} for {len(num_convs)} stages of num_convs={list(num_convs)}."
            )
        super().__init__(list(in_channels), channels, input_transform="multiple_select", **kwargs)
        *stages, width = in_channels
        self.resamplers = nn.ModuleList()
        self.stacks = nn.ModuleList()
        for stage in reversed(range(len(stages))):
            self.resamplers.append(
                build_resampler(
                    resampler or dict(type="MaxUnpool"),
                    in_channels=width,
                    guide_channels=stages[stage],
                    align_corners=self.align_corners,
                )
            )
            out = stages[stage - 1] if stage else channels  # as wide as the next finer stage of the encoder
            inputs = [width] * num_convs[stage]
            outputs = [*inputs[1:], out]
            self.stacks.append(
                nn.Sequential(
                    *(
                        ConvModule(
                            n, m, 3, padding=1, conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg
                        )
                        for n, m in zip(inputs, outputs, strict=True)
                    )
                )
            )
            width = out

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Turn the encoder's outputs, finest first, into logits (N, out_channels, H, W) at the size of the finest."""
        *features, x = self._transform_inputs(inputs)
        for resampler, stack, feature in zip(self.resamplers, self.stacks, reversed(features), strict=True):
            x = stack(resampler(x, feature))
        return self.cls_seg(x)
