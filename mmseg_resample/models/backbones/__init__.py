from .segnet import SegNet
from .sfnet_resnet import SFNetResNet
from .stdc_pyramid import STDCPyramid

__all__ = ["SFNetResNet", "STDCPyramid", "SegNet"]
