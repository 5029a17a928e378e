"""``SegNet``: the encoder of SegNet, whose poolings the decoder undoes."""

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...resamplers import max_pool


@MODELS.register_module()
class SegNet(BaseModule):
    """The encoder of SegNet: stages of 3x3 convolutions, each followed by a 2x2 max pooling.

    Its outputs are the feature of every stage before its pooling, finest first, and last what the final pooling left.
    The poolings are ``max_pool``, so the resampler ``MaxUnpool`` finds their switches in those features.

    Args:
        in_channels: channels of the image.
        channels: channels of the stages; those of VGG-16 by default.
        num_convs: convolutions of each stage.
        align_corners: pixel model of the poolings; the decoder's has to be the same.
        norm_cfg: config of the normalisation.
        act_cfg: config of the activation.
        init_cfg: as ``BaseModule`` takes it.
        ceil_mode: pool odd sizes by the windows of ``F.max_pool2d`` with ``ceil_mode=True``, as the original code does;
            the decoder's resampler is then ``dict(type='MaxUnpool', stride=2)``.

    Raises:
        ValueError: ``channels`` and ``num_convs`` differ in length.

    Source: Badrinarayanan et al., "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation",
    TPAMI 2017, arXiv:1511.00561.
    """

    def __init__(
        self,
        in_channels: int = 3,
        channels: Sequence[int] = (64, 128, 256, 512, 512),
        num_convs: Sequence[int] = (2, 2, 3, 3, 3),
        align_corners: bool = False,
        norm_cfg: dict[str, Any] | None = dict(type="BN"),  # noqa: B006  (mmcv's style; not modified)
        act_cfg: dict[str, Any] | None = dict(type="ReLU"),  # noqa: B006
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(init_cfg)
        if len(channels) != len(num_convs):
            raise ValueError(
                f"SegNet: expected one entry of num_convs per stage, got {len(num_convs)} for {len(channels)} stages."
            )
        self.align_corners = align_corners
        self.stride = 2 if ceil_mode else None
        self.stages = nn.ModuleList()
        for width, count in zip(channels, num_convs, strict=True):
            inputs = [in_channels] + [width] * (count - 1)
            self.stages.append(
                nn.Sequential(*(ConvModule(n, width, 3, padding=1, norm_cfg=norm_cfg, act_cfg=act_cfg) for n in inputs))
            )
            in_channels = width

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Turn an image (N, in_channels, H, W) into one feature per stage and the last pooled one; halves round up."""
        features = []
        for stage in self.stages:
            features.append(stage(x))
            size = (features[-1].shape[2] + 1) // 2, (features[-1].shape[3] + 1) // 2
            x, _ = max_pool(features[-1], size, self.align_corners, stride=self.stride)
        return (*features, x)
