"""Necks and decode heads of mmseg whose every resize is a resampler from the config."""

from .decode_heads import SFNetHead
from .necks import ResampleFPN

__all__ = ["ResampleFPN", "SFNetHead"]
