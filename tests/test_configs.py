"""Every config we ship builds, takes a training step and predicts, at an odd image size."""

import runpy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_resample.study import loading

CONFIGS = Path(__file__).parent.parent / "configs"
STUDIES = sorted((CONFIGS / "studies").glob("*.py"))
MODEL_CONFIGS = sorted(p for p in CONFIGS.rglob("*.py") if p.relative_to(CONFIGS).parts[0] not in ("_base_", "studies"))
SIZE = (41, 53)


def sample(num_classes):
    data = SegDataSample(metainfo=dict(img_shape=SIZE, ori_shape=SIZE, pad_shape=SIZE))
    data.gt_sem_seg = PixelData(data=torch.randint(0, num_classes, (1, *SIZE)))
    return data


def test_there_are_configs():
    assert len(MODEL_CONFIGS) >= 60


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, marks=pytest.mark.slow if p.stem.startswith(("upernet", "swin", "deeplab")) else ())
        for p in MODEL_CONFIGS
    ],
    ids=lambda p: p.stem,
)
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
    flagged = "align-corners" in path.stem or "sfsegnets" in path.stem  # the released models have it
    assert cfg.model.decode_head.align_corners is flagged


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_studies_name_entries_of_lists_by_type(path):
    """A number would mean another transform as soon as somebody adds one to the base config."""
    variants = [overrides for names in runpy.run_path(str(path))["axes"].values() for overrides in names.values()]
    keys = {key for overrides in variants for key in overrides}
    assert keys and not [key for key in keys if any(part.isdigit() for part in key.split("."))]


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_studies_load_and_declare_comparisons(path):
    """Loading checks every key against the base config, which is one that the tests above train."""
    study = loading.load(path)
    assert (path.parent / study.base).resolve() in MODEL_CONFIGS
    assert study.family
    assert len(study.runs()) == len(study.combinations) * len(study.seeds)


@pytest.mark.parametrize("path", [p for p in STUDIES if p.stem.endswith("_shapes")], ids=lambda p: p.stem)
def test_everything_that_a_study_tests_predicts(path):
    """Predict under every flag, policy and backbone, whole and by sliding windows; not all of them the same."""
    init_default_scope("mmseg")
    study = loading.load(path, seeds=[0])
    configs = [evaluation.config.model for run in study.runs() for evaluation in run.evaluations]
    for config in configs:
        config.data_preprocessor.pop("size")  # of training
    image, meta = torch.rand(1, 3, 131, 97), dict(img_shape=(131, 97), ori_shape=(131, 97), padding_size=[0] * 4)
    predictions = set()
    for config in {repr(config): config for config in configs}.values():
        torch.manual_seed(0)
        model = MODELS.build(config).eval()
        with torch.no_grad():
            logits = model.inference(image, [meta])
        assert logits.shape == (1, 6, 131, 97)
        assert torch.isfinite(logits).all()
        predictions.add(logits.numpy().tobytes())
    assert len(predictions) > 1


@pytest.mark.parametrize("backbone", ["r18-d8", "mit", "swin"])
def test_the_backbones_of_the_study_are_those_of_the_configs(backbone):
    study = loading.load(CONFIGS / "studies" / "backbones_shapes.py", seeds=[0])
    cfg = Config.fromfile(CONFIGS / "shapes" / f"fcn_{backbone}-tiny_1xb8-400_shapes-128x128.py")
    variants = {"align_corners": "false", "backbone": backbone.removesuffix("-d8"), "input": "128"}
    (run,) = [run for run in study.runs() if run.variants == variants]
    assert run.config.model == cfg.model
    assert run.config.optim_wrapper == cfg.optim_wrapper
