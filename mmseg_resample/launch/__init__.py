"""From command-line arguments to a configured mmengine ``Runner``; what the tools share.

Mistakes that a user can make on the command line raise ``UsageError`` as early as they can be known.
"""

from .checkpoints import check_weights, read_weights
from .command_line import (
    KeyValues,
    add_arguments,
    add_config_arguments,
    add_policy_argument,
    config_from_arguments,
    run,
)
from .configs import dotted_keys, find_config, load_config, require, require_data, set_policy
from .messages import UsageError
from .running import build_runner, init_processes, prepare_test, prepare_training, report, set_wrapper_for_cpu, train

__all__ = [
    "KeyValues",
    "UsageError",
    "add_arguments",
    "add_config_arguments",
    "add_policy_argument",
    "build_runner",
    "check_weights",
    "config_from_arguments",
    "dotted_keys",
    "find_config",
    "init_processes",
    "load_config",
    "prepare_test",
    "prepare_training",
    "read_weights",
    "report",
    "require",
    "require_data",
    "run",
    "set_policy",
    "set_wrapper_for_cpu",
    "train",
]
