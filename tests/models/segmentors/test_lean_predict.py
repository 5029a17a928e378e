"""Prediction under ``LeanSegmentor``: the labels of mmseg, without full-resolution logits unless somebody asks."""

import copy
import pickle

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.evaluator.metric import _to_cpu
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.models.decode_heads import FCNHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.visualization import SegLocalVisualizer

from mmseg_resample.models.segmentors import LogitsOnRequest, lean, lean_heads, logits
from mmseg_resample.ops import resize_argmax

from .thin import CLASSES, FCN, HEADS, SIZE, TOP, Largest, batch, build, config, pair

# 5 classes, and sizes whose sum exceeds 128: PyTorch's general kernel, bitwise that of the fused op.
SLIDE = dict(mode="slide", crop_size=(48, 64), stride=(32, 40))


@pytest.fixture
def fused(monkeypatch):
    calls = []

    def counting(*args, **kwargs):
        calls.append(kwargs)
        return resize_argmax(*args, **kwargs)

    monkeypatch.setattr(logits, "resize_argmax", counting)
    return calls


@torch.no_grad()
def predictions(model, images, samples):
    return model.eval()(images, copy.deepcopy(samples), mode="predict")


def assert_same(stock, model, *data, atol=0.0):
    expected, actual = predictions(stock, *data), predictions(model, *data)
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert len(other.pred_sem_seg.data.unique()) > 1
        assert one.pred_sem_seg.data.dtype == other.pred_sem_seg.data.dtype
        torch.testing.assert_close(one.pred_sem_seg.data, other.pred_sem_seg.data, atol=0, rtol=0)
        torch.testing.assert_close(one.seg_logits.data, other.seg_logits.data, atol=atol, rtol=0)
        assert one.seg_logits.shape == other.seg_logits.shape
        assert set(one.keys()) == set(other.keys())


META = {
    "equal sizes": dict(),
    "another size": dict(ori_shape=(101, 140)),
    "padded": dict(ori_shape=(75, 80), padding_size=[3, 5, 0, 9]),
    "flipped": dict(ori_shape=(75, 80), flip=True, flip_direction="horizontal"),
    "flipped vertically": dict(flip=True, flip_direction="vertical", img_padding_size=[0, 7, 0, 2]),
}


@pytest.mark.parametrize("mode", ["whole", "slide"])
@pytest.mark.parametrize("kind", META)
def test_labels_and_logits_are_those_of_mmseg(kind, mode, fused):
    test_cfg = dict(mode="whole") if mode == "whole" else SLIDE
    assert_same(*pair("UPerHead", test_cfg=test_cfg), *batch(**META[kind]))
    assert len(fused) == 2


@pytest.mark.parametrize("head", ["PSPHead", "SegformerHead"])
def test_other_heads(head, fused):
    """SegFormer's fused levels are added in another order: logits are equal to rounding."""
    assert_same(*pair(head), *batch(ori_shape=(101, 140)), atol=1e-5)
    assert len(fused) == 2


def test_labels_with_align_corners(fused):
    assert_same(*pair(dict(FCN, align_corners=True)), *batch(ori_shape=(101, 140)))


def test_one_channel(fused):
    head = dict(FCN, num_classes=2, out_channels=1, threshold=0.6)
    head["loss_decode"] = dict(type="CrossEntropyLoss", use_sigmoid=True)
    assert_same(*pair(head), *batch(ori_shape=(101, 140)))
    assert fused[0]["threshold"] == 0.6


def test_without_data_samples(fused):
    stock, model = pair("UPerHead")
    images, _ = batch()
    with torch.no_grad():
        expected, actual = (m.eval()(images, mode="predict") for m in (stock, model))
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)
        assert torch.equal(one.seg_logits.data, other.seg_logits.data)
    assert len(fused) == 2


