"""Resampling in mmsegmentation: see where features are misregistered, fix it, measure what it was worth.

``custom_imports = dict(imports=['mmseg_resample'])`` in a config registers the models, resamplers, data sets, metrics
and hooks of this package with mmseg. ``audit`` and ``exact`` serve any network, and need no mmseg.
"""

import gc
import multiprocessing
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .api import audit, exact

__all__ = ["__version__", "audit", "exact", "register"]


@cache
def register() -> None:
    """Register everything with mmseg, after making mmseg importable on this torch, numpy, setuptools and mmcv.

    ``import mmseg_resample`` does it where mmseg is installed, except in the commands of this package, which call this
    function when they have read their command line.

    Raises:
        ImportError: mmseg, mmengine or mmcv cannot be imported together; the message says why and what to install.
    """
    collects = gc.isenabled()
    gc.disable()  # nothing that is imported becomes garbage, and looking for it is a sixth of the time
    try:
        from . import compat

        compat.apply()  # before anything imports mmseg
        from . import datasets, evaluation, models, resamplers, visualization  # noqa: F401
    finally:
        if collects:
            gc.enable()


def _is_our_command() -> bool:
    """Tell whether this process was started as ``mmseg-resample``, ``python -m mmseg_resample`` or one of our tools.

    Such a process must answer ``--help`` before it imports torch. Processes that it spawns start from nothing and run
    no command, so they register like everybody else.
    """
    if multiprocessing.parent_process() is not None:
        return False
    program = Path(getattr(sys, "argv", [""])[0])
    if str(program) == "-m":  # so it is while the package is imported by `python -m`
        return sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1] == [__name__] if "-m" in sys.orig_argv else False
    if program.suffix == ".py":
        package = Path(__file__).parent.resolve()
        return program.resolve().parent in (package.parent / "tools", package / ".mim" / "tools")
    return program.stem == "mmseg-resample"


def __getattr__(name: str) -> Any:
    if name in ("audit", "exact"):
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if find_spec("mmseg") is not None and not _is_our_command():
    register()
