"""What JAFAR and AnyUp share: pixels of the image attend to the coarse samples and average their raw features."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..ops import AxisMap, Coordinates
from ._arguments import need_channels, need_whole
from .guided import ImageGuided, Maps, layout_of, pool_at
from .image_encoder import GROUPS, ImageEncoder
from .rotary import frequencies, rotate


@dataclass(frozen=True)
class Window:
    """The coarse samples of an axis that a fine sample attends to: those whose cells lie within a share of the axis.

    A fine sample at ``p`` in [0, 1] of the axis attends to cells ``floor((p - share) n)`` to ``ceil((p + share) n)``.

    Args:
        map: from fine to coarse samples.
        size: ``n``, coarse samples.
        share: of the axis to either side.
    """

    map: AxisMap
    size: int
    share: float

    def reach(self, start: int, stop: int) -> tuple[int, int]:
        """Return the first coarse sample that any of these fine ones attends to, and the one after the last."""
        first, last = sorted((self.map(start) + 0.5, self.map(stop - 1) + 0.5))
        n, slack = self.size, 1e-3  # `contains` is rounded to float32
        first, last = min(max(first, 0), n), min(max(last, 0), n)
        return max(math.floor(first - self.share * n - slack), 0), min(math.ceil(last + self.share * n + slack), n)

    def contains(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Tell whether fine samples, by index, attend to coarse ones, (fine, coarse)."""
        # In float32 as published, because it decides about cells whose edge is that of the window.
        p = ((self.map.scale * fine.double() + self.map.offset + 0.5) / self.size).float().clamp(0, 1)[:, None]
        first = ((p - self.share).clamp(0, 1) * self.size).floor()
        last = ((p + self.share).clamp(0, 1) * self.size).ceil()
        return (coarse >= first) & (coarse < last)


Windows = tuple[Window, Window]
"""Of rows and columns."""


