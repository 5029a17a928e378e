"""Does a file compute what the network does? Labels and logits of both, at sizes that show what exporters get wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..grids.sites import Size
from .deployed import DeployedNetwork
from .runtimes import RUNTIMES

_ROUNDING = 1e-3
"""Largest difference of logits, in their standard deviations, that can be rounding."""

_SEED = 20


@dataclass(frozen=True)
class Comparison:
    """Labels and logits of a runtime against PyTorch's, on images of one size.

    Args:
        runtime: its name.
        size: (h, w) of the images.
        pixels: that were compared.
        difference: largest of the logits, in the units of the logits.
        spread: standard deviation of PyTorch's logits.
        labels: pixels whose labels differ.
        ties: those of them at which PyTorch's two largest logits are closer than rounding can tell apart.
        error: why the runtime computed nothing; None if it did.
    """

    runtime: str
    size: Size
    pixels: int = 0
    difference: float = 0.0
    spread: float = 0.0
    labels: int = 0
    ties: int = 0
    error: str | None = None

    @property
    def equal(self) -> bool:
        """Tell whether no label differs but where rounding decides it."""
        return self.error is None and self.labels == self.ties

    def __str__(self) -> str:
        at = f"{self.runtime} at {self.size[0]}x{self.size[1]}"
        if self.error is not None:
            return f"{at}: {self.error}"
        ties = f", {self.ties} of them near-ties" if self.ties else ""
        return (
            f"{at}: {self.labels} of {self.pixels} labels differ{ties}; logits by {self.difference:.1e} at most, of a "
            f"standard deviation of {self.spread:.1e}"
        )


def sizes_to_compare(size: Size, fixed: bool) -> list[Size]:
    """Return the size of the export, another ratio of height and width, an odd size and a smaller one."""
    if fixed:
        return [size]
    height, width = size
    return [
        size,
        (32 * -(-width // 32), 32 * -(-height // 32)),
        (height + 18 | 1, width - 20 | 1),
        (2 * height // 3, 2 * width // 3),
    ]


def image(network: DeployedNetwork, size: Size, batch: int = 1) -> Tensor:
    """Return images with large and small structures, the same every time."""
    generator = torch.Generator().manual_seed(_SEED)
    found = torch.zeros(batch, network.channels, *size)
    for cell in (1, 4, 16, 64):
        cells = torch.randn(batch, network.channels, *(-(-n // cell) + 1 for n in size), generator=generator)
        found += F.interpolate(cells, scale_factor=cell, mode="nearest")[..., : size[0], : size[1]]
    found /= 2
    if network.normalised:
        found = (128 + 48 * found).clamp(0, 255)
    return found


def compare(
    network: DeployedNetwork, path: Path, sizes: Sequence[Size], runtimes: Sequence[str] = ("onnxruntime",)
) -> list[Comparison]:
    """Run the network and a file with its labels and logits, and compare.

    Args:
        network: that was exported, in evaluation mode.
        path: of the file, with outputs ``labels`` and ``logits``.
        sizes: (h, w) of the images. One that the network itself cannot take is left out.
        runtimes: names in ``RUNTIMES``.

    Returns:
        A comparison per size and runtime.
    """
    found: list[Comparison] = []
    sessions = {name: RUNTIMES[name].session(path) for name in runtimes}
    for size in sizes:
        images = image(network, size)
        try:
            with torch.no_grad():
                expected = tuple(x.numpy() for x in network(images))
        except Exception:  # whatever a network raises at a size that it cannot take
            continue
        for name, session in sessions.items():
            try:
                found.append(_compared(name, size, expected, session(images.numpy())))
            except ModuleNotFoundError:
                raise
            except Exception as error:  # whatever a runtime raises
                lines = str(error).strip().splitlines() or [type(error).__name__]
                found.append(Comparison(name, size, error=f"{type(error).__name__}: {lines[0]:.200}"))
    return found


def _compared(name: str, size: Size, expected: tuple[np.ndarray, ...], outputs: dict[str, np.ndarray]) -> Comparison:
    labels, logits = expected
    own_labels, own = outputs["labels"].reshape(-1), outputs["logits"]
    if own.size != logits.size or own_labels.size != labels.size:
        return Comparison(name, size, error=f"returned logits of shape {own.shape}, expected {logits.shape}")
    difference = float(np.abs(own.reshape(logits.shape) - logits).max())
    spread = float(logits.std())
    apart = own_labels.astype(np.int64).reshape(labels.shape) != labels
    if logits.shape[1] == 1:
        gap = np.abs(logits[:, 0])
    else:
        largest = np.partition(logits, -2, axis=1)
        gap = largest[:, -1] - largest[:, -2]
    ties = apart & (gap <= 2 * min(difference, _ROUNDING * spread))
    return Comparison(name, size, labels.size, difference, spread, int(apart.sum()), int(ties.sum()))
