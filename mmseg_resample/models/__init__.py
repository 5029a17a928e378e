"""Backbones, necks and decode heads whose every resize is a resampler from the config; segmentors."""

from .backbones import EfficientNetLite, SegNet, SFNetResNet, STDCPyramid, WithImage
from .decode_heads import (
    LinearProbeHead,
    ResampleDeepLabV3PlusHead,
    ResampleFPNHead,
    ResampleSegformerHead,
    ResampleUPerHead,
    SegNetHead,
    SFNetHead,
    SFNetLiteHead,
)
from .necks import ResampleFPN
from .segmentors import LeanSegmentor, ResampledSegmentor, TTASegmentor

__all__ = [
    "EfficientNetLite",
    "LeanSegmentor",
    "LinearProbeHead",
    "ResampleDeepLabV3PlusHead",
    "ResampleFPN",
    "ResampleFPNHead",
    "ResampleSegformerHead",
    "ResampleUPerHead",
    "ResampledSegmentor",
    "SFNetHead",
    "SFNetLiteHead",
    "SFNetResNet",
    "STDCPyramid",
    "SegNet",
    "SegNetHead",
    "TTASegmentor",
    "WithImage",
]
