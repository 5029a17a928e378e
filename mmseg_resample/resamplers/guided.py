"""What upsamplers guided by an image share: where the coarse samples sit in it, and features read there.

All of them compare pixels of the image with samples of the features, so each has to know where those sit. That is the
pixel model, as for every resize: ``source = scale * destination + offset`` per axis.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..grids.sites import current_pass, is_audited, resizes_unseen
from ..ops import AxisMap, Coordinates, resize
from ..ops.grid import axis_maps
from ..policy import claim_bilinear_site
from ._arguments import need_channels, parse_coordinates
from .base import Resampler

Maps = tuple[AxisMap, AxisMap]
"""Of rows and columns: from pixels of ``like`` to samples of ``x``."""


class ImageGuided(Resampler):
    """Base of resamplers whose ``like`` is the image, normalised as the network takes it.

    The size of the output is that of ``like``.

    Args:
        in_channels: channels of ``x``. Filled in by the neck or head that owns the resampler.
        guide_channels: channels of ``like``, 3. Filled in likewise.
        align_corners: where the samples of ``x`` sit: ``False`` or ``None``, at the centres of their cells, as patches
            of a ViT do at sizes that the patch divides; ``True``, end to end.
        coordinates: a convention by its ONNX name, or ``dict(scale=..., offset=...)``, one for both axes or one each
            (source = scale * destination + offset), instead of ``align_corners``. ``"asymmetric"`` is that of
            backbones with odd kernels (ResNet, MiT, HRNet) at sizes that their stride divides.

    Raises:
        ValueError: channels missing, or both ``align_corners=True`` and ``coordinates``.
    """

    guided = True
    attends = True
    """What audits see as one resize is none in an exported graph."""

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        coordinates: Coordinates | AxisMap | Sequence[AxisMap | dict[str, float]] | None = None,
    ) -> None:
        name = type(self).__name__
        need_channels(name, "in_channels", in_channels)
        need_channels(name, "guide_channels", guide_channels)
        if align_corners and coordinates is not None:
            raise ValueError(
                f"{name}: expected either align_corners or coordinates, got align_corners=True and "
                f"coordinates={coordinates!r}."
            )
        super().__init__(in_channels, guide_channels, align_corners)
        self.coordinates: Any = parse_coordinates(coordinates)
        self._maps((2, 2), (2, 2))  # a bad convention fails here

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        source, target = (x.shape[2], x.shape[3]), (like.shape[2], like.shape[3])
        own = self._maps(source, target)
        if is_audited():
            # Attention moves no positions that could be followed. This reads the same places, and is a site likewise.
            return like.mean(1, keepdim=True) + resize(x, target, mode="bilinear", coordinates=own, warning=False)
        model = claim_bilinear_site(self, own, source, target)
        if model is None:  # a policy that asks for another mode: there is none
            current_pass().count()
            model = own
        with resizes_unseen():
            return self._upsample(x, like, own if model is own else _maps(model, source, target))

    @abstractmethod
    def _upsample(self, x: Tensor, like: Tensor, maps: Maps) -> Tensor:
        """Bring ``x`` (N, in_channels, h, w) to the size of ``like`` (N, guide_channels, H, W)."""

    def _maps(self, source: tuple[int, int], target: tuple[int, int]) -> Maps:
        return _maps(self.coordinates or ("align_corners" if self.align_corners else "half_pixel"), source, target)

    def extra_repr(self) -> str:
        if self.coordinates is not None:
            return f"{self.in_channels}, coordinates={self.coordinates!r}"
        return f"{self.in_channels}, align_corners={self.align_corners}"


def guide_of(resampler: nn.Module, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Average an image around the samples of a map of ``size``, under the pixel model of ``resampler``: its ``like``.

    Args:
        resampler: whose ``coordinates``, by name, or ``align_corners`` say where the samples sit.
        image: (N, 3, H, W).
        size: (h, w), at most that of the image.

    Returns:
        (N, 3, h, w); the image itself where that is its size.
    """
    full = (image.shape[2], image.shape[3])
    if size == full:
        return image
    model = getattr(resampler, "coordinates", None)
    if not isinstance(model, str):
        model = "align_corners" if getattr(resampler, "align_corners", None) else "half_pixel"
    return pool_at(image, size, _maps(model, size, full))


def _maps(model: Any, source: tuple[int, int], target: tuple[int, int]) -> Maps:
    half = axis_maps("half_pixel", source, target)
    rows, columns = axis_maps(model, source, target)
    # One sample has no distance to a next: end to end it would lie everywhere.
    return (rows if rows.scale else half[0], columns if columns.scale else half[1])


def positions(map_: AxisMap, n: int, like: Tensor) -> Tensor:
    """Return where ``n`` coarse samples sit, in samples of the fine axis; float64 on the device of ``like``."""
    return (torch.arange(n, dtype=torch.float64, device=like.device) - map_.offset) / map_.scale


def pool_at(fine: Tensor, size: tuple[int, int], maps: Maps) -> Tensor:
    """Average a fine map over the cells of coarse samples, which lie around them and reach half way to the next.

    Under half-pixel maps it is adaptive average pooling, whose cells are whole pixels. Cells of other maps are cut at
    the edge of the map; the centre of one beyond it is moved onto the edge.

    Args:
        fine: (N, C, H, W).
        size: (h, w) of the coarse map.
        maps: from fine to coarse samples.

    Returns:
        (N, C, h, w) in the dtype of ``fine``.
    """
    half = axis_maps("half_pixel", size, (fine.shape[2], fine.shape[3]))
    if all(a.is_close(b, 1e-9) for a, b in zip(maps, half, strict=True)):
        return F.adaptive_avg_pool2d(fine, size)
    dtype = torch.promote_types(fine.dtype, torch.float32)
    rows, columns = (
        _cells(map_, n, extent, fine).to(dtype) for map_, n, extent in zip(maps, size, fine.shape[2:], strict=True)
    )
    return (rows @ fine.to(dtype) @ columns.T).to(fine.dtype)


def _cells(map_: AxisMap, n: int, extent: int, like: Tensor) -> Tensor:
    """Return the share of every fine sample (columns) in the mean of every coarse one (rows)."""
    half = 0.5 / abs(map_.scale)
    centre = positions(map_, n, like).clamp(0, extent - 1)[:, None]
    pixel = torch.arange(extent, dtype=centre.dtype, device=like.device)
    covered = torch.minimum(centre + half, pixel + 0.5) - torch.maximum(centre - half, pixel - 0.5)
    covered = covered.clamp(min=0)
    return covered / covered.sum(1, keepdim=True)


def layout_of(x: Tensor) -> torch.memory_format:
    """Return the memory format of ``x``, (N, C, H, W), for a result that keeps it."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format
