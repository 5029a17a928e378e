"""The options that the commands share, and their exit statuses."""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..suggest import did_you_mean
from .messages import UsageError, say


class Parser(argparse.ArgumentParser):
    """Parser of a command: with texts as they are written, and names suggested for options that it does not know."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"formatter_class": argparse.RawDescriptionHelpFormatter, **kwargs})

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse, and end the process where an option is unknown."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}.{self._suggestion(unknown)}")
        return parsed

    def _suggestion(self, unknown: Sequence[str]) -> str:
        option = next((text for text in unknown if text.startswith("--")), "")
        known = [name for action in self._actions for name in action.option_strings]
        return did_you_mean(option.partition("=")[0], known)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            hint = did_you_mean(str(value), known)
            raise argparse.ArgumentError(action, f"expected one of {', '.join(known)}, got {value!r}.{hint}")


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

    Packages that are missing or do not fit together, and types that no registry has, are such an error too.

    Args:
        main: the command; None is status 0. Any other exception passes through, with its traceback.
    """
    try:
        return main() or 0
    except UsageError as error:
        say(f"error: {error}")
        return 2
    except ImportError as error:
        from ..compat import FrameworkError  # imports torch

        if not isinstance(error, FrameworkError):
            raise
        say(f"error: {error}")
        return 2
    except KeyError as error:
        if " registry" not in str(error):
            raise
        from . import describe_unknown_type  # imports mmseg

        problem = describe_unknown_type(error)
        if problem is None:
            raise
        say(f"error: {problem}")
        return 2
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def require_folder(option: str, folder: str | Path) -> None:
    """Refuse a folder that cannot be written to, or not be made, before the work whose results it is for.

    Raises:
        UsageError: names the folder above it that is a file or read-only.
    """
    _require(f"{option} {folder}", folder)


def _require(what: str, folder: str | Path) -> None:
    path = Path(folder).absolute()
    above = next(parent for parent in (path, *path.parents) if os.path.lexists(parent))
    if not above.is_dir():
        raise UsageError(f"{what}: {above} is no folder. Name one that is there or can be made.")
    try:
        with tempfile.TemporaryFile(dir=above):  # the only test that sees every file system as it is
            pass
    except OSError as error:
        raise UsageError(f"{what}: {above} cannot be written to ({error.strerror}).") from error


def require_file(option: str, path: Path) -> None:
    """Refuse a file that cannot be written, as ``require_folder`` does, and make its folder.

    Raises:
        UsageError: says what is in the way.
    """
    _require(f"{option} {path}", path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path):
            path.open("ab").close()
    except OSError as error:
        raise UsageError(f"{option} {path}: it cannot be written ({error.strerror}).") from error
