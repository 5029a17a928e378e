"""``NAF``: each pixel of the image attends to the features around it, by the image alone."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import floor, log

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from ..ops import AxisMap, Coordinates
from ..ops.grid import SNAP
from ._arguments import need_channels, need_odd, need_whole
from .guided import ImageGuided, Maps, layout_of, pool_at
from .image_encoder import GROUPS, ImageEncoder
from .rotary import frequencies, rotate


@MODELS.register_module()
class NAF(ImageGuided):
    """Neighbourhood attention filtering: attention to the coarse samples around a pixel, in what the image looks like.

    The image, encoded and turned by the position of its pixels, is the query; averaged over the cells of the features,
    it is the key. The features themselves are the values, every head weighing channels of its own. So weights depend on
    the image alone, results are means of features, and constants stay.

    The window is centred on the coarse sample nearest to the pixel under the pixel model, ties to the next, and moved
    inside at the border, so it always has ``up_kernel`` rows and columns, or all where there are fewer. The published
    code dilates a neighbourhood at the size of the image by the ratio of the sizes, rounded down; where the ratio is
    whole, that is the same.

    Args:
        in_channels: channels of ``x``, a multiple of ``num_heads``. No weight depends on it.
        guide_channels: channels of ``like``, 3 for an image.
        align_corners: see ``ImageGuided``.
        coordinates: see ``ImageGuided``.
        up_kernel: side of the window, odd.
        qk_channels: of the encoded image, a multiple of 16 and of ``4 * num_heads``.
        num_heads: heads of attention.
        base: ratio of the highest to the lowest frequency of the positions.
        rescale: in training, positions are multiplied by a random factor of at most this and at least its inverse,
            uniform in the logarithm; published training has 2.
        chunk_size: output pixels that attend at a time. It bounds memory and changes nothing else.

    Raises:
        ValueError: channels missing or not divisible, a window that is not odd, ``rescale`` below 1.

    Source: Chambon et al., "NAF: Zero-Shot Feature Upsampling via Neighborhood Attention Filtering", CVPR 2026,
        arXiv:2511.18452.
    """

    frequency: Tensor

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        coordinates: Coordinates | AxisMap | Sequence[AxisMap | dict[str, float]] | None = None,
        up_kernel: int = 9,
        qk_channels: int = 256,
        num_heads: int = 4,
        base: float = 100.0,
        rescale: float = 1.0,
        chunk_size: int = 8192,
    ) -> None:
        super().__init__(in_channels, guide_channels, align_corners, coordinates)
        self.num_heads = need_whole("NAF", "num_heads", num_heads)
        self.up_kernel = need_odd("NAF", "up_kernel", up_kernel)
        self.chunk_size = need_whole("NAF", "chunk_size", chunk_size)
        need_channels("NAF", "in_channels", in_channels, multiple_of=num_heads)
        guides = need_channels("NAF", "guide_channels", guide_channels)
        for multiple in (2 * GROUPS, 4 * num_heads):
            need_channels("NAF", "qk_channels", qk_channels, multiple_of=multiple)
        if not rescale >= 1:
            raise ValueError(f"NAF: expected rescale >= 1, got {rescale!r}.")
        self.rescale = rescale
        self.pixels, self.surroundings = (
            ImageEncoder(guides, qk_channels // 2, kernel_size=side, block_kernel_size=side, bias=True, skip=False)
            for side in (1, 3)
        )
        self.register_buffer("frequency", frequencies(qk_channels // num_heads // 4, base, end=False))

    def _upsample(self, x: Tensor, like: Tensor, maps: Maps) -> Tensor:
        layout = layout_of(x)
        query, key = self._encode(x, like, maps)
        values = self._split(x)
        # PyTorch's fused attention takes keys and values of equal length alone; zeros change no product.
        scale, length = query.shape[2] ** -0.5, max(query.shape[2], values.shape[2])
        near = self._near(x, like, maps)
        out = []
        # All pixels whose windows have the same rows attend to these rows in one, whatever the columns: a mask chooses.
        # On a CPU it takes 2 and 7 s where gathers of 81 samples a pixel take 71 and 76 (from 16, 64 samples to 256).
        for rows, window in self._strips(x, like, maps):
            mask = near[None, :, None].expand(rows.stop - rows.start, -1, window.stop - window.start, -1)
            found = F.scaled_dot_product_attention(
                _sequence(query[:, :, :, rows], length),
                _sequence(key[:, :, :, window], length),
                _sequence(values[:, :, :, window], length),
                attn_mask=mask.flatten(2).flatten(0, 1),
                scale=scale,
            )
            strip = found[..., : values.shape[2]].transpose(2, 3).flatten(1, 2)
            strip = strip.unflatten(2, (rows.stop - rows.start, like.shape[3]))
            out.append(strip.to(x.dtype).contiguous(memory_format=layout))
        return torch.cat(out, 2)

    def explain(self, x: Tensor, like: Tensor) -> dict[str, Tensor]:
        """Return ``kernel``: (N, num_heads, k * l, H, W), row by row of the window of k rows and l columns."""
        maps = self._maps((x.shape[2], x.shape[3]), (like.shape[2], like.shape[3]))
        query, key = self._encode(x, like, maps)
        near = self._near(x, like, maps)
        _, columns = near.nonzero(as_tuple=True)
        columns = columns.view(like.shape[3], -1)
        kernels = []
        for rows, window in self._strips(x, like, maps):
            score = torch.einsum("nghij,nghkl->ngijkl", query[:, :, :, rows], key[:, :, :, window])
            score = score.to(torch.promote_types(score.dtype, torch.float32)) * query.shape[2] ** -0.5
            index = columns[None, None, None, :, None].expand(*score.shape[:5], -1)
            kernel = score.gather(5, index).flatten(4).softmax(4)
            kernels.append(kernel.permute(0, 1, 4, 2, 3))
        return {"kernel": torch.cat(kernels, 3)}

    def _encode(self, x: Tensor, like: Tensor, maps: Maps) -> tuple[Tensor, Tensor]:
        """Return queries and keys, (N, heads, channels, H, W) and (N, heads, channels, h, w)."""
        encoded = self._split(torch.cat([self.pixels(like), self.surroundings(like)], 1))
        rows, columns = (
            (2 * torch.arange(n, dtype=torch.float64, device=like.device) + 1) / n - 1 for n in like.shape[2:]
        )
        if self.training and self.rescale > 1:
            factor = torch.empty((), device=like.device).uniform_(-1, 1).mul(log(self.rescale)).exp()
            rows, columns = rows * factor, columns * factor
        still = torch.zeros_like(self.frequency)
        frequency = torch.stack(
            [torch.cat([self.frequency, still]).repeat(2), torch.cat([still, self.frequency]).repeat(2)]
        )
        query = rotate(encoded, frequency, rows, columns).to(x.dtype)
        return query, self._split(pool_at(query.flatten(1, 2), (x.shape[2], x.shape[3]), maps))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.num_heads, x.shape[1] // self.num_heads))

    def _strips(self, x: Tensor, like: Tensor, maps: Maps) -> Iterator[tuple[slice, slice]]:
        """Yield runs of output rows, and the coarse rows of their window."""
        at_a_time = max(self.chunk_size // like.shape[3], 1)
        starts = _starts(maps[0], self.up_kernel, x.shape[2], like.shape[2])
        first = 0
        for start, run in groupby(starts):
            last = first + len(list(run))
            for row in range(first, last, at_a_time):
                yield slice(row, min(row + at_a_time, last)), slice(start, min(start + self.up_kernel, x.shape[2]))
            first = last

    def _near(self, x: Tensor, like: Tensor, maps: Maps) -> Tensor:
        """Tell which coarse columns the window of an output column has, (W, w)."""
        starts = _starts(maps[1], self.up_kernel, x.shape[3], like.shape[3])
        first = torch.tensor(starts, device=x.device)[:, None]
        column = torch.arange(x.shape[3], device=x.device)
        return (column >= first) & (column < first + self.up_kernel)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, up_kernel={self.up_kernel}"


def _starts(map_: AxisMap, window: int, source: int, target: int) -> list[int]:
    """Return where the window of every output sample begins, on one axis."""
    nearest = (floor(map_(i) + 0.5 + SNAP) for i in range(target))
    return [min(max(centre - window // 2, 0), max(source - window, 0)) for centre in nearest]


def _sequence(x: Tensor, length: int) -> Tensor:
    """Bring (N, heads, channels, rows, columns) to (N, heads, rows * columns, length), padded with zeros."""
    return F.pad(x.flatten(3).transpose(2, 3), (0, length - x.shape[2]))
