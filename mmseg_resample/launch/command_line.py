"""The options that the commands share, and their exit statuses."""

import argparse
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
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

    Packages that are missing, or do not fit together, are such an error too, and so is a full disk. SIGTERM and SIGHUP
    are like Ctrl-C, with 128 and their number; to one of distributed processes they are what they are to any other.

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
