"""Variants that are one network: configs that differ in the pixel model alone, and resizes that read the same samples.

Exact resizes at a size that ``align_corners=True`` fits are such a case. Trained twice, they would give one result
twice, and count twice in the correction for multiple comparisons.
"""

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from mmengine.config import Config

from mmseg_resample.grids import image_size
from mmseg_resample.grids.sites import Size
from mmseg_resample.launch.configs import policy_of

from .audit import followed
from .plan import DeclaredComparison, Study, StudyError, Variants, in_words

_FLAGS = ("align_corners", "coordinates")
_WRAPPERS = ("ResampledSegmentor",)


def merged(study: Study) -> Study:
    """Leave out the combinations that are the same network as an earlier one, in training and in every test.

    Looked at are those that differ in nothing but the pixel model, where one is under a resize policy. Sizes are those
    that the configs name; where a test names none, variants count as different.

    Returns:
        The study, with what was left out in ``twins``, and without the comparisons that it took part in.

    Raises:
        StudyError: nothing is left of what the study declares.
    """
    twins: list[tuple[Variants, Variants]] = []
    distinct: list[tuple[Variants, str, list[Any]]] = []
    configs = [list(_configs(study, variants)) for variants in study.combinations]
    keys = [json.dumps([_stripped(config) for config in each], default=repr, sort_keys=True) for each in configs]
    for variants, key, each in zip(study.combinations, keys, configs, strict=True):
        group = [other for k, other in zip(keys, configs, strict=True) if k == key]
        if len(group) < 2 or not any(policy_of(config.model) for other in group for config in other):
            continue
        same = next((first for first, k, other in distinct if k == key and _alike(other, each)), None)
        if same is None:
            distinct.append((variants, key, each))
        else:
            twins.append((variants, same))
    needed = [corner for declared in study.family if declared.along for corner in _corners(declared, study)]
    twins = [(twin, same) for twin, same in twins if twin not in needed]
    if not twins:
        return study
    left = [variants for variants in study.combinations if variants not in [twin for twin, _ in twins]]
    family = list(dict.fromkeys(filter(None, (_among(declared, study, twins) for declared in study.family))))
    if study.family and not family:
        names = "; ".join(f"{in_words(twin)} is {in_words(same)}" for twin, same in twins)
        raise StudyError(f"{study.file}: family: every declared comparison is of a network with itself ({names}).")
    return replace(study, combinations=left, family=family, twins=twins)


def _configs(study: Study, variants: Variants) -> Iterator[Config]:
    run = study.run(variants, study.seeds[0])
    yield run.config
    for evaluation in run.evaluations:
        yield evaluation.config


def _alike(configs: Sequence[Config], others: Sequence[Config]) -> bool:
    """Tell whether each config resizes as its counterpart; the first are trained, the others tested."""
    for index, (a, b) in enumerate(zip(configs, others, strict=True)):
        size = _test_size(a) if index else _train_size(a)
        if size is None:
            return False
        try:
            if _reads(a, size) != _reads(b, size):
                return False
        except Exception:  # whatever a network raises: it counts as different
            return False
    return True


def _reads(config: Config, size: Size) -> list[Any]:
    """Return every resize of the network, and the samples that it reads."""
    return [
        (*r.site, r.mode, *r.source_size, *r.size, *(round(n, 6) for m in r.maps for n in (m.scale, m.offset)))
        for r in followed(config, size).trace.resizes
    ]


def _train_size(config: Config) -> Size | None:
    size = config.model.get("data_preprocessor", {}).get("size") or config.train_dataloader.dataset.get("size")
    return None if size is None else image_size(size)


def _test_size(config: Config) -> Size | None:
    padded = (config.model.get("data_preprocessor", {}).get("test_cfg") or {}).get("size")
    size = padded or config.test_dataloader.dataset.get("size")
    return None if size is None else image_size(size)


def _stripped(config: Config) -> dict[str, Any]:
    """Copy a config without what decides the pixel model."""
    content = copy.deepcopy(config.to_dict())
    model = content["model"]
    model.pop("resize_policy", None)
    if model.get("type") in _WRAPPERS:
        model["type"] = model.pop("segmentor", None) or "EncoderDecoder"
    _drop(model)
    return content


def _drop(node: Any) -> None:
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        _drop(value)
    if isinstance(node, dict):
        for key in _FLAGS:
            node.pop(key, None)


def _corners(declared: DeclaredComparison, study: Study) -> list[dict[str, str]]:
    """List the variants of a declared comparison at all its ends."""
    return [
        {axis: {**corner, study.compare: declared.variant}[axis] for axis in study.axes}
        for corner in declared.corners()
    ]


def _among(
    declared: DeclaredComparison, study: Study, twins: Sequence[tuple[Variants, Variants]]
) -> DeclaredComparison | None:
    """Declare a comparison of a twin for the network that it is; None where that is what it is compared with."""
    if declared.along:
        return declared
    (variants,) = _corners(declared, study)
    same = next((same for twin, same in twins if twin == variants), None)
    if same is None:
        return declared
    others = {axis: name for axis, name in same.items() if axis != study.compare}
    names = [each[study.compare] for each in study.combinations if others.items() <= each.items()]
    reference = min(names, key=list(study.axes[study.compare]).index)
    if others != dict(declared.combination) or same[study.compare] == reference:
        return None
    return replace(declared, variant=same[study.compare])
