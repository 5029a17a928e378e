"""What a study consists of: axes of named variants, seeds and evaluations, expanded into runs. Nothing is run here.

A study is an mmengine config::

    base = '../shapes/fcn.py'                      # relative to this file, or 'mmseg::...'
    axes = dict(                                   # axis -> variant -> what it sets in the base config
        align_corners=dict(
            false={'model.decode_head.align_corners': False},
            true={'model.decode_head.align_corners': True}),
        size=dict(
            s128={'train_dataloader.dataset.size': (128, 128), 'test_dataloader.dataset.size': (128, 128)},
            s256={'test_dataloader.dataset.size': (256, 256)}))
    train = dict(size=['s128'])                    # variants that are trained; default: all; full product over axes
    seeds = [0, 1, 2]
    evaluations = dict(                            # what the trained variants are tested as; default: own
        own=dict(),
        double=dict(size=dict(s128='s256')),
        other_flag=dict(align_corners=dict(false='true', true='false')))
    compare = 'align_corners'                      # its variants are compared, paired by seed
    metric = 'mIoU'                                # or 'mAcc', 'aAcc'
"""

import copy
import difflib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from mmengine.config import Config

METRICS = ("mIoU", "mAcc", "aAcc")
"""What a study may compare; all are in percent."""

_KEYS = ("base", "axes", "train", "seeds", "evaluations", "compare", "metric")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")  # names become parts of paths

Variants = Mapping[str, str]
"""Axis -> name of its variant."""


class StudyError(ValueError):
    """A study that cannot be run as written. The message names the file, the key, the rule and the fix."""


@dataclass(frozen=True)
class Evaluation:
    """One test of a trained model.

    Attributes:
        name: key in ``evaluations`` of the study.
        variants: the variants tested as, which may differ from those trained.
        overrides: what these variants set in the base config.
        config: the resolved config to test.
    """

    name: str
    variants: Variants
    overrides: Mapping[str, Any]
    config: Config


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
        """Where the run is kept, relative to the directory of the study."""
        return f"{','.join(f'{axis}={variant}' for axis, variant in self.variants.items())}/seed-{self.seed}"

    @property
    def label(self) -> str:
        """The run in words."""
        return " ".join([*(f"{axis}={variant}" for axis, variant in self.variants.items()), f"seed {self.seed}"])


@dataclass(frozen=True)
class Study:
    """A validated study.

    Attributes:
        file: the study config.
        base: the base config, as the study names it.
        base_config: the base config, loaded.
        axes: axis -> variant -> dotted key -> value.
        train: axis -> the variants that are trained; the runs are their full product.
        seeds: each combination is trained once per seed.
        evaluations: name -> axis -> trained variant -> tested variant. An axis left out is tested as trained.
        compare: the axis whose variants are compared, paired by seed.
        metric: what is compared, one of ``METRICS``.
    """

    file: Path
    base: str
    base_config: Config
    axes: Mapping[str, Mapping[str, Mapping[str, Any]]]
    train: Mapping[str, Sequence[str]]
    seeds: Sequence[int]
    evaluations: Mapping[str, Mapping[str, Variants]]
    compare: str
    metric: str

    def runs(self) -> list[Run]:
        """Expand the study, one seed after the other, so that what finishes first can be compared already."""
        combinations = [dict(zip(self.train, names, strict=True)) for names in itertools.product(*self.train.values())]
        return [self._run(variants, seed) for seed in self.seeds for variants in combinations]

    def describe(self) -> dict[str, Any]:
        """What a report needs to know besides the run directories, as JSON data."""
        return {
            "name": self.file.stem,
            "base": self.base,
            "axes": {axis: list(variants) for axis, variants in self.axes.items()},
            "train": {axis: list(variants) for axis, variants in self.train.items()},
            "seeds": list(self.seeds),
            "evaluations": {name: dict(axes) for name, axes in self.evaluations.items()},
            "compare": self.compare,
            "metric": self.metric,
        }

    def _run(self, variants: Variants, seed: int) -> Run:
        evaluations = []
        for name, mapping in self.evaluations.items():
            tested = {axis: mapping.get(axis, {}).get(variant, variant) for axis, variant in variants.items()}
            evaluations.append(Evaluation(name, tested, self._overrides(tested), self._resolve(tested, seed)))
        return Run(dict(variants), seed, self._resolve(variants, seed), tuple(evaluations))

    def _overrides(self, variants: Variants) -> dict[str, Any]:
        return {key: value for axis, name in variants.items() for key, value in self.axes[axis][name].items()}

    def _resolve(self, variants: Variants, seed: int) -> Config:
        config = _merged(self.base_config, self._overrides(variants))
        config.randomness = {**config.get("randomness", {}), "seed": seed}
        # Validation while training would cost time and could end a training early; the evaluations come after it.
        config.val_dataloader = config.val_cfg = config.val_evaluator = None
        # Persistent data loader workers would carry random numbers from epoch to epoch that no checkpoint has.
        config.train_dataloader.persistent_workers = config.test_dataloader.persistent_workers = False
        _set_checkpoints(config)
        return config


