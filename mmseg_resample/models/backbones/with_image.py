"""``WithImage``: the image as the finest level of any backbone."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class WithImage(BaseModule):
    """A backbone that returns the image in front of its features, for necks and heads that upsample by it.

    The image is a level like others: stride 1, offset 0, three channels, normalised as the backbone takes it.

    Args:
        backbone: config of the backbone.
        frozen: the backbone is not trained: no gradients, and norms and dropout as in evaluation.
        init_cfg: as ``BaseModule`` takes it; weights of the backbone are in the ``init_cfg`` of its own config.

    Returns of ``forward``:
        A tuple of the image (N, 3, H, W) and the levels of the backbone. Level ``i`` of the backbone has index
        ``i + 1``.

    Raises:
        TypeError: ``backbone`` is no dict with a ``type``.
    """

    def __init__(self, backbone: dict[str, Any], frozen: bool = False, init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(init_cfg)
        if not isinstance(backbone, dict) or "type" not in backbone:
            raise TypeError(f"WithImage: expected backbone to be a config, dict(type=..., ...), got {backbone!r}.")
        self.backbone = MODELS.build(backbone)
        self.frozen = frozen
        if frozen:
            self.backbone.requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            levels = self.backbone(image)
        return (image, *(levels if isinstance(levels, Sequence) else (levels,)))

    def train(self, mode: bool = True) -> "WithImage":
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self
