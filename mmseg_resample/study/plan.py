"""The plan of a study: axes of named variants, seeds and evaluations, expanded into runs. Nothing is run here.

``loading`` makes a ``Study`` of a file.
"""

import copy
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmseg_resample.launch.configs import set_policy, with_indices
from mmseg_resample.launch.messages import UsageError

from . import throughput

METRICS = ("mIoU", "mAcc", "aAcc")
"""Scores from the confusion matrix; all are in percent."""

POLICY = "policy"
"""Key of a variant for the pixel model of every resize, in the words of ``--policy``, whatever the base config is."""

RUNTIME = "runtime"
"""Key of a variant that is tested alone: the runtime that computes its logits, from a file exported of its network."""

Variants = Mapping[str, str]
"""Axis -> name of its variant."""


class StudyError(ValueError):
    """Mistake in a study that cannot be run as written. The message names the file, the key, the rule and the fix."""


@dataclass(frozen=True)
class Evaluation:
    """One test of a trained model.

    Attributes:
        name: key in ``evaluations`` of the study.
        variants: the variants tested as, which may differ from those trained.
        overrides: what these variants set in the base config.
        config: the resolved config to test.
        evaluators: name -> config of the metrics beside the confusion matrix.
        metric: the scalar that the study compares.
    """

    name: str
    variants: Variants
    overrides: Mapping[str, Any]
    config: Config
    evaluators: Mapping[str, Mapping[str, Any]]
    metric: str


@dataclass(frozen=True)
class Run:
    """One training and its evaluations.

    Attributes:
        variants: the variants trained as.
        seed: of the initialisation, the data order and the augmentation.
        config: the resolved config to train.
        evaluations: the tests of the final checkpoint.
    """

    variants: Variants
    seed: int
    config: Config
    evaluations: tuple[Evaluation, ...]

    @property
    def directory(self) -> str:
        """Folder of the run, relative to the directory of the study."""
        return run_directory(self.variants, self.seed)

    @property
    def label(self) -> str:
        """The run in words."""
        return " ".join([*(f"{axis}={variant}" for axis, variant in self.variants.items()), f"seed {self.seed}"])


@dataclass(frozen=True)
class DeclaredComparison:
    """Comparison that the study declares before it runs: a variant of the compared axis minus the first one.

    Attributes:
        combination: (axis, trained variant) of the other axes, in the order of the axes.
        evaluation: name.
        variant: of the compared axis.
        along: (axis, (from, to)) of axes that are not in ``combination``: declared is how much the difference changes
            along them, an interaction.
    """

    combination: tuple[tuple[str, str], ...]
    evaluation: str
    variant: str
    along: tuple[tuple[str, tuple[str, str]], ...] = ()

    def corners(self) -> list[dict[str, str]]:
        """List the variants of the other axes at every end of ``along``."""
        axes = [axis for axis, _ in self.along]
        ends = itertools.product(*(names for _, names in self.along))
        return [{**dict(self.combination), **dict(zip(axes, names, strict=True))} for names in ends]

    def describe(self) -> dict[str, Any]:
        """Convert to JSON data."""
        described = {"combination": dict(self.combination), "evaluation": self.evaluation, "variant": self.variant}
        return described | ({"interaction": {axis: list(ends) for axis, ends in self.along}} if self.along else {})


