"""``LeanSegmentor`` and ``ResizePolicy`` on one model, in either order."""

import copy
import pickle

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from mmseg_resample.grids import fake_tensors, follow
from mmseg_resample.launch.auditing import build_segmentor
from mmseg_resample.models.segmentors import lean_heads, logits
from mmseg_resample.ops import resize_argmax, resize_cross_entropy
from mmseg_resample.policy import ResizePolicy

from .test_lean_loss import assert_same as assert_same_losses
from .test_lean_predict import assert_same as assert_same_labels
from .test_lean_predict import predictions
from .thin import AUXILIARY, FCN, HEADS, PYRAMID, batch, build, config, pair, tell_classes_apart

EXACT = dict(exact=True, sizes=[(128, 128), (160, 224)])
FLAG = dict(rules=[dict(align_corners=True)])
POLICIES = dict(exact=EXACT, flag=FLAG, asymmetric=dict(rules=[dict(path="*.logits", coordinates="asymmetric")]))


def resampled(head, policy, **kwargs):
    return pair(head, segmentor="ResampledSegmentor", resize_policy=policy, **kwargs)


@pytest.fixture
def models_used(monkeypatch):
    """Pixel models that the fused ops were called with."""
    seen = []

    def noting(original):
        def run(*args, **kwargs):
            seen.append({key: kwargs.get(key) for key in ("coordinates", "first_coordinates")})
            return original(*args, **kwargs)

        return run

    monkeypatch.setattr(lean_heads, "resize_cross_entropy", noting(resize_cross_entropy))
    monkeypatch.setattr(logits, "resize_argmax", noting(resize_argmax))
    return seen


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("head", ["UPerHead", "SegformerHead"])
def test_losses_and_labels_are_those_of_the_policy(head, policy, models_used):
    stock, model = resampled(head, POLICIES[policy], auxiliary_head=dict(AUXILIARY, dropout_ratio=0.0))
    data = batch(ori_shape=(101, 140))
    assert_same_losses(stock, model, *data)
    assert len(models_used) == 2
    assert_same_labels(stock, model, *data, atol=1e-5)
    assert len(models_used) == 4
    if policy == "exact":
        assert models_used[0]["coordinates"][0].scale == 1 / 4 and models_used[1]["coordinates"][0].scale == 1 / 16
    plain = build(head).eval()
    plain.load_state_dict(stock.state_dict(), strict=False)
    ours, theirs = (predictions(m, *data)[0].seg_logits.data for m in (model, plain))
    assert not torch.allclose(ours, theirs, atol=1e-3)


def test_every_resize_is_decided_once_and_counted(monkeypatch):
    """SFNet's deep supervision: four resizes of logits, each its own site, fused or not."""
    head = dict(PYRAMID, type="SFNetHead", pool_scales=(1, 2), deep_supervision_weight=1.0, dropout_ratio=0.0)
    sites = []
    decide = ResizePolicy.decide

    def noting(self, site, *args):
        sites.append(site)
        return decide(self, site, *args)

    monkeypatch.setattr(ResizePolicy, "decide", noting)
    seen = []
    for model in resampled(head, EXACT):
        sites.clear()
        model(*batch(), mode="loss")
        predictions(model, *batch(ori_shape=(101, 140)))
        seen.append(sorted(sites))
    assert seen[0] == seen[1]
    assert ("decode_head.logits", 3) in seen[0]


def test_modes_other_than_bilinear_are_left_to_the_policy(models_used):
    rule = dict(path="decode_head.logits", set_mode="bicubic")
    stock, model = resampled("UPerHead", dict(rules=[rule]))
    data = batch(ori_shape=(101, 140))
    assert_same_losses(stock, model, *data, atol=0)
    assert_same_labels(stock, model, *data)
    assert [used["first_coordinates"] for used in models_used] == [None, None]  # resized before by the policy
    everywhere = dict(rules=[dict(set_mode="bicubic")])
    models_used.clear()
    assert_same_labels(*resampled("UPerHead", everywhere), *data)
    assert not models_used


def test_sliding_windows_under_a_policy():
    slide = dict(mode="slide", crop_size=(48, 64), stride=(32, 40))
    assert_same_labels(*resampled("UPerHead", EXACT, test_cfg=slide), *batch(ori_shape=(101, 140)))


def test_a_cascade_under_a_policy():
    ocr = dict(PYRAMID, type="OCRHead", input_transform="resize_concat", ocr_channels=8, dropout_ratio=0.0)
    cfg = config([dict(FCN, in_channels=8, in_index=0), ocr], segmentor="CascadeEncoderDecoder", num_stages=2)
    inner = dict(type="ResampledSegmentor", segmentor=cfg.pop("type"), resize_policy=EXACT)
    init_default_scope("mmseg")
    stock, model = MODELS.build(cfg | inner), MODELS.build(cfg | dict(type="LeanSegmentor", segmentor=inner))
    torch.manual_seed(1)
    tell_classes_apart(stock)
    model.load_state_dict(stock.state_dict())
    assert type(model).__name__ == "CascadeEncoderDecoder"
    assert_same_labels(stock, model, *batch(ori_shape=(101, 140)))


def test_copies_and_pickles_keep_both(models_used):
    stock, model = resampled("UPerHead", EXACT)
    data = batch(ori_shape=(101, 140))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        same = copy.deepcopy(stock)
        assert_same_losses(same, other, *data)
        assert_same_labels(same, other, *data)
        assert len(models_used) == 3
        models_used.clear()


@pytest.mark.parametrize("head", ["UPerHead", "SegformerHead"])
def test_a_policy_applied_to_a_lean_model(head, models_used):
    models = pair(head)
    data = batch(ori_shape=(101, 140))
    losses, labels = [], []
    for model in models:
        with ResizePolicy(**EXACT).applied(model):
            losses.append(model(*data, mode="loss")["decode.loss_ce"])
        with ResizePolicy(**EXACT).applied(model.eval()):
            labels.append(predictions(model, *data)[0].pred_sem_seg.data)
    torch.testing.assert_close(losses[1], losses[0])
    assert torch.equal(labels[0], labels[1])
    assert models_used[0]["coordinates"][0].scale == 1 / 4
    assert models_used[1]["first_coordinates"][0].scale == 1 / 4
    models_used.clear()
    assert_same_labels(*models, *data, atol=1e-5)
    assert models_used[0]["coordinates"] == "half_pixel"


@pytest.mark.parametrize("head", HEADS)
def test_an_audit_finds_what_it_finds_in_the_stock_model(head):
    audits = []
    for lean in (None, {}):
        with fake_tensors():
            audits.append(follow(build_segmentor(Config(dict(model=config(head, lean=lean)))), (128, 160)))
    assert audits[0].trace.resizes == audits[1].trace.resizes
    assert audits[0].final == audits[1].final
    assert audits[0].trace.unknown == audits[1].trace.unknown


@pytest.mark.parametrize("policy", [None, EXACT])
@pytest.mark.parametrize("head", ["UPerHead", "SegformerHead"])
def test_fast_resize_is_a_switch_of_its_own(head, policy):
    given = {} if policy is None else dict(segmentor="ResampledSegmentor", resize_policy=policy)
    stock, model = build(head, **given), build(head, lean={}, fast_resize=True, **given)
    tell_classes_apart(stock)
    model.load_state_dict(stock.state_dict())
    assert model.resize_policy.fast_resize
    assert not getattr(stock, "resize_policy", None) or not stock.resize_policy.fast_resize
    data = batch(ori_shape=(101, 140))
    assert_same_losses(stock, model, *data)
    assert_same_labels(stock, model, *data, atol=1e-5)
