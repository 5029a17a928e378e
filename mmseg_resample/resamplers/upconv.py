"""The classic learned upsamplers, for any size: ``Deconv`` and ``PixelShuffle``."""

import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..ops import AxisMap, resize
from ..ops.grid import axis_maps
from ._arguments import need_channels, need_odd, need_whole
from .base import Resampler


class _UpConv(Resampler):
    """Base of modules that compute ``factor`` samples per sample of ``x`` and read them at the target's positions.

    Args:
        factor: samples made per sample of ``x`` and axis.
        first: where, counted in these samples, sample 0 of ``x`` is centred.
    """

    def __init__(
        self,
        in_channels: int | None,
        guide_channels: int | None,
        align_corners: bool | None,
        out_channels: int | None,
        factor: int,
        first: float,
    ) -> None:
        super().__init__(in_channels, guide_channels, bool(align_corners))
        self.out_channels = out_channels or in_channels
        self.factor = need_whole(type(self).__name__, "scale_factor", factor)
        self.first = first

    def _read(self, fine: Tensor, x: Tensor, like: Tensor) -> Tensor:
        convention = "align_corners" if self.align_corners else "half_pixel"
        size = tuple(like.shape[2:])
        maps = [
            AxisMap(self.factor * m.scale, self.factor * m.offset + self.first)
            for m in axis_maps(convention, tuple(x.shape[2:]), size)  # type: ignore[arg-type]
        ]
        if tuple(fine.shape[2:]) == size and all(
            abs(m.offset) < 1e-6 and (n == 1 or abs(m.scale - 1) * n < 1e-6) for m, n in zip(maps, size, strict=True)
        ):
            return fine  # each position has its sample: the published operator
        return resize(fine, size, mode="bilinear", coordinates=maps)


@MODELS.register_module()
class Deconv(_UpConv):
    """A transposed convolution, as mmcv's ``deconv`` upsample layer (``nn.ConvTranspose2d``) has it, to any size.

    The transposed convolution centres sample ``i`` of ``x`` on its output ``stride * i + (kernel_size - 1) / 2 -
    padding``. A target position reads source coordinate ``u`` under ``align_corners``, and so that output at ``stride *
    u + (kernel_size - 1) / 2 - padding``, bilinearly between samples. Nothing lies between them, and this is the plain
    transposed convolution, from ``n`` to ``stride * n`` samples under ``align_corners=False`` where ``kernel_size -
    stride == 2 * padding`` (as by default), and from ``n`` to ``stride * (n - 1) + 1`` under ``align_corners=True``
    where ``kernel_size - 1 == 2 * padding``.

    Args:
        in_channels: channels of ``x``.
        guide_channels: not used; for the interface.
        align_corners: pixel model; ``None`` is ``False``.
        out_channels: channels of the output; ``in_channels`` by default.
        kernel_size: of the transposed convolution.
        stride: of it; the ratio it is meant for.
        padding: of it.
        groups: of it.
        bias: whether it has one.

    Raises:
        ValueError: channels missing.

    Source: Long et al., "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015, arXiv:1411.4038.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        out_channels: int | None = None,
        kernel_size: int = 4,
        stride: int = 2,
        padding: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        channels = need_channels("Deconv", "in_channels", in_channels)
        first = (kernel_size - 1) / 2 - padding
        super().__init__(channels, guide_channels, align_corners, out_channels, stride, first)
        self.deconv = nn.ConvTranspose2d(
            channels, out_channels or channels, kernel_size, stride, padding, groups=groups, bias=bias
        )

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return self._read(self.deconv(x), x, like)


@MODELS.register_module()
class PixelShuffle(_UpConv):
    """Sub-pixel convolution, as mmcv's ``pixel_shuffle`` upsample layer has it, to any size.

    A convolution predicts ``scale_factor``^2 values per sample and channel, one for each cell that the sample is
    divided into. A target position reads source coordinate ``u`` under ``align_corners``, and so the cells at
    ``scale_factor * u + (scale_factor - 1) / 2``, bilinearly between their centres; from ``n`` to ``scale_factor * n``
    samples under ``align_corners=False`` that is the plain pixel shuffle.

    Parameters have the names and shapes of mmcv's layer, whose weights load.

    Args:
        in_channels: channels of ``x``.
        guide_channels: not used; for the interface.
        align_corners: pixel model; ``None`` is ``False``.
        out_channels: channels of the output; ``in_channels`` by default.
        scale_factor: cells per sample and axis, the ratio it is meant for.
        upsample_kernel: side of the convolution, odd.
        icnr: start with equal cells, that is nearest upsampling of a convolution, which shows no checkerboard.

    Raises:
        ValueError: channels missing, an even kernel.

    Source: Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional
    Neural Network", CVPR 2016, arXiv:1609.05158; ICNR: Aitken et al., arXiv:1707.02937.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        out_channels: int | None = None,
        scale_factor: int = 2,
        upsample_kernel: int = 3,
        icnr: bool = False,
    ) -> None:
        channels = need_channels("PixelShuffle", "in_channels", in_channels)
        super().__init__(channels, guide_channels, align_corners, out_channels, scale_factor, (scale_factor - 1) / 2)
        self.icnr = icnr
        self.upsample_conv = nn.Conv2d(
            channels,
            (out_channels or channels) * scale_factor**2,
            need_odd("PixelShuffle", "upsample_kernel", upsample_kernel),
            padding=upsample_kernel // 2,
        )
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise by Xavier as mmcv does, or ICNR, also after an owner's ``init_cfg`` went over its convolution."""
        weight, cells = self.upsample_conv.weight.data, self.factor**2
        kernels = weight[::cells] if self.icnr else weight
        weight.copy_(nn.init.xavier_uniform_(kernels.clone()).repeat_interleave(len(weight) // len(kernels), 0))
        nn.init.zeros_(self.upsample_conv.get_parameter("bias"))

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return self._read(F.pixel_shuffle(self.upsample_conv(x), self.factor), x, like)
