"""Resampling in mmsegmentation: see where features are misregistered, fix it, measure what it was worth.

``custom_imports = dict(imports=['mmseg_resample'])`` in a config registers everything below with mmseg.
"""

from . import compat  # first: lets mmseg import on today's torch, numpy, setuptools and on mmcv-lite

compat.apply()

from . import datasets, evaluation, models, resamplers, visualization  # noqa: E402, F401  (only registration)
from .api import audit, exact  # noqa: E402
from .version import __version__  # noqa: E402

__all__ = ["__version__", "audit", "exact"]
