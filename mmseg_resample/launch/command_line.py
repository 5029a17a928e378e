"""The options that the commands share, and their exit statuses."""

import argparse
from collections.abc import Callable
from typing import Any

from .messages import UsageError, say


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``config`` and ``--cfg-options``."""
    parser.add_argument(
        "config",
        help="a config file, or one of a package: mmseg::pspnet/<name>.py, mmseg_resample::sfnet/<name>.py",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=KeyValues,
        metavar="KEY=VALUE",
        help='change settings of the config: train_cfg.max_iters=100 model.decode_head.norm_cfg.type=BN key="[a,b]"',
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what training and testing have in common, under mmseg's names; ``config_from_arguments`` reads it."""
    add_config_arguments(parser)
    parser.add_argument(
        "--work-dir",
        help="folder for logs, checkpoints and metrics (default: the config's, or work_dirs/<config name>)",
    )
    add_policy_argument(parser)
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="what started the processes of a distributed job (default: none, one process)",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help="set by torch.distributed.launch")


def add_policy_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--policy``, for ``set_policy``."""
    parser.add_argument(
        "--policy",
        metavar="PIXEL_MODEL",
        help="the pixel model of every resize, whatever the modules say: exact (as mmseg-resample audit finds it), "
        "True, False (align_corners), or a convention such as asymmetric",
    )


class KeyValues(argparse.Action):
    """Option of KEY=VALUE pairs, read by mmengine's ``DictAction``, with a usage message where that raises."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *args: Any) -> None:
        from mmengine.config import DictAction  # imports torch

        try:
            DictAction(self.option_strings, self.dest, nargs=self.nargs)(parser, namespace, values, *args)
        except (AssertionError, ValueError) as error:
            name = "/".join(self.option_strings)
            parser.error(f"argument {name}: expected KEY=VALUE, got {' '.join(values)} ({error})")


def run(main: Callable[[], int | None]) -> int:
    """Run a command and return its exit status: its own or 0, 2 after a ``UsageError``, 130 after Ctrl-C.

    Args:
        main: the command; None is status 0. Any other exception passes through, with its traceback.
    """
    try:
        return main() or 0
    except UsageError as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say("interrupted")
        return 130
