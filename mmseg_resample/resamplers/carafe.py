"""``CARAFE``: resampling by kernels predicted from the feature itself."""

import torch
import torch.nn.functional as F
from mmengine.model import normal_init, xavier_init
from mmseg.registry import MODELS
from torch import Tensor, nn

from ._arguments import need_channels, need_odd, need_whole
from .base import Resampler
from .reassemble import centres, read, reassemble


@MODELS.register_module()
class CARAFE(Resampler):
    """Content-aware reassembly: every target position sums a window of ``x`` with weights predicted from ``x``.

    A 1x1 convolution compresses ``x``, a second one predicts ``scale_factor``^2 kernels per source sample, one for each
    of the cells that the sample is divided into, and a softmax normalises each. A target position reads source
    coordinate ``u`` under ``align_corners``; its window is centred on the nearest source sample and its kernel is the
    one of the cell that ``u`` lies in. From ``n`` to ``scale_factor * n`` samples under ``align_corners=False`` that is
    the published operator, which mmcv's compiled one computes. Taps outside ``x`` are skipped and the softmax is not
    renormalised, as there, so a constant map fades within ``up_kernel // 2`` samples of the border.

    Parameters have the names and shapes of mmcv's ``carafe`` upsample layer, whose weights load.

    Args:
        in_channels: channels of ``x``.
        guide_channels: not used; for the interface.
        align_corners: pixel model; ``None`` is ``False``, which is the published one.
        scale_factor: cells per source sample and axis, the (rounded up) ratio it is meant for. Any other target size is
            served by the same cells.
        up_kernel: side of the window, odd.
        up_group: runs of channels with kernels of their own.
        encoder_kernel: side of the convolution that predicts the kernels, odd.
        encoder_dilation: dilation of it.
        compressed_channels: width of the compression.

    Raises:
        ValueError: channels missing or not divisible by ``up_group``, a window that is not odd.

    Source: Wang et al., "CARAFE: Content-Aware ReAssembly of FEatures", ICCV 2019, arXiv:1905.02188.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        scale_factor: int = 2,
        up_kernel: int = 5,
        up_group: int = 1,
        encoder_kernel: int = 3,
        encoder_dilation: int = 1,
        compressed_channels: int = 64,
    ) -> None:
        super().__init__(in_channels, guide_channels, bool(align_corners))
        channels = need_channels("CARAFE", "in_channels", in_channels, multiple_of=up_group)
        self.scale_factor = need_whole("CARAFE", "scale_factor", scale_factor)
        self.up_kernel = need_odd("CARAFE", "up_kernel", up_kernel)
        self.up_group = up_group
        need_whole("CARAFE", "compressed_channels", compressed_channels)
        self.channel_compressor = nn.Conv2d(channels, compressed_channels, 1)
        self.content_encoder = nn.Conv2d(
            compressed_channels,
            up_group * up_kernel**2 * scale_factor**2,
            need_odd("CARAFE", "encoder_kernel", encoder_kernel),
            padding=encoder_kernel // 2 * encoder_dilation,
            dilation=encoder_dilation,
        )
        self.init_weights()

    def init_weights(self) -> None:
        """Start with nearly uniform kernels."""
        xavier_init(self.channel_compressor, distribution="uniform")
        normal_init(self.content_encoder, std=0.001)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        size = (like.shape[2], like.shape[3])
        return reassemble(x, self._kernel(x, size), centres(x, size, bool(self.align_corners)))

    def explain(self, x: Tensor, like: Tensor) -> dict[str, Tensor]:
        """Return ``kernel``: (N, up_group, up_kernel^2, H, W), row by row of the window."""
        return {"kernel": self._kernel(x, (like.shape[2], like.shape[3]))}

    def _kernel(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        logits = F.pixel_shuffle(self.content_encoder(self.channel_compressor(x)), self.scale_factor)
        if self.align_corners or size != tuple(logits.shape[2:]):
            logits = read(logits, centres(x, size, bool(self.align_corners), self.scale_factor))
        logits = logits.unflatten(1, (self.up_group, self.up_kernel**2))
        return logits.softmax(2, dtype=torch.promote_types(logits.dtype, torch.float32))

    def extra_repr(self) -> str:
        return f"align_corners={self.align_corners}, scale_factor={self.scale_factor}, up_kernel={self.up_kernel}"
