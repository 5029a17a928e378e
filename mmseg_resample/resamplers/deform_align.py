"""``DeformAlign``: resampling by a deformable convolution."""

from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..ops import deform_conv2d, resize
from ._arguments import need_channels, need_odd, need_whole
from .base import Resampler


@MODELS.register_module()
class DeformAlign(Resampler):
    """The alignment of FaPN: select channels of ``like``, align ``x`` with it by a deformable convolution, add both.

    Feature selection weighs the channels of ``like`` by a sigmoid of their means (``like * (1 + gate)``) and projects
    them to ``in_channels``. From the selected feature and twice the bilinearly resized ``x``, convolutions predict the
    offsets and masks of a modulated deformable convolution of the resized ``x``; its output after a ReLU is added to
    the selected feature. So the output contains ``like``, and a neck or head does not add it again.

    Offsets are in pixels of the output and start at zero; masks start at 1/2.

    Args:
        in_channels: channels of ``x`` and of the output.
        guide_channels: channels of ``like``.
        align_corners: pixel model of the resize of ``x``; published with ``False``.
        kernel_size: of the deformable convolution; odd.
        deform_groups: groups of channels of ``x`` with offsets of their own.
        norm_cfg: config of a normalisation behind the first convolution of the offset branch; none by default.

    Raises:
        ValueError: channels or ``align_corners`` missing; ``deform_groups`` does not divide ``in_channels``; an even
            kernel.

    Source: Huang et al., "FaPN: Feature-aligned Pyramid Network for Dense Image Prediction", ICCV 2021,
    arXiv:2108.07058.
    """

    guided = True
    fuses = True

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        kernel_size: int = 3,
        deform_groups: int = 8,
        norm_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(in_channels, guide_channels, align_corners)
        need_whole("DeformAlign", "deform_groups", deform_groups)
        in_channels = need_channels("DeformAlign", "in_channels", in_channels, multiple_of=deform_groups)
        guide_channels = need_channels("DeformAlign", "guide_channels", guide_channels)
        need_odd("DeformAlign", "kernel_size", kernel_size)
        if align_corners is None:
            raise ValueError("DeformAlign: expected align_corners=True or False, got None. Published with False.")
        taps = deform_groups * kernel_size**2
        self.attention = nn.Conv2d(guide_channels, guide_channels, 1, bias=False)
        self.select = nn.Conv2d(guide_channels, in_channels, 1, bias=False)
        self.reduce = ConvModule(2 * in_channels, in_channels, 1, bias=False, norm_cfg=norm_cfg, act_cfg=None)
        self.offset_mask = nn.Conv2d(in_channels, 3 * taps, kernel_size, padding=kernel_size // 2)
        self.conv = nn.Conv2d(in_channels, in_channels, kernel_size, padding=kernel_size // 2)
        self.deform_groups = deform_groups
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise as published, also after an owner's ``init_cfg`` went over its convolutions."""
        for conv in (self.attention, self.select, self.reduce.conv):
            nn.init.kaiming_uniform_(conv.weight, a=1)
        self.conv.reset_parameters()
        for parameter in (self.conv.get_parameter("bias"), *self.offset_mask.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        resized = resize(x, like.shape[2:], mode="bilinear", align_corners=self.align_corners, warning=False)
        selected, _ = self._select(like)
        offset, mask = self._predict(resized, selected)
        aligned = deform_conv2d(resized, offset, self.conv.weight, self.conv.bias, mask=mask)
        return selected + aligned.relu()

    def explain(self, x: Tensor, like: Tensor) -> dict[str, Tensor]:
        """Return ``offset`` (N, taps of all groups, 2, H, W), (dx, dy), ``mask`` per tap, ``gate`` per channel."""
        resized = resize(x, like.shape[2:], mode="bilinear", align_corners=self.align_corners, warning=False)
        selected, gate = self._select(like)
        offset, mask = self._predict(resized, selected)
        return {"offset": offset.unflatten(1, (-1, 2)).flip(2), "mask": mask, "gate": gate}

    def _select(self, like: Tensor) -> tuple[Tensor, Tensor]:
        gate = self.attention(like.mean((2, 3), keepdim=True)).sigmoid()
        return self.select(like * (1 + gate)), gate

    def _predict(self, resized: Tensor, selected: Tensor) -> tuple[Tensor, Tensor]:
        predicted = self.offset_mask(self.reduce(torch.cat([selected, 2 * resized], dim=1)))
        taps = predicted.shape[1] // 3
        offset, mask = predicted.split([2 * taps, taps], dim=1)
        return offset, mask.sigmoid()

    def extra_repr(self) -> str:
        return f"align_corners={self.align_corners}, deform_groups={self.deform_groups}"
