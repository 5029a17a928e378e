"""Mistakes that a user can make on the command line, and how they are reported."""

import os
import sys


class UsageError(Exception):
    """Error of the command line: it asks for what cannot be done. The message names the value, the rule and the fix."""


def say(text: str) -> None:
    """Print ``text`` to stderr, in the first of distributed processes."""
    if is_first():
        print(text, file=sys.stderr, flush=True)


def is_first() -> bool:
    """Tell whether this is the first of distributed processes, which may not be connected yet."""
    ranks = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"))
    return next(filter(None, ranks), "0") == "0"
