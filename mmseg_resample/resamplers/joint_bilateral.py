"""``JointBilateral``: upsampling in steps, each filtered by how alike the image is around every sample."""

from collections.abc import Sequence
from math import isqrt

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..ops import AxisMap, Coordinates, resize
from ..ops.grid import axis_maps
from ._arguments import need_channels, need_odd, need_whole
from .guided import ImageGuided, Maps, layout_of
from .windows import compare, reflect, weigh

_CHANNELS_AT_A_TIME = 64


@MODELS.register_module()
class JointBilateral(ImageGuided):
    """A stack of joint bilateral upsamplers, each a bicubic resize and a filter whose kernels the image decides.

    A step doubles the size of the features, to at most that of the output; the last one goes to the output's size,
    whatever is left. The samples of every step cover the image as cells of equal size do, and so does the image,
    average-pooled to that size. So it is the first resize that depends on the pixel model of ``x``.

    A kernel is a softmax over the window of similarity minus a squared distance. Learned, the similarity is the inner
    product of two-layer projections of the image, and two more layers correct the kernels, which then need not sum to
    1. Not learned, it is the joint bilateral filter, with a Gaussian of the difference in colour: constants stay. The
    image and the features are reflected at their edges.

    Args:
        in_channels: channels of ``x``.
        guide_channels: channels of ``like``, 3 for an image.
        align_corners: see ``ImageGuided``.
        coordinates: see ``ImageGuided``.
        steps: of upsampling; the published four were trained for features of stride 16, and for others too.
        up_kernel: side of the window, odd.
        learned: whether anything is learned: the published module, or the plain filter.
        key_channels: channels of the projected image.
        sigma_spatial: deviation of the Gaussian of distance, in units of half a window; learned, its first value.
        sigma_range: deviation of the Gaussian of colour, in units of the normalised image, where nothing is learned.
        norm: layer normalisation over the channels of ``x`` first, as FeatUp's networks with ``use_norm`` have it.
        dropout: share of the channels of projections and corrections that training leaves out, twice that of the last
            layer's; published training has 0.1.

    Raises:
        ValueError: channels missing, a window that is not odd, a deviation that is not positive.

    Source: Fu et al., "FeatUp: A Model-Agnostic Framework for Features at Any Resolution", ICLR 2024,
        arXiv:2403.10516; the filter: Kopf et al., "Joint Bilateral Upsampling", SIGGRAPH 2007.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        coordinates: Coordinates | AxisMap | Sequence[AxisMap | dict[str, float]] | None = None,
        steps: int = 4,
        up_kernel: int = 7,
        learned: bool = True,
        key_channels: int = 32,
        sigma_spatial: float = 1.0,
        sigma_range: float = 0.25,
        norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_channels, guide_channels, align_corners, coordinates)
        channels = need_channels("JointBilateral", "in_channels", in_channels)
        guides = need_channels("JointBilateral", "guide_channels", guide_channels)
        need_whole("JointBilateral", "steps", steps)
        need_whole("JointBilateral", "key_channels", key_channels)
        self.up_kernel = need_odd("JointBilateral", "up_kernel", up_kernel)
        for name, value in (("sigma_spatial", sigma_spatial), ("sigma_range", sigma_range)):
            if not value > 0:
                raise ValueError(f"JointBilateral: expected {name} > 0, got {value!r}.")
        self.norm_x = nn.LayerNorm(channels) if norm else nn.Identity()
        self.filters = nn.ModuleList(
            _LearnedKernel(guides, up_kernel, key_channels, sigma_spatial, dropout)
            if learned
            else _GaussianKernel(up_kernel, sigma_spatial, sigma_range)
            for _ in range(steps)
        )
        self.dropout = nn.Dropout2d(2 * dropout)
        self.correct = nn.Conv2d(channels, channels, 1) if learned else None

    def _upsample(self, x: Tensor, like: Tensor, maps: Maps) -> Tensor:
        x = self.norm_x(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).to(x.dtype).contiguous(memory_format=layout_of(x))
        for filter_, size, step in self._steps(x, like, maps):
            x = _filtered(x, filter_(F.adaptive_avg_pool2d(like, size)), step, size)
        if self.correct is None:
            return x
        return x.add(self.correct(self.dropout(x)), alpha=0.1).to(x.dtype)

    def _steps(self, x: Tensor, like: Tensor, maps: Maps) -> list[tuple[nn.Module, tuple[int, int], Maps]]:
        """Return of each step its filter, its size, and the maps from its samples to those before."""
        steps = []
        target = (like.shape[2], like.shape[3])
        source = (x.shape[2], x.shape[3])
        for index, filter_ in enumerate(self.filters):
            doubled = (min(2 * source[0], target[0]), min(2 * source[1], target[1]))
            size = target if index + 1 == len(self.filters) else doubled
            cells = axis_maps("half_pixel", target if index == 0 else source, size)
            if index == 0:
                cells = tuple(map_.after(cell) for map_, cell in zip(maps, cells, strict=True))
            steps.append((filter_, size, (cells[0], cells[1])))
            source = size
        return steps

    def explain(self, x: Tensor, like: Tensor) -> dict[str, Tensor]:
        """Return ``kernel`` of the last step, (N, 1, up_kernel^2, H, W), row by row of the window."""
        return {"kernel": self.filters[-1](like).unsqueeze(1)}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, up_kernel={self.up_kernel}"


class _LearnedKernel(nn.Module):
    """Kernels from projections of the image, corrected: (N, C, H, W) to (N, k * k, H, W)."""

    def __init__(self, guides: int, window: int, channels: int, sigma: float, dropout: float) -> None:
        super().__init__()
        self.window = window
        self.log_scale = nn.Parameter(torch.tensor(0.0))
        self.sigma = nn.Parameter(torch.tensor(float(sigma)))
        self.project = _two_layers(guides, channels, dropout)
        self.correct = _two_layers(window * window + guides, window * window, dropout)

    def forward(self, guide: Tensor) -> Tensor:
        key = self.project(guide)
        scale = self.log_scale.exp().clamp(1e-4, 1e4)
        kernel = _kernel(key, key, scale, _distance(self.window, guide) / (2 * self.sigma**2))
        correction = self.correct(torch.cat([kernel.to(guide.dtype), guide], 1))
        return kernel + 0.1 * correction


class _GaussianKernel(nn.Module):
    """Kernels from distances in place and colour: (N, C, H, W) to (N, k * k, H, W)."""

    def __init__(self, window: int, sigma_spatial: float, sigma_range: float) -> None:
        super().__init__()
        self.window, self.sigma_spatial, self.sigma_range = window, sigma_spatial, sigma_range

    def forward(self, guide: Tensor) -> Tensor:
        guide = guide.to(torch.promote_types(guide.dtype, torch.float32)) / self.sigma_range
        # |q - k|^2 / 2 less what is the same for a whole window.
        key = torch.cat([guide, guide.square().sum(1, keepdim=True) / -2], 1)
        query = torch.cat([guide, torch.ones_like(guide[:, :1])], 1)
        return _kernel(key, query, 1.0, _distance(self.window, guide) / (2 * self.sigma_spatial**2))

    def extra_repr(self) -> str:
        return f"sigma_spatial={self.sigma_spatial}, sigma_range={self.sigma_range}"


def _two_layers(channels: int, out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 1), nn.GELU(), nn.Dropout2d(dropout), nn.Conv2d(out, out, 1))


def _kernel(key: Tensor, query: Tensor, scale: Tensor | float, distance: Tensor) -> Tensor:
    """Return the softmax over a window of ``scale`` times inner products minus ``distance``, (N, k * k, H, W)."""
    similarity = compare(reflect(key, isqrt(distance.numel()) // 2), query)
    return (scale * similarity - distance[:, None, None]).softmax(1)


def _filtered(x: Tensor, kernel: Tensor, maps: Maps, size: tuple[int, int]) -> Tensor:
    """Resize ``x`` and weigh the windows; some channels at a time, since both are as large as the result."""
    reach = isqrt(kernel.shape[1]) // 2
    parts = [
        weigh(reflect(resize(part, size, mode="bicubic", coordinates=maps), reach), kernel)
        for part in x.split(_CHANNELS_AT_A_TIME, 1)
    ]
    return torch.cat(parts, 1).contiguous(memory_format=layout_of(x))


def _distance(window: int, like: Tensor) -> Tensor:
    """Return the squared distance of every tap of a window from its centre, in half windows: (k * k,)."""
    line = torch.linspace(-1, 1, window, dtype=like.dtype, device=like.device) if window > 1 else like.new_zeros(1)
    return (line[:, None].square() + line.square()).flatten()
