"""``FADE`` and ``FADELite``: resampling by kernels predicted from both features."""

import torch
import torch.nn.functional as F
from mmengine.model import xavier_init
from mmseg.registry import MODELS
from torch import Tensor, nn

from ._arguments import need_channels, need_odd
from .base import Resampler
from .reassemble import Centres, centres, read, reassemble


@MODELS.register_module()
class FADE(Resampler):
    """CARAFE's reassembly with kernels predicted from ``x`` and ``like`` together, and a gate that passes ``like``.

    Both features are compressed by a 1x1 convolution each. The semi-shift convolution then moves its window by one
    sample of ``like`` from target position to target position, but over ``x`` only from source sample to source sample:
    the same 3x3 weights run over ``like`` at its resolution and over ``x`` at its own, and a target position adds what
    its nearest source sample (under ``align_corners``) has. A softmax makes the kernel, with which the window around
    that source sample is summed; taps outside ``x`` are skipped, as in CARAFE. The gate ``g`` is a sigmoid of a 1x1
    convolution of ``x`` at the nearest source sample, and the result is ``g * like + (1 - g) * reassembled``.

    With the gate the result contains ``like``: ``fuses`` is then true and a neck does not add it again. At a whole
    ratio under ``align_corners=False`` nearest samples are those of nearest-neighbour upsampling, as published.

    Args:
        in_channels: channels of ``x``.
        guide_channels: channels of ``like``; those of ``x`` where there is a gate.
        align_corners: pixel model; ``None`` is ``False``, which is the published one.
        compressed_channels: width of the compression.
        up_kernel: side of the window, odd.
        encoder_kernel: side of the semi-shift convolution, odd.
        gate: whether ``like`` passes to the result.

    Raises:
        ValueError: channels missing, a window that is not odd, a gate between features of unequal channels.

    Source: Lu et al., "FADE: Fusing the Assets of Decoder and Encoder for Task-Agnostic Upsampling", ECCV 2022,
        arXiv:2207.10392.
    """

    guided = True

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        compressed_channels: int = 64,
        up_kernel: int = 5,
        encoder_kernel: int = 3,
        gate: bool = True,
    ) -> None:
        super().__init__(in_channels, guide_channels, bool(align_corners))
        name = type(self).__name__
        channels = need_channels(name, "in_channels", in_channels)
        guides = need_channels(name, "guide_channels", guide_channels)
        if gate and channels != guides:
            raise ValueError(
                f"{name}: expected in_channels and guide_channels to be equal for the gate, which mixes x and like, "
                f"got {channels} and {guides}. Use gate=False, or bring both to one width before."
            )
        self.up_kernel = need_odd(name, "up_kernel", up_kernel)
        self.fuses = gate
        self.compress_x = nn.Conv2d(channels, compressed_channels, 1)
        self.compress_like = nn.Conv2d(guides, compressed_channels, 1)
        self.semi_shift = self._semi_shift(compressed_channels, need_odd(name, "encoder_kernel", encoder_kernel))
        self.gate = nn.Conv2d(channels, 1, 1) if gate else None
        self.init_weights()

    def _semi_shift(self, channels: int, side: int) -> nn.Conv2d:
        return nn.Conv2d(channels, self.up_kernel**2, side, padding=side // 2)

    def init_weights(self) -> None:
        """Start as the released module does: no weight is held near zero."""
        for conv in (self.compress_x, self.compress_like, self.gate):
            if conv is not None:
                xavier_init(conv, distribution="uniform")
        xavier_init(self.semi_shift, distribution="normal")

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        at = centres(x, (like.shape[2], like.shape[3]), bool(self.align_corners))
        out = reassemble(x, self._kernel(x, like, at), at)
        if self.gate is None:
            return out
        gate = self._gate(x, at).to(out.dtype)
        return gate * like + (1 - gate) * out

    def explain(self, x: Tensor, like: Tensor) -> dict[str, Tensor]:
        """Return ``kernel`` (N, 1, up_kernel^2, H, W), row by row, and ``gate`` (N, 1, H, W), the share of ``like``."""
        at = centres(x, (like.shape[2], like.shape[3]), bool(self.align_corners))
        gate = {} if self.gate is None else {"gate": self._gate(x, at)}
        return {"kernel": self._kernel(x, like, at), **gate}

    def _kernel(self, x: Tensor, like: Tensor, at: Centres) -> Tensor:
        conv = self.semi_shift
        of_x = F.conv2d(self.compress_x(x), conv.weight, padding=conv.padding, groups=conv.groups)
        logits = (conv(self.compress_like(like)) + read(of_x, at)).unsqueeze(1)
        return logits.softmax(2, dtype=torch.promote_types(logits.dtype, torch.float32))

    def _gate(self, x: Tensor, at: Centres) -> Tensor:
        assert self.gate is not None
        return read(self.gate(x).sigmoid(), at)

    def extra_repr(self) -> str:
        return f"align_corners={self.align_corners}, up_kernel={self.up_kernel}"


@MODELS.register_module()
class FADELite(FADE):
    """``FADE`` whose features are compressed to one channel per tap, and whose semi-shift convolution is depthwise.

    Args:
        in_channels: channels of ``x``.
        guide_channels: channels of ``like``; those of ``x`` where there is a gate.
        align_corners: pixel model; ``None`` is ``False``, which is the published one.
        up_kernel: side of the window, odd.
        encoder_kernel: side of the semi-shift convolution, odd.
        gate: whether ``like`` passes to the result.

    Raises:
        ValueError: as ``FADE``.

    Source: Lu et al., "FADE: A Task-Agnostic Upsampling Operator for Encoder-Decoder Architectures", IJCV 2024,
        arXiv:2407.13500. The layers are those that its published parameters and operations imply, see
        docs/resamplers.md.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        up_kernel: int = 5,
        encoder_kernel: int = 3,
        gate: bool = True,
    ) -> None:
        super().__init__(in_channels, guide_channels, align_corners, up_kernel**2, up_kernel, encoder_kernel, gate)

    def _semi_shift(self, channels: int, side: int) -> nn.Conv2d:
        return nn.Conv2d(channels, channels, side, padding=side // 2, groups=channels)
