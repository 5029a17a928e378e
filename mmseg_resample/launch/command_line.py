"""The options that the tools share, and their exit statuses."""

import argparse
import os
from collections.abc import Callable
from typing import Any

from mmengine.config import Config, DictAction

from .configs import load_config, set_policy
from .messages import UsageError, say


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``config`` and ``--cfg-options``."""
    parser.add_argument("config", help="a config file, or one of an installed package: mmseg::pspnet/<name>.py")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=KeyValues,
        metavar="KEY=VALUE",
        help='change settings of the config: train_cfg.max_iters=100 model.decode_head.norm_cfg.type=BN key="[a,b]"',
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what training and testing have in common, under mmseg's names; ``config_from_arguments`` reads it."""
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
    """Adds ``--policy``, for ``set_policy``."""
    parser.add_argument(
        "--policy",
        metavar="PIXEL_MODEL",
        help="the pixel model of every resize, whatever the modules say: exact (as tools/audit.py finds it), "
        "True, False (align_corners), or a convention such as asymmetric",
    )


class KeyValues(DictAction):
    """mmengine's option of KEY=VALUE pairs, with a usage message where mmengine raises."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *args: Any) -> None:
        try:
            super().__call__(parser, namespace, values, *args)
        except (AssertionError, ValueError) as error:
            name = "/".join(self.option_strings)
            parser.error(f"argument {name}: expected KEY=VALUE, got {' '.join(values)} ({error})")


def config_from_arguments(args: argparse.Namespace) -> Config:
    """Reads the config that ``add_arguments`` asked for; see ``load_config``."""
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = load_config(args.config, options=args.cfg_options, work_dir=args.work_dir, launcher=args.launcher)
    if args.policy is not None:
        set_policy(cfg, args.policy)
    return cfg


def run(main: Callable[[], int | None]) -> int:
    """Runs a command and returns its exit status: its own or 0, 2 after a ``UsageError``, 130 after Ctrl-C.

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
