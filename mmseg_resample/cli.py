"""The console command ``mmseg-resample``: it finds the command that is asked for, and imports nothing else."""

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from .suggest import did_you_mean
from .version import __version__

# The module of each command, with `main(arguments) -> exit status`, and what the command does.
COMMANDS = {
    "demo": ("launch.demo", "see, fix and measure in half a minute, without data or downloads"),
    "audit": ("launch.audit", "say which features of a network are misregistered, without weights or data"),
    "train": ("launch.train", "train a model from a config"),
    "test": ("launch.test", "test a checkpoint"),
    "study": ("study.command", "train variants of a model under paired seeds, test them, and report what changed"),
    "visualize": ("launch.visualize", "draw prediction, boundary errors and flows of an image"),
    "export": ("launch.export", "export a checkpoint to ONNX, and prove that the file computes the same labels"),
    "convert": ("launch.convert", "convert a released checkpoint of SFNet or SFNet-Lite"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` (default: the command line) begins with, and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        _add_working_directory()
        atexit.register(_skip_last_collection)
        return _module(arguments[0]).main(arguments[1:])
    parser = _parser()
    name = parser.parse_args(arguments[:1]).command
    parser.error(f"there is no command {name!r}.{did_you_mean(name, COMMANDS)}")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line as its command does, and run nothing; end the process with a message where it is wrong."""
    if not argv or argv[0] not in COMMANDS:
        return _parser().parse_args(argv)
    return _module(argv[0]).parse(argv[1:])


def _module(command: str) -> Any:
    return import_module(f".{COMMANDS[command][0]}", __package__)


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="mmseg-resample",
        usage="mmseg-resample COMMAND ...",
        description="Resampling in mmsegmentation: see where features are misregistered, fix it, measure it.",
        epilog="\n".join(["commands:", *lines, "", "`mmseg-resample COMMAND --help` has options and examples."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mmseg_resample {__version__}")
    parser.add_argument("command", metavar="COMMAND", help="one of the commands below")
    return parser


def _skip_last_collection() -> None:
    """Let the interpreter end without looking through everything once more, which takes most of a second.

    Not beside triton 3.8 and later: their bindings print what is never collected.
    """
    triton = sys.modules.get("triton")
    if triton is None or tuple(map(int, triton.__version__.split(".")[:2])) < (3, 8):
        gc.freeze()


def _add_working_directory() -> None:
    """Let ``custom_imports`` of a config find modules in the working directory, as ``python -m`` does.

    Last on the path: a file there must not take the place of an installed module of its name.
    """
    directory = os.getcwd()
    if not {"", directory} & set(sys.path):
        sys.path.append(directory)
