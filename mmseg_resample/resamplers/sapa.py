"""``SAPA``: resampling by similarity between the two features."""

from mmengine.model import trunc_normal_init
from mmseg.registry import MODELS
from torch import Tensor, nn

from ._arguments import need_channels, need_odd, need_whole
from .base import Resampler
from .reassemble import Centres, centres, correlate, reassemble


@MODELS.register_module()
class SAPA(Resampler):
    """Similarity-aware point affiliation, with the low-rank bilinear similarity (SAPA-B).

    A sample of ``like`` is compared with the samples of ``x`` in a window around its nearest source sample (under
    ``align_corners``), both projected to ``embedding_channels``; the softmax of the similarities is the kernel that the
    window is summed with. A tap outside ``x`` has similarity 0 and value 0: it takes its share of the softmax and adds
    nothing, so that the outermost ``up_kernel // 2`` samples of ``x`` fade. Nothing in it knows the ratio of the sizes.

    Args:
        in_channels: channels of ``x``.
        guide_channels: channels of ``like``.
        align_corners: pixel model; ``None`` is ``False``, which is the published one.
        up_kernel: side of the window, odd.
        embedding_channels: rank of the similarity. 32 has the published parameters; the released class has 64.
        norm: layer normalisation over the channels of both features before they are projected.

    Raises:
        ValueError: channels missing, a window that is not odd.

    Source: Lu et al., "SAPA: Similarity-Aware Point Affiliation for Feature Upsampling", NeurIPS 2022,
        arXiv:2209.12866. The same numbers as the released module at the ratios it takes, see docs/resamplers.md.
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
        self.key = nn.Linear(channels, embedding_channels)
        self.query = nn.Linear(guides, embedding_channels)
        self.init_weights()

    def init_weights(self) -> None:
        """Start with similarities near zero, so nearly uniform kernels: larger ones saturate the softmax."""
        trunc_normal_init(self.key, std=0.02)
        trunc_normal_init(self.query, std=0.02)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        at = centres(x, (like.shape[2], like.shape[3]), bool(self.align_corners))
        return reassemble(x, self._kernel(x, like, at), at)

    def explain(self, x: Tensor, like: Tensor) -> dict[str, Tensor]:
        """Return ``kernel``: (N, 1, up_kernel^2, H, W), row by row of the window, taps outside ``x`` included."""
        at = centres(x, (like.shape[2], like.shape[3]), bool(self.align_corners))
        return {"kernel": self._kernel(x, like, at)}

    def _kernel(self, x: Tensor, like: Tensor, at: Centres) -> Tensor:
        key = self.key(self.norm_x(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        query = self.query(self.norm_like(like.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return correlate(key, query, self.up_kernel, at).softmax(2)

    def extra_repr(self) -> str:
        return f"align_corners={self.align_corners}, up_kernel={self.up_kernel}"
