"""Mistakes that a user can make on the command line, and how they are reported."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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


@contextmanager
def logs_silenced(level: int = logging.CRITICAL) -> Iterator[None]:
    """Keep logs up to ``level`` away: what is built and initialised inside lists all that it does."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        yield
    finally:
        logging.disable(before)
