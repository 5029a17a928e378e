"""A training step of the same network with every resampler of a study, beside its first variant."""

from functools import cache, partial
from pathlib import Path

import torch
from measure import Call, Case, Options
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from torch import nn

from mmseg_resample.study import loading

TITLE = "Training steps with every resampler"
NOTE = (
    "One step of the study's training (preprocessing, forward, backward, optimizer) on one of its batches. Memory is "
    "beyond the weights and the batch: activations, gradients, state of the optimizer."
)


def cases(options: Options) -> list[Case]:
    """Each variant in a case of its own with the first one, so that the two run in turn."""
    configs = variants(options.study)
    baseline = next(iter(configs))
    names = list(configs)[1:]
    batch = int(configs[baseline].train_dataloader.batch_size)
    if options.quick:
        names, batch = names[:2], 2
    # `variant` names the column: tables have one for all.
    return [
        Case(
            name=name,
            ways=[baseline, "variant"],
            build=partial(_build, options.study, name, batch, options.device),
            tiny=partial(_build, options.study, name, 1, options.device),
            facts=partial(_facts, options.study, name),
        )
        for name in names
    ]


@cache
def variants(study: Path) -> dict[str, Config]:
    """Variant of the compared axis -> the config that is trained, with the first variants of the other axes."""
    planned = loading.load(study)
    found: dict[str, Config] = {}
    for run in planned.runs():
        found.setdefault(run.variants[planned.compare], run.config)
    return found


def _model(config: Config) -> nn.Module:
    init_default_scope("mmseg")
    torch.manual_seed(0)
    return MODELS.build(config.model)


def _facts(study: Path, name: str) -> dict[str, int]:
    configs = variants(study)
    named = {"parameters": configs[name], "baseline_parameters": next(iter(configs.values()))}
    return {key: sum(parameter.numel() for parameter in _model(config).parameters()) for key, config in named.items()}


def _build(study: Path, name: str, batch: int, device: str, way: str) -> Call:
    configs = variants(study)
    config = configs[name] if way == "variant" else next(iter(configs.values()))
    model = _model(config).to(device).train()
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    dataset = DATASETS.build(config.train_dataloader.dataset)
    data = pseudo_collate([dataset[i] for i in range(batch)])
    return lambda: model.train_step(data, optimizer)
