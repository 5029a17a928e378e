from .linear_probe_head import LinearProbeHead
from .resample_heads import (
    ResampleDeepLabV3PlusHead,
    ResampleFPNHead,
    ResampleSegformerHead,
    ResampleUPerHead,
)
from .segnet_head import SegNetHead
from .sfnet_head import SFNetHead
from .sfnet_lite_head import SFNetLiteHead

__all__ = [
    "LinearProbeHead",
    "ResampleDeepLabV3PlusHead",
    "ResampleFPNHead",
    "ResampleSegformerHead",
    "ResampleUPerHead",
    "SFNetHead",
    "SFNetLiteHead",
    "SegNetHead",
]
