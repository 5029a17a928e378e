"""Training under ``LeanSegmentor``: the losses of mmseg, without full-resolution logits."""

import copy
import inspect
import io
import logging
import pickle

import mmseg.models.decode_heads as decode_heads
import pytest
import torch
from mmengine.logging import MMLogger
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS

from mmseg_resample.models.segmentors import lean_heads

from .thin import AUXILIARY, CLASSES, FCN, HEADS, PYRAMID, SIZE, TOP, Largest, batch, build, pair

CE = dict(type="CrossEntropyLoss")


@pytest.fixture
def fused(monkeypatch):
    """Calls of the fused op so far."""
    calls = []
    original = lean_heads.resize_cross_entropy

    def counting(*args, **kwargs):
        calls.append(kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(lean_heads, "resize_cross_entropy", counting)
    return calls


@pytest.fixture
def said(monkeypatch):
    """Return what has been logged."""
    lean_heads._say.cache_clear()
    messages = []
    monkeypatch.setattr(lean_heads, "print_log", lambda message, logger, level: messages.append(message))
    yield messages
    lean_heads._say.cache_clear()


def losses_and_gradients(model, *data):
    model.zero_grad()
    torch.manual_seed(0)
    losses = model(*data, mode="loss")
    total, _ = model.parse_losses(losses)
    total.backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(stock, model, *data, atol=1e-5):
    expected, expected_gradients = losses_and_gradients(stock, *data)
    losses, gradients = losses_and_gradients(model, *data)
    assert list(losses) == list(expected)
    for name, value in losses.items():
        per_pixel = 100 / SIZE[0] / SIZE[1]  # of an accuracy; two labels may be equal to rounding
        torch.testing.assert_close(value, expected[name], atol=2 * per_pixel if "acc" in name else atol, rtol=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    for name, value in gradients.items():
        scale = expected_gradients[name].abs().max().clamp(min=0.01)
        torch.testing.assert_close(value / scale, expected_gradients[name] / scale, atol=1e-4, rtol=0)


@pytest.mark.parametrize("head", ["UPerHead", "PSPHead", "SegformerHead"])
def test_twenty_steps_are_those_of_mmseg(head):
    """Train in float64: training of a thin model on noise multiplies float32's rounding errors a hundred times."""
    models = [model.double() for model in pair(head, auxiliary_head=AUXILIARY)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9) for model in models]
    for step in range(20):
        images, samples = batch(seed=step)
        data = images.double(), samples
        values = []
        for model, optimizer in zip(models, optimizers, strict=True):
            torch.manual_seed(step)
            total, logs = model.parse_losses(model(*data, mode="loss"))
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            values.append(logs)
        assert list(values[0]) == list(values[1])
        for name in values[0]:
            atol = 1e-5 if "acc" in name else 1e-8  # percent, in float32
            torch.testing.assert_close(values[1][name], values[0][name], atol=atol, rtol=0)


@pytest.mark.parametrize("head", ["UPerHead", "SegformerHead"])
def test_nothing_has_the_size_of_the_resized_logits(head):
    classes = 64  # more than channels, so that nothing else is as large
    cfg = dict(HEADS[head], num_classes=classes, dropout_ratio=0.0)
    data = batch(size=(128, 192), classes=classes)
    stock, model = pair(cfg)
    full = 2 * classes * 128 * 192
    largest = []
    for m in (stock, model):
        with Largest() as seen:
            losses_and_gradients(m, *data)
        largest.append(seen.values)
    assert largest[0] == full
    assert largest[1] <= full / 5  # the head's logits are a sixteenth


LOSSES = {
    "weighted": dict(CE, loss_weight=0.4, loss_name="loss_main"),
    "class weights": dict(CE, class_weight=[0.5, 1.0, 2.0, 1.5, 0.25]),
    "without the ignored": dict(CE, avg_non_ignore=True),
    "sum": dict(CE, reduction="sum", loss_weight=1e-4),
    "several": [CE, dict(CE, loss_name="loss_other", avg_non_ignore=True), dict(CE, loss_weight=0.3)],
}


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("sampler", [None, dict(thresh=0.3, min_kept=1000), dict(min_kept=1000)], ids=str)
def test_every_cross_entropy(kind, sampler, fused, said):
    cfg = dict(FCN, loss_decode=LOSSES[kind], dropout_ratio=0.0)
    if sampler is not None:
        cfg["sampler"] = dict(type="OHEMPixelSampler", **sampler)
    # mmseg looks up the class weights of ignored pixels, and fails
    data = batch(ignored=kind != "class weights")
    assert_same(*pair(cfg), *data)
    assert fused and not said


def test_class_weights_beside_ignored_pixels(fused):
    """Take pixels that mmseg has no answer for: they have no weight."""
    model = build(dict(FCN, loss_decode=dict(CE, class_weight=[0.5, 1.0, 2.0, 1.5, 0.25])), lean={})
    stock = build(dict(FCN, loss_decode=dict(CE, class_weight=[0.5, 1.0, 2.0, 1.5, 0.25])))
    with pytest.raises(IndexError):
        stock(*batch(), mode="loss")
    assert torch.isfinite(model(*batch(), mode="loss")["decode.loss_ce"])


@pytest.mark.parametrize("thresh", [0.3, None])
def test_hard_pixels_are_those_of_mmsegs_sampler(thresh):
    cfg = dict(FCN, sampler=dict(type="OHEMPixelSampler", thresh=thresh, min_kept=500))
    head = build(cfg, lean={}).decode_head
    logits = 3 * torch.randn(2, CLASSES, 16, 24)
    target = torch.cat([sample.gt_sem_seg.data for sample in batch()[1]])
    resized = torch.nn.functional.interpolate(logits, SIZE, mode="bilinear", align_corners=False)
    expected = head.sampler.sample(resized, target[:, None])
    assert 0 < expected.sum() < (target != 255).sum()
    torch.testing.assert_close(head._hard_pixels(logits, target, "half_pixel"), expected, atol=0, rtol=0)


def test_hard_pixels_of_an_image_without_labels():
    cfg = dict(FCN, sampler=dict(type="OHEMPixelSampler", thresh=0.7, min_kept=500), dropout_ratio=0.0)
    images, samples = batch()
    for sample in samples:
        sample.gt_sem_seg.data[:] = 255
    assert_same(*pair(cfg), images, samples)


@pytest.mark.parametrize("align_corners", [False, True])
def test_auxiliary_heads_and_the_flag(align_corners, fused):
    heads = [dict(AUXILIARY, align_corners=align_corners, dropout_ratio=0.0) for _ in range(2)]
    cfg = dict(HEADS["UPerHead"], align_corners=align_corners, dropout_ratio=0.0)
    assert_same(*pair(cfg, auxiliary_head=heads), *batch())
    assert len(fused) == 3
    assert {call["coordinates"] for call in fused} == {"align_corners" if align_corners else "half_pixel"}


FALLBACKS = {
    "DiceLoss": dict(loss_decode=[CE, dict(type="DiceLoss", loss_name="loss_dice")]),
    "LovaszLoss": dict(loss_decode=dict(type="LovaszLoss", reduction="none")),
    "sigmoids": dict(loss_decode=dict(CE, use_sigmoid=True)),
    "the weight of class 0": dict(loss_decode=dict(CE, class_weight=[1.0, 2.0, 3.0, 4.0, 5.0]), ignore_index=0),
    "1 output channels": dict(
        num_classes=2, out_channels=1, threshold=0.5, loss_decode=dict(CE, use_sigmoid=True), ignore_index=255
    ),
}


@pytest.mark.parametrize("kind", FALLBACKS)
def test_other_losses_are_mmsegs_and_said_once(kind, fused, said):
    cfg = dict(FCN, dropout_ratio=0.0, **FALLBACKS[kind])
    stock, model = pair(cfg)
    data = batch(classes=cfg["num_classes"], ignored=False)
    assert_same(stock, model, *data, atol=0)
    assert not fused
    assert len(said) == 1 and kind in said[0] and "FCNHead" in said[0]
    model(*data, mode="loss")
    assert len(said) == 1


def test_what_falls_back_reaches_the_log():
    lean_heads._say.cache_clear()
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = MMLogger.get_instance("what falls back", log_level="WARNING")  # the newest is the current one
    logger.addHandler(handler)
    try:
        for _ in range(2):
            lean_heads.say_once("FCNHead: a test")
    finally:
        MMLogger._instance_dict.pop("what falls back")
    assert [(record.levelname, record.getMessage()) for record in records] == [
        ("WARNING", "LeanSegmentor: FCNHead: a test")
    ]


def test_a_sampler_of_ones_own_falls_back(fused, said):
    stock, model = pair(dict(FCN, dropout_ratio=0.0))

    class Every:
        def sample(self, logits, labels):
            assert logits.shape[2:] == labels.shape[2:]
            return logits.new_ones(labels.squeeze(1).shape)

    for m in (stock, model):
        m.decode_head.sampler = Every()
    assert_same(stock, model, *batch(), atol=0)
    assert not fused and "Every" in said[0]


# Of mmseg's heads on BaseDecodeHead: those with a loss_by_feat of their own, and whether that calls mmseg's.
OWN_LOSS = {
    "DAHead": True,
    "DDRHead": False,
    "EncHead": True,
    "IterativeDecodeHead": True,  # through its kernel_generate_head
    "PIDHead": False,
    "PointHead": False,
    "STDCHead": True,
    "SideAdapterCLIPHead": False,
    "VPDDepthHead": False,
}


def test_every_head_of_mmseg_is_known():
    found = set()
    for name, head in vars(decode_heads).items():
        if not inspect.isclass(head) or not issubclass(head, BaseDecodeHead):
            continue
        if head.loss_by_feat is not BaseDecodeHead.loss_by_feat:
            found.add(name)
            source = inspect.getsource(head.loss_by_feat)
            assert ("super().loss_by_feat(" in source or "_head.loss_by_feat(" in source) is OWN_LOSS[name]
    assert found == set(OWN_LOSS)


THROUGH = {
    "DAHead": (dict(TOP, type="DAHead", pam_channels=4), 3),
    "EncHead": (dict(PYRAMID, type="EncHead", num_codes=4, use_se_loss=True), 1),
    "STDCHead": (dict(FCN, type="STDCHead", num_classes=2), 1),
    "IterativeDecodeHead": (
        dict(
            type="IterativeDecodeHead",
            num_stages=1,
            kernel_update_head=[
                dict(
                    type="KernelUpdateHead", num_classes=CLASSES, num_ffn_fcs=2, num_heads=1, num_mask_fcs=1,
                    feedforward_channels=8, in_channels=8, out_channels=8, dropout=0.0, conv_kernel_size=1,
                    ffn_act_cfg=dict(type="ReLU", inplace=True), with_ffn=True,
                    feat_transform_cfg=dict(conv_cfg=dict(type="Conv2d"), act_cfg=None),
                    kernel_updator_cfg=dict(
                        type="KernelUpdator", in_channels=8, feat_channels=8, out_channels=8,
                        act_cfg=dict(type="ReLU", inplace=True), norm_cfg=dict(type="LN"),
                    ),
                )
            ],
            kernel_generate_head=dict(FCN, dropout_ratio=0.0),
        ),
        2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", THROUGH)
def test_heads_that_call_mmsegs_loss_get_the_fused_one(name, fused, said):
    cfg, calls = THROUGH[name]
    if name != "IterativeDecodeHead":
        cfg = dict(cfg, dropout_ratio=0.0)
    assert_same(*pair(cfg), *batch(classes=cfg.get("num_classes", CLASSES), ignored=False))
    assert len(fused) == calls
    assert len(said) == 1 and name in said[0]


def test_cascades(fused, said):
    """OCRNet's heads are fused, PointRend's points are its own."""
    ocr = dict(PYRAMID, type="OCRHead", input_transform="resize_concat", ocr_channels=8, dropout_ratio=0.0)
    first = dict(FCN, in_channels=8, in_index=0, dropout_ratio=0.0)
    assert_same(*pair([first, ocr], segmentor="CascadeEncoderDecoder", num_stages=2), *batch())
    assert len(fused) == 2 and not said
    fused.clear()
    points = dict(
        type="PointHead", in_channels=[8], in_index=[0], channels=8, num_fcs=1, num_classes=CLASSES, dropout_ratio=0.0
    )
    train_cfg = dict(num_points=64, oversample_ratio=3, importance_sample_ratio=0.75)
    stock, model = pair([first, points], segmentor="CascadeEncoderDecoder", num_stages=2, train_cfg=train_cfg)
    assert_same(stock, model, *batch(ignored=False))
    assert len(fused) == 1
    assert len(said) == 1 and "PointHead has a loss of its own" in said[0]


def test_deep_supervision_of_sfnet_is_fused(fused):
    head = dict(PYRAMID, type="SFNetHead", pool_scales=(1, 2), deep_supervision_weight=1.0, dropout_ratio=0.0)
    assert_same(*pair(head), *batch())
    assert len(fused) == 4


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_segformers_fusion_commutes(mode):
    flag = None if mode == "nearest" else False
    head = dict(HEADS["SegformerHead"], interpolate_mode=mode, align_corners=flag)
    stock, model = pair(head, lean=dict(loss=False, labels=False))
    for m in (stock, model):
        m.decode_head.eval()
    features = [torch.randn(2, c, 32 // 2**i, 40 // 2**i) for i, c in enumerate([8, 16, 32, 64])]
    with Largest() as seen, torch.no_grad():
        logits = model.decode_head(features)
    torch.testing.assert_close(logits, stock.decode_head(features), atol=1e-5, rtol=1e-5)
    assert seen.values == 2 * 8 * 32 * 40  # never the four levels concatenated


def test_segformers_fusion_stays_where_somebody_watches_it():
    model = build("SegformerHead", lean={}).eval()
    watched = []
    model.decode_head.fusion_conv.register_forward_hook(lambda module, args, out: watched.append(out.shape))
    model(torch.randn(1, 3, *SIZE), mode="tensor")
    assert len(watched) == 1


def test_autocast_computes_in_float32():
    """Stock resizes bfloat16 logits in bfloat16; here the losses are those of the logits in float32."""
    stock, model = pair("UPerHead")
    data = batch()
    with torch.autocast("cpu", torch.bfloat16):
        expected, losses = stock(*data, mode="loss"), model(*data, mode="loss")
        logits = model.decode_head(model.extract_feat(data[0]))
    assert logits.dtype == torch.bfloat16 and losses["decode.loss_ce"].dtype == torch.float32
    torch.testing.assert_close(losses["decode.loss_ce"], expected["decode.loss_ce"], atol=5e-3, rtol=0)
    target = torch.cat([sample.gt_sem_seg.data for sample in data[1]])
    resized = torch.nn.functional.interpolate(logits.float(), SIZE, mode="bilinear", align_corners=False)
    exact = torch.nn.functional.cross_entropy(resized, target, ignore_index=255, reduction="sum") / target.numel()
    torch.testing.assert_close(losses["decode.loss_ce"], exact)
    losses["decode.loss_ce"].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.decode_head.parameters())


def test_copies_pickles_and_checkpoints(fused):
    stock, model = pair("SegformerHead", auxiliary_head=AUXILIARY)
    assert type(model).__name__ == "EncoderDecoder" and isinstance(model, type(stock))
    assert type(model.decode_head).__name__ == "SegformerHead"
    data = batch()
    expected = model(*data, mode="loss")
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        fused.clear()
        torch.manual_seed(0)
        losses = other(*data, mode="loss")
        assert len(fused) == 2
        assert losses["decode.loss_ce"].isfinite() and list(losses) == list(expected)


@pytest.mark.slow
def test_compiles(fused):
    stock, model = pair("SegformerHead")
    for m in (stock, model):
        m.backbone = Features()
    data = batch()
    compiled = torch.compile(copy.deepcopy(model), backend="aot_eager")
    losses = compiled(*data, mode="loss")
    torch.testing.assert_close(losses["decode.loss_ce"], stock(*data, mode="loss")["decode.loss_ce"])
    losses["decode.loss_ce"].backward()
    assert compiled.decode_head.conv_seg.weight.grad.abs().sum() > 0
    assert fused


class Features(torch.nn.Module):
    """A pyramid that is quick to compile."""

    def forward(self, x):
        x = torch.cat([x, -x, x[:, :2]], 1)
        return [torch.nn.functional.avg_pool2d(x.repeat(1, 2**i, 1, 1), 4 * 2**i) for i in range(4)]


def test_switches(fused):
    stock, model = pair("SegformerHead", lean=dict(loss=False, fusion=False))
    assert_same(stock, model, *batch(), atol=0)
    assert not fused
    with pytest.raises(ValueError, match=r"keys of lean to be one of .*'seg_logits', got 'los'"):
        build(lean=dict(los=True))
    with pytest.raises(KeyError):
        MODELS.build(dict(type="LeanSegmentor", segmentor="NoSuchSegmentor"))
