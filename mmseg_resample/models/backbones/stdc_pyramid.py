"""``STDCPyramid``: STDC with the fine level that SFNet needs."""

from typing import Any

from mmseg.models.backbones import STDCNet
from mmseg.registry import MODELS


@MODELS.register_module()
class STDCPyramid(STDCNet):
    """mmseg's ``STDCNet`` with four outputs, of strides 4, 8, 16 and 32; mmseg's begins at 8. Same state dict.

    Args:
        stdc_type: ``"STDCNet1"`` or ``"STDCNet2"``.
        **kwargs: as ``STDCNet`` takes them; by default 3 input channels and the published widths, blocks and norm.
    """

    def __init__(self, stdc_type: str, **kwargs: Any) -> None:
        defaults = dict(
            in_channels=3,
            channels=(32, 64, 256, 512, 1024),
            bottleneck_type="cat",
            norm_cfg=dict(type="BN"),
            act_cfg=dict(type="ReLU"),
        )
        super().__init__(stdc_type, **{**defaults, **kwargs})
        self.num_shallow_features = 1
