import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_resample.models import SegNet, SegNetHead
from tests.test_configs import CONFIGS

CONFIG = CONFIGS / "segnet" / "segnet_1xb8-400_shapes-128x128.py"


def tiny(**kwargs):
    backbone = SegNet(channels=(3, 4), num_convs=(1, 2))
    head = SegNetHead(
        [3, 4, 4], 3, num_convs=(1, 2), in_index=[0, 1, 2], num_classes=5, norm_cfg=dict(type="BN"), **kwargs
    )
    return backbone, head


@pytest.mark.parametrize("size", [(16, 24), (13, 22), (5, 1)])
def test_shapes(size):
    backbone, head = tiny(align_corners=False)
    outs = backbone(torch.randn(2, 3, *size))
    half = (size[0] + 1) // 2, (size[1] + 1) // 2
    quarter = (half[0] + 1) // 2, (half[1] + 1) // 2
    assert [tuple(o.shape[1:]) for o in outs] == [(3, *size), (4, *half), (4, *quarter)]
    assert head(outs).shape == (2, 5, *size)


def test_the_switches_of_the_pooling_are_the_ones_used():
    """The whole network with PyTorch's pooling and unpooling, its indices handed from one to the other."""
    backbone, head = (module.eval() for module in tiny(align_corners=False))
    x = image = torch.randn(2, 3, 16, 24)
    switches = []
    for stage in backbone.stages:
        x, indices = F.max_pool2d(stage(x), 2, return_indices=True)
        switches.append(indices)
    for stack in head.stacks:
        x = stack(F.max_unpool2d(x, switches.pop(), 2))
    assert torch.equal(head(backbone(image)), head.cls_seg(x))


def test_the_poolings_of_the_original_at_odd_sizes():
    """With ``ceil_mode``, and unpooling that knows the stride: 13 -> 7 -> 4 rows."""
    backbone = SegNet(channels=(3, 4), num_convs=(1, 2), ceil_mode=True).eval()
    _, head = tiny(align_corners=False, resampler=dict(type="MaxUnpool", stride=2))
    x = image = torch.randn(2, 3, 13, 23)
    switches, head = [], head.eval()
    for stage in backbone.stages:
        feature = stage(x)
        x, indices = F.max_pool2d(feature, 2, ceil_mode=True, return_indices=True)
        switches.append((indices, feature.shape[2:]))
    assert torch.equal(backbone(image)[-1], x)
    for stack in head.stacks:
        indices, size = switches.pop()
        x = stack(F.max_unpool2d(x, indices, 2, output_size=size))
    assert torch.equal(head(backbone(image)), head.cls_seg(x))


def test_the_decoder_reads_nothing_but_the_switches():
    backbone, head = (module.eval() for module in tiny(align_corners=False))
    *features, pooled = backbone(torch.randn(1, 3, 8, 8))
    assert torch.equal(head([*features, pooled]), head([*(3 * f + 1 for f in features), pooled]))
    assert not torch.equal(head([*features, pooled]), head([*(f.flip(3) for f in features), pooled]))


def test_any_resampler_fits():
    backbone, head = tiny(align_corners=True, resampler=dict(type="Interpolate"))
    assert all(r.align_corners is True for r in head.resamplers)
    assert head(backbone(torch.randn(2, 3, 9, 13))).shape == (2, 5, 9, 13)


def test_it_learns():
    """Some steps of training on one batch bring the loss down: gradients pass the unpoolings."""
    cfg = Config.fromfile(CONFIG)
    init_default_scope(cfg.default_scope)
    cfg.model.data_preprocessor.size = (32, 32)
    model = MODELS.build(cfg.model)
    model.init_weights()
    label = torch.zeros(1, 32, 32, dtype=torch.long)
    label[:, 8:24, 4:20] = 3
    sample = SegDataSample(metainfo=dict(img_shape=(32, 32), ori_shape=(32, 32), pad_shape=(32, 32)))
    sample.gt_sem_seg = PixelData(data=label)
    image = (label * 60).expand(3, -1, -1).to(torch.uint8)
    batch = model.data_preprocessor(dict(inputs=[image] * 2, data_samples=[sample] * 2), training=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    losses = []
    for _ in range(12):
        loss, _ = model.parse_losses(model(**batch, mode="loss"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0], losses


def test_errors():
    with pytest.raises(ValueError, match="3 for 2 stages"):
        SegNet(channels=(3, 4), num_convs=(1, 2, 3))
    with pytest.raises(ValueError, match="SegNetHead: expected in_channels of every stage"):
        SegNetHead([3, 4], 3, num_convs=(1, 2), num_classes=2, in_index=[0, 1])
