"""``Audit``: a network under each pixel model, as it stands and with every resize exact, at some input sizes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ..ops import PixelGrid
from .advice import Advice, advise
from .coverage import Uncovered, next_covered_size
from .evidence import LevelShift, as_shifts
from .fake import FakeCopy
from .forward_pass import ForwardPass, follow_both, follow_exact
from .network import network_of
from .sites import Site, Size
from .track import Meeting, Resize

_DEFAULT_SIZE = (512, 512)


@dataclass(frozen=True)
class LabelOffset:
    """Mean displacement of labels against the image after one resize of a training pipeline, in pixels of its output.

    Args:
        transform: type of the transform.
        y: positive where labels lie below the image's content.
        x: positive where they lie to its right.
    """

    transform: str
    y: float
    x: float


@dataclass
class Audit:
    """Positions in a network: which features are misregistered, by how much, and what would register them.

    ``str()`` is a table of it. All figures are input pixels; axes are (y, x).

    Args:
        name: of the network.
        sizes: input sizes (h, w); the first is the one the findings are reported at.
        passes: variant (``"config"``: as it stands, ``"False"``, ``"True"``, ``"exact"``) to forward passes, one per
            size. A flag that the network does not take is missing.
        hard_coded: resizes that keep their flag whatever the config says.
        labels: how far the training pipeline's resizes move labels against the image.
        policy: what the network's resizes are under, in words; then the flags are those of the network without it.
        padded: the size (h, w) to which that policy pads the first size; None without padding.
        weights: how far the evidence of each level is from where its layers put it; empty where weights were not
            looked at. All passes have the levels where their weights look then.
        pretrained: the weights that the network begins with, where it says so.
        covering: the smallest size at or above the first at which exact resizes read nothing beyond the features; None
            if there is none.
        fitting: for an odd-kernel backbone, the nearest size at which ``True`` is exact, and its forward pass.
    """

    name: str
    sizes: list[Size]
    passes: dict[str, list[ForwardPass]]
    hard_coded: list[Site] = field(default_factory=list)
    labels: list[LabelOffset] = field(default_factory=list)
    fitting: tuple[Size, ForwardPass] | None = None
    covering: Size | None = None
    policy: str | None = None
    padded: Size | None = None
    weights: list[LevelShift | None] = field(default_factory=list)
    pretrained: str | None = None

    @property
    def now(self) -> ForwardPass:
        """The network as it stands, at the first size."""
        return self.passes["config"][0]

    @property
    def exact(self) -> ForwardPass:
        """The network with exact resizes, at the first size."""
        return self.passes["exact"][0]

    @property
    def worst(self) -> float:
        """The largest misregistration of the network as it stands, labels included, in input pixels."""
        return self.now.worst

    @property
    def final(self) -> Meeting | None:
        """The prediction's meeting with the labels; None if there is none, or it could not be followed."""
        return self.now.final

    @property
    def meetings(self) -> list[Meeting]:
        """Places where features meet, in the order in which they run."""
        return self.now.trace.meetings

    @property
    def resizes(self) -> list[Resize]:
        """Resizes in the order in which they run."""
        return self.now.trace.resizes

    @property
    def levels(self) -> list[PixelGrid | None]:
        """Grids of the levels of features; None where one has no position."""
        return self.now.levels

    @property
    def unknown(self) -> list[tuple[str, str]]:
        """Operators that could not be followed, as (module, operator and reason); nothing behind them is judged."""
        return self.now.trace.unknown

    @property
    def uncovered(self) -> list[Uncovered]:
        """Resizes that read beyond the samples of what they resize; the farthest first."""
        return self.now.uncovered

    @property
    def unreachable(self) -> list[Resize]:
        """Resizes that no policy can change."""
        return self.now.unreachable

    @property
    def remarks(self) -> list[str]:
        """Findings beside positions, a line each, which kinds of audits have."""
        return []

    @property
    def advice(self) -> list[Advice]:
        """Things to do about the findings at the first size, with the measurements behind them."""
        return advise(self)

    def add_sizes(self, other: "Audit") -> None:
        """Add the forward passes of another audit of the same network, at other sizes."""
        self.sizes += other.sizes
        for variant, passes in self.passes.items():
            passes += other.passes[variant]

    def __str__(self) -> str:
        from .report import to_text

        return to_text(self)

    def plot(self, path: str | Path, theme: str = "light") -> None:
        """Draw where the features of the worst meetings are, and where the network takes them to be.

        Args:
            path: of the image; its ending says which format: PNG, SVG, PDF.
            theme: ``"light"`` or ``"dark"``.
        """
        from .picture import plot

        plot(self, Path(path), theme)

    def to_json(self) -> dict[str, Any]:
        """Return everything that was found, for programs."""
        from .report import to_json

        return to_json(self)


def audit(
    model: nn.Module,
    size: int | Sequence[int] | None = None,
    name: str | None = None,
    weights: Sequence[LevelShift | None] = (),
) -> Audit:
    """Audit any network on fake tensors: no weights, data or memory, seconds.

    Args:
        model: takes images (N, C, H, W) and returns features or predictions: a tensor, or a tuple, list, dict or
            dataclass of tensors. It is copied, and stays as it is.
        size: input size, one number or (h, w). None: the size that the model names as its own, else 512x512.
        name: to go by. None: the model's type.
        weights: from ``level_shifts``: judge where the weights look, not where layers put the levels.

    Raises:
        ValueError: the model cannot take an image of this size.
        TypeError: a size that is no whole number, or a model that is none.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"audit: expected an nn.Module, got {type(model).__name__}.")
    wanted = (network_of(model).size(model) or _DEFAULT_SIZE) if size is None else image_size(size)
    copied, shifts = FakeCopy(model), as_shifts(weights)
    try:
        as_it_is, exact = copied.run(lambda fake: follow_both(fake, wanted, shifts))
    except Exception as error:  # whatever a network raises
        height, width = wanted
        raise ValueError(
            f"audit: {type(model).__name__} could not be run on an image of {height}x{width} "
            f"({type(error).__name__}: {error}). Give a size that it takes: audit(model, size=(h, w))."
        ) from error
    covering = covering_size(exact, lambda size: copied.run(lambda fake: follow_exact(fake, size, exact.maps, shifts)))
    passes = {"config": [as_it_is], "exact": [exact]}
    return Audit(name or type(model).__name__, [wanted], passes, covering=covering, weights=list(weights))


def covering_size(exact: ForwardPass, follow: Callable[[Size], ForwardPass]) -> Size | None:
    """Return the smallest size at or above that of ``exact`` at which exact resizes read nothing beyond the features.

    Args:
        exact: a forward pass with exact resizes.
        follow: makes one of another size.

    Returns:
        The size (h, w), found from the levels and confirmed by a forward pass; None if there is none.
    """
    if not exact.repeats:
        return exact.size
    size = next_covered_size(exact.size, exact.levels)
    if size is None or size == exact.size:
        return None
    try:
        return None if follow(size).repeats else size
    except Exception:  # whatever a network raises at a size that it cannot take
        return None


def image_size(size: int | Sequence[int]) -> Size:
    """Return the (h, w) that ``size`` means.

    Raises:
        TypeError: it is neither a positive number of pixels nor two of them.
    """
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
        raise TypeError(f"audit: expected size to be a number of pixels or (h, w), got {size!r}.")
    return pair
