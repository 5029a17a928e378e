"""``DeployedNetwork``: a network as it is exported, from the image to labels."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..grids import network_of
from ..grids.sites import Size

_MOST_IN_A_BYTE = 256


@dataclass(frozen=True)
class Normalisation:
    """Normalisation of the channels of an image before the network: ``(image - mean) / std``.

    Args:
        mean: per channel, in the order in which the network takes them.
        std: per channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


class DeployedNetwork(nn.Module):
    """A network with what belongs to it in other runtimes: normalisation before it, labels behind it.

    Takes images (N, C, H, W) in float32 and returns labels (N, H, W) and logits (N, classes, H, W). Labels are uint8,
    int32 for more than 256 classes; of one channel they are 1 where its probability exceeds ``threshold``.

    Args:
        network: any that returns logits of the size of its image; mmseg's segmentors do by ``encode_decode``.
        threshold: for one channel.
        normalisation: None where the image comes normalised.

    Attributes:
        output: name of the network's output that holds the logits, once ``find_logits`` has looked.
        channels: of the image, then too.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, *, threshold: float = 0.5, normalisation: Normalisation | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.threshold = threshold
        self.normalised = normalisation is not None
        if normalisation is not None:
            for name, values in (("mean", normalisation.mean), ("std", normalisation.std)):
                self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)
        self.output: str | None = None

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self._logits((image - self.mean) / self.std if self.normalised else image)
        return self._labels(logits), logits

    def find_logits(self, size: Size) -> None:
        """Run once, to see which output has the size of the image.

        Raises:
            ValueError: none has, or the network cannot take an image of this size.
        """
        found: dict[str, tuple[int, ...]] = {}
        device = next((p.device for p in self.network.parameters()), torch.device("cpu"))
        channels = int(network_of(self.network).image(self.network, size).shape[1])
        try:
            for name, tensor in self._outputs(torch.zeros(1, channels, *size, device=device)):
                found[name] = tuple(tensor.shape)
                if tuple(tensor.shape[2:]) == size:
                    self.output, self.channels = name, channels
                    return
        except Exception as error:  # whatever a network raises
            raise ValueError(
                f"export: {type(self.network).__name__} cannot take an image of {size[0]}x{size[1]} "
                f"({type(error).__name__}: {error}). Give a size that it takes."
            ) from error
        raise ValueError(
            f"export: expected logits of the image's size, {size[0]}x{size[1]}, got outputs of {found}. Resize them in "
            f"the network."
        )

    def _outputs(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield from network_of(self.network).run(self.network, image)

    def _logits(self, image: Tensor) -> Tensor:
        return next(tensor for name, tensor in self._outputs(image) if name == self.output)

    def _labels(self, logits: Tensor) -> Tensor:
        if logits.shape[1] == 1:
            return (logits[:, 0].sigmoid() > self.threshold).to(torch.uint8)
        dtype = torch.uint8 if logits.shape[1] <= _MOST_IN_A_BYTE else torch.int32
        return logits.argmax(1).to(dtype)
