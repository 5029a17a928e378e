"""Mistakes that a user can make on the command line, and how they are said."""

import os
import sys


class UsageError(Exception):
    """What the command line asks for cannot be done. The message names the value, the rule and the fix."""


def say(text: str) -> None:
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or os.environ.get("OMPI_COMM_WORLD_RANK") or "0"
    if rank == "0":
        print(text, file=sys.stderr, flush=True)