def test_nothing_has_the_size_of_the_resized_logits():
    stock, model = pair(dict(FCN, num_classes=64))
    data = batch(n=1, size=(192, 256), ori_shape=(200, 300))
    largest = []
    for m in (stock, model):
        with Largest() as seen:
            (sample,) = predictions(m, *data)
        largest.append(seen.values)
    assert largest[0] == 64 * 200 * 300
    assert largest[1] <= 2**19  # the op's band of rows
    with Largest() as seen:
        sample.to_dict()
        assert sample.seg_logits.shape == (200, 300)
        pickle.dumps(sample)
    assert seen.values < 64 * 192 * 256
    assert sample.seg_logits.data.shape == (64, 200, 300)


def test_sliding_windows_are_bitwise_those_of_mmseg_and_added_in_place():
    stock, model = pair("UPerHead", test_cfg=SLIDE, lean=dict(labels=False))
    images, samples = batch(size=(101, 140))
    metas = [sample.metainfo for sample in samples]
    with torch.no_grad(), Largest() as stocks:
        expected = stock.eval().inference(images, copy.deepcopy(metas))
    seen = []
    for dtype in (torch.float32, torch.float64):
        model.to(dtype).eval()
        stock.to(dtype)
        with torch.no_grad(), Largest() as largest:
            actual = model.inference(images.to(dtype), copy.deepcopy(metas))
        assert torch.equal(actual, stock.inference(images.to(dtype), copy.deepcopy(metas)))
        seen.append(largest.values)
    assert torch.equal(expected.double(), stock.float().inference(images, copy.deepcopy(metas)).double())
    assert seen[0] == stocks.values == 2 * CLASSES * 101 * 140


@pytest.mark.parametrize(
    "size, crop, stride",
    [((40, 50), (48, 64), (32, 40)), ((101, 140), (33, 140), (11, 1)), ((65, 65), (64, 64), (64, 64))],
)
def test_windows_cover_the_image_as_mmsegs_do(size, crop, stride):
    test_cfg = dict(mode="slide", crop_size=crop, stride=stride)
    stock, model = pair("FCNHead", test_cfg=test_cfg)
    for m in (stock, model):
        m.eval().encode_decode = lambda crop, metas: crop.new_ones(1, CLASSES, *crop.shape[2:]) * crop.sum()
    image = torch.randn(1, 3, *size)
    assert torch.equal(model.slide_inference(image, [{}]), stock.slide_inference(image, [{}]))


def test_logits_on_request():
    _, model = pair("UPerHead")
    (sample,) = predictions(model, *batch(n=1, ori_shape=(101, 140)))
    held = sample.seg_logits
    assert isinstance(held, LogitsOnRequest) and "seg_logits" in sample
    expected = held.data
    assert torch.equal(expected.argmax(0, keepdim=True), sample.pred_sem_seg.data)
    fields = sample.to_dict()["seg_logits"]
    assert list(fields) == ["data"] and len(fields) == 1 and "data" in fields and "other" not in fields
    assert torch.equal(fields["data"], expected) and torch.equal(fields.get("data"), expected)
    with pytest.raises(KeyError):
        fields["other"]
    for other in (copy.deepcopy(sample), pickle.loads(pickle.dumps(sample)), sample.cpu(), sample.clone()):
        assert torch.equal(other.seg_logits.data, expected)
    assert np.array_equal(sample.numpy().seg_logits.data, expected.numpy())
    assert torch.equal(held[10:20, 30:50].data, expected[:, 10:20, 30:50])
    assert "data" in repr(sample.seg_logits)
    held.data = torch.zeros(2, 101, 140)
    assert held.data.sum() == 0 and held.shape == (101, 140)
    assert torch.equal(copy.deepcopy(held).data, held.data)
    with pytest.raises(AssertionError, match="not consistent"):
        held.data = torch.zeros(2, 100, 140)


