"""Modules that bring one feature map onto the grid of another, all by ``forward(x, like)``."""

from .base import Resampler, build_resampler
from .flow_align import FlowAlign
from .interpolate import Interpolate

__all__ = ["FlowAlign", "Interpolate", "Resampler", "build_resampler"]
