"""Audit of an ONNX file: without the network's code, and by the rules that every other audit has."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..grids import Audit, FakeCopy, audit, follow, image_size
from .diff import Difference, Trained, differences, exported_size, trained_resizes, wrapper
from .graph import metadata
from .onnx_network import OnnxNetwork, image_input, load, module_paths


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

    @property
    def remarks(self) -> list[str]:
        """The differences in words."""
        return [f"Not as trained: {each}." for each in self.differences]

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
    trained = trained_resizes(metadata(model))
    wrapped = "" if trained is None else wrapper(trained, module_paths(model))
    network = OnnxNetwork(model, skip_unsupported=True, wrapper=wrapped).eval()
    given = image_input(network)
    wanted = None if size is None else image_size(size)
    if wanted is not None and any(own not in (None, n) for own, n in zip(given.sides, wanted, strict=True)):
        own, other = ("x".join(str(n or "any") for n in pair) for pair in (given.sides, wanted))
        raise ValueError(
            f"audit: {path} takes images of {own} alone, got {other}. Leave the size out, or export the network with "
            f"dynamic sizes."
        )
    try:
        found = audit(network, wanted, name or str(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    copied = FakeCopy(network)
    compared, unsupported = copied.run(lambda fake: _compared(fake, found.sizes[0], trained))
    for trace in {id(each.trace): each.trace for each in (found.now, found.exact)}.values():  # one if nothing changed
        trace.unknown += unsupported
    exported = exported_size(trained or [])
    if given.size is None and exported not in (None, found.sizes[0]):
        sites = {(each.path, each.number) for each in compared}
        with suppress(Exception):  # whatever a graph raises that has not this size
            there, _ = copied.run(lambda fake: _compared(fake, exported, trained))
            compared += [each for each in there if (each.path, each.number) not in sites]
    return OnnxAudit(**{**vars(found), "differences": compared})


def _compared(
    fake: Any, size: Any, trained: Sequence[Trained] | None
) -> tuple[list[Difference], list[tuple[str, str]]]:
    """Compare a graph at one size with how it was trained; also return what could not be followed."""
    passed = follow(fake, size)
    if trained is None:
        return [], fake.unsupported
    fixed = image_input(fake).size is not None
    return differences(trained, passed.trace, fake.executed, fake.graph, fake.known, fixed), fake.unsupported
