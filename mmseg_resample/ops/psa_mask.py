"""``psa_mask``: spread the masks of PSANet's positions over the map, and its transpose."""

from typing import Literal, get_args

import torch
from torch import Tensor

from . import _check

Kind = Literal["collect", "distribute"]
_KINDS = get_args(Kind)


def psa_mask(input: Tensor, kind: Kind, mask_size: tuple[int, int]) -> Tensor:
    """Lay the mask of every position onto the map, centred on the position and cut at the border of the map.

    Deterministic forward and backward on a CPU.

    Args:
        input: (N, h_mask * w_mask, H, W), the mask of every position, row by row.
        kind: ``"collect"``: channel ``i`` of the result is the weight with which each position reads position ``i``.
            ``"distribute"``: channel ``i`` is the weight that position ``i`` gives to each position.
        mask_size: (h_mask, w_mask); an even size has its centre left of, or above, the middle.

    Returns:
        (N, H * W, H, W), zero beyond a mask.

    Raises:
        ValueError: an unknown kind, or channels that are not those of the mask.

    Source: Zhao et al., "PSANet: Point-wise Spatial Attention Network for Scene Parsing", ECCV 2018; mmcv's
    ``PSAMask``.
    """
    _check.one_of("psa_mask", "kind", kind, _KINDS)
    if input.ndim != 4 or input.shape[1] != mask_size[0] * mask_size[1]:
        raise ValueError(
            f"psa_mask: expected input (N, {mask_size[0] * mask_size[1]}, H, W) for a mask of {tuple(mask_size)}, "
            f"got {tuple(input.shape)}."
        )
    channel, inside = _channels((input.shape[2], input.shape[3]), mask_size, input.device)
    spread = input.flatten(2).gather(1, channel.expand(len(input), -1, -1)).masked_fill(~inside, 0)
    return (spread.transpose(1, 2) if kind == "distribute" else spread).unflatten(2, input.shape[2:])


def psa_mask_transpose(output: Tensor, kind: Kind, mask_size: tuple[int, int]) -> Tensor:
    """Apply the transpose of ``psa_mask``, which is its gradient.

    Args:
        output: (N, H * W, H, W), such as the gradient of what ``psa_mask`` returned.
        kind: as for ``psa_mask``.
        mask_size: as for ``psa_mask``.

    Returns:
        (N, h_mask * w_mask, H, W).

    Raises:
        ValueError: an unknown kind, or an ``output`` of another shape.
    """
    _check.one_of("psa_mask_transpose", "kind", kind, _KINDS)
    if output.ndim != 4 or output.shape[1] != output.shape[2] * output.shape[3]:
        raise ValueError(f"psa_mask_transpose: expected output (N, H * W, H, W), got {tuple(output.shape)}.")
    size = output.shape[2], output.shape[3]
    channel, inside = _channels(size, mask_size, output.device)
    spread = output.flatten(2)
    spread = (spread.transpose(1, 2) if kind == "distribute" else spread).masked_fill(~inside, 0)
    masks = output.new_zeros(len(output), mask_size[0] * mask_size[1], size[0] * size[1])
    return masks.scatter_add_(1, channel.expand(len(output), -1, -1), spread).unflatten(2, size)


def _channels(size: tuple[int, int], mask_size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return which channel of the mask around the second position lies on the first, and whether any does.

    Both are (H * W, H * W), the first position along the rows.
    """
    y = torch.arange(size[0], device=device).repeat_interleave(size[1])
    x = torch.arange(size[1], device=device).repeat(size[0])
    row = y[:, None] - y + (mask_size[0] - 1) // 2
    column = x[:, None] - x + (mask_size[1] - 1) // 2
    inside = (row >= 0) & (row < mask_size[0]) & (column >= 0) & (column < mask_size[1])
    return (row * mask_size[1] + column).clamp(0, mask_size[0] * mask_size[1] - 1), inside
