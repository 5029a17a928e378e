"""Functions of tensors; everything else in the package is built on these. Imports torch alone."""

from .deform_conv2d import deform_conv2d
from .flow_warp import FlowUnit, PaddingMode, flow_warp
from .grid import AxisMap, Coordinates, PixelGrid, PixelModel
from .resize import Mode, resize
from .resize_argmax import Segmentation, resize_argmax
from .resize_cross_entropy import resize_cross_entropy

__all__ = [
    "AxisMap",
    "Coordinates",
    "FlowUnit",
    "Mode",
    "PaddingMode",
    "PixelGrid",
    "PixelModel",
    "Segmentation",
    "deform_conv2d",
    "flow_warp",
    "resize",
    "resize_argmax",
    "resize_cross_entropy",
]
