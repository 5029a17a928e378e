"""The record of what a model's resamplers did in a forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..resamplers import Resampler

Explanations = dict[str, dict[str, Tensor]]
"""Path of a resampler -> what its ``explain`` gives: flow, offset, kernel, gate, as they apply."""


@contextmanager
def explanations(model: nn.Module) -> Iterator[Explanations]:
    """Collect what the resamplers of ``model`` do in the forward passes inside; the last call of each counts.

    Resamplers that only interpolate have nothing to explain and are left out. Nothing is computed, kept or slowed down
    outside of the block.
    """
    found: Explanations = {}

    def explain(name: str) -> Any:
        def hook(module: Resampler, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            with torch.no_grad():
                parts = module.explain(*inputs)
            if parts:
                found[name] = {key: value.detach() for key, value in parts.items()}

        return hook

    handles = [
        module.register_forward_hook(explain(name))
        for name, module in model.named_modules()
        if isinstance(module, Resampler)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
