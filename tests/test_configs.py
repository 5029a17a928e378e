"""Every config we ship builds, takes a training step and predicts, at an odd image size."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

CONFIGS = Path(__file__).parent.parent / "configs"
MODEL_CONFIGS = sorted(p for p in CONFIGS.rglob("*.py") if p.relative_to(CONFIGS).parts[0] not in ("_base_", "studies"))
SIZE = (73, 91)


def sample(num_classes):
    data = SegDataSample(metainfo=dict(img_shape=SIZE, ori_shape=SIZE, pad_shape=SIZE))
    data.gt_sem_seg = PixelData(data=torch.randint(0, num_classes, (1, *SIZE)))
    return data


def test_there_are_configs():
    assert len(MODEL_CONFIGS) >= 12


@pytest.mark.parametrize("path", MODEL_CONFIGS, ids=lambda p: p.stem)
def test_trains_and_predicts(path):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    cfg.model.pretrained = None
    cfg.model.data_preprocessor.size = SIZE
    model = MODELS.build(cfg.model)
    batch = dict(
        inputs=[torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8) for _ in range(2)],
        data_samples=[sample(model.num_classes) for _ in range(2)],
    )
    batch = model.data_preprocessor(batch, training=True)
    losses, _ = model.parse_losses(model(**batch, mode="loss"))
    losses.backward()
    assert torch.isfinite(losses)
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    model.eval()
    with torch.no_grad():
        (prediction, _) = model(**batch, mode="predict")
    assert prediction.pred_sem_seg.data.shape == (1, *SIZE)
    assert prediction.seg_logits.data.shape == (model.num_classes, *SIZE)
    assert torch.isfinite(prediction.seg_logits.data).all()


@pytest.mark.parametrize("path", MODEL_CONFIGS, ids=lambda p: p.stem)
def test_every_section_that_training_needs_is_there(path):
    cfg = Config.fromfile(path)
    for key in ("train_dataloader", "val_dataloader", "test_dataloader", "optim_wrapper", "param_scheduler"):
        assert key in cfg, key
    assert cfg.custom_imports["imports"] == ["mmseg_resample"]
    flagged = "align-corners" in path.stem
    assert cfg.model.decode_head.align_corners is flagged