def test_labels_alone():
    stock, model = pair("UPerHead", lean=dict(seg_logits=False))
    expected, actual = (predictions(m, *batch(ori_shape=(101, 140))) for m in (stock, model))
    assert all("seg_logits" not in sample for sample in actual)
    assert torch.equal(actual[1].pred_sem_seg.data, expected[1].pred_sem_seg.data)


def test_half_precision_labels_are_those_of_the_logits_in_float32():
    _, model = pair("UPerHead")
    data = batch(ori_shape=(101, 140))
    with torch.autocast("cpu", torch.bfloat16):
        samples = predictions(model, *data)
        with torch.no_grad():
            small = model.decode_head(model.extract_feat(data[0]))
    assert small.dtype == torch.bfloat16
    for sample, image in zip(samples, small, strict=True):
        assert torch.equal(sample.pred_sem_seg.data, resize_argmax(image[None], (101, 140), first_size=SIZE).long())
        assert sample.seg_logits.data.dtype == torch.float32
        assert torch.equal(sample.seg_logits.data.argmax(0, keepdim=True), sample.pred_sem_seg.data)


def test_augmented_tests_average_the_same_logits():
    merged = []
    for model in pair("UPerHead"):
        augmented = MODELS.build(dict(type="SegTTAModel", module=model)).eval()
        images, samples = batch(n=1, ori_shape=(101, 140), img_path="a.png")
        flipped = copy.deepcopy(samples[0])
        flipped.set_metainfo(dict(flip=True, flip_direction="horizontal"))
        data = dict(inputs=[[images[0]], [images[0].flip(2)]], data_samples=[[copy.deepcopy(samples[0])], [flipped]])
        with torch.no_grad():
            merged += augmented.test_step(data)
    assert torch.equal(merged[0].pred_sem_seg.data, merged[1].pred_sem_seg.data)


def test_metrics_and_pictures_are_the_same(tmp_path):
    stock, model = pair("UPerHead")
    scores, pictures = [], []
    for m in (stock, model):
        samples = predictions(m, *batch(img_path="picture.jpg"))
        metric = IoUMetric(output_dir=str(tmp_path))
        evaluator = Evaluator(metric)
        evaluator.dataset_meta = dict(classes=[str(i) for i in range(CLASSES)])
        evaluator.process(samples)
        scores.append(evaluator.evaluate(2) | dict(png=(tmp_path / "picture.png").read_bytes()))
        visualizer = SegLocalVisualizer(vis_backends=None, save_dir=str(tmp_path))
        visualizer.set_dataset_meta([str(i) for i in range(CLASSES)], [[40 * i] * 3 for i in range(CLASSES)])
        path = tmp_path / "drawn.png"
        visualizer.add_datasample("x", np.zeros((*SIZE, 3), np.uint8), samples[0], out_file=str(path))
        pictures.append(path.read_bytes())
    assert scores[0] == scores[1] and scores[0]["mIoU"] > 0
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(
    "head",
    [
        dict(TOP, type="DAHead", pam_channels=4),
        dict(TOP, type="EncHead", num_codes=4, in_channels=[64], in_index=[3]),
    ],
    ids=lambda head: head["type"],
)
def test_heads_with_a_loss_of_their_own_predict_labels_directly(head, fused):
    assert_same(*pair(head), *batch(ori_shape=(101, 140)))
    assert len(fused) == 2 and all("first_size" in call for call in fused)


def test_pointrend_is_fused_behind_its_points(fused):
    points = dict(type="PointHead", in_channels=[8], in_index=[0], channels=8, num_fcs=1, num_classes=CLASSES)
    test_cfg = dict(mode="whole", subdivision_steps=2, subdivision_num_points=64, scale_factor=2)
    train_cfg = dict(num_points=64, oversample_ratio=3, importance_sample_ratio=0.75)
    cascade = dict(segmentor="CascadeEncoderDecoder", num_stages=2, train_cfg=train_cfg, test_cfg=test_cfg)
    assert_same(*pair([FCN, points], **cascade), *batch(ori_shape=(101, 140)))
    assert len(fused) == 2 and all("first_size" in call for call in fused)


