"""Activation checkpointing calls parts of a pass again when it is over: under the same policy, with the same count.

PyTorch offers no place to say so, and networks hold ``checkpoint`` under any name, so the two functions that it calls
are wrapped, once. Outside of a pass under a policy they do what they always did.
"""

from functools import cache
from typing import Any

import torch.utils.checkpoint as checkpointing

from ..grids.sites import repeatable


@cache
def count_on_when_recomputed() -> None:
    """Let checkpointed parts of a network count their resizes from the same number whenever they are computed."""
    forward = checkpointing.CheckpointFunction.forward
    generate = checkpointing._checkpoint_without_reentrant_generator

    def reentrant(ctx: Any, run_function: Any, *args: Any) -> Any:
        return forward(ctx, repeatable(run_function), *args)

    def not_reentrant(fn: Any, *args: Any, **kwargs: Any) -> Any:
        return generate(repeatable(fn), *args, **kwargs)

    checkpointing.CheckpointFunction.forward = staticmethod(reentrant)  # type: ignore[method-assign]
    checkpointing._checkpoint_without_reentrant_generator = not_reentrant
