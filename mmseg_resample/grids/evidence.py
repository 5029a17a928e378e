"""Where weights look: how far the evidence of each level of features is centred from where its layers put it.

A layout says where the windows of the layers are centred, whatever the weights in them. Trained weights lean: kernels
of ImageNet networks are lopsided (Alsallakh et al., "Mind the Pad: CNNs Can Develop Blind Spots", ICLR 2021), and the
centre of what a feature depends on, of its effective receptive field (Luo et al., NeurIPS 2016), lies elsewhere, mostly
nearer to ``(stride - 1) / 2``, where neither layers that begin on pixel 0 nor those behind SAME padding put it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..ops import PixelGrid
from .fake import FakeCopy, has_values
from .forward_pass import ForwardPass, follow
from .layout import Vector
from .network import methods_replaced, modes_restored, named_tensors, network_of
from .sites import Size

_SIZE = (384, 416)  # rows and columns are told apart by it
_SAMPLES = 64
_BATCH = 4
_MIDDLE = 0.1  # features up to so much of the axis from its middle are asked: far from the border, at every phase


@dataclass(frozen=True)
class LevelShift:
    """Distance of a level's evidence from where its layers put the level, in input pixels.

    Args:
        grid: where the layers put it.
        shift: mean (y, x) of the distance, positive below and to the right.
        error: standard error of that mean.
    """

    grid: PixelGrid
    shift: Vector
    error: Vector

    @property
    def offset(self) -> Vector:
        """Centre (y, x) of what feature 0 depends on, were the image to go on around it."""
        return self.grid.offset[0] + self.shift[0], self.grid.offset[1] + self.shift[1]


def level_shifts(
    model: nn.Module,
    size: Size | None = None,
    samples: int = _SAMPLES,
    seed: int = 0,
    progress: bool = False,
) -> list[LevelShift | None]:
    """Measure where the weights of ``model`` look: the centres of effective receptive fields, on noise.

    The evidence of a feature is the square of its gradient by the image; a random mixture of the channels of a feature
    in the middle of the image is asked at a time. Noise serves as well as photographs (docs/alignment.md).

    Args:
        model: with its weights; takes normalised images. It is run in evaluation mode, under its policy if it has one.
        size: (h, w) of the noise. Of what features see beyond its border nothing counts: larger than what they see.
            None: 384x416, or the size that the model takes.
        samples: features asked of each level.
        seed: of the noise, of the features that are asked and of their mixtures.
        progress: show a bar on stderr, where that is a terminal.

    Returns:
        One for each level that an audit lists, from where its layers put it; None for a level without a position.

    Raises:
        ValueError: fewer than two samples, a model without values, one that takes no image of this size or runs its
            backbone more than once, one without levels, or a level without a gradient.

    Source: Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", NeurIPS
    2016, arXiv:1701.04128.
    """
    if samples < 2:
        raise ValueError(f"level_shifts: expected samples >= 2, whose spread gives an error, got {samples}.")
    parameters = list(model.parameters())
    if not all(map(has_values, parameters)):
        raise ValueError("level_shifts: the model has no weights: it was built for an audit. Build it outside of one.")
    audited = _followed(model, size)
    grids, size = _by_layers(model, audited), audited.size
    if not any(grids):
        raise ValueError(f"level_shifts: expected a level with a position, {type(model).__name__} has none.")
    like = network_of(model).image(model, size)
    generator = torch.Generator().manual_seed(seed)
    found: list[list[Vector]] = [[] for _ in grids]
    with modes_restored(model), _weights_still(parameters), torch.inference_mode(False), torch.enable_grad():
        model.eval()
        for start in _shown(range(0, samples, _BATCH)) if progress else range(0, samples, _BATCH):
            count = min(_BATCH, samples - start)
            image = torch.randn(count, like.shape[1], *size, generator=generator).to(like).requires_grad_()
            for entry, grid, level in zip(found, grids, _levels(model, image, audited), strict=True):
                if grid is not None and level.requires_grad:
                    entry += _centres(image, _rows_last(level, grid), grid, generator)
    for i, (grid, entry) in enumerate(zip(grids, found, strict=True)):
        if grid and len(entry) < 2:
            raise ValueError(
                f"level_shifts: expected level {i} of {type(model).__name__} to depend on the image, found no "
                f"gradient: it is detached, computed under torch.inference_mode(), or zero everywhere."
            )
    return [_summary(grid, entry) if grid else None for grid, entry in zip(grids, found, strict=True)]


def _followed(model: nn.Module, size: Size | None) -> ForwardPass:
    """Audit ``model`` at ``size``, or at one that it takes."""
    network = network_of(model)
    wanted = [_SIZE, network.made_for(model), network.size(model)] if size is None else [(size[0], size[1])]
    refusals = []
    for each in dict.fromkeys(wanted):
        if each is None:
            continue
        try:
            return FakeCopy(model).run(partial(follow, size=each))
        except Exception as error:  # whatever a network raises at a size that it cannot take
            refusals.append(f"{each[0]}x{each[1]}: {type(error).__name__}: {error}")
    raise ValueError(
        f"level_shifts: {type(model).__name__} could not be run ({'; '.join(refusals)}). Give a size that it takes: "
        f"level_shifts(model, size=(h, w))."
    )


def _by_layers(model: Any, audited: ForwardPass) -> list[PixelGrid | None]:
    """Return where layers put the levels, without the shifts of a policy."""
    policy = getattr(model, "resize_policy", None)
    shifts = getattr(policy, "level_shifts", ()) or [(0.0, 0.0)] * len(audited.levels)
    return [
        None if level is None else replace(level, offset=(level.offset[0] - y, level.offset[1] - x))
        for level, (y, x) in zip(audited.levels, shifts, strict=True)
    ]


def _shown(loop: range) -> Iterable[int]:
    console = Console(stderr=True)
    return track(loop, "where the weights look", console=console, transient=True, disable=not console.is_terminal)


def as_shifts(weights: Sequence[LevelShift | None]) -> tuple[Vector, ...]:
    """Return how far to move each level; those without a position stay."""
    return tuple((0.0, 0.0) if level is None else level.shift for level in weights)


def _levels(model: nn.Module, image: Tensor, audited: ForwardPass) -> list[Tensor]:
    """Run ``model`` and return the levels that its audit lists."""
    network = network_of(model)
    name = network.levels(model)
    extractor: Any = None if name is None else model.get_submodule(name)
    returned: list[Any] = []
    with ExitStack() as stack:
        if extractor is not None:
            forward = extractor.forward

            def noted(*args: Any, **kwargs: Any) -> Any:
                returned.append(forward(*args, **kwargs))
                return returned[-1]

            stack.enter_context(methods_replaced([(extractor, "forward", noted)]))
        stack.enter_context(_GradientsEverywhere())
        outputs = list(network.run(model, image.clone()))  # may be written into
    if len(returned) > 1:
        raise ValueError(
            f"level_shifts: {name} runs {len(returned)} times, on images that may differ. Measure it by itself: "
            f"level_shifts(model.{name})."
        )
    if returned:
        return [tensor for _, tensor in named_tensors(returned[0])]
    grids = {name: output.grid for name, output in audited.outputs.items()}
    return [tensor for name, tensor in outputs if (grid := grids[name]) is None or grid.size != audited.size]


def _rows_last(level: Tensor, grid: PixelGrid) -> Tensor:
    """Return (N, H, W, C) as (N, C, H, W)."""
    return level if tuple(level.shape[2:]) == grid.size else level.permute(0, 3, 1, 2)


class _GradientsEverywhere(TorchFunctionMode):
    """Gradients in all of a network: also where it does without, as around a backbone that is not trained."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return None if function is torch._C._set_grad_enabled else function(*args, **(kwargs or {}))


