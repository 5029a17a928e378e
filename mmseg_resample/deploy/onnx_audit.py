"""Audit of an ONNX file: without the network's code, and by the rules that every other audit has."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..grids import Audit, FakeCopy, audit, follow, image_size
from .diff import Difference, differences, trained_resizes
from .onnx_network import OnnxNetwork, image_input, load, metadata


@dataclass
class OnnxAudit(Audit):
    """Audit of an ONNX file, with what it computes otherwise than the network that it was exported from.

    Args:
        differences: the resizes that differ, where the file says how it was trained.
    """

    differences: list[Difference] = field(default_factory=list)

    def add_sizes(self, other: Audit) -> None:
        super().add_sizes(other)
        if isinstance(other, OnnxAudit):
            known = set(map(str, self.differences))
            self.differences += [each for each in other.differences if str(each) not in known]

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *map(str, self.differences)])

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "differences": [each.to_json() for each in self.differences]}


def audit_onnx(path: str | Path, size: int | Sequence[int] | None = None, name: str | None = None) -> OnnxAudit:
    """Audit any ONNX graph that maps an image to features or predictions.

    What it was trained with, which our exporter writes into the file, is compared with what the graph computes.

    Args:
        path: of the file.
        size: input size, one number or (h, w). None: the one that the graph takes, else 512x512.
        name: to go by. None: the path.

    Raises:
        ImportError: the package onnx is missing.
        ValueError: it is no ONNX file, it takes no image, or none of this size.
        TypeError: a size that is no whole number.
    """
    model = load(path)
    network = OnnxNetwork(model, skip_unsupported=True).eval()
    given = image_input(network)
    wanted = None if size is None else image_size(size)
    if given.size is not None and wanted not in (None, given.size):
        own, other = ("x".join(map(str, pair)) for pair in (given.size, wanted or ()))
        raise ValueError(
            f"audit: {path} takes images of {own} alone, got {other}. Leave the size out, or export the network with "
            f"dynamic sizes."
        )
    try:
        found = audit(network, wanted, name or str(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    measured = found.sizes[0]

    def again(fake: Any) -> Any:
        passed = follow(fake, measured)
        return passed, fake.executed, fake.unsupported

    passed, executed, unsupported = FakeCopy(network).run(again)
    for each in (found.now, found.exact):
        each.trace.unknown += unsupported
    trained = trained_resizes(metadata(model))
    differing = [] if trained is None else differences(trained, passed.trace, executed, network.graph)
    return OnnxAudit(**{**vars(found), "differences": differing})