class AveragedAttention(nn.Module):
    """Attention whose weights are averaged over heads and applied to values as they are.

    The result is a convex combination of the values. It is computed in tiles, whose weights are computed again for the
    gradients: those of one tile exist at a time, in training too.

    Args:
        channels: of queries and keys.
        num_heads: divides ``channels``.
        chunk_size: pixels of a tile, of every image in the batch.
    """

    def __init__(self, channels: int, num_heads: int, chunk_size: int) -> None:
        super().__init__()
        need_whole("AveragedAttention", "num_heads", num_heads)
        need_whole("AveragedAttention", "chunk_size", chunk_size)
        need_channels("AveragedAttention", "channels", channels, multiple_of=num_heads)
        self.num_heads = num_heads
        self.chunk_size = chunk_size
        self.smooth = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm_query = _RMSNorm(channels)
        self.norm_key = _RMSNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)

    def init_weights(self) -> None:
        """Draw the weights as published: projections of one matrix for queries, keys and values."""
        for layer in (self.smooth, self.norm_query, self.norm_key):
            layer.reset_parameters()
        for projection in (self.query, self.key):
            nn.init.xavier_uniform_(projection.weight, gain=0.5**0.5)
            nn.init.zeros_(projection.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, windows: Windows | None = None) -> Tensor:
        """Return (N, V, H, W) of queries (N, C, H, W), keys (N, C, h, w) and values (N, V, h, w)."""
        height, width = query.shape[2:]
        rows = min(height, math.isqrt(self.chunk_size))
        columns = min(width, self.chunk_size // rows)
        query = self.smooth(query)
        key = self.key(self.norm_key(key.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        attend = self._tile
        if torch.is_grad_enabled() and (rows < height or columns < width):
            attend = partial(checkpoint, self._tile, use_reentrant=False, preserve_rng_state=False)
        bands = []
        for y, band in enumerate(query.split(rows, 2)):  # the gradient of a split is one map, that of slices many
            tiles = [
                attend(tile, key, value, windows, (y * rows, x * columns))
                for x, tile in enumerate(band.split(columns, 3))
            ]
            bands.append(torch.cat(tiles, 3))
        return torch.cat(bands, 2)

    def _tile(
        self, query: Tensor, key: Tensor, value: Tensor, windows: Windows | None, corner: tuple[int, int]
    ) -> Tensor:
        """Attend from a tile of queries, given the row and column of its first."""
        inside = None
        if windows is not None:
            rows, columns = ((start, start + n) for start, n in zip(corner, query.shape[2:], strict=True))
            top, bottom = windows[0].reach(*rows)
            left, right = windows[1].reach(*columns)
            key, value = key[:, :, top:bottom, left:right], value[:, :, top:bottom, left:right]
            index = partial(torch.arange, device=query.device)
            of_rows = windows[0].contains(index(*rows), index(top, bottom))
            of_columns = windows[1].contains(index(*columns), index(left, right))
            inside = (of_rows[:, None, :, None] & of_columns[None, :, None, :]).flatten(2).flatten(0, 1)
        # Products and a softmax: on a CPU three times as fast as scaled_dot_product_attention with values for each
        # head (4096 queries, 1024 keys, 384 channels: 0.4 s, 1.2 s), because heads are averaged before the values.
        q = self.query(self.norm_query(query.permute(0, 2, 3, 1))).flatten(1, 2)
        q = q.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        k = key.flatten(2).unflatten(1, (self.num_heads, -1))
        scores = (q * k.shape[2] ** -0.5) @ k
        if inside is not None:
            scores = scores.masked_fill(~inside, -torch.inf)
        weights = scores.softmax(3, dtype=torch.promote_types(scores.dtype, torch.float32)).mean(1)
        return (value.flatten(2) @ weights.to(value.dtype).mT).unflatten(2, query.shape[2:])


class _RMSNorm(nn.Module):
    """``nn.RMSNorm`` over the last axis, which torch before 2.4 lacks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        y = x.to(dtype)
        return (y * (y.square().mean(-1, keepdim=True) + torch.finfo(dtype).eps).rsqrt() * self.weight).to(x.dtype)


class ImageAttention(ImageGuided):
    """Base of resamplers in which pixels of the image attend to the samples of ``x``, as JAFAR and AnyUp do.

    Queries and keys are encodings of the image; the key of a sample is pooled from its cell of the image and joined by
    its features.

    Args:
        in_channels: channels of ``x``.
        guide_channels: channels of ``like``, 3.
        align_corners: see ``ImageGuided``.
        coordinates: see ``ImageGuided``.
        qk_channels: channels of queries and keys, a multiple of 16 and of ``num_heads``.
        num_heads: heads of the attention.
        chunk_size: pixels of the output attended at a time, see ``AveragedAttention``.
    """

    def __init__(
        self,
        in_channels: int | None,
        guide_channels: int | None,
        align_corners: bool | None,
        coordinates: Coordinates | AxisMap | Sequence[AxisMap | dict[str, float]] | None,
        qk_channels: int,
        num_heads: int,
        chunk_size: int,
    ) -> None:
        super().__init__(in_channels, guide_channels, align_corners, coordinates)
        name = type(self).__name__
        need_whole(name, "num_heads", num_heads)
        need_whole(name, "chunk_size", chunk_size)
        need_channels(name, "qk_channels", qk_channels, multiple_of=math.lcm(2 * GROUPS, num_heads))
        guide = need_channels(name, "guide_channels", guide_channels)
        self.image_encoder = ImageEncoder(guide, qk_channels)
        self.query_encoder = ImageEncoder(qk_channels, qk_channels)
        self.key_encoder = ImageEncoder(qk_channels, qk_channels)
        self.frequency = nn.Parameter(torch.empty(2, qk_channels))
        self.attention = AveragedAttention(qk_channels, num_heads, chunk_size)

    def init_weights(self) -> None:
        """Draw all weights as published: a neck that initialises its convolutions would otherwise draw others."""
        for module in self.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        self.attention.init_weights()
        with torch.no_grad():
            f = frequencies(self.frequency.shape[1] // 4, 100.0, end=True).repeat(2)
            self.frequency.copy_(torch.block_diag(f, f))

    def explain(self, x: Tensor, like: Tensor) -> dict[str, Tensor]:
        """Return ``kernel``: (N, 1, h w, H, W), weights of all samples of ``x``, row by row."""
        n, _, h, w = x.shape
        one_hot = torch.eye(h * w, dtype=x.dtype, device=x.device).view(1, h * w, h, w).expand(n, -1, -1, -1)
        maps = self._maps((h, w), (like.shape[2], like.shape[3]))
        return {"kernel": self._attend(x, like, maps, one_hot)[:, None]}

    def _upsample(self, x: Tensor, like: Tensor, maps: Maps) -> Tensor:
        out = self._attend(x, like, maps, x)
        return out.contiguous(memory_format=layout_of(x))

    def _attend(self, x: Tensor, like: Tensor, maps: Maps, value: Tensor) -> Tensor:
        encoded = self._encode(like)
        # At length 1 in float32: the smallest length that is told from 0 is none in half precision.
        dtype = torch.promote_types(x.dtype, torch.float32)
        key = self._key(
            pool_at(self.key_encoder(encoded), (x.shape[2], x.shape[3]), maps),
            F.normalize(x.to(dtype), dim=1).to(x.dtype),
        )
        query = self._query(self.query_encoder(encoded))
        del encoded  # as large as the query
        return self.attention(query, key, value, self._windows((x.shape[2], x.shape[3]), maps))

    def _encode(self, like: Tensor) -> Tensor:
        """Encode the image and its positions, which run from 0 on its first row and column to 1 on its last."""
        rows, columns = (
            torch.linspace(0, 1, n, dtype=self.frequency.dtype, device=like.device) for n in like.shape[2:]
        )
        return rotate(self.image_encoder(like), self.frequency, rows, columns)

    @abstractmethod
    def _key(self, image: Tensor, x: Tensor) -> Tensor:
        """Join the pooled image (N, qk_channels, h, w) and the features, of length 1 over their channels, to keys."""

    def _query(self, image: Tensor) -> Tensor:
        return image

    def _windows(self, size: tuple[int, int], maps: Maps) -> Windows | None:
        return None
