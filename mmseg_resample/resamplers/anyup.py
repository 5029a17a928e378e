"""``AnyUp``: resampling by attention from the image to features of any backbone, within a window."""

from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..ops import AxisMap, Coordinates
from ._arguments import need_odd
from .guided import Maps
from .image_attention import ImageAttention, Window, Windows
from .image_encoder import ImageEncoder

Convention = Literal["released", "paper"]


@MODELS.register_module()
class AnyUp(ImageAttention):
    """Attention from the image to features of any number of channels: every pixel attends to the samples around it.

    As ``JAFAR``, but the features enter the key through filters that all channels share, so that one set of weights
    serves every backbone, and a pixel attends within a window.

    Args:
        in_channels: channels of ``x``. No weight depends on it.
        guide_channels: channels of ``like``, the image: 3.
        align_corners: where the samples of ``x`` sit, see ``ImageGuided``; ``None`` is ``False``, the published one.
            It places the windows too.
        coordinates: the same as a convention or as maps, see ``ImageGuided``.
        qk_channels: channels of queries and keys, a multiple of 16 and of ``num_heads``.
        num_heads: heads of the attention.
        window_share: how far a window reaches to either side, in shares of the axis, >= 0.001; with 1 every pixel
            attends to all samples.
        filter_size: side of the shared filters, odd.
        convention: what the softmax over filter responses runs over. ``"paper"``: the responses of one channel to all
            filters. ``"released"``: the responses as the released code regroups them and its weights were trained:
            response ``i`` of ``filters x channels``, counted channel by channel, is in group ``i % channels``. The
            order of the channels matters then.
        chunk_size: pixels of the output attended at a time; changes memory and time, not the result.

    Raises:
        ValueError: channels missing or of no such multiple, a number out of its range, both ``align_corners=True`` and
            ``coordinates``.

    Source: Wimmer et al., "AnyUp: Universal Feature Upsampling", ICLR 2026, arXiv:2510.12764. Written from the
        definition; numbers are those of the released code without NATTEN, whose weights
        ``launch.upsampler_keys.anyup_keys`` renames.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        coordinates: Coordinates | AxisMap | Sequence[AxisMap | dict[str, float]] | None = None,
        qk_channels: int = 128,
        num_heads: int = 4,
        window_share: float = 0.1,
        filter_size: int = 5,
        convention: Convention = "released",
        chunk_size: int = 1024,
    ) -> None:
        super().__init__(in_channels, guide_channels, align_corners, coordinates, qk_channels, num_heads, chunk_size)
        if not window_share >= 0.001:
            raise ValueError(f"AnyUp: expected window_share >= 0.001, got {window_share!r}.")
        need_odd("AnyUp", "filter_size", filter_size)
        if convention not in get_args(Convention):
            known = " or ".join(map(repr, get_args(Convention)))
            raise ValueError(f"AnyUp: expected convention {known}, got {convention!r}.")
        self.window_share = window_share
        self.features_encoder = ImageEncoder(qk_channels, qk_channels)
        self.features_encoder.stem = Unification(
            qk_channels, filter_size, convention, max(chunk_size * num_heads // qk_channels, 1)
        )
        self.aggregate = ImageEncoder(2 * qk_channels, qk_channels, kernel_size=3)
        self.init_weights()

    def _key(self, image: Tensor, x: Tensor) -> Tensor:
        return self.aggregate(torch.cat([image, self.features_encoder(x)], 1))

    def _windows(self, size: tuple[int, int], maps: Maps) -> Windows:
        rows, columns = (Window(map_, n, self.window_share) for map_, n in zip(maps, size, strict=True))
        return rows, columns


class Unification(nn.Module):
    """Filters that all channels share: which of them respond most, averaged over the channels, whatever these are.

    Every channel is convolved with every filter, as a mean of the taps inside; a softmax over groups of as many
    responses as there are filters is averaged over the groups. In training its parts are computed again for the
    gradients.

    Args:
        filters: number of filters.
        size: their side, odd.
        convention: see ``AnyUp``.
        chunk_channels: groups computed at a time; there are as many as channels.

    Shapes: (N, any, h, w) to (N, filters, h, w), which sum to 1.
    """

    def __init__(self, filters: int, size: int, convention: Convention, chunk_channels: int) -> None:
        super().__init__()
        self.convention = convention
        self.chunk_channels = chunk_channels
        self.filters = nn.Parameter(torch.empty(filters, 1, size, size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.filters)

    def forward(self, x: Tensor) -> Tensor:
        channels, filters = x.shape[1], len(self.filters)
        index = torch.arange(filters * channels, device=x.device).view(filters, channels)  # a group is a column
        if self.convention == "released":
            of_channels, of_filters = index // filters, index % filters
        else:
            of_channels, of_filters = index % channels, index // channels
        add = self._add
        if torch.is_grad_enabled() and channels > self.chunk_channels:
            add = partial(checkpoint, self._add, use_reentrant=False, preserve_rng_state=False)
        chunks = (each.split(self.chunk_channels, 1) for each in (of_channels, of_filters))
        sums = [add(x, *chunk) for chunk in zip(*chunks, strict=True)]
        return (sum(sums[1:], sums[0]) / channels).to(x.dtype)

    def _add(self, x: Tensor, of_channels: Tensor, of_filters: Tensor) -> Tensor:
        """Return the sum over groups, given the channel and the filter of each response in them (filters, groups)."""
        pairs = of_channels.numel()
        responses = F.conv2d(
            x.index_select(1, of_channels.flatten()),
            self.filters.index_select(0, of_filters.flatten()),
            padding=self.filters.shape[2] // 2,
            groups=pairs,
        )
        ones = torch.ones_like(self.filters[:1])
        taps = F.conv2d(ones.new_ones(1, 1, *x.shape[2:]), ones, padding=self.filters.shape[2] // 2)
        dtype = torch.promote_types(responses.dtype, torch.float32)
        return (responses / taps).unflatten(1, of_channels.shape).softmax(1, dtype=dtype).sum(2)
