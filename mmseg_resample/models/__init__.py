"""Backbones, necks and decode heads of mmseg whose every resize is a resampler from the config."""

from .backbones import SegNet, SFNetResNet, STDCPyramid
from .decode_heads import (
    ResampleDeepLabV3PlusHead,
    ResampleFPNHead,
    ResampleSegformerHead,
    ResampleUPerHead,
    SegNetHead,
    SFNetHead,
    SFNetLiteHead,
)
from .necks import ResampleFPN

__all__ = [
    "ResampleDeepLabV3PlusHead",
    "ResampleFPN",
    "ResampleFPNHead",
    "ResampleSegformerHead",
    "ResampleUPerHead",
    "SFNetHead",
    "SFNetLiteHead",
    "SFNetResNet",
    "STDCPyramid",
    "SegNet",
    "SegNetHead",
]
