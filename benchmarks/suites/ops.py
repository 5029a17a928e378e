"""The ops beside what PyTorch and published code have: ``resize``, ``flow_warp``, ``deform_conv2d``."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from measure import Call, Case, Options
from torch import Tensor

from mmseg_resample.ops import AxisMap, deform_conv2d, flow_warp, resize

from ._common import backends, largest_difference, memcpy, size_of, times

TITLE = "Ops"
NOTE = (
    "`resize` with the arguments of *F.interpolate* (*same call*; with the backend, where one was asked for by name), "
    "and with pixel models that PyTorch has no kernel for (*any map*). `flow_warp` beside SFNet's formulation of it, "
    "`deform_conv2d` beside sampled columns and a matrix product. float32, channels-last where it says so; *step* is "
    "forward and backward. *copy* moves as many bytes as the inputs, the output and, in a step, their gradients have."
)
LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}
Arguments = dict[str, Any]
MODES: list[tuple[str, Arguments]] = [
    ("nearest", {}),
    ("nearest-exact", {}),
    ("bilinear", {"align_corners": False}),
    ("bilinear", {"align_corners": True}),
    ("bilinear", {"align_corners": False, "antialias": True}),
    ("bicubic", {"align_corners": False}),
    ("area", {}),
]
Shapes = tuple[tuple[int, ...], tuple[int, ...]]
"""Shape of the input, spatial size of the output."""
NECK: Shapes = (2, 256, 32, 32), (64, 64)
LOGITS: Shapes = (2, 19, 128, 128), (512, 512)
QUICK: Shapes = (1, 4, 8, 8), (16, 16)
PYRAMIDS: list[Shapes] = [
    ((2, 256, 64, 64), (128, 128)),
    ((2, 128, 16, 32), (128, 256)),
    LOGITS,
    ((1, 150, 128, 128), (512, 512)),
]


def cases(options: Options) -> list[Case]:
    return [*_resizes(options), *_flow_warps(options), *_deformable_convolutions(options)]


# --------------------------------------------------------------------------------------------------------------------
# resize


def _resizes(options: Options) -> list[Case]:
    found = []
    for step, (shape, size) in ((False, LOGITS), (True, NECK)):
        shape, size = QUICK if options.quick else (shape, size)
        for mode, arguments in MODES:
            for layout in (torch.contiguous_format, torch.channels_last):
                found.append(_resize(mode, arguments, shape, size, layout, step, options.device))
    for shape, size in PYRAMIDS if not options.quick else []:
        for layout in (torch.contiguous_format, torch.channels_last):
            found.append(_resize(*MODES[2], shape, size, layout, True, options.device))
    others: list[Shapes] = [
        ((8, 64, 256), (1024,)),
        ((1, 8, 16, 32, 32), (32, 64, 64)),
    ]
    for shape, size in others if not options.quick else [((1, 4, 8), (16,)), ((1, 4, 4, 8, 8), (8, 16, 16))]:
        mode = LINEAR[len(shape)]
        arguments = {"align_corners": False}
        found.append(_resize(mode, arguments, shape, size, torch.contiguous_format, True, options.device))
    return found


def _resize(
    mode: str,
    arguments: Arguments,
    shape: tuple[int, ...],
    size: tuple[int, ...],
    layout: torch.memory_format,
    step: bool,
    device: str,
) -> Case:
    kernels = _kernels(mode, arguments, layout, device)
    ways = ["F.interpolate", "same call"]
    if not mode.startswith("nearest"):
        ways += [f"same call, {kernel}" for kernel in kernels]
    ways += [f"any map, {kernel}" for kernel in kernels]
    flags = [key for key, value in arguments.items() if value]
    words = [mode, *flags, *(["channels-last"] if layout is torch.channels_last else []), *(["step"] if step else [])]
    tiny = tuple(n if i < 2 else 8 for i, n in enumerate(shape)), tuple(16 for _ in size)
    build = partial(_build_resize, mode, arguments, layout, step, device)
    return Case(
        name=f"{', '.join(words)} {times(*shape)} to {times(*size)}",
        ways=ways,
        build=partial(build, shape, size),
        tiny=partial(build, *tiny),
        floor=lambda: memcpy((1 + step) * 4 * (_numel(shape) + _numel((*shape[:2], *size))), device),
        compare=lambda way, a, b: {"resize": largest_difference(a, b)} if way.startswith("same call") else {},
    )


def _kernels(mode: str, arguments: Arguments, layout: torch.memory_format, device: str) -> list[str]:
    """List the backends that differ: ``"torch"`` is products of any map, and so is ``"numba"`` but in channels-last."""
    if mode == "area" or arguments.get("antialias"):
        return []
    left_out = {"torch"} if not mode.startswith("nearest") else {"products", "numba"}
    if layout is torch.contiguous_format:
        left_out.add("numba")
    return [kernel for kernel in backends("resize", device) if kernel not in left_out]


def _numel(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _build_resize(
    mode: str,
    arguments: Arguments,
    layout: torch.memory_format,
    step: bool,
    device: str,
    shape: tuple[int, ...],
    size: tuple[int, ...],
    way: str,
) -> Call:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    x = x.contiguous(memory_format=layout).requires_grad_(step)
    call: Callable[[], Tensor]
    if way == "F.interpolate":
        call = partial(F.interpolate, x, size, mode=mode, **arguments)
    elif way.startswith("same call"):
        backend = way.removeprefix("same call").removeprefix(", ") or "auto"
        call = partial(resize, x, size, mode=mode, warning=False, backend=backend, **arguments)
    else:
        # A third of a source sample off: no convention, so no kernel of PyTorch's.
        maps = [AxisMap(n / out, 1 / 3) for n, out in zip(shape[2:], size, strict=True)]
        call = partial(resize, x, size, mode=mode, coordinates=maps, backend=way.removeprefix("any map, "))
    return _step(call, x) if step else call


def _step(call: Callable[[], Tensor], *inputs: Tensor) -> Call:
    grad = torch.ones_like(call())

    def step() -> Tensor:
        return torch.autograd.grad(call(), inputs, grad)[0]

    return step


# --------------------------------------------------------------------------------------------------------------------
# flow_warp


def _flow_warps(options: Options) -> list[Case]:
    shapes = [(1, 128, 64, 128), (2, 256, 128, 128)] if not options.quick else [(1, 4, 16, 16)]
    return [
        Case(
            name=f"flow_warp{', channels-last' if last else ''}{', step' if step else ''} {times(*shape)}",
            ways=["SFNet's", *(each for each in backends("flow_warp", options.device) if last or each != "numba")],
            build=partial(_build_warp, shape, last, step, options.device),
            tiny=partial(_build_warp, (1, 4, 16, 16), last, step, options.device),
            floor=partial(_warp_floor, shape, step, options.device),
            compare=lambda _, a, b: {"flow_warp": largest_difference(a, b)},
        )
        for last in (False, True)
        for shape in shapes
        for step in (False, True)
    ]


def _warp_inputs(shape: tuple[int, ...], device: str) -> tuple[Tensor, Tensor]:
    """A coarse feature and a flow of a few pixels at twice its size; ``shape`` is that of the result."""
    batch, channels, height, width = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, height // 2, width // 2, generator=generator)
    return x.to(device), (3 * torch.randn(batch, 2, height, width, generator=generator)).to(device)


def _build_warp(shape: tuple[int, ...], last: bool, step: bool, device: str, way: str) -> Call:
    x, flow = _warp_inputs(shape, device)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    x, flow = x.requires_grad_(step), flow.requires_grad_(step)
    if way == "SFNet's":
        call = partial(published_warp, x, flow)
    else:
        call = partial(flow_warp, x, flow, align_corners=True, unit="sfnet", padding_mode="zeros", backend=way)
    return _step(call, x, flow) if step else call


def _warp_floor(shape: tuple[int, ...], step: bool, device: str) -> Call:
    return memcpy((1 + step) * (size_of(*_warp_inputs(shape, device)) + 4 * _numel(shape)), device)


def published_warp(x: Tensor, flow: Tensor) -> Tensor:
    """Compute SFNet's warp step by step as it does: the grid is made anew on the CPU in every call."""
    batch, _, height, width = flow.shape
    rows = torch.linspace(-1.0, 1.0, height).view(-1, 1).repeat(1, width)
    columns = torch.linspace(-1.0, 1.0, width).repeat(height, 1)
    grid = torch.stack((columns, rows), 2).repeat(batch, 1, 1, 1).to(x)
    grid = grid + flow.permute(0, 2, 3, 1) / torch.tensor([[[[width, height]]]]).to(x)
    return F.grid_sample(x, grid, align_corners=True)


