"""The commands, one module each, and what they share: from the command line to a configured mmengine ``Runner``.

Mistakes that a user can make on the command line raise ``UsageError`` as early as they can be known. What imports torch
is imported, and mmseg with it, when it is first used, so that ``--help`` need not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .. import register
from .command_line import (
    KeyValues,
    Parser,
    add_arguments,
    add_check_argument,
    add_config_arguments,
    add_policy_argument,
    require_file,
    require_folder,
    run,
)
from .messages import UsageError

if TYPE_CHECKING:
    from .checkpoints import check_weights, read_file, read_weights
    from .configs import (
        config_from_arguments,
        describe_unknown_type,
        dotted_keys,
        find_config,
        load_config,
        require,
        require_data,
        set_policy,
    )
    from .labels import check_data
    from .running import (
        build_runner,
        init_processes,
        prepare_test,
        prepare_training,
        report,
        run_training,
        set_wrapper_for_cpu,
    )

__all__ = [
    "KeyValues",
    "Parser",
    "UsageError",
    "add_arguments",
    "add_check_argument",
    "add_config_arguments",
    "add_policy_argument",
    "build_runner",
    "check_data",
    "check_weights",
    "config_from_arguments",
    "describe_unknown_type",
    "dotted_keys",
    "find_config",
    "init_processes",
    "load_config",
    "prepare_test",
    "prepare_training",
    "read_file",
    "read_weights",
    "report",
    "require",
    "require_data",
    "require_file",
    "require_folder",
    "run",
    "run_training",
    "set_policy",
    "set_wrapper_for_cpu",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        register()  # the modules import mmseg
        for module in ("configs", "checkpoints", "labels", "running"):
            contents = vars(import_module(f".{module}", __name__))
            if name in contents:
                return contents[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
