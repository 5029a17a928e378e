"""Modules that bring one feature map onto the grid of another, all by ``forward(x, like)``."""

from .anyup import AnyUp
from .base import Resampler, build_resampler, fuse
from .carafe import CARAFE
from .deform_align import DeformAlign
from .dysample import DySample
from .fade import FADE, FADELite
from .flow_align import DualFlowAlign, FlowAlign, GatedFlowAlign
from .freq_fusion import FreqFusion
from .guided import ImageGuided, guide_of
from .interpolate import Interpolate
from .jafar import JAFAR
from .joint_bilateral import JointBilateral
from .loftup import LoftUp
from .max_unpool import MaxUnpool, max_pool, max_unpool
from .naf import NAF
from .sapa import SAPA
from .upconv import Deconv, PixelShuffle
from .upsample_layer import ResampleLayer

__all__ = [
    "CARAFE",
    "FADE",
    "JAFAR",
    "NAF",
    "SAPA",
    "AnyUp",
    "Deconv",
    "DeformAlign",
    "DualFlowAlign",
    "DySample",
    "FADELite",
    "FlowAlign",
    "FreqFusion",
    "GatedFlowAlign",
    "ImageGuided",
    "Interpolate",
    "JointBilateral",
    "LoftUp",
    "MaxUnpool",
    "PixelShuffle",
    "ResampleLayer",
    "Resampler",
    "build_resampler",
    "fuse",
    "guide_of",
    "max_pool",
    "max_unpool",
]
