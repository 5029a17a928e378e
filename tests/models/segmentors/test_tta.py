import copy

import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.models.segmentors import SegTTAModel
from mmseg.registry import MODELS

from .thin import FCN, SIZE, batch, build, tell_classes_apart


def model_and_views(classes, channels, lean):
    head = dict(FCN, num_classes=classes, out_channels=channels, threshold=0.5, dropout_ratio=0.0)
    head["loss_decode"] = dict(type="CrossEntropyLoss", use_sigmoid=channels == 1)
    module = build(head, lean=lean).eval()
    tell_classes_apart(module)
    image, samples = batch(1, img_path="a.png")
    flipped = copy.deepcopy(samples)
    flipped[0].set_metainfo(dict(flip=True, flip_direction="horizontal"))
    with torch.no_grad():
        return module, [module.predict(image, samples)[0], module.predict(image.flip(3), flipped)[0]]


@pytest.mark.parametrize("lean", [None, {}])
def test_one_channel_has_the_labels_of_the_mean_probability(lean):
    module, views = model_and_views(2, 1, lean)
    expected = torch.stack([view.seg_logits.data for view in views]).mean(0) > 0.5
    model = MODELS.build(dict(type="TTASegmentor", module=module))
    (merged,) = model.merge_preds([views])
    assert merged.pred_sem_seg.data.shape == (1, *SIZE) and "gt_sem_seg" in merged
    assert torch.equal(merged.pred_sem_seg.data.bool(), expected) and 0 < expected.float().mean() < 1
    stock = SegTTAModel(module).merge_preds([views])[0].pred_sem_seg.data
    assert stock.all()  # else mmseg has been mended, and this class can go


def test_several_channels_are_left_to_mmseg():
    module, views = model_and_views(5, 5, None)
    init_default_scope("mmseg")
    ours = MODELS.build(dict(type="TTASegmentor", module=module)).merge_preds([copy.deepcopy(views)])
    stock = SegTTAModel(module).merge_preds([views])
    assert torch.equal(ours[0].pred_sem_seg.data, stock[0].pred_sem_seg.data)