def load(path: str | Path, *, seeds: Sequence[int] | None = None, options: Mapping[str, Any] | None = None) -> Study:
    """Read and validate a study config.

    Args:
        path: the study config.
        seeds: take the place of ``seeds`` in the file.
        options: dotted key -> value, set in the base config before the axes are.

    Raises:
        StudyError: the study cannot be run as written.
    """
    return _Loader(Path(path)).load(seeds, options or {})


class _Loader:
    """The checks of one study file; every error starts with the file and the key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fail(self, key: str, problem: str, fix: str) -> NoReturn:
        raise StudyError(f"{self.path}: {key}: {problem} {fix}")

    def load(self, seeds: Sequence[int] | None, options: Mapping[str, Any]) -> Study:
        content = self.read("study config", self.path)
        for key in content:
            if key not in _KEYS:
                self.fail(key, "is not a key of a study.", _instead(key, _KEYS))
        for key in ("base", "axes", "seeds", "compare"):
            if key not in content and not (key == "seeds" and seeds is not None):
                self.fail(key, "is missing.", f"Add {key} = ... to the file.")
        base = content["base"]
        base_config = self.base(base, options)
        axes = self.axes(content["axes"], base_config, options)
        train = self.train(content.get("train", {}), axes)
        study = Study(
            file=self.path,
            base=base,
            base_config=base_config,
            axes=axes,
            train=train,
            seeds=self.seeds("--seeds", seeds) if seeds is not None else self.seeds("seeds", content["seeds"]),
            evaluations=self.evaluations(content.get("evaluations", {"own": {}}), axes, train),
            compare=self.compare(content["compare"], train),
            metric=self.one_of("metric", content.get("metric", METRICS[0]), METRICS),
        )
        self.check_schedules(study)
        return study

    def read(self, what: str, path: Path | str) -> dict[str, Any]:
        try:
            if "::" in str(path):  # only `_base_` understands the configs that a package ships
                return Config.fromstring(f"_base_ = [{str(path)!r}]", ".py").to_dict()
            return Config.fromfile(path).to_dict()
        except FileNotFoundError as error:
            raise StudyError(
                f"{self.path}: {what} {str(path)!r} does not exist ({error}). Correct the path."
            ) from error
        except Exception as error:  # a config is a program: whatever it raises is the user's to read
            raise StudyError(
                f"{self.path}: {what} {str(path)!r} cannot be read: {type(error).__name__}: {error}."
            ) from error

    def base(self, base: Any, options: Mapping[str, Any]) -> Config:
        if not isinstance(base, str):
            self.fail("base", f"expected the path of a config, got {base!r}.", "Paths are relative to the study file.")
        config = Config(self.read("base", base if "::" in base else self.path.parent / base))
        for key in options:
            self.check_key("--cfg-options", key, config)
        for key in ("model", "train_dataloader", "train_cfg", "optim_wrapper", "test_dataloader", "test_cfg"):
            if config.get(key) is None:
                self.fail("base", f"{base!r} does not set {key}, which a study needs.", "Add it to the base config.")
        return self.merge("--cfg-options", config, options)

    def axes(self, axes: Any, base: Config, options: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
        self.mapping("axes", axes, "axis names to variants", empty=False)
        setter: dict[str, str] = dict.fromkeys(options, "--cfg-options") | {"randomness.seed": "seeds"}
        for axis, variants in axes.items():
            where = f"axes.{axis}"
            self.name(where, axis)
            self.mapping(where, variants, "variant names to overrides", empty=False)
            for variant, overrides in variants.items():
                self.name(f"{where}.{variant}", variant)
                self.mapping(f"{where}.{variant}", overrides, "dotted config keys to values")
                for key in overrides:
                    self.check_key(f"{where}.{variant}", key, base)
            keys = dict.fromkeys(key for overrides in variants.values() for key in overrides)
            for key, (other, owner) in itertools.product(keys, setter.items()):
                if f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}."):
                    self.fail(f"{where}", f"sets {key!r}, but {owner} sets {other!r}.", "Set each key in one place.")
            setter.update(dict.fromkeys(keys, where))
            self.check_distinct(where, variants, base)
        return axes

    def check_distinct(self, where: str, variants: Mapping[str, Mapping[str, Any]], base: Config) -> None:
        merged = {name: self.merge(f"{where}.{name}", base, overrides) for name, overrides in variants.items()}
        for (a, config_a), (b, config_b) in itertools.combinations(merged.items(), 2):
            if config_a.to_dict() == config_b.to_dict():
                self.fail(where, f"{a!r} and {b!r} give the same config.", "Change or remove one of them.")

    def train(self, train: Any, axes: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
        self.mapping("train", train, "axis names to lists of variants")
        for axis in train:
            self.one_of("train", axis, axes, "axis")
        selected = {}
        for axis, variants in axes.items():
            names = train.get(axis, list(variants))
            if isinstance(names, str) or not isinstance(names, Sequence) or not names:
                self.fail(f"train.{axis}", f"expected a list of variants, got {names!r}.", "Write [...].")
            for name in names:
                self.one_of(f"train.{axis}", name, variants, "variant")
            self.unique(f"train.{axis}", names)
            selected[axis] = list(names)
        return selected

    def seeds(self, where: str, seeds: Any) -> list[int]:
        if isinstance(seeds, str) or not isinstance(seeds, Sequence) or not seeds:
            self.fail(where, f"expected a list of seeds, got {seeds!r}.", "Write [0, 1, 2].")
        for seed in seeds:
            if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
                self.fail(where, f"expected integers in [0, 2**32), got {seed!r}.", "Write [0, 1, 2].")
        self.unique(where, seeds)
        return list(seeds)

    def evaluations(
        self, evaluations: Any, axes: Mapping[str, Mapping[str, Any]], train: Mapping[str, Sequence[str]]
    ) -> dict[str, dict[str, dict[str, str]]]:
        self.mapping("evaluations", evaluations, "names to dict(axis=dict(trained='tested'))", empty=False)
        for name, mapping in evaluations.items():
            where = f"evaluations.{name}"
            self.name(where, name)
            self.mapping(where, mapping, "axis names to dict(trained='tested')")
            for axis, tested in mapping.items():
                self.one_of(where, axis, axes, "axis")
                self.mapping(f"{where}.{axis}", tested, "trained variants to tested ones")
                for variant in itertools.chain(tested, tested.values()):
                    self.one_of(f"{where}.{axis}", variant, axes[axis], "variant")
                for variant in train[axis]:
                    if variant not in tested:
                        self.fail(
                            f"{where}.{axis}",
                            f"does not say what the trained variant {variant!r} is tested as.",
                            f"Add {variant}='...', or {variant}={variant!r} to test it as trained.",
                        )
        return evaluations

    def compare(self, axis: Any, train: Mapping[str, Sequence[str]]) -> str:
        self.one_of("compare", axis, train, "axis")
        if len(train[axis]) < 2:
            self.fail("compare", f"only {train[axis]} of axis {axis!r} is trained.", "Train two or more variants.")
        return axis

    def check_schedules(self, study: Study) -> None:
        """Every combination must merge, and have a length of training that checkpoints can divide."""
        for names in itertools.product(*study.train.values()):
            variants = dict(zip(study.train, names, strict=True))
            try:
                study._run(variants, study.seeds[0])
            except StudyError as error:
                self.fail(f"base with {', '.join(f'{a}={v}' for a, v in variants.items())}", str(error), "")

    def check_key(self, where: str, key: str, config: Config) -> None:
        known = list(_dotted_keys(config.to_dict()))
        if key not in known:
            problem = f"{key!r} is not in the base config, so nothing would read it."
            self.fail(where, problem, _instead(key, known, otherwise="Set it in the base config first."))

    def merge(self, where: str, config: Config, overrides: Mapping[str, Any]) -> Config:
        try:
            return _merged(config, overrides)
        except (TypeError, KeyError) as error:
            self.fail(where, f"cannot be merged into the base config: {error}.", "Give a value of the type it has.")

    def mapping(self, where: str, value: Any, what: str, *, empty: bool = True) -> None:
        if not isinstance(value, Mapping) or not (value or empty):
            self.fail(where, f"expected a dict from {what}, got {value!r}.", "")

    def name(self, where: str, name: Any) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            self.fail(
                where,
                f"{name!r} cannot be part of a path.",
                "Use letters, digits and _ . + -, not starting with . + -.",
            )

    def one_of(self, where: str, value: Any, choices: Iterable[str], what: str = "value") -> str:
        if value not in list(choices):
            self.fail(where, f"{value!r} is not a known {what}.", _instead(str(value), choices))
        return value

    def unique(self, where: str, values: Sequence[Any]) -> None:
        for index, value in enumerate(values):
            if value in values[:index]:
                self.fail(where, f"{value!r} is listed twice.", "Remove one.")


def _merged(config: Config, overrides: Mapping[str, Any]) -> Config:
    config = copy.deepcopy(config)
    config.merge_from_dict(copy.deepcopy(dict(overrides)))
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


def _dotted_keys(node: Any, prefix: str = "") -> Iterator[str]:
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, value in items:
        yield f"{prefix}{key}"
        yield from _dotted_keys(value, f"{prefix}{key}.")


def _instead(value: str, choices: Iterable[str], otherwise: str | None = None) -> str:
    names = [str(choice) for choice in choices]
    close = difflib.get_close_matches(value, names, n=1, cutoff=0.7 if otherwise else 0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    return otherwise or f"Known: {', '.join(names)}."