@dataclass(frozen=True)
class Study:
    """Validated study.

    Attributes:
        file: the study config.
        base: the base config, as the study names it.
        base_config: the base config, loaded.
        axes: axis -> variant -> dotted key -> value.
        combinations: the variants that are trained together, one of every axis.
        seeds: each combination is trained once per seed.
        evaluations: name -> axis -> trained variant -> tested variant. An axis left out is tested as trained.
        evaluators: name -> config of the metrics that every evaluation has beside the confusion matrix.
        compare: the axis whose variants are compared, paired by seed.
        metric: what is compared, a scalar of the confusion matrix (``METRICS``) or of the evaluators.
        margin: differences of the metric within it are equivalent.
        family: the comparisons that the study is about; all others are exploratory.
        speed: options of ``throughput.apply``, complete.
        stop_if: arguments of ``hooks.DivergenceHook``.
        sequences: regular expression; test images whose names have an equal match are frames of one video. An image
            without a match, and every image for None, is one by itself.
        twins: variants that are not trained, each beside those that are the same network.
    """

    file: Path
    base: str
    base_config: Config
    axes: Mapping[str, Mapping[str, Mapping[str, Any]]]
    combinations: Sequence[Variants]
    seeds: Sequence[int]
    evaluations: Mapping[str, Mapping[str, Variants]]
    evaluators: Mapping[str, Mapping[str, Any]]
    compare: str
    metric: str
    margin: float
    family: Sequence[DeclaredComparison]
    speed: Mapping[str, Any]
    stop_if: Mapping[str, Any]
    sequences: str | None
    twins: Sequence[tuple[Variants, Variants]] = ()

    @property
    def train(self) -> dict[str, list[str]]:
        """Axis -> the variants that are trained."""
        return trained_variants(self.axes, self.combinations)

    def runs(self) -> list[Run]:
        """Expand the study, one seed after the other, so that the first finished runs can already be compared."""
        return [self.run(variants, seed) for seed in self.seeds for variants in self.combinations]

    def run(self, variants: Variants, seed: int) -> Run:
        """Build the run of one combination and seed.

        Raises:
            ValueError: the config sets no length of training, or does not go with the options for speed.
        """
        evaluations = []
        for name, mapping in self.evaluations.items():
            tested = {axis: mapping.get(axis, {}).get(variant, variant) for axis, variant in variants.items()}
            config = self._resolve(tested, seed)
            evaluations.append(Evaluation(name, tested, self._overrides(tested), config, self.evaluators, self.metric))
        return Run(dict(variants), seed, self._resolve(variants, seed), tuple(evaluations))

    def describe(self) -> dict[str, Any]:
        """Convert to JSON data what a report needs besides the run directories."""
        return {
            "name": self.file.stem,
            "base": self.base,
            "axes": {axis: list(variants) for axis, variants in self.axes.items()},
            "train": self.train,
            "combinations": [dict(variants) for variants in self.combinations],
            "seeds": list(self.seeds),
            "evaluations": {name: dict(axes) for name, axes in self.evaluations.items()},
            "evaluators": {name: dict(config) for name, config in self.evaluators.items()},
            "compare": self.compare,
            "metric": self.metric,
            "margin": self.margin,
            "family": [comparison.describe() for comparison in self.family],
            "speed": dict(self.speed),
            "stop_if": dict(self.stop_if),
            "sequences": self.sequences,
            "twins": [{"variants": dict(twin), "same_as": dict(same)} for twin, same in self.twins],
        }

    def _overrides(self, variants: Variants) -> dict[str, Any]:
        return {key: value for axis, name in variants.items() for key, value in self.axes[axis][name].items()}

    def _resolve(self, variants: Variants, seed: int) -> Config:
        config = with_overrides(self.base_config, self._overrides(variants))
        config.randomness = {**config.get("randomness", {}), "seed": seed}
        # Validation while training would cost time and could end a training early; the evaluations come after it.
        config.val_dataloader = config.val_cfg = config.val_evaluator = None
        # Persistent data loader workers would carry random numbers from epoch to epoch that no checkpoint has.
        config.train_dataloader.persistent_workers = config.test_dataloader.persistent_workers = False
        _set_checkpoints(config)
        if self.stop_if:
            config.stop_if = dict(self.stop_if)
        throughput.apply(config, self.speed)
        return config


def run_directory(variants: Variants, seed: int) -> str:
    """Return where the run of ``variants`` and ``seed`` is kept, relative to the directory of the study."""
    return f"{variants_directory(variants)}/seed-{seed}"


def in_words(variants: Variants) -> str:
    """Write variants as ``size=128, flag=true``."""
    return ", ".join(f"{axis}={name}" for axis, name in variants.items())


def variants_directory(variants: Variants) -> str:
    """Return the name of the folder that holds the runs of ``variants``."""
    return ",".join(f"{axis}={variant}" for axis, variant in variants.items())


def trained_variants(axes: Iterable[str], combinations: Sequence[Variants]) -> dict[str, list[str]]:
    """Map each axis to the variants that ``combinations`` have of it."""
    return {axis: list(dict.fromkeys(variants[axis] for variants in combinations)) for axis in axes}


def with_overrides(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Copy ``config`` and set dotted keys in the copy; ``POLICY`` is what ``--policy`` of the tools is, ``RUNTIME`` a
    ``RuntimeHook``.

    Entries of lists go by index, or by their type: ``train_dataloader.dataset.pipeline.RandomCrop.crop_size``.

    Raises:
        StudyError: the config has a resize policy already, or no policy has that name.
    """
    config, values = copy.deepcopy(config), copy.deepcopy(dict(overrides))
    policy, runtime = values.pop(POLICY, None), values.pop(RUNTIME, None)
    content = dict(config.items())
    config.merge_from_dict({with_indices(content, key): value for key, value in values.items()})
    if policy is not None:
        try:
            set_policy(config, policy if isinstance(policy, Mapping) else str(policy))
        except UsageError as error:
            raise StudyError(str(error)) from error
    if runtime is not None:
        config.custom_hooks = [*(config.get("custom_hooks") or []), {"type": "RuntimeHook", "runtime": str(runtime)}]
    return config


def _set_checkpoints(config: Config) -> None:
    by_epoch = "max_epochs" in config.train_cfg
    length = config.train_cfg.get("max_epochs" if by_epoch else "max_iters")
    if not isinstance(length, int) or length < 1:
        raise StudyError(f"train_cfg sets neither max_iters nor max_epochs to a positive integer: {config.train_cfg}.")
    hooks = config.get("default_hooks", {})
    checkpoint = hooks.get("checkpoint") or {"type": "CheckpointHook"}
    interval = checkpoint.get("interval", -1)
    if checkpoint.get("by_epoch", True) != by_epoch or not 0 < interval < length:
        interval = math.ceil(length / 4)
    # mmengine deletes the oldest checkpoint before it writes the next one: with a single one, a kill in between
    # would leave none. `save_best` needs the validation that a study leaves out.
    keep = max(checkpoint.get("max_keep_ckpts", -1), 2)
    checkpoint = {key: value for key, value in checkpoint.items() if key != "save_best"}
    checkpoint |= {"by_epoch": by_epoch, "interval": interval, "max_keep_ckpts": keep, "save_last": True}
    config.default_hooks = {**hooks, "checkpoint": checkpoint}
