"""Directories of studies as a study leaves them, from synthetic predictions: real metrics on them, no training.

A prediction is its label, displaced by a line over the position, with noise of the seed and of the variant.
"""

import itertools

import numpy as np
import torch
from mmseg.registry import METRICS

from mmseg_resample.evaluation import scores
from mmseg_resample.study import records
from mmseg_resample.study.evaluators import DEFAULT_EVALUATORS, evaluator_configs

CLASSES = ("background", "disc", "square", "a|b <c> *d*")
ENVIRONMENT = {"python": "3.11", "torch": "2.13", "device": "a processor", "threads": 1, "git": None}
TRAINING = {"iterations": 8, "seconds": 12.0, "peak_memory_bytes": 3 * 2**20, "memory": "allocated on the GPU"}
STUDY = {
    "name": "synthetic",
    "base": "base.py",
    "axes": {"flag": ["false", "true"], "size": ["s64", "s96"]},
    "train": {"flag": ["false", "true"], "size": ["s64"]},
    "seeds": [0, 1, 2],
    "evaluations": {
        "own": {},
        "larger": {"size": {"s64": "s96", "s96": "s96"}},
        "other_flag": {"flag": {"false": "true", "true": "false"}},
    },
    "evaluators": {name: dict(config) for name, config in DEFAULT_EVALUATORS.items()},
    "compare": "flag",
    "metric": "mIoU",
}
# What a network with this flag reads evidence off by, at the first, middle and last position.
OFFSETS = {"false": (-1.0, -1.0, -1.0), "true": (0.0, -1.0, -2.0)}


def describe(study, declared=None):
    """``study.json``: with what ``plan.Study.describe`` adds, the first evaluation declared unless another is."""
    compare, axes = study["compare"], study["axes"]
    train = study["train"]
    if isinstance(train, dict):
        train = [dict(zip(train, names, strict=True)) for names in itertools.product(*train.values())]
    family = []
    for variants, evaluation in itertools.product(train, declared or list(study["evaluations"])[:1]):
        combination = {axis: name for axis, name in variants.items() if axis != compare}
        beside = [name for name in axes[compare] if {**combination, compare: name} in train]
        if variants[compare] != beside[0]:
            family.append({"combination": combination, "evaluation": evaluation, "variant": variants[compare]})
    return {"margin": 0.5, "speed": {}, "stop_if": {}, **study, "combinations": train, "family": family}


def scene(size, seed, ends=(0.0, 0.0)):
    """(size, size) classes: discs and squares on a background, displaced by a line over the position.

    ``ends``: displacement in px at the left and upper end, and at the right and lower one.
    """
    rng = np.random.default_rng(seed)
    label = np.zeros((size, size), np.int64)
    shift = np.linspace(*ends, size)
    row, column = (np.arange(size) - shift)[:, None], (np.arange(size) - shift)[None, :]
    for _ in range(size // 4):
        y, x, radius = rng.uniform(0, size), rng.uniform(0, size), rng.uniform(4, 8)
        name = int(rng.integers(1, len(CLASSES)))
        distance = np.hypot(row - y, column - x) if name == 1 else np.maximum(abs(row - y), abs(column - x))
        label[distance < radius] = name
    return label


def evaluate(directory, evaluators, size, ends, noise, rng, images=4):
    """The scalars of the evaluators on some images, and IoU by class; leaves the per-image counts in ``directory``."""
    metrics = [METRICS.build(config) for config in evaluator_configs(evaluators, 255, directory)]
    for metric in metrics:
        metric.dataset_meta = {"classes": CLASSES}
    for image in range(images):
        label, pred = scene(size, image), scene(size, image, ends)
        wrong = rng.random(pred.shape) < noise
        pred[wrong] = rng.integers(0, len(CLASSES), int(wrong.sum()))
        sample = {
            "img_path": f"{image}.png",
            "pred_sem_seg": {"data": torch.from_numpy(pred)[None]},
            "gt_sem_seg": {"data": torch.from_numpy(label)[None]},
        }
        for metric in metrics:
            metric.process({}, [sample])
    values = {}
    for metric in metrics:
        values |= metric.evaluate(images)
    with np.load(directory / "confusion.npz") as stored:
        exact = scores(stored["confusion"].sum(0))
    values |= {name: exact[name] for name in ("mIoU", "mAcc", "aAcc")}
    return {name: None if np.isnan(v) else float(v) for name, v in values.items()}, exact["IoU"]


def write_run(root, study, variants, seed, noise):
    """One finished run; ``noise``: flag -> share of wrong pixels."""
    files = records.RunFiles(root / ",".join(f"{a}={n}" for a, n in variants.items()) / f"seed-{seed}")
    evaluations = {}
    for number, (name, mapping) in enumerate(study["evaluations"].items()):
        tested = {axis: mapping.get(axis, {}).get(variant, variant) for axis, variant in variants.items()}
        trained_as, tested_as = (np.array(OFFSETS[each["flag"]]) for each in (variants, tested))
        # What is constant was learned away.
        first, _, last = -(tested_as - (trained_as[0] + trained_as[2]) / 2)
        rng = np.random.default_rng([seed, number])  # not of the variant: twins see the same scenes
        values, per_class = evaluate(
            files.counts(name),
            study.get("evaluators") or {},
            int(tested["size"][1:]),
            (first, last),
            noise[variants["flag"]] * (1 + 0.1 * rng.random()),
            rng,
        )
        evaluations[name] = {
            "variants": tested,
            "overrides": {},
            "evaluators": study.get("evaluators") or {},
            **{metric: values[metric] for metric in ("mIoU", "mAcc", "aAcc")},
            "IoU": dict(zip(CLASSES, (None if np.isnan(v) else float(v) for v in per_class), strict=True)),
            "metrics": values,
            "images": 4,
            "seconds": 1.5,
            "audit": {"size": [64, 64], "x": list(OFFSETS[tested["flag"]]), "y": list(OFFSETS[tested["flag"]])},
        }
        records.write_json(files.evaluation(name), evaluations[name])
    finish(files, variants, seed, evaluations)


def write_scores(root, variants, seed, evaluations, environment=ENVIRONMENT):
    """One finished run with known scores, evaluation -> metric -> value, and nothing per image."""
    files = records.RunFiles(root / ",".join(f"{a}={n}" for a, n in variants.items()) / f"seed-{seed}")
    finish(files, variants, seed, {name: {"metrics": dict(v)} for name, v in evaluations.items()}, environment)


def finish(files, variants, seed, evaluations, environment=ENVIRONMENT):
    """The last files of a run."""
    records.write_text(files.config, f"seed = {seed}\n")
    attempts = [{"started": f"some time {seed}", **environment}]
    records.write_json(files.environment, {"seed": seed, "attempts": attempts})
    run = {"variants": variants, "seed": seed, "training": TRAINING, "evaluations": evaluations}
    records.write_json(files.metrics, {**run, "finished": f"2026-01-0{1 + seed % 9}T00:00:00+00:00"})


def write_study(root, noise=None, **changes):
    """A finished study, with changes; noise makes ``true`` the worse flag."""
    study = {**STUDY, **changes}
    records.open_study(root, describe(study))
    for seed in study["seeds"]:
        for flag in study["train"]["flag"]:
            write_run(root, study, {"flag": flag, "size": "s64"}, seed, noise or {"false": 0.02, "true": 0.03})
    return root
