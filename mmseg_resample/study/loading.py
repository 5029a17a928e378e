"""Read a study config and check all of it before anything is run.

A study is an mmengine config::

    base = '../shapes/fcn.py'                      # relative to this file, or 'mmseg::...'
    axes = dict(                                   # axis -> variant -> what it sets in the base config
        align_corners=dict(
            false={'model.decode_head.align_corners': False},
            true={'model.decode_head.align_corners': True},
            exact_pad={'policy': 'exact+pad'}),    # as --policy of the tools, on any base config
        size=dict(
            s128={'train_dataloader.dataset.size': (128, 128), 'test_dataloader.dataset.size': (128, 128)},
            s256={'test_dataloader.dataset.size': (256, 256)}))
    train = dict(size=['s128'])                    # what is trained: the product of these variants; default: of all;
                                                   # a list of such dicts is the products one after the other
    seeds = [0, 1, 2]
    evaluations = dict(                            # what the trained variants are tested as; default: own
        own=dict(),
        double=dict(size=dict(s128='s256')),
        other_flag=dict(align_corners=dict(false='true', true='false')))
    evaluators = dict(                             # metrics beside the confusion matrix; this is the default
        displacement=dict(type='DisplacementMetric'),
        boundary=dict(type='BoundaryIoUMetric', widths=[1, 2, 3, 5], frame=False),
        trimap=dict(type='TrimapIoUMetric'))
    compare = 'align_corners'                      # its variants are compared, paired by seed
    metric = 'mIoU'                                # or any scalar of the evaluators: 'mAcc', 'mBIoU_3px', 'dx', ...
    margin = 0.5                                   # differences within it, in the unit of the metric, are equivalent
    family = [dict(evaluation='own')]              # the comparisons that the study is about, for multiple testing:
                                                   # those that have all of an entry (variants, evaluation; lists of
                                                   # them); default: all under the first evaluation.
                                                   # dict(interaction=dict(size=['s128', 's256'])) declares by how much
                                                   # a difference changes along another axis
    speed = dict(amp='bfloat16')                   # see throughput.apply; the same for all variants
    stop_if = dict(iteration=200, loss_above=2.0)  # a training that fails this rule counts as failed, whatever variant
    sequences = r'^[^_]+'                          # test images with an equal match in their names are of one video
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from mmengine.config import Config

from mmseg_resample.launch import dotted_keys
from mmseg_resample.launch.configs import with_indices
from mmseg_resample.suggest import did_you_mean, did_you_mean_file, did_you_mean_key

from . import hooks, throughput
from .evaluators import CONFUSION, DEFAULT_EVALUATORS, scalar_names
from .plan import (
    METRICS,
    POLICY,
    RUNTIME,
    DeclaredComparison,
    Study,
    StudyError,
    Variants,
    in_words,
    trained_variants,
    variants_directory,
    with_overrides,
)

_KEYS = (
    "base", "axes", "train", "seeds", "evaluations", "evaluators", "compare", "metric", "margin", "family", "speed",
    "stop_if", "sequences",
)  # fmt: skip
INTERACTION = "interaction"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")  # names become parts of paths
_LONGEST_NAME = 255  # of a file, in bytes, which are characters here
_AROUND_NAMES = 25  # characters that are put around a name in one of a file, while it is written too
_MOST_COMBINATIONS = 1000  # each is a config to be merged and a few runs


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
    """Checks of one study file; every error starts with the file and the key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fail(self, key: str, problem: str, fix: str) -> NoReturn:
        raise StudyError(f"{self.path}: {key}: {problem} {fix}")

    def load(self, seeds: Sequence[int] | None, options: Mapping[str, Any]) -> Study:
        content = self.read("study config", self.path)
        if "model" in content and "axes" not in content:
            self.fail("model", "this is the config of a model, not of a study.", _a_study_of(self.path))
        for key in content:
            if key not in _KEYS:
                self.fail(key, "is not a key of a study.", _instead(key, _KEYS))
        for key in ("base", "axes", "seeds", "compare"):
            if key not in content and not (key == "seeds" and seeds is not None):
                self.fail(key, "is missing.", f"Add {key} = ... to the file.")
        base = content["base"]
        base_config = self.base(base, options)
        axes = self.axes(content["axes"], base_config, options)
        combinations = self.train(content.get("train", {}), axes)
        self.paths(combinations)
        train = trained_variants(axes, combinations)
        evaluators, scalars = self.evaluators(content.get("evaluators", DEFAULT_EVALUATORS))
        compare = self.compare(content["compare"], combinations, axes)
        evaluations = self.evaluations(content.get("evaluations", {"own": {}}), axes, train)
        study = Study(
            file=self.path,
            base=base,
            base_config=base_config,
            axes=axes,
            combinations=combinations,
            seeds=self.seeds("--seeds", seeds) if seeds is not None else self.seeds("seeds", content["seeds"]),
            evaluations=evaluations,
            evaluators=evaluators,
            compare=compare,
            metric=self.metric(content.get("metric", METRICS[0]), scalars),
            margin=self.margin(content.get("margin", 0.5)),
            family=self.family(content.get("family"), compare, axes, combinations, list(evaluations)),
            speed=self.speed(content.get("speed", {})),
            stop_if=self.stop_if(content.get("stop_if", {})),
            sequences=self.sequences(content.get("sequences")),
        )
        self.check_schedules(study)
        return study

    def read(self, what: str, path: Path | str) -> dict[str, Any]:
        try:
            if "::" in str(path):  # only `_base_` understands the configs that a package ships
                return Config.fromstring(f"_base_ = [{str(path)!r}]", ".py").to_dict()
            return Config.fromfile(path).to_dict()
        except FileNotFoundError as error:
            hint = did_you_mean_file(Path(path)) if not Path(path).exists() else f" ({error})."
            raise StudyError(f"{self.path}: {what} {str(path)!r} does not exist.{hint} Correct the path.") from error
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
            if axis in ("evaluation", INTERACTION):
                self.fail(where, "is a word of family.", "Name the axis otherwise.")
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

    def train(self, train: Any, axes: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
        """Check ``train``, and return the combinations of all its products, in their order."""
        if not isinstance(train, Sequence) or isinstance(train, str):
            return self.product("train", train, axes)
        if not train:
            self.fail("train", "is an empty list, so nothing is trained.", "Write dict() to train all combinations.")
        combinations = [
            combination
            for index, part in enumerate(train)
            for combination in self.product(f"train.{index}", part, axes)
        ]
        self.unique("train", combinations)
        return combinations

    def product(self, where: str, train: Any, axes: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
        self.mapping(where, train, "axis names to variants")
        for axis in train:
            self.one_of(where, axis, axes, "axis")
        in_pytorch = {axis: [name for name, sets in axes[axis].items() if RUNTIME not in sets] for axis in axes}
        selected = [
            self.variants(f"{where}.{axis}", train.get(axis, in_pytorch[axis]), in_pytorch[axis]) for axis in axes
        ]
        if (count := math.prod(map(len, selected))) > _MOST_COMBINATIONS:
            self.fail(
                where,
                f"{' x '.join(str(len(names)) for names in selected)} variants are {count} combinations, and at most "
                f"{_MOST_COMBINATIONS} can be trained.",
                "Name those to be trained: train = dict(axis=['variant', ...]), or a list of such dicts.",
            )
        return [dict(zip(axes, names, strict=True)) for names in itertools.product(*selected)]

    def paths(self, combinations: Sequence[Variants]) -> None:
        """Check that the names of the folders can be names of files."""
        longest = max(map(variants_directory, combinations), key=len)
        if len(longest) > _LONGEST_NAME:
            self.fail(
                "axes",
                f"the runs of {longest[:60]}... are kept in a folder whose name has {len(longest)} characters, and a "
                f"file name can have {_LONGEST_NAME}.",
                "Shorten the names of axes and variants.",
            )

    def variants(self, where: str, names: Any, known: Iterable[str]) -> list[str]:
        """Check one name or a list of names, and return the list."""
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, Sequence) or not names:
            self.fail(where, f"expected a variant or a list of variants, got {names!r}.", "Write [...].")
        for name in names:
            self.one_of(where, name, known, "variant")
        self.unique(where, names)
        return list(names)

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

    def evaluators(self, evaluators: Any) -> tuple[dict[str, dict[str, Any]], dict[str, str] | None]:
        """Check the evaluators; return them, and scalar -> evaluator, None if only an evaluation can tell."""
        self.mapping("evaluators", evaluators, "names to configs of metrics")
        owners, complete = dict.fromkeys(METRICS, CONFUSION), True
        for name, config in evaluators.items():
            where = f"evaluators.{name}"
            self.name(where, name)
            if name == CONFUSION:
                self.fail(where, "is the name of the evaluator that every study has.", "Use another name.")
            self.mapping(where, config, "argument names to values", empty=False)
            if "out_file" in config:
                self.fail(where, "sets out_file, which the study sets.", "Remove it.")
            try:
                names = scalar_names(config)
            except Exception as error:  # whatever the metric raises for its arguments
                self.fail(where, f"cannot be built: {type(error).__name__}: {error}", "Correct its arguments.")
            complete &= names is not None
            for scalar in names or ():
                if scalar in owners:
                    self.fail(where, f"returns {scalar!r}, as {owners[scalar]!r} does.", "Give it a prefix='...'.")
                owners[scalar] = name
        return {name: dict(config) for name, config in evaluators.items()}, owners if complete else None

    def metric(self, metric: Any, scalars: Mapping[str, str] | None) -> str:
        if scalars is not None or not isinstance(metric, str):
            self.one_of("metric", metric, scalars or METRICS, "scalar of the evaluators")
        return metric

    def compare(self, axis: Any, combinations: Sequence[Variants], axes: Mapping[str, Mapping[str, Any]]) -> str:
        self.one_of("compare", axis, axes, "axis")
        pairs = Counter(tuple(_without(variants, axis).items()) for variants in combinations)
        if max(pairs.values()) < 2:
            trained = trained_variants(axes, combinations)[axis]
            problem = (
                f"only {trained} of axis {axis!r} is trained"
                if len(trained) == 1
                else (f"no two variants of axis {axis!r} are trained with the same variants of the other axes")
            )
            self.fail("compare", f"{problem}.", "Train two or more variants.")
        return axis

    def margin(self, margin: Any) -> float:
        if isinstance(margin, bool) or not isinstance(margin, (int, float)) or not 0 < margin < math.inf:
            self.fail("margin", f"expected a number > 0 in the unit of the metric, got {margin!r}.", "Write 0.5.")
        return float(margin)

    def sequences(self, pattern: Any) -> str | None:
        if pattern is None:
            return None
        try:
            re.compile(pattern)
        except (TypeError, re.error) as error:
            self.fail("sequences", f"expected a regular expression, got {pattern!r} ({error}).", "Write r'^[^_]+'.")
        return pattern

    def family(
        self,
        family: Any,
        axis: str,
        axes: Mapping[str, Iterable[str]],
        combinations: Sequence[Variants],
        evaluations: Sequence[str],
    ) -> list[DeclaredComparison]:
        """Check ``family``, and return the declared comparisons, each once, in the order of the runs."""
        plain = list(_comparisons(axis, list(axes[axis]), combinations, evaluations))
        if family is None:
            return [comparison for comparison in plain if comparison.evaluation == evaluations[0]]
        if isinstance(family, str) or not isinstance(family, Sequence):
            self.fail("family", f"expected a list of dicts, got {family!r}.", "Write [dict(evaluation='...')].")
        declared = []
        for index, selection in enumerate(family):
            where = f"family.{index}"
            self.mapping(where, selection, "'evaluation', 'interaction' and axis names to names")
            known = {"evaluation": evaluations, **trained_variants(axes, combinations)}
            chosen = {key: names for key, names in selection.items() if key != INTERACTION}
            along = self.interaction(f"{where}.{INTERACTION}", selection.get(INTERACTION), axis, known, chosen)
            for key, names in chosen.items():
                self.one_of(where, key, known, "axis, nor 'evaluation' or 'interaction'")
                chosen[key] = self.variants(f"{where}.{key}", names, known[key])
            found = [
                comparison
                for comparison in (_interactions(plain, along) if along else plain)
                if all(_named(comparison, axis)[key] in names for key, names in chosen.items())
            ]
            if not found:
                self.fail(
                    where,
                    f"selects no {'interaction' if along else 'comparison'} of the study.",
                    f"Compared is each variant of {axis!r} with the first one that is trained beside it.",
                )
            declared += found
        return [comparison for comparison in plain if comparison in declared] + [
            comparison for comparison in dict.fromkeys(declared) if comparison.along
        ]

    def interaction(
        self, where: str, ends: Any, compared: str, known: Mapping[str, Sequence[str]], chosen: Mapping[str, Any]
    ) -> tuple[tuple[str, tuple[str, str]], ...]:
        """Check the axes along which an entry of ``family`` declares that differences change; none without any."""
        if ends is None:
            return ()
        self.mapping(where, ends, "axis names to [from, to]", empty=False)
        others = [axis for axis in known if axis not in ("evaluation", compared)]
        along = []
        for axis, pair in ends.items():
            self.one_of(where, axis, others, "axis beside the compared one")
            if axis in chosen:
                self.fail(where, f"runs along {axis!r}, which the entry fixes too.", "Keep one of them.")
            names = self.variants(f"{where}.{axis}", pair, known[axis])
            if len(names) != 2 or names[0] != known[axis][0]:
                first, *others_of_it = known[axis]
                fix = f"Write {axis}=[{first!r}, {others_of_it[0]!r}]." if others_of_it else "Train a second variant."
                self.fail(f"{where}.{axis}", f"expected the first trained variant and another, got {names}.", fix)
            along.append((axis, (names[0], names[1])))
        return tuple(sorted(along, key=lambda entry: others.index(entry[0])))

    def speed(self, speed: Any) -> dict[str, Any]:
        self.mapping("speed", speed, "options to values")
        try:
            return throughput.complete_options(speed)
        except ValueError as error:
            raise StudyError(f"{self.path}: {error}") from error

    def stop_if(self, rule: Any) -> dict[str, Any]:
        self.mapping("stop_if", rule, "'iteration' and 'loss_above' to numbers")
        if rule:
            try:
                hooks.DivergenceHook(**rule)
            except (TypeError, ValueError) as error:
                self.fail("stop_if", f"{error}", "Write dict(iteration=200, loss_above=2.0).")
        return dict(rule)

    def check_schedules(self, study: Study) -> None:
        """Check that every combination merges, and that checkpoints can divide its length of training."""
        for variants in study.combinations:
            try:
                study.run(variants, study.seeds[0])
            except ValueError as error:  # of `throughput` too
                where = f"base with {in_words(variants)}"
                self.fail(where, str(error), "Change the base config, or what these variants set in it.")
        iterations = study.base_config.train_cfg.get("max_iters")
        if iterations is not None and study.stop_if.get("iteration", 0) > iterations:
            iteration = study.stop_if["iteration"]
            self.fail("stop_if", f"iteration {iteration} is not reached in {iterations} iterations.", "Write fewer.")

    def check_key(self, where: str, key: str, config: Config) -> None:
        content = config.to_dict()
        known = [*dotted_keys(content), POLICY, RUNTIME]
        if with_indices(content, key) not in known:
            meant = "If it is meant, set it in the base config too."
            problem = f"{key!r} is not in the base config, and what is misspelt would be read by nothing."
            self.fail(where, problem + did_you_mean_key(key, known), meant)

    def merge(self, where: str, config: Config, overrides: Mapping[str, Any]) -> Config:
        try:
            return with_overrides(config, overrides)
        except StudyError as error:
            self.fail(where, f"{error}", "Change what this variant sets.")
        except (TypeError, KeyError) as error:
            self.fail(where, f"cannot be merged into the base config: {error}.", "Give a value of the type it has.")

    def mapping(self, where: str, value: Any, what: str, *, empty: bool = True) -> None:
        if not isinstance(value, Mapping) or not (value or empty):
            fix = "It needs an entry." if isinstance(value, Mapping) else "Write {'...': ...}."
            self.fail(where, f"expected a dict from {what}, got {value!r}.", fix)

    def name(self, where: str, name: Any) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            self.fail(
                where,
                f"{name!r} cannot be part of a path.",
                "Use letters, digits and _ . + -, not starting with . + -.",
            )
        if len(name) > _LONGEST_NAME - _AROUND_NAMES:
            problem = f"has {len(name)} characters, and a file name can have {_LONGEST_NAME}."
            self.fail(where[:60] + "...", problem, f"Shorten it to {_LONGEST_NAME - _AROUND_NAMES} or fewer.")

    def one_of(self, where: str, value: Any, choices: Iterable[str], what: str = "value") -> str:
        if value not in list(choices):
            self.fail(where, f"{value!r} is not a known {what}.", _instead(str(value), choices))
        return value

    def unique(self, where: str, values: Sequence[Any]) -> None:
        for index, value in enumerate(values):
            if value in values[:index]:
                self.fail(where, f"{value!r} is listed twice.", "Remove one.")


def _comparisons(
    axis: str, order: Sequence[str], combinations: Sequence[Variants], evaluations: Sequence[str]
) -> Iterator[DeclaredComparison]:
    """List the possible comparisons: each variant of ``axis`` with the first one trained with the same others."""
    others: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for variants in combinations:
        others.setdefault(tuple(_without(variants, axis).items()), []).append(variants[axis])
    for evaluation, (combination, names) in itertools.product(evaluations, others.items()):
        for name in sorted(names, key=order.index)[1:]:
            yield DeclaredComparison(combination, evaluation, name)


def _interactions(
    comparisons: Sequence[DeclaredComparison], along: tuple[tuple[str, tuple[str, str]], ...]
) -> Iterator[DeclaredComparison]:
    """List the changes of ``comparisons`` along axes, where they are made at all the ends."""
    present = [(dict(each.combination), each.evaluation, each.variant) for each in comparisons]
    for comparison in comparisons:
        held = _without(dict(comparison.combination), *dict(along))
        change = replace(comparison, combination=tuple(held.items()), along=along)
        corners = change.corners()
        every = all((corner, change.evaluation, change.variant) in present for corner in corners)
        if every and corners[0] == dict(comparison.combination):
            yield change


def _named(comparison: DeclaredComparison, axis: str) -> dict[str, str]:
    return {**dict(comparison.combination), axis: comparison.variant, "evaluation": comparison.evaluation}


def _without(variants: Variants, *axes: str) -> dict[str, str]:
    return {each: variant for each, variant in variants.items() if each not in axes}


def _a_study_of(config: Path) -> str:
    return (
        f"Write a study with base = '{config.name}' beside it and what is varied in axes, as those in configs/studies; "
        f"mmseg-resample train takes this config as it is."
    )


def _instead(value: str, choices: Iterable[str]) -> str:
    """Name the choice that was probably meant, or all of them."""
    names = [str(choice) for choice in choices]
    return did_you_mean(value, names).strip() or f"Known: {', '.join(names)}."
