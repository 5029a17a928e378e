"""``ImageEncoder``: the small convolutional network that image-guided upsamplers read their image with."""

import torch.nn.functional as F
from torch import Tensor, nn

from ._arguments import need_channels, need_odd

GROUPS = 8  # of every group normalisation in it


class ImageEncoder(nn.Module):
    """A convolution and residual blocks at the resolution of their input, padded by reflection.

    A block is twice group normalisation, SiLU and a convolution. Along an axis too short to be reflected, the outermost
    samples are repeated.

    Args:
        in_channels: channels of the input.
        channels: channels of the output, a multiple of 8.
        kernel_size: side of the first convolution, odd.
        block_kernel_size: side of the convolutions in the blocks, odd.
        blocks: number of blocks.
        bias: the convolutions have one.
        skip: a block's input is added to its output.

    Shapes: (N, in_channels, H, W) to (N, channels, H, W).

    Raises:
        ValueError: ``channels`` is no multiple of 8, a side is not odd.

    Source: the encoders of JAFAR, arXiv:2506.11136 (1x1, no bias), AnyUp, arXiv:2510.12764 (the same) and NAF,
        arXiv:2511.18452 (1x1 and 3x3, with bias, no skip).
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        kernel_size: int = 1,
        block_kernel_size: int = 1,
        blocks: int = 2,
        bias: bool = False,
        skip: bool = True,
    ) -> None:
        super().__init__()
        need_channels("ImageEncoder", "channels", channels, multiple_of=GROUPS)
        need_odd("ImageEncoder", "kernel_size", kernel_size)
        need_odd("ImageEncoder", "block_kernel_size", block_kernel_size)
        self.stem = _ReflectedConv(in_channels, channels, kernel_size, bias=bias)
        self.blocks = nn.Sequential(*(_Block(channels, block_kernel_size, bias, skip) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x))


class _Block(nn.Module):
    def __init__(self, channels: int, kernel_size: int, bias: bool, skip: bool) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels)
        self.conv1 = _ReflectedConv(channels, channels, kernel_size, bias=bias)
        self.norm2 = nn.GroupNorm(GROUPS, channels)
        self.conv2 = _ReflectedConv(channels, channels, kernel_size, bias=bias)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.silu(self.norm1(x)))
        out = self.conv2(F.silu(self.norm2(out)))
        return x + out if self.skip else out


class _ReflectedConv(nn.Conv2d):
    """A convolution that keeps the size, for maps of any size: ``padding_mode='reflect'`` refuses one of 1 pixel."""

    def forward(self, input: Tensor) -> Tensor:
        reach_y, reach_x = (side // 2 for side in self.kernel_size)
        padded = _reflect(_reflect(input, (0, 0, reach_y, reach_y)), (reach_x, reach_x, 0, 0))
        return super().forward(padded)


def _reflect(x: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    if not any(padding):
        return x
    short = x.shape[2] <= padding[2] or x.shape[3] <= padding[0]
    return F.pad(x, padding, mode="replicate" if short else "reflect")
