"""``SFNetResNet``: the ResNet under the released SFNet models."""

from typing import Any

from mmseg.models.backbones import ResNetV1c
from mmseg.models.backbones.resnet import BasicBlock
from mmseg.registry import MODELS


@MODELS.register_module()
class SFNetResNet(ResNetV1c):
    """mmseg's ``ResNetV1c`` with two peculiarities of the released SFNet code, which its checkpoints depend on.

    - The deep stem ends in 128 channels, so the first stage has 128 inputs.
    - The last two stages keep their stride of 2 and are dilated by 2 and 4 all the same. In basic blocks the second
      convolution is, where mmseg dilates the first.

    Outputs have strides 4, 8, 16 and 32, all at offset 0: every kernel is odd.

    Args:
        depth: 18, 34, 50, 101 or 152.
        stem_channels: channels of the stem.
        dilations: of the four stages.
        **kwargs: as ``ResNet`` takes them.

    Source: Li et al., "Semantic Flow for Fast and Accurate Scene Parsing", ECCV 2020; variant "D" of SFSegNets.
    """

    def __init__(
        self, depth: int, stem_channels: int = 128, dilations: tuple[int, ...] = (1, 1, 2, 4), **kwargs: Any
    ) -> None:
        super().__init__(depth=depth, stem_channels=stem_channels, dilations=dilations, **kwargs)
        for block in self.modules():
            if isinstance(block, BasicBlock):
                first, second = block.conv1, block.conv2
                second.dilation = second.padding = first.dilation
                first.dilation = first.padding = (1, 1)
