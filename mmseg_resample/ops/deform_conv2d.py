"""``deform_conv2d``: a convolution whose taps read displaced positions."""

from torch import Tensor

from . import _backends, _check


@_check.overridable
def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Convolve ``input``, every tap of the window displaced by its own offset at every position.

    Stride and dilation are 1 and the output has the size of ``input``: the case of feature alignment. Taps are read
    bilinearly, zeros lie outside. Zero offsets without a mask are ``F.conv2d``.

    Args:
        input: (N, C, H, W), floating point.
        offset: (N, 2 G kh kw, H, W) in pixels. Channels are ordered by group, tap (row by row), then **(dy, dx)**, as
            torchvision and mmcv have it; C / G consecutive channels share a group.
        weight: (O, C, kh, kw), kernel sizes odd.
        bias: (O,).
        mask: (N, G kh kw, H, W), a factor per tap.
        backend: ``"auto"``, ``"torch"`` (ours) or ``"torchvision"``; ``"auto"`` takes torchvision's for CUDA tensors
            where it is installed: on a CPU ours is several times faster. Same result within the tolerances of
            docs/conventions.md.

    Returns:
        (N, O, H, W).

    Raises:
        ValueError: shapes that do not fit each other, an even kernel, an unknown backend.
        TypeError: ``input`` or ``offset`` is no floating dtype.
        ImportError: ``backend="torchvision"`` without a torchvision that fits this torch.

    Source: Zhu et al., "Deformable ConvNets v2: More Deformable, Better Results", CVPR 2019, arXiv:1811.11168.
    """
    _check.floating("deform_conv2d", "input", input)
    _check.floating("deform_conv2d", "offset", offset)
    if input.ndim != 4 or weight.ndim != 4 or weight.shape[1] != input.shape[1]:
        raise ValueError(
            f"deform_conv2d: expected input (N, C, H, W) and weight (O, C, kh, kw), "
            f"got {tuple(input.shape)} and {tuple(weight.shape)}."
        )
    batch, channels, *size = input.shape
    kernel = tuple(weight.shape[2:])
    if not (kernel[0] % 2 and kernel[1] % 2):
        raise ValueError(f"deform_conv2d: expected odd kernel sizes, so that the window has a centre, got {kernel}.")
    taps = kernel[0] * kernel[1]
    groups = offset.shape[1] // (2 * taps)
    if groups < 1 or channels % groups or tuple(offset.shape) != (batch, 2 * taps * groups, *size):
        raise ValueError(
            f"deform_conv2d: expected offset (N, 2 * G * {taps}, H, W) with G dividing C, for input "
            f"{tuple(input.shape)}, got {tuple(offset.shape)}."
        )
    if mask is not None and tuple(mask.shape) != (batch, taps * groups, *size):
        raise ValueError(
            f"deform_conv2d: expected mask {(batch, taps * groups, *size)}, one factor per tap of the {groups} groups, "
            f"got {tuple(mask.shape)}."
        )
    return _backends.select("deform_conv2d", backend, input)(input, offset, weight, bias, mask)
