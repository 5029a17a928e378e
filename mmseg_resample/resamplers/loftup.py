"""``LoftUp``: every pixel of the image attends to all features, both known by their colour, content and place."""

from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..ops import AxisMap, Coordinates
from ._arguments import need_channels, need_whole
from .guided import ImageGuided, Maps, layout_of, positions

_SAMPLE_FREQUENCIES = 5  # the published ones, for the place of a feature


@MODELS.register_module()
class LoftUp(ImageGuided):
    """Cross-attention from the pixels of an image to all features, with Fourier features of place and colour.

    A pixel at row ``p`` of ``H`` has the coordinate ``2 p / (H - 1) - 1``, so the image runs from -1 to 1, end to end.
    A feature has the coordinate, in that same system, of the pixel where it sits under the pixel model. The published
    code instead spreads the features from -1 to 1 too, which is right for ``align_corners=True`` alone: for patches of
    16 pixels it moves the first by 7.5 pixels. ``convention="loftup"`` is that code.

    Colours are scaled to [-0.5, 0.5] by their range in each image.

    Args:
        in_channels: channels of ``x``; with 20 for its place, a multiple of ``num_heads``.
        guide_channels: channels of ``like``, 3 for an image.
        align_corners: see ``ImageGuided``.
        coordinates: see ``ImageGuided``.
        convention: ``"loftup"`` is the published code: the first and last feature lie on the first and last pixel,
            whatever ``align_corners``, and colours are scaled by their range in the whole batch.
        num_heads: heads of attention.
        num_layers: layers of attention.
        frequencies: of the Fourier features of pixels, from exp(-2) to exp(10).
        norm: layer normalisation over the channels of ``x`` first, as all published checkpoints have it.
        chunk_size: output pixels that attend at a time. It bounds memory and changes nothing else.

    Raises:
        ValueError: channels missing or not divisible, ``convention`` unknown or together with ``coordinates``.

    Source: Huang et al., "LoftUp: Learning a Coordinate-Based Feature Upsampler for Vision Foundation Models", ICCV
        2025, arXiv:2504.14032.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        coordinates: Coordinates | AxisMap | Sequence[AxisMap | dict[str, float]] | None = None,
        convention: Literal["loftup"] | None = None,
        num_heads: int = 4,
        num_layers: int = 2,
        frequencies: int = 20,
        norm: bool = True,
        chunk_size: int = 8192,
    ) -> None:
        if convention not in (None, "loftup"):
            raise ValueError(f"LoftUp: expected convention None or 'loftup', got {convention!r}.")
        if convention and coordinates is not None:
            raise ValueError(f"LoftUp: convention='loftup' says where x sits, expected no coordinates={coordinates!r}.")
        super().__init__(in_channels, guide_channels, align_corners or convention == "loftup", coordinates)
        for name, value in (("num_heads", num_heads), ("num_layers", num_layers), ("frequencies", frequencies)):
            need_whole("LoftUp", name, value)
        self.chunk_size = need_whole("LoftUp", "chunk_size", chunk_size)
        self.convention = convention
        channels = need_channels("LoftUp", "in_channels", in_channels)
        guides = need_channels("LoftUp", "guide_channels", guide_channels)
        width = channels + 4 * _SAMPLE_FREQUENCIES
        if width % num_heads:
            raise ValueError(
                f"LoftUp: expected in_channels + 20 to be a multiple of num_heads, got {width} and {num_heads}."
            )
        encoded = 2 * frequencies * (2 + guides) + guides
        self.norm_x = nn.LayerNorm(channels) if norm else nn.Identity()
        self.sample_phases = nn.Parameter(torch.randn(2, _SAMPLE_FREQUENCIES, 2))
        self.pixel_phases = nn.Parameter(torch.randn(2, frequencies, 2 + guides))
        self.norm_pixels = nn.LayerNorm(encoded)
        self.encoder = nn.Sequential(
            nn.Conv2d(encoded, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.layers = nn.ModuleList(_CrossAttention(width, num_heads, channels) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, channels)
        self.norm_out = nn.LayerNorm(channels, eps=1e-6)

    def _upsample(self, x: Tensor, like: Tensor, maps: Maps) -> Tensor:
        samples = self._samples(x, (like.shape[2], like.shape[3]), maps).flatten(1, 2)
        keys = [cast(_CrossAttention, layer).keys(samples) for layer in self.layers]
        layout = layout_of(x)
        rows = max(self.chunk_size // like.shape[3], 1)
        out = [
            self._attend(chunk, keys).permute(0, 3, 1, 2).to(x.dtype).contiguous(memory_format=layout)
            for chunk in self._pixels(like).split(rows, 1)
        ]
        return torch.cat(out, 2)

    def _samples(self, x: Tensor, size: tuple[int, int], maps: Maps) -> Tensor:
        """Return features, normalised, with their places: (N, h, w, in_channels + 20)."""
        features = self.norm_x(x.permute(0, 2, 3, 1))
        rows, columns = (
            _end_to_end(positions(map_, n, x), extent) for map_, n, extent in zip(maps, x.shape[2:], size, strict=True)
        )
        places = _waves(rows, columns, None, self.sample_phases).to(features.dtype)
        return torch.cat([features, places.expand(x.shape[0], -1, -1, -1)], 3)

    def _pixels(self, like: Tensor) -> Tensor:
        """Return what is asked at every pixel: (N, H, W, in_channels + 20)."""
        rows, columns = (
            _end_to_end(torch.arange(n, dtype=torch.float64, device=like.device), n) for n in like.shape[2:]
        )
        image = like.permute(0, 2, 3, 1).to(torch.promote_types(like.dtype, torch.float32))
        axes = (0, 1, 2) if self.convention == "loftup" and len(image) else (1, 2)
        low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
        colours = (image - low) / (high - low).clamp(min=1e-4) - 0.5
        waves = _waves(rows, columns, colours, self.pixel_phases)
        encoded = self.norm_pixels(torch.cat([waves, colours], 3).to(like.dtype))
        return self.encoder(encoded.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def _attend(self, pixels: Tensor, keys: list[tuple[Tensor, Tensor]]) -> Tensor:
        query = pixels.flatten(1, 2)
        for layer, (key, value) in zip(self.layers, keys, strict=True):
            query = layer(query, key, value)
        return self.norm_out(self.project(self.norm(query))).unflatten(1, pixels.shape[1:3])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, convention={self.convention!r}"


class _CrossAttention(nn.Module):
    """Attention to all features, then two linear layers; both normalise first and add to what they read."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_pixels, self.norm_samples, self.norm_hidden = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key, self.value, self.merge = (nn.Linear(width, width) for _ in range(4))
        self.expand, self.reduce = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def keys(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of ``samples`` (N, L, width), each (N, heads, L, width / heads)."""
        samples = self.norm_samples(samples)
        return self._split(self.key(samples)), self._split(self.value(samples))

    def forward(self, pixels: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query = self._split(self.query(self.norm_pixels(pixels)))
        found = F.scaled_dot_product_attention(query, key, value)
        pixels = pixels + self.merge(found.transpose(1, 2).flatten(2))
        return pixels + self.reduce(F.gelu(self.expand(self.norm_hidden(pixels))))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, x.shape[2] // self.heads)).transpose(1, 2)


def places_of(map_: AxisMap, n: int, extent: int, like: Tensor) -> Tensor:
    """Return the coordinates of ``n`` features along an axis of ``extent`` pixels."""
    return _end_to_end(positions(map_, n, like), extent)


def _end_to_end(position: Tensor, extent: int) -> Tensor:
    """Return the coordinate of a position: -1 on the first of ``extent`` samples, 1 on the last."""
    return 2 * position / max(extent - 1, 1) - 1


def _waves(rows: Tensor, columns: Tensor, colours: Tensor | None, phases: Tensor) -> Tensor:
    """Return sines, then cosines, of places and colours at all frequencies.

    Places have angles of up to 22026, so theirs are float64; they differ by row and by column alone.

    Args:
        rows: (H,), float64.
        columns: (W,), float64.
        colours: (N, H, W, G), or ``None``.
        phases: (2, F, 2 + G), of sines and of cosines.

    Returns:
        (N, H, W, 2 * F * (2 + G)), by frequency and then by row, column and colours; float32 or the dtype of colours.
    """
    rate = torch.linspace(-2, 10, phases.shape[1], dtype=torch.float64, device=rows.device).exp()
    dtype = torch.promote_types(phases.dtype, torch.float32) if colours is None else colours.dtype
    batch, height, width = colours.shape[0] if colours is not None else 1, rows.shape[0], columns.shape[0]
    waves = []
    for wave, phase in zip((torch.sin, torch.cos), phases, strict=True):
        places = (
            wave(at[..., None] * rate + phase[:, axis]).to(dtype).expand(batch, height, width, -1)
            for axis, at in enumerate((rows[:, None], columns[None]))
        )
        parts = [place.unsqueeze(4) for place in places]
        if colours is not None:
            parts.append(wave(colours.unsqueeze(3) * rate.to(dtype)[:, None] + phase[:, 2:].to(dtype)))
        waves.append(torch.cat(parts, 4).flatten(3))
    return torch.cat(waves, 3)
