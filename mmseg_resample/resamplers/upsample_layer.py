"""``ResampleLayer``: resamplers where mmcv builds upsample layers."""

from typing import Any

from mmcv.cnn import ConvModule
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .base import build_resampler


@MODELS.register_module()
class ResampleLayer(nn.Module):
    """A resampler as an upsample layer, ``forward(x)``, for mmcv's ``build_upsample_layer`` and mmseg's ``UNet``.

    ``upsample_cfg=dict(type='ResampleLayer', resampler=dict(type='DySample'))``. The target is ``scale_factor`` times
    the size of ``x``; there is no feature to be guided by, so only resamplers that read nothing but a size fit.
    Where ``out_channels`` are given, a 1x1 convolution with normalisation and activation follows, as in mmseg's
    ``InterpConv``.

    Args:
        in_channels: channels of ``x``.
        out_channels: channels behind the convolution; none by default.
        scale_factor: target over source size.
        resampler: config of the resampler; bilinear interpolation by default.
        align_corners: pixel model, unless ``resampler`` says otherwise.
        with_cp: recompute the activations in the backward pass.
        conv_cfg: config of the convolution.
        norm_cfg: config of its normalisation.
        act_cfg: config of its activation.

    Raises:
        ValueError: the resampler is guided.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        scale_factor: float = 2,
        resampler: dict[str, Any] | None = None,
        align_corners: bool = False,
        with_cp: bool = False,
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] | None = None,
        act_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        cfg = resampler or dict(type="Interpolate", mode="bilinear")
        self.resampler = build_resampler(
            cfg, in_channels=in_channels, guide_channels=in_channels, align_corners=align_corners
        )
        if getattr(self.resampler, "guided", False):
            raise ValueError(
                f"ResampleLayer: {cfg['type']} is guided by a second feature, which an upsample layer does not have. "
                f"Use it in ResampleFPN or SFNetHead, or one that needs only a size, such as DySample or CARAFE, here."
            )
        self.scale_factor = scale_factor
        self.with_cp = with_cp
        self.conv: nn.Module = nn.Identity()
        if out_channels is not None:
            width = getattr(self.resampler, "out_channels", in_channels)
            self.conv = ConvModule(
                width, out_channels, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg, inplace=False
            )

    def forward(self, x: Tensor) -> Tensor:
        """Resize (N, in_channels, h, w) to (N, C, floor(scale_factor h), floor(scale_factor w))."""
        if self.with_cp and x.requires_grad:
            return checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        size = [int(n * self.scale_factor) for n in x.shape[2:]]
        like = x.new_empty(()).expand(*x.shape[:2], *size)  # a size without a content or memory
        return self.conv(self.resampler(x, like))
