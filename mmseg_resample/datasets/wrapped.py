"""The data sets that the config of one wraps: ConcatDataset, RepeatDataset, MultiImageMixDataset and their like."""

from collections.abc import Iterator, Mapping
from typing import Any


def walk(dataset: Any, key: str = "dataset") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the configs of the data sets that ``dataset`` wraps, inner ones first, and then its own; with their keys.

    One that was built already has no config.
    """
    if not isinstance(dataset, Mapping):
        return
    if "dataset" in dataset:
        yield from walk(dataset["dataset"], f"{key}.dataset")
    for index, inner in enumerate(dataset.get("datasets") or ()):
        yield from walk(inner, f"{key}.datasets.{index}")
    yield key, dataset


def leaves(dataset: Any, key: str = "dataset") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield, of what ``walk`` yields, the data sets that wrap none: they have the samples."""
    return ((key, config) for key, config in walk(dataset, key) if not {"dataset", "datasets"} & config.keys())
