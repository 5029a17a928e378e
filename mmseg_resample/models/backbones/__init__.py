from .efficientnet_lite import EfficientNetLite
from .segnet import SegNet
from .sfnet_resnet import SFNetResNet
from .stdc_pyramid import STDCPyramid
from .with_image import WithImage

__all__ = ["EfficientNetLite", "SFNetResNet", "STDCPyramid", "SegNet", "WithImage"]
