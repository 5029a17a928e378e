"""Mistakes that a user can make on the command line, and how they are reported."""

import os
import sys


class UsageError(Exception):
    """Error of the command line: it asks for what cannot be done. The message names the value, the rule and the fix."""


def say(text: str) -> None:
    """Print ``text`` to stderr, in the first of distributed processes."""
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or os.environ.get("OMPI_COMM_WORLD_RANK") or "0"
    if rank == "0":
        print(text, file=sys.stderr, flush=True)
