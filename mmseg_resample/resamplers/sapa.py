"""``SAPA``: resampling by similarity between the two features."""

import torch
from mmengine.model import xavier_init
from mmseg.registry import MODELS
from torch import Tensor, nn

from ._arguments import need_channels, need_odd, need_whole
from .base import Resampler
from .reassemble import Centres, centres, correlate, inside, reassemble


@MODELS.register_module()
class SAPA(Resampler):
    """Similarity-aware point affiliation, with the low-rank bilinear similarity (SAPA-B).

    A sample of ``like`` is compared with the samples of ``x`` in a window around its nearest source sample (under
    ``align_corners``), both projected to ``embedding_channels``; the softmax of the similarities is the kernel that the
    window is summed with. Taps outside ``x`` take no part in the softmax, so constant maps stay constant. Nothing in it
    knows the ratio of the sizes.

    Args:
        in_channels: channels of ``x``.
        guide_channels: channels of ``like``.
        align_corners: pixel model; ``None`` is ``False``, which is the published one.
        up_kernel: side of the window, odd.
        embedding_channels: rank of the similarity.
        norm: layer normalisation over the channels of both features before they are projected.

    Raises:
        ValueError: channels missing, a window that is not odd.

    Source: Lu et al., "SAPA: Similarity-Aware Point Affiliation for Feature Upsampling", NeurIPS 2022,
        arXiv:2209.12866. Written from the description in the paper; the border is our choice.
    """

    guided = True

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        up_kernel: int = 5,
        embedding_channels: int = 32,
        norm: bool = True,
    ) -> None:
        super().__init__(in_channels, guide_channels, bool(align_corners))
        channels = need_channels("SAPA", "in_channels", in_channels)
        guides = need_channels("SAPA", "guide_channels", guide_channels)
        self.up_kernel = need_odd("SAPA", "up_kernel", up_kernel)
        need_whole("SAPA", "embedding_channels", embedding_channels)
        self.norm_x = nn.LayerNorm(channels) if norm else nn.Identity()
        self.norm_like = nn.LayerNorm(guides) if norm else nn.Identity()
        self.key = nn.Linear(channels, embedding_channels, bias=False)
        self.query = nn.Linear(guides, embedding_channels, bias=False)
        self.init_weights()

    def init_weights(self) -> None:
        """Start with projections that keep the scale of the features."""
        xavier_init(self.key, distribution="uniform")
        xavier_init(self.query, distribution="uniform")

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        at = centres(x, (like.shape[2], like.shape[3]), bool(self.align_corners))
        return reassemble(x, self._kernel(x, like, at), at)

    def explain(self, x: Tensor, like: Tensor) -> dict[str, Tensor]:
        """Return ``kernel``: (N, 1, up_kernel^2, H, W), row by row of the window; 0 for taps outside ``x``."""
        at = centres(x, (like.shape[2], like.shape[3]), bool(self.align_corners))
        return {"kernel": self._kernel(x, like, at)}

    def _kernel(self, x: Tensor, like: Tensor, at: Centres) -> Tensor:
        key = self.key(self.norm_x(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        query = self.query(self.norm_like(like.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        similarity = correlate(key, query, self.up_kernel, at)
        outside = ~inside((x.shape[2], x.shape[3]), self.up_kernel, at)
        return similarity.masked_fill(outside, -torch.inf).softmax(2)

    def extra_repr(self) -> str:
        return f"align_corners={self.align_corners}, up_kernel={self.up_kernel}"
