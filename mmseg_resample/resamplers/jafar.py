"""``JAFAR``: resampling by attention from the image to features that modulate its encoding."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..ops import AxisMap, Coordinates
from ._arguments import need_channels
from .image_attention import ImageAttention
from .image_encoder import GROUPS, ImageEncoder


@MODELS.register_module()
class JAFAR(ImageAttention):
    """Joint attention of image and features: every pixel of the image attends to all samples of ``x``.

    Query and key are two encodings of one rotary-encoded image. The key is averaged over the cell of each sample, then
    scaled and shifted by its features. The weights, averaged over heads, sum the features as they are: constant maps
    stay constant, and no value leaves the range of ``x``.

    Args:
        in_channels: channels of ``x``.
        guide_channels: channels of ``like``, the image: 3.
        align_corners: where the samples of ``x`` sit, see ``ImageGuided``; ``None`` is ``False``, the published one.
        coordinates: the same as a convention or as maps, see ``ImageGuided``.
        qk_channels: channels of queries and keys, a multiple of 16 and of ``num_heads``.
        num_heads: heads of the attention.
        chunk_size: pixels of the output attended at a time; changes memory and time, not the result.

    Raises:
        ValueError: channels missing or of no such multiple, ``num_heads`` or ``chunk_size`` below 1, both
            ``align_corners=True`` and ``coordinates``.

    Source: Couairon et al., "JAFAR: Jack up Any Feature at Any Resolution", NeurIPS 2025, arXiv:2506.11136. Numbers are
        those of the released code, whose weights ``launch.upsampler_keys.jafar_keys`` renames.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        coordinates: Coordinates | AxisMap | Sequence[AxisMap | dict[str, float]] | None = None,
        qk_channels: int = 128,
        num_heads: int = 4,
        chunk_size: int = 1024,
    ) -> None:
        super().__init__(in_channels, guide_channels, align_corners, coordinates, qk_channels, num_heads, chunk_size)
        self.features_encoder = ImageEncoder(need_channels("JAFAR", "in_channels", in_channels), qk_channels)
        self.gamma = nn.Conv2d(qk_channels, qk_channels, 1, bias=False)
        self.beta = nn.Conv2d(qk_channels, qk_channels, 1, bias=False)
        self.init_weights()

    def _query(self, image: Tensor) -> Tensor:
        return F.group_norm(image, GROUPS)

    def _key(self, image: Tensor, x: Tensor) -> Tensor:
        features = self.features_encoder(x)
        return self.gamma(features) * F.group_norm(image, GROUPS) + self.beta(features)
