"""``FreqFusion``: resampling by low-pass kernels, an offset and high-pass kernels, all predicted from both features."""

import math

import torch
import torch.nn.functional as F
from mmengine.model import normal_init, xavier_init
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..ops import flow_warp
from ._arguments import need_channels, need_odd, need_whole
from .base import Resampler
from .reassemble import Centres, centres, read, reassemble


@MODELS.register_module()
class FreqFusion(Resampler):
    """Frequency-aware fusion: smooth and displace ``x`` while it is upsampled, sharpen ``like``, and add the two.

    Both features are compressed by a 1x1 convolution each, ``like`` to ``a`` and ``x`` to ``b``. Two 3x3 convolutions,
    ``low_pass`` and ``high_pass``, each the same for both features, turn them into logits over windows; ``N`` is a
    softmax over the window, ``K * f`` the sum of ``f`` over the window of every position with the weights ``K`` (as in
    ``CARAFE``; for what is at the size of ``x`` the window is centred on the source sample nearest under
    ``align_corners``). In this order:

    - ``h = high_pass(a)``, and ``a`` is sharpened: ``a' = 2 a - N(h) * a``;
    - ``l = low_pass(a')``, then ``l + N(l) * low_pass(b)``, and of these the low-pass weights ``L = N(l)``;
    - ``h + L * high_pass(b)``, and of these the weights ``H = N(h)``.

    The result is ``L * x`` plus ``2 like - H * like``. With ``offsets``, ``L * x`` is sampled once more, bilinearly and
    with its border repeated, displaced by an offset for each of ``groups`` runs of channels: a direction times a
    sigmoid. Each of the two is a 3x3 convolution of ``a'``, normalised in groups, and of its cosines with its eight
    neighbours two samples away, plus one of the same made of ``b``, which predicts four values per sample of ``x``, one
    for each quarter of its cell. A position of ``like`` takes that of the quarter that it lies in.

    Offsets are counted in samples of ``x``. From ``n`` to ``2 n`` without aligned corners, the only sizes that the
    released module takes, the numbers are its own; quarters, nearest samples and the length of an offset follow the
    pixel model for other sizes and for aligned corners.

    The output contains ``like``, so a neck or head does not add it again. Taps outside a feature are skipped as in
    ``CARAFE``, so that the outermost ``lowpass_kernel // 2`` samples of ``x`` fade.

    Args:
        in_channels: channels of ``x``.
        guide_channels: channels of ``like``, as many.
        align_corners: pixel model; ``None`` is ``False``, which is the published one.
        lowpass_kernel: side of the low-pass window, odd.
        highpass_kernel: side of the high-pass window, odd.
        groups: runs of channels with offsets of their own.
        compressed_channels: width of the compression; ``None`` is ``(in_channels + guide_channels) // 4``, as released
            for segmentation. There are 64 in the class alone and an eighth of the sum in detection.
        hamming: multiply the softmax by a Hamming window and normalise it again.
        offsets: sample ``L * x`` again, displaced.

    Raises:
        ValueError: channels missing, different or not divisible by ``groups``; a window that is not odd.

    Source: Chen et al., "Frequency-aware Feature Fusion for Dense Image Prediction", TPAMI 2024, arXiv:2408.12879. What
    of the released module's variants this is, docs/resamplers.md says.
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
        compressed_channels: int | None = None,
        hamming: bool = False,
        offsets: bool = True,
    ) -> None:
        super().__init__(in_channels, guide_channels, bool(align_corners))
        self.groups = need_whole("FreqFusion", "groups", groups)
        channels = need_channels("FreqFusion", "in_channels", in_channels, multiple_of=groups if offsets else 1)
        if channels != need_channels("FreqFusion", "guide_channels", guide_channels):
            raise ValueError(
                f"FreqFusion: expected in_channels == guide_channels, because it adds x and like, "
                f"got {in_channels} and {guide_channels}. Bring both to one width before."
            )
        need_odd("FreqFusion", "lowpass_kernel", lowpass_kernel)
        need_odd("FreqFusion", "highpass_kernel", highpass_kernel)
        width = max(2 * channels // 4, 1) if compressed_channels is None else compressed_channels
        need_whole("FreqFusion", "compressed_channels", width)
        self.hamming = hamming
        self.compress_x = nn.Conv2d(channels, width, 1)
        self.compress_like = nn.Conv2d(channels, width, 1)
        self.low_pass = nn.Conv2d(width, lowpass_kernel**2, 3, padding=1)
        self.high_pass = nn.Conv2d(width, highpass_kernel**2, 3, padding=1)
        self.offset = _Offset(width, groups) if offsets else None
        self.init_weights()

    def init_weights(self) -> None:
        """Start with nearly uniform kernels, and with offsets of about a sample, as the released module does."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                xavier_init(module, distribution="uniform")
        for conv in (self.low_pass, self.high_pass):
            normal_init(conv, std=0.001)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        low, high, offset = self._predict(x, like)
        out = reassemble(x, low, self._centres(x, like))
        if offset is not None:
            runs = out.reshape(-1, out.shape[1] // self.groups, *out.shape[2:])
            out = flow_warp(runs, offset.flatten(0, 1), align_corners=bool(self.align_corners)).view(out.shape)
        return _sharpened(like, high, self._centres(like, like)) + out

    def explain(self, x: Tensor, like: Tensor) -> dict[str, Tensor]:
        """Return ``kernel`` of ``x`` and ``kernel_like`` of ``like`` (N, 1, k * k, H, W), row by row of the window.

        ``kernel_like`` is the high-pass kernel, whose response is added to ``like``. And where there is one, ``offset``
        (N, groups, 2, H, W), (dx, dy) in pixels of the output.
        """
        low, high, offset = self._predict(x, like)
        identity = torch.zeros_like(high)
        identity[:, :, high.shape[2] // 2] = 1
        return {"kernel": low, "kernel_like": identity - high} | ({} if offset is None else {"offset": offset})

    def _predict(self, x: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return both kernels and the offsets in pixels of the output."""
        coarse, fine = self.compress_x(x), self.compress_like(like)
        at, here = self._centres(x, like), self._centres(like, like)
        high = self.high_pass(fine)
        fine = _sharpened(fine, self._kernel(high), here)
        low = self.low_pass(fine)
        low = self._kernel(low + reassemble(self.low_pass(coarse), self._kernel(low), at))
        high = self._kernel(high + reassemble(self.high_pass(coarse), low, at))
        if self.offset is None:
            return low, high, None
        return low, high, self.offset(coarse, fine, bool(self.align_corners))

    def _kernel(self, logits: Tensor) -> Tensor:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.hamming:
            logits = logits + logits.new_tensor(_log_hamming(math.isqrt(logits.shape[1])))[:, None, None]
        return logits.softmax(1).unsqueeze(1)

    def _centres(self, x: Tensor, like: Tensor) -> Centres:
        return centres(x, (like.shape[2], like.shape[3]), bool(self.align_corners))

    def extra_repr(self) -> str:
        return f"align_corners={self.align_corners}, hamming={self.hamming}"


def _sharpened(z: Tensor, kernel: Tensor, here: Centres) -> Tensor:
    """Return ``z`` and its high frequencies, what is left of it by the low-pass ``kernel``."""
    return 2 * z - reassemble(z, kernel, here)


class _Offset(nn.Module):
    """Offsets of every position of the fine feature, from it and from the coarse one."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        evidence = channels + len(_NEIGHBOURS)
        self.groups = groups
        self.norm_x = nn.GroupNorm(_norm_groups(channels), channels)
        self.norm_like = nn.GroupNorm(_norm_groups(channels), channels)
        # A direction and its weight for every position of the fine feature, and for the quarters of the coarse one's.
        self.direction_x = nn.Conv2d(evidence, 4 * 2 * groups, 3, padding=1)
        self.weight_x = nn.Conv2d(evidence, 4 * 2 * groups, 3, padding=1)
        self.direction_like = nn.Conv2d(evidence, 2 * groups, 3, padding=1)
        self.weight_like = nn.Conv2d(evidence, 2 * groups, 3, padding=1)

    def forward(self, coarse: Tensor, fine: Tensor, align_corners: bool) -> Tensor:
        """Return (N, groups, 2, H, W), (dx, dy) in pixels of the fine feature."""
        size = fine.shape[2], fine.shape[3]
        of_x, of_like = _evidence(self.norm_x(coarse)), _evidence(self.norm_like(fine))
        quarters = centres(coarse, size, align_corners, factor=2)
        direction, weight = (
            read(F.pixel_shuffle(conv_x(of_x), 2), quarters) + conv_like(of_like)
            for conv_x, conv_like in ((self.direction_x, self.direction_like), (self.weight_x, self.weight_like))
        )
        offset = (direction * weight.sigmoid()).unflatten(1, (2, self.groups)).transpose(1, 2)
        height, width = (
            _pixels_per_sample(n, fine_n, align_corners) for n, fine_n in zip(coarse.shape[2:], size, strict=True)
        )
        return torch.stack([offset[:, :, 0] * width, offset[:, :, 1] * height], 2)


def _pixels_per_sample(n: int, size: int, align_corners: bool) -> float:
    """Return how far apart in a target of ``size`` two of ``n`` source samples are; a cell where one is alone."""
    if align_corners and n > 1 and size > 1:
        return (size - 1) / (n - 1)
    return size / n


def _norm_groups(channels: int) -> int:
    """Return an eighth of ``channels``, or the next smaller number that divides them."""
    return next(n for n in range(max(channels // 8, 1), 0, -1) if channels % n == 0)


def _log_hamming(side: int) -> list[float]:
    """Return the logarithms of a square Hamming window, row by row: a softmax of logits plus these is windowed."""
    edge = [0.54 - 0.46 * math.cos(2 * math.pi * n / max(side - 1, 1)) for n in range(side)]
    return [math.log(a * b) for a in edge for b in edge]


_NEIGHBOURS = [(dy, dx) for dy in (-2, 0, 2) for dx in (-2, 0, 2) if (dy, dx) != (0, 0)]


def _evidence(z: Tensor) -> Tensor:
    """Return ``z`` and its cosines with its eight neighbours at dilation 2, row by row; 0 outside."""
    height, width = z.shape[2:]
    unit = F.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=1, eps=1e-8)
    padded = F.pad(unit, (2, 2, 2, 2))
    cosines = [
        (unit * padded[:, :, 2 + dy : 2 + dy + height, 2 + dx : 2 + dx + width]).sum(1) for dy, dx in _NEIGHBOURS
    ]
    return torch.cat([z, torch.stack(cosines, dim=1).to(z.dtype)], dim=1)