@MODELS.register_module()
class OwnSegmentor(EncoderDecoder):
    """Does something to the logits between head and labels."""

    def encode_decode(self, inputs, batch_img_metas):
        return -super().encode_decode(inputs, batch_img_metas)


def test_segmentors_that_touch_the_logits_get_all_of_them(fused, monkeypatch):
    said = []
    monkeypatch.setattr(lean, "say_once", said.append)
    stock, model = pair("UPerHead", segmentor="OwnSegmentor")
    assert_same(stock, model, *batch(ori_shape=(101, 140)))
    assert not fused
    assert said == ["OwnSegmentor has encode_decode of its own; its labels come from full-resolution logits."]


def test_what_others_call_returns_tensors():
    stock, model = pair("UPerHead")
    images, samples = batch()
    metas = [sample.metainfo for sample in samples]
    with torch.no_grad():
        for m in (stock, model):
            m.eval()
        assert torch.equal(model.inference(images, metas), stock.inference(images, metas))
        assert torch.equal(model.encode_decode(images, metas), stock.encode_decode(images, metas))
        assert torch.equal(model(images, mode="tensor"), stock(images, mode="tensor"))


def test_traces_hold_mmsegs_operators():
    stock, model = pair("UPerHead")
    model.eval().requires_grad_(False)
    images, _ = batch()
    traced = torch.jit.trace(lambda x: model(x, mode="predict")[1].pred_sem_seg.data, images, check_trace=False)
    assert "argmax" in str(traced.graph)
    assert torch.equal(traced(images.flip(0)), predictions(stock, images.flip(0), None)[1].pred_sem_seg.data)


def test_switches():
    stock, model = pair("UPerHead", lean=dict(labels=False, slide=False), test_cfg=SLIDE)
    (sample, _) = predictions(model, *batch())
    assert type(sample.seg_logits) is PixelData
    assert_same(stock, model, *batch())


@pytest.mark.slow
def test_compiles():
    stock, model = pair("SegformerHead")
    for m in (stock, model):
        m.backbone = torch.nn.Sequential()
        m.extract_feat = features
    data = batch(ori_shape=(101, 140))
    compiled = torch.compile(copy.deepcopy(model), backend="aot_eager")
    for one, other in zip(predictions(compiled, *data), predictions(stock, *data), strict=True):
        assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)


def features(x):
    """A pyramid that is quick to compile."""
    x = torch.cat([x, -x, x[:, :2]], 1)
    return [torch.nn.functional.avg_pool2d(x.repeat(1, 2**i, 1, 1), 4 * 2**i) for i in range(4)]


def test_nothing_is_said_of_stock_models(monkeypatch):
    lean_heads._say.cache_clear()  # what an earlier test caused would not be said again
    monkeypatch.setattr(lean_heads, "print_log", lambda *args: pytest.fail(str(args)))
    for head in HEADS:
        _, model = pair(head)
        model(*batch(), mode="loss")
        predictions(model, *batch())


def test_heads_that_are_not_mmsegs_are_left_alone(monkeypatch):
    said = []
    monkeypatch.setattr(lean, "say_once", said.append)
    model = build(dict(type="OwnHead"), lean={})
    assert said == ["OwnHead is no head of mmseg's kind; its loss and logits stay as they are."]
    samples = predictions(model, *batch(ori_shape=(101, 140)))
    assert torch.equal(samples[0].pred_sem_seg.data, samples[0].seg_logits.data.argmax(0, keepdim=True))


@MODELS.register_module()
class ColderHead(FCNHead):
    def predict_by_feat(self, seg_logits, batch_img_metas):
        return super().predict_by_feat(seg_logits, batch_img_metas) / 2


@MODELS.register_module()
class SurerHead(FCNHead):
    def predict(self, inputs, batch_img_metas, test_cfg):
        return super().predict(inputs, batch_img_metas, test_cfg).softmax(1)