@contextmanager
def _weights_still(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Take gradients by nothing but the image: nothing else needs them, and none are left in the weights."""
    trained = [each for each in parameters if each.requires_grad]
    for each in trained:
        each.requires_grad_(False)
    try:
        yield
    finally:
        for each in trained:
            each.requires_grad_()


def evidence(image: Tensor, level: Tensor, generator: torch.Generator) -> tuple[Tensor, list[list[int]]]:
    """Ask one feature of each image what it depends on.

    Args:
        image: (N, C, H, W), of which ``level`` was computed, with gradients.
        level: (N, K, h, w).
        generator: chooses the features, near the middle, and the mixtures of their channels.

    Returns:
        Squares of the gradients (N, H, W), float64 on the CPU, and the (row, column) of each feature.
    """
    asked = [[_near_the_middle(length, generator) for length in level.shape[2:]] for _ in level]
    mixture = torch.zeros_like(level)
    for n, (row, column) in enumerate(asked):
        mixture[n, :, row, column] = torch.randn(level.shape[1], generator=generator).to(level)
    level.backward(mixture, retain_graph=True)  # torch.autograd.grad refuses checkpoints
    assert image.grad is not None
    gradient, image.grad = image.grad, None
    return gradient.double().square().sum(1).cpu(), asked


def _centres(image: Tensor, level: Tensor, grid: PixelGrid, generator: torch.Generator) -> list[Vector]:
    """Return how far the evidence of one feature of each image lies from where ``grid`` has it."""
    centres = []
    for shares, index in zip(*evidence(image, level, generator), strict=True):
        total = shares.sum()
        if not total > 0:
            continue
        y, x = (
            float(shares.sum(1 - axis) @ torch.arange(shares.shape[axis], dtype=torch.float64) / total)
            - (grid.offset[axis] + grid.stride[axis] * index[axis])
            for axis in (0, 1)
        )
        centres.append((y, x))
    return centres


def _near_the_middle(length: int, generator: torch.Generator) -> int:
    low, high = math.floor((0.5 - _MIDDLE) * (length - 1)), math.ceil((0.5 + _MIDDLE) * (length - 1))
    return int(torch.randint(low, high + 1, (), generator=generator))


def _summary(grid: PixelGrid, centres: Sequence[Vector]) -> LevelShift:
    values = torch.tensor(centres, dtype=torch.float64)
    (y, x), (error_y, error_x) = values.mean(0).tolist(), (values.std(0) / math.sqrt(len(centres))).tolist()
    return LevelShift(grid, (round(y, 2) + 0.0, round(x, 2) + 0.0), (error_y, error_x))  # no -0
