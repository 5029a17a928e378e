"""``FreqFusion``: resampling by low-pass kernels, an offset and high-pass kernels, all predicted from both features."""

import torch
import torch.nn.functional as F
from mmengine.model import normal_init, xavier_init
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..ops import flow_warp, resize
from ._arguments import need_channels, need_odd, need_whole
from .base import Resampler
from .reassemble import centres, reassemble


@MODELS.register_module()
class FreqFusion(Resampler):
    """Frequency-aware fusion: smooth and displace ``x`` while it is upsampled, sharpen ``like``, and add the two.

    From a fused feature ``z`` at the size of ``like``, 3x3 convolutions predict for every position

    - low-pass weights, a softmax over a ``lowpass_kernel``^2 window, by which ``x`` is reassembled (as in ``CARAFE``,
      the window centred on the source sample nearest to the position under ``align_corners``);
    - high-pass weights, the identity minus a softmax over a ``highpass_kernel``^2 window, whose response is added to
      ``like``;
    - for each of ``groups`` runs of channels an offset in pixels of the output, by which the reassembled ``x`` is
      sampled again: a direction times a sigmoid magnitude, both read from ``z`` and its cosine similarity with the
      eight neighbours.

    The fused feature comes from the two features compressed by 1x1 convolutions: their sum, ``x`` resized bilinearly,
    predicts a first set of kernels; filtered by these as above, their sum is ``z``, from which the same convolutions
    predict the kernels that are used. This first pass is our reading of the paper. The module was not made from the
    released code, and its weights do not load here.

    The output contains ``like``, so a neck or head does not add it again. Taps outside a feature are skipped as in
    ``CARAFE``, so that the outermost ``lowpass_kernel // 2`` samples of ``x`` fade.

    Args:
        in_channels: channels of ``x``.
        guide_channels: channels of ``like``, as many.
        align_corners: pixel model; ``None`` is ``False``. Published for a ratio of exactly 2 without aligned corners.
        lowpass_kernel: side of the low-pass window, odd.
        highpass_kernel: side of the high-pass window, odd.
        groups: runs of channels with offsets of their own.
        compressed_channels: width of the compression.

    Raises:
        ValueError: channels missing, different or not divisible by ``groups``; a window that is not odd.

    Source: Chen et al., "Frequency-aware Feature Fusion for Dense Image Prediction", TPAMI 2024, arXiv:2408.12879.
    """

    guided = True
    fuses = True

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        lowpass_kernel: int = 5,
        highpass_kernel: int = 3,
        groups: int = 4,
        compressed_channels: int = 64,
    ) -> None:
        super().__init__(in_channels, guide_channels, bool(align_corners))
        self.groups = need_whole("FreqFusion", "groups", groups)
        channels = need_channels("FreqFusion", "in_channels", in_channels, multiple_of=groups)
        if channels != need_channels("FreqFusion", "guide_channels", guide_channels):
            raise ValueError(
                f"FreqFusion: expected in_channels == guide_channels, because it adds x and like, "
                f"got {in_channels} and {guide_channels}."
            )
        need_odd("FreqFusion", "lowpass_kernel", lowpass_kernel)
        need_odd("FreqFusion", "highpass_kernel", highpass_kernel)
        self.compress_x = nn.Conv2d(channels, compressed_channels, 1)
        self.compress_like = nn.Conv2d(channels, compressed_channels, 1)
        self.low_pass = nn.Conv2d(compressed_channels, lowpass_kernel**2, 3, padding=1)
        self.high_pass = nn.Conv2d(compressed_channels, highpass_kernel**2, 3, padding=1)
        self.direction = nn.Conv2d(compressed_channels + len(_NEIGHBOURS), 2 * groups, 3, padding=1)
        self.magnitude = nn.Conv2d(compressed_channels + len(_NEIGHBOURS), 2 * groups, 3, padding=1)
        self.init_weights()

    def init_weights(self) -> None:
        """Start with nearly uniform kernels and offsets near zero."""
        for conv in (self.compress_x, self.compress_like):
            xavier_init(conv, distribution="uniform")
        for conv in (self.low_pass, self.high_pass, self.direction, self.magnitude):
            normal_init(conv, std=0.001)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        low, high, offset = self._predict(x, like)
        smooth = reassemble(x, low, self._centres(x, like))
        moved = flow_warp(
            smooth.reshape(-1, smooth.shape[1] // self.groups, *smooth.shape[2:]),
            offset.flatten(0, 1),
            align_corners=bool(self.align_corners),
        )
        return moved.view(smooth.shape) + like + reassemble(like, high, self._centres(like, like))

    def explain(self, x: Tensor, like: Tensor) -> dict[str, Tensor]:
        """Return ``kernel`` of ``x`` and ``kernel_like`` of ``like`` (N, 1, k * k, H, W), row by row of the window.

        And ``offset`` (N, groups, 2, H, W), (dx, dy) in pixels of the output.
        """
        low, high, offset = self._predict(x, like)
        return {"kernel": low, "kernel_like": high, "offset": offset}

    def _predict(self, x: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        coarse, fine = self.compress_x(x), self.compress_like(like)
        flag = bool(self.align_corners)
        fused = fine + resize(coarse, like.shape[2:], mode="bilinear", align_corners=flag, warning=False)
        low, high = self._kernels(fused)
        fused = reassemble(coarse, low, self._centres(x, like)) + fine
        fused = fused + reassemble(fine, high, self._centres(like, like))
        low, high = self._kernels(fused)
        evidence = torch.cat([fused, _similarities(fused)], dim=1)
        offset = self.direction(evidence) * self.magnitude(evidence).sigmoid()
        return low, high, offset.unflatten(1, (self.groups, 2))

    def _kernels(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.low_pass(fused).softmax(1), self.high_pass(fused).softmax(1)
        identity = torch.zeros(high.shape[1], 1, 1, device=high.device, dtype=high.dtype)
        identity[high.shape[1] // 2] = 1
        return low.unsqueeze(1), (identity - high).unsqueeze(1)

    def _centres(self, x: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        return centres(x, (like.shape[2], like.shape[3]), bool(self.align_corners))


_NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def _similarities(z: Tensor) -> Tensor:
    """Return the cosines of each position with its neighbours, (N, 8, H, W), row by row; 0 outside."""
    height, width = z.shape[2:]
    unit = F.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=1)
    padded = F.pad(unit, (1, 1, 1, 1))
    cosines = [
        (unit * padded[:, :, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]).sum(1) for dy, dx in _NEIGHBOURS
    ]
    return torch.stack(cosines, dim=1).to(z.dtype)