@MODELS.register_module()
class AverageHead(torch.nn.Module):
    align_corners, num_classes, out_channels = False, CLASSES, CLASSES

    def __init__(self, **kwargs):
        super().__init__()
        self.heads = torch.nn.ModuleList(MODELS.build(dict(kwargs, type="FCNHead")) for _ in range(2))

    def loss(self, inputs, batch_data_samples, train_cfg):
        return self.heads[0].loss(inputs, batch_data_samples, train_cfg)

    def predict(self, *args):
        return sum(head.predict(*args) for head in self.heads)


@pytest.mark.parametrize("head", ["ColderHead", "SurerHead", "AverageHead"])
def test_heads_that_work_on_what_mmseg_predicts(head, fused, monkeypatch):
    said = []
    monkeypatch.setattr(lean, "say_once", said.append)
    assert_same(*pair(dict(FCN, type=head)), *batch(ori_shape=(101, 140)))
    assert not fused
    assert said[-1].startswith(head) and said[-1].endswith("labels come from full-resolution logits.")


def test_samples_as_dicts_hold_tensors_when_dumped():
    """mmengine's ``DumpResults`` moves dicts of tensors to the CPU and pickles them."""
    _, model = pair()
    (sample,) = predictions(model, *batch(n=1, ori_shape=(101, 140)))
    fields = sample.to_dict()["seg_logits"]
    assert isinstance(fields, dict) and list(fields) == ["data"] and "tensor" in repr(fields)
    for plain in (dict(fields), {**fields}, pickle.loads(pickle.dumps(fields)), _to_cpu(fields), copy.deepcopy(fields)):
        assert type(plain) is dict and torch.equal(plain["data"], sample.seg_logits.data)


def test_logits_can_be_taken_out():
    _, model = pair()
    samples = predictions(model, *batch(ori_shape=(101, 140)))
    data = samples[0].seg_logits.data
    assert torch.equal(samples[0].seg_logits.pop("data"), data)
    del samples[1].seg_logits.data
    for sample in samples:
        assert "data" not in sample.seg_logits and not sample.to_dict()["seg_logits"]
        assert sample.seg_logits.pop("data", None) is None


def test_windows_with_gaps_are_refused():
    _, model = pair(test_cfg=dict(mode="slide", crop_size=(16, 16), stride=(40, 16)))
    with pytest.raises(ValueError, match=r"windows that cover the image, got test_cfg.stride=\(40, 16\)"):
        predictions(model, *batch())


@pytest.mark.parametrize("stages", [1, 2])
def test_the_type_of_the_config_need_not_be_named(stages):
    head = [FCN, dict(TOP, type="OCRHead", ocr_channels=8)] if stages > 1 else FCN
    cfg = config(head, **(dict(num_stages=stages) if stages > 1 else {}))
    cfg.update(type="LeanSegmentor")
    init_default_scope("mmseg")
    expected = "CascadeEncoderDecoder" if stages > 1 else "EncoderDecoder"
    assert type(MODELS.build(cfg)).__name__ == expected
    with_policy = dict(cfg, resize_policy=dict(rules=[dict(align_corners=True)]))
    for type_ in ("LeanSegmentor", "ResampledSegmentor"):
        model = MODELS.build(dict(with_policy, type=type_))
        assert type(model).__name__ == expected and model.resize_policy.rules


@MODELS.register_module()
class OwnHead(torch.nn.Module):
    """Predicts at full resolution, like the heads that mmseg takes from mmdet."""

    align_corners, num_classes, out_channels = False, CLASSES, CLASSES

    def loss_by_feat(self, *args):
        raise NotImplementedError

    def predict(self, inputs, batch_img_metas, test_cfg):
        return torch.nn.functional.interpolate(inputs[3][:, :CLASSES], SIZE, mode="bilinear")