# --------------------------------------------------------------------------------------------------------------------
# deform_conv2d


def _deformable_convolutions(options: Options) -> list[Case]:
    shape = (2, 128, 64, 64) if not options.quick else (1, 4, 16, 16)
    return [
        Case(
            name=f"deform_conv2d{', step' if step else ''} {times(*shape)}",
            ways=["columns", *backends("deform_conv2d", options.device)],
            build=partial(_build_deform, shape, step, options.device),
            tiny=partial(_build_deform, (1, 4, 16, 16), step, options.device),
            floor=partial(_deform_floor, shape, step, options.device),
            compare=lambda _, a, b: {"deform_conv2d": largest_difference(a, b)},
        )
        for step in (False, True)
    ]


def _deform_inputs(shape: tuple[int, ...], device: str) -> list[Tensor]:
    """Feature, offsets, weight and mask of a 3x3 convolution that keeps the channels."""
    batch, channels, height, width = shape
    generator = torch.Generator().manual_seed(0)
    shapes = [shape, (batch, 18, height, width), (channels, channels, 3, 3), (batch, 9, height, width)]
    return [torch.randn(s, generator=generator).to(device) for s in shapes]


def _build_deform(shape: tuple[int, ...], step: bool, device: str, way: str) -> Call:
    x, offset, weight, mask = (tensor.requires_grad_(step) for tensor in _deform_inputs(shape, device))
    if way == "columns":
        call = partial(columns_convolution, x, offset, weight, mask)
    else:
        call = partial(deform_conv2d, x, offset, weight, mask=mask, backend=way)
    return _step(call, x, offset, weight, mask) if step else call


def _deform_floor(shape: tuple[int, ...], step: bool, device: str) -> Call:
    return memcpy((1 + step) * (size_of(*_deform_inputs(shape, device)) + 4 * _numel(shape)), device)


def columns_convolution(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """The textbook way: all taps sampled into columns, then one matrix product."""
    batch, channels, height, width = x.shape
    moves = offset.view(batch, 9, 2, height, width)
    taps = torch.arange(9, device=x.device)
    rows = moves[:, :, 0] + (taps // 3 - 1).view(9, 1, 1) + torch.arange(height, device=x.device).view(-1, 1)
    columns = moves[:, :, 1] + (taps % 3 - 1).view(9, 1, 1) + torch.arange(width, device=x.device)
    grid = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), -1)
    sampled = F.grid_sample(x, grid.view(batch, 9 * height, width, 2), align_corners=False)
    sampled = sampled.view(batch, channels, 9, height * width) * mask.view(batch, 1, 9, height * width)
    product = weight.view(weight.shape[0], -1) @ sampled.reshape(batch, channels * 9, height * width)
    return product.view(batch, -1, height, width)
