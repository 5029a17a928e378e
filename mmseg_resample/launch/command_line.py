"""The options that the commands share, and their exit statuses."""

import argparse
import errno
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
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
        "exact+pad (and images padded until features reach their border), pad (padded, every flag as it is), True, "
        "False (align_corners), or a convention such as asymmetric",
    )


def add_check_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--check-data``, for ``check_data``."""
    parser.add_argument(
        "--check-data",
        choices=["all", "sample", "none"],
        default="sample",
        help="look at the label maps before the training: read all, or the headers of all and a sample whole (default)",
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


class Terminated(KeyboardInterrupt):
    """Signal that asks the process to end, raised so that all is left as after Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.status = 128 + number


@contextmanager
def raised_signals() -> Iterator[None]:
    """Raise ``Terminated`` on SIGTERM and SIGHUP, unless the process has other plans for them, as under nohup."""
    handled = []
    if threading.current_thread() is threading.main_thread():
        known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
        handled = [number for number in known if signal.getsignal(number) is signal.SIG_DFL]
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise Terminated(number)
        signal.signal(number, signal.SIG_DFL)  # a process that was forked
        os.kill(os.getpid(), number)

    for number in handled:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


def interruption(error: KeyboardInterrupt) -> tuple[str, int]:
    """Return the words and the exit status for Ctrl-C, or for a signal."""
    return (str(error), error.status) if isinstance(error, Terminated) else ("interrupted", 130)


def full_disk(error: OSError) -> str | None:
    """Return the message for a disk that nothing can be written to; None for another error."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
        return None
    return f"error: {error}. Make room there, or use another --work-dir."


def run(main: Callable[[], int | None]) -> int:
    """Run a command and return its exit status: its own or 0, 2 after a ``UsageError``, 130 after Ctrl-C.

    Packages that are missing, or do not fit together, and types that no registry has are such an error too, and so is a
    full disk. SIGTERM and SIGHUP are like Ctrl-C, with 128 and their number; to one of distributed processes they are
    what they are to any other.

    Args:
        main: the command; None is status 0. Any other exception passes through, with its traceback.
    """
    distributed = "RANK" in os.environ  # torchrun waits for those that it ends
    try:
        with nullcontext() if distributed else raised_signals():
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
    except OSError as error:
        message = full_disk(error)
        if message is None:
            raise
        say(message)
        return 2
    except KeyboardInterrupt as error:
        words, status = interruption(error)
        say(words)
        return status


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
