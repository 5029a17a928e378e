import copy
import functools
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.apis import init_model
from mmseg.models.segmentors import BaseSegmentor, EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmseg_resample.grids import FakeCopy, fake_tensors, follow
from mmseg_resample.launch.auditing import build_segmentor
from mmseg_resample.ops import _backends, resize
from mmseg_resample.policy import ResizePolicy
from mmseg_resample.policy.padding import Padding
from tests.conftest import EXPORTS

from ..grids.test_networks import CONFIGS, linearise

BN = dict(type="BN")
CHANNELS = [8, 16, 32, 64]
BACKBONE = dict(type="ResNetV1c", depth=18, stem_channels=8, base_channels=8, norm_cfg=BN)
HEAD = dict(in_channels=CHANNELS, in_index=[0, 1, 2, 3], channels=8, num_classes=4, norm_cfg=BN, dropout_ratio=0.0)


def config(head="UPerHead", **kwargs):
    heads = {
        "UPerHead": dict(HEAD, type="UPerHead", pool_scales=(1, 2)),
        "SFNetHead": dict(HEAD, type="SFNetHead", pool_scales=(1, 2), resampler=dict(type="Interpolate")),
    }
    return dict(
        dict(
            type="EncoderDecoder",
            data_preprocessor=dict(type="SegDataPreProcessor"),
            backbone=BACKBONE,
            decode_head=heads[head],
            auxiliary_head=dict(
                type="FCNHead", in_channels=32, in_index=2, channels=8, num_convs=1, num_classes=4, norm_cfg=BN
            ),
            test_cfg=dict(mode="whole"),
        ),
        **kwargs,
    )


def build(policy=None, seed=0, **kwargs):
    init_default_scope("mmseg")
    torch.manual_seed(seed)
    cfg = ConfigDict(config(**kwargs))
    if policy is not None:
        cfg.update(type="ResampledSegmentor", resize_policy=dict(policy, sizes=[(128, 128), (160, 224)]))
    return MODELS.build(cfg)


def same_weights(model, other):
    model.load_state_dict(other.state_dict())
    return model.eval(), other.eval()


def samples(n, size):
    out = []
    for _ in range(n):
        sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 4, (1, *size)))
        out.append(sample)
    return out


def test_exact_reads_where_the_labels_are():
    """Positions sent through the linear twin of the whole model come out as positions."""
    model = linearise(build(dict(exact=True)).eval())
    stock = linearise(build().eval())

    def error(network, height):
        rows = torch.arange(float(height))[:, None].expand(height, 257)
        with torch.no_grad():
            moment, mass = (
                network(p.expand(1, 3, -1, -1).contiguous(), mode="predict")[0].seg_logits.data.mean(0)
                for p in (rows, torch.ones_like(rows))
            )
        # Around the middle, where the border cuts receptive fields alike on both sides.
        return float(((moment / mass) - rows)[129:160, 113:144].mean())

    assert abs(error(model, 289)) < 0.01
    # Features of all levels add up: stock reads several pixels up, by the mean over the levels.
    assert error(stock, 288) < -3


def test_every_level_and_the_loss_use_the_exact_maps():
    model = build(dict(exact=True))
    exact = model.resize_policy.report()["exact"]
    assert {site for site, maps in exact.items() if maps == "half_pixel"} == {("decode_head.psp_modules", 1)}
    assert all(axis.offset == 0 for maps in exact.values() if maps != "half_pixel" for axis in maps)
    assert exact[("decode_head", 3)][0].scale == 1 / 8 and exact[("decode_head.logits", 0)][0].scale == 1 / 4
    assert exact[("auxiliary_head.logits", 0)][0].scale == 1 / 16
    model.eval()
    batch = samples(2, (64, 96))
    x = torch.randn(2, 3, 64, 96)
    labels = torch.cat([s.gt_sem_seg.data for s in batch])
    with torch.no_grad():
        features = model.extract_feat(x)
        expected = F.cross_entropy(
            resize(model.auxiliary_head(features), (64, 96), mode="bilinear", coordinates="asymmetric"), labels
        )
        losses = model(x, batch, mode="loss")
    torch.testing.assert_close(losses["aux.loss_ce"], expected)
    stock = F.interpolate(model.auxiliary_head(features), (64, 96), mode="bilinear", align_corners=False)
    assert not torch.allclose(losses["aux.loss_ce"], F.cross_entropy(stock, labels))


def test_losses_on_inner_levels_are_exact_too():
    cfg = config("SFNetHead")
    cfg["decode_head"] = dict(cfg["decode_head"], deep_supervision_weight=1.0)
    init_default_scope("mmseg")
    policy = dict(exact=True, sizes=[(128, 128), (160, 224)])
    model = MODELS.build(cfg | dict(type="ResampledSegmentor", resize_policy=policy)).eval()
    x, batch = torch.randn(2, 3, 64, 96), samples(2, (64, 96))
    with torch.no_grad():
        losses = model(x, batch, mode="loss")
        with model.resize_policy.running():
            level = model.decode_head._pyramid(model.extract_feat(x))[2]
        logits = resize(model.decode_head.supervision[2](level), (64, 96), mode="bilinear", coordinates="asymmetric")
    labels = torch.cat([s.gt_sem_seg.data for s in batch])
    torch.testing.assert_close(losses["decode.dsn2.loss_ce"], F.cross_entropy(logits, labels))


def test_equal_to_stock_where_stock_is_exact():
    unet = dict(
        backbone=dict(
            type="UNet", base_channels=4, num_stages=3, strides=(1,) * 3, enc_num_convs=(1,) * 3, dec_num_convs=(1, 1),
            downsamples=(True, True), enc_dilations=(1, 1, 1), dec_dilations=(1, 1), norm_cfg=BN,
        ),
        decode_head=dict(
            type="FCNHead", in_channels=4, in_index=2, channels=4, num_convs=1, num_classes=4, norm_cfg=BN
        ),
        auxiliary_head=None,
    )  # fmt: skip
    model, stock = same_weights(build(dict(exact=True), **unet), build(**unet))
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(model(x, mode="tensor"), stock(x, mode="tensor"))


def test_a_rule_is_the_flag():
    model, _ = same_weights(build(dict(rules=[dict(align_corners=True)])), build())
    head = dict(config()["decode_head"], align_corners=True)
    flagged = build(decode_head=head).eval()
    flagged.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(
            model(x, mode="predict")[0].seg_logits.data, flagged(x, mode="predict")[0].seg_logits.data
        )


def test_hard_coded_flags_obey():
    hrnet = dict(
        backbone=dict(
            type="HRNet",
            norm_cfg=BN,
            extra=dict(
                stage1=dict(num_modules=1, num_branches=1, block="BOTTLENECK", num_blocks=(1,), num_channels=(8,)),
                stage2=dict(num_modules=1, num_branches=2, block="BASIC", num_blocks=(1, 1), num_channels=(4, 8)),
                stage3=dict(num_modules=1, num_branches=3, block="BASIC", num_blocks=(1,) * 3, num_channels=(4, 8, 16)),
                stage4=dict(
                    num_modules=1, num_branches=4, block="BASIC", num_blocks=(1,) * 4, num_channels=(4, 8, 16, 32)
                ),
            ),
        ),
        decode_head=dict(
            type="FCNHead", in_channels=[4, 8, 16, 32], in_index=[0, 1, 2, 3], input_transform="resize_concat",
            channels=8, num_convs=1, kernel_size=1, num_classes=4, norm_cfg=BN,
        ),
        auxiliary_head=None,
    )  # fmt: skip
    rule = dict(path="backbone.*", align_corners=True)
    model, stock = same_weights(build(dict(rules=[rule]), **hrnet), build(**hrnet))
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert not torch.allclose(model(x, mode="tensor"), stock(x, mode="tensor"))
    assert len(build(dict(exact=True), **hrnet).resize_policy.report()["exact"]) > 6


VIT = dict(
    backbone=dict(
        type="VisionTransformer", img_size=(64, 64), patch_size=16, embed_dims=8, num_layers=1, num_heads=2,
        mlp_ratio=2, out_indices=(0,), norm_cfg=dict(type="LN"), with_cls_token=True, interpolate_mode="bicubic",
    ),
    decode_head=dict(type="FCNHead", in_channels=8, in_index=0, channels=4, num_convs=1, num_classes=4, norm_cfg=BN),
    auxiliary_head=None,
)  # fmt: skip


def test_positional_embeddings_are_left_alone_unless_named():
    x = torch.randn(1, 3, 96, 128)
    stock = build(**VIT)
    torch.nn.init.normal_(stock.backbone.pos_embed)
    wild, _ = same_weights(build(dict(rules=[dict(path="backbone*", align_corners=True)]), **VIT), stock)
    named, _ = same_weights(build(dict(rules=[dict(path="backbone", align_corners=True)]), **VIT), stock)
    assert wild.resize_policy.report()["without position"] == [("backbone", 0)]
    with torch.no_grad():
        expected = stock(x, mode="tensor")
        assert torch.equal(wild(x, mode="tensor"), expected)
        assert not torch.allclose(named(x, mode="tensor"), expected)


def test_slide_inference_counts_every_crop_from_the_start():
    slide = dict(test_cfg=dict(mode="slide", crop_size=(64, 64), stride=(32, 32)))
    model = build(dict(exact=True), **slide).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        actual = model(x, mode="predict")[0].seg_logits.data
        whole = build(dict(exact=True)).eval()
        whole.load_state_dict(model.state_dict())
        crops = [whole(x[..., s : s + 64], mode="predict")[0].seg_logits.data for s in (0, 32)]
    expected = torch.zeros(4, 64, 96)
    count = torch.zeros(64, 96)
    for crop, start in zip(crops, (0, 32), strict=True):
        expected[..., start : start + 64] += crop
        count[:, start : start + 64] += 1
    torch.testing.assert_close(actual, expected / count)


def test_survives_copies_checkpoints_autocast_and_compile():
    model, stock = same_weights(build(dict(exact=True)), build())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(x, mode="tensor")
        assert not torch.allclose(expected, stock(x, mode="tensor"))
        assert list(model.state_dict()) == list(stock.state_dict())
        assert torch.equal(copy.deepcopy(model)(x, mode="tensor"), expected)
        assert torch.equal(pickle.loads(pickle.dumps(model))(x, mode="tensor"), expected)
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
        buffer.seek(0)
        other = build(dict(exact=True), seed=1).eval()
        other.load_state_dict(torch.load(buffer, weights_only=True))
        assert torch.equal(other(x, mode="tensor"), expected)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(model(x, mode="tensor").float(), expected, atol=0.05, rtol=0.05)
        compiled = torch.compile(copy.deepcopy(model), backend="aot_eager")
        torch.testing.assert_close(compiled(x, mode="tensor"), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(compiled(x[..., :64], mode="tensor"), model(x[..., :64], mode="tensor"))


def test_init_model_of_mmseg(tmp_path):
    model = build(dict(exact=True)).eval()
    checkpoint = tmp_path / "model.pth"
    torch.save(
        dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=list("abcd"), palette=[[0] * 3] * 4))),
        checkpoint,
    )
    policy = dict(exact=True, sizes=[(128, 128), (160, 224)])
    cfg = Config(dict(model=config() | dict(type="ResampledSegmentor", resize_policy=policy), default_scope="mmseg"))
    loaded = init_model(cfg, str(checkpoint), device="cpu")
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(loaded(x, mode="tensor"), model(x, mode="tensor"))


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_step_to_the_original_image_undoes_the_resize_of_the_pipeline(align_corners):
    """Undo half-pixel centres, which the pipeline has whatever the network has."""
    model = build(dict(exact=True), decode_head=dict(HEAD, type="FCNHead", in_index=-1, in_channels=64)).eval()
    model.align_corners = align_corners
    logits = torch.randn(1, 4, 40, 60)
    sample = SegDataSample(metainfo=dict(ori_shape=(77, 101), img_shape=(40, 60), pad_shape=(40, 60)))
    for _ in range(2):
        (result,) = model.postprocess_result(logits, [copy.deepcopy(sample)])
        expected = F.interpolate(logits, (77, 101), mode="bilinear", align_corners=False)
        torch.testing.assert_close(result.seg_logits.data, expected[0])


def test_a_rule_for_the_step_to_the_original_image():
    model = build(dict(rules=[dict(path="postprocess", set_mode="nearest")])).eval()
    sample = SegDataSample(metainfo=dict(ori_shape=(77, 101), img_shape=(40, 60), pad_shape=(40, 60)))
    logits = torch.randn(1, 4, 40, 60)
    (result,) = model.postprocess_result(logits, [sample])
    assert torch.equal(result.seg_logits.data, F.interpolate(logits, (77, 101))[0])


def test_as_a_context_every_pass_counts_anew():
    model, stock = same_weights(build(dict(exact=True)), build())
    x = torch.randn(1, 3, 96, 128)
    policy = ResizePolicy(exact=True, sizes=[(128, 128), (160, 224)])
    before = dict(stock.__dict__), type(stock)
    with torch.no_grad(), policy.applied(stock):
        passes = [stock(x) for _ in range(3)]
    assert (dict(stock.__dict__), type(stock)) == before
    with torch.no_grad():
        expected = model(x)
    for logits in passes:
        assert torch.equal(logits, expected)


def test_a_policy_is_of_one_model():
    """Knowledge of a model stays with it, also where another one is refused."""
    model, other = build(), build()
    policy = ResizePolicy(exact=True, sizes=[(128, 128), (160, 224)])
    with policy.applied(model):
        pass
    policy.install(other)  # the block is over
    policy.install(other)
    with pytest.raises(ValueError, match="installed on another model"):
        policy.install(model)
    known = policy.report()["exact"]
    with pytest.raises(ValueError, match="installed on another model"), policy.applied(model):
        pass
    assert policy.report()["exact"] == known != {}
    with policy.applied(other):
        pass
    assert policy.report()["exact"] and other.resize_policy is policy and not hasattr(model, "resize_policy")


def test_as_a_context_on_any_model():
    model, stock = same_weights(build(dict(exact=True)), build())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before = stock(x, mode="tensor")
        with ResizePolicy(exact=True, sizes=[(128, 128), (160, 224)]).applied(stock):
            assert torch.equal(stock(x, mode="tensor"), model(x, mode="tensor"))
        assert torch.equal(stock(x, mode="tensor"), before)
    assert type(stock.decode_head).__bases__ != (type(model.decode_head),)


class BicubicNeck(torch.nn.Module):
    def forward(self, features):
        x = resize(features[0], (9, 7), mode="bicubic", align_corners=False, backend="products")
        return [F.interpolate(x, (11, 13), mode="bilinear", align_corners=False), *features[1:]]


def test_resizes_for_which_another_backend_was_asked_obey_and_count():
    model = build().eval()
    model.neck = BicubicNeck()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        source = model.backbone(x)[0]
        with ResizePolicy(rules=[dict(mode="bicubic", align_corners=True)]).applied(model):
            out = model.extract_feat(x)[0]
    first = F.interpolate(source, (9, 7), mode="bicubic", align_corners=True)
    assert torch.equal(out, F.interpolate(first, (11, 13), mode="bilinear", align_corners=False))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "size"),
    [
        (CONFIGS["fpn"], (512, 683)),  # doubles what was rounded up, and crops by a last resize
        (CONFIGS["fpn"], (769, 769)),  # that is none at multiples of 32
        (CONFIGS["hrnet"], (97, 131)),
        ("mmseg::stdc/stdc1_4xb12-80k_cityscapes-512x1024.py", (97, 131)),
        ("mmseg::dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512.py", (512, 683)),  # has more resizes there
    ],
)
def test_registers_at_sizes_that_strides_do_not_divide(config, size):
    cfg = get_config(config)
    with fake_tensors():
        assert follow(build_segmentor(cfg), size).worst > 5
        cfg.model.update(type="ResampledSegmentor", resize_policy=dict(exact=True))
        # DPT interpolates between samples that a deconvolution repeats, which is even to a fraction of a pixel only.
        assert follow(build_segmentor(cfg), size).worst < (0.2 if "dpt" in str(config) else 1e-6)


@MODELS.register_module()
class OddNeck(torch.nn.Module):
    """Resizes once more where the width is odd: what the first resize is depends on the size."""

    def forward(self, features):
        x, guide = features[1], features[0]
        if x.shape[3] % 2:
            x = F.interpolate(x, (x.shape[2], x.shape[3] + 1), mode="bilinear", align_corners=False)
        x = F.interpolate(x, guide.shape[2:], mode="bilinear", align_corners=False)
        return [torch.cat([guide[:, :4], x[:, :4]], 1), *features[1:]]


@MODELS.register_module()
class OneSizeNeck(torch.nn.Module):
    """Takes images of 96x96 alone."""

    def forward(self, features):
        if features[0].shape[2:] != (24, 24):
            raise RuntimeError("one size only")
        return features


@pytest.mark.parametrize("policy", [dict(exact=True), dict(rules=[dict(align_corners=True)])])
def test_networks_of_one_size_are_audited_at_it(policy):
    preprocessor = dict(type="SegDataPreProcessor", size=(96, 96), test_cfg=dict(size=(96, 96)))
    cfg = config(neck=dict(type="OneSizeNeck"), type="ResampledSegmentor", resize_policy=policy)
    init_default_scope("mmseg")
    model = MODELS.build(ConfigDict(cfg | dict(data_preprocessor=preprocessor))).eval()
    reference, _ = same_weights(build(policy), model)
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(model(x, mode="tensor"), reference(x, mode="tensor"))


def test_one_size_that_is_named_is_enough_and_others_are_audited_when_they_come():
    model = build().eval()
    ResizePolicy(exact=True, sizes=[(96, 96)]).install(model)
    reference, _ = same_weights(build(dict(exact=True)), model)
    x = torch.randn(1, 3, 64, 100)
    with torch.no_grad():
        torch.testing.assert_close(model(x, mode="tensor"), reference(x, mode="tensor"))
    assert set(model.resize_policy._at) == {(96, 96), (64, 100)}


def test_a_size_that_the_model_refuses():
    cfg = config(neck=dict(type="OneSizeNeck"))
    init_default_scope("mmseg")
    with pytest.raises(ValueError, match=r"cannot be audited at 64x64, which sizes names .*one size only"):
        ResizePolicy(exact=True, sizes=[(64, 64)]).install(MODELS.build(ConfigDict(cfg)))
    with pytest.raises(ValueError, match=r"takes none of the sizes that were tried .512x512: .*one size only"):
        ResizePolicy(exact=True).install(MODELS.build(ConfigDict(cfg)))


@pytest.fixture(scope="module")
def odd_model():
    init_default_scope("mmseg")
    cfg = config(neck=dict(type="OddNeck"), type="ResampledSegmentor", resize_policy=dict(exact=True))
    return MODELS.build(ConfigDict(cfg)).eval()


@torch.no_grad()
def test_audits_every_size_where_maps_depend_on_it(odd_model, monkeypatch):
    def positions(x):
        """Make of an image of columns what odd kernels do: every sample holds its column."""
        return [s * torch.arange(-(-x.shape[3] // s)).float().expand(1, 4, 64 // s, -1) for s in (4, 8, 16, 32)]

    assert ("neck", 0) in odd_model.resize_policy.size_dependent
    monkeypatch.setattr(odd_model.backbone, "forward", positions)
    for width in (96, 68, 96):  # 12 and 9 samples at stride 8
        x = torch.zeros(1, 3, 64, width)
        out = odd_model.extract_feat(x)[0]
        inside = slice(2, out.shape[3] - 4)  # behind the last sample there is nothing to interpolate
        torch.testing.assert_close(out[:, 4:, :, inside], out[:, :4, :, inside])
        assert torch.equal(copy.deepcopy(odd_model).extract_feat(x)[0], out)
    assert sorted(odd_model.resize_policy._at) == [(64, 68), (64, 96)]


@torch.no_grad()
def test_a_deep_copy_audits_new_sizes_itself(odd_model):
    x = torch.randn(1, 3, 64, 84)
    again = copy.deepcopy(odd_model)
    out = again.extract_feat(x)[0]
    assert (64, 84) in again.resize_policy._at and (64, 84) not in odd_model.resize_policy._at
    assert torch.equal(odd_model.extract_feat(x)[0], out)


@torch.no_grad()
def test_an_unpickled_model_says_that_it_cannot_be_audited(odd_model, caplog):
    seen, new = torch.randn(1, 3, 64, 68), torch.randn(1, 3, 64, 76)
    out = odd_model.extract_feat(seen)[0]
    again = pickle.loads(pickle.dumps(odd_model))
    assert torch.equal(again.extract_feat(seen)[0], out) and not caplog.messages
    again.extract_feat(new)
    again.extract_feat(new)
    (said,) = caplog.messages
    assert "(64, 76) could not be audited" in said and "build it from its config" in said


def test_the_audit_of_a_config_with_the_policy_shows_zero():
    cfg = get_config(CONFIGS["upernet_r18"])
    cfg.model.update(type="ResampledSegmentor", resize_policy=dict(exact=True))
    with fake_tensors():
        result = follow(build_segmentor(cfg), (384, 640))
    assert result.worst < 1e-3 and len(result.trace.meetings) > 10 and result.trace.unknown == []


def test_no_policy_is_the_stock_segmentor():
    init_default_scope("mmseg")
    model = MODELS.build(ConfigDict(config(type="ResampledSegmentor", resize_policy=dict(exact=False))))
    assert type(model).__mro__[:2] == (EncoderDecoder, BaseSegmentor)


def test_nothing_outside_of_a_model_under_a_policy_changes():
    interpolate, sample = F.interpolate, F.grid_sample
    model = build(dict(exact=True)).eval()
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 96))
    assert F.interpolate is interpolate and F.grid_sample is sample
    assert not torch._C._len_torch_function_stack()


def test_a_rule_changes_what_it_names():
    head = dict(config()["decode_head"], align_corners=True)
    stock = build(decode_head=head).eval()
    model, _ = same_weights(
        build(dict(rules=[dict(path="decode_head*", set_mode="bilinear")]), decode_head=head), stock
    )
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(model(x, mode="tensor"), stock(x, mode="tensor"))


def test_a_rule_that_names_no_module_is_said(caplog):
    right = [dict(path=path, align_corners=True) for path in ("decode_head*", "postprocess", "auxiliary_head.logits")]
    build(dict(rules=[*right, dict(path="decode_heed", source_size=[4, 4], align_corners=True)]))
    assert caplog.messages == [
        "ResizePolicy: no module is at 'decode_heed'; that rule changes nothing. Did you mean 'decode_head'?"
    ]


@pytest.mark.parametrize(
    ("sizes", "matched"),
    [
        (dict(size=(16, 24)), True),
        (dict(source_size=(8, 12), size=(None, 24)), True),
        (dict(size=(24, None)), False),
        (dict(source_size=(16,)), False),
    ],
)
def test_rules_by_size(sizes, matched):
    stock = build().eval()
    model, _ = same_weights(build(dict(rules=[dict(sizes, path="decode_head", align_corners=True)])), stock)
    x = torch.randn(1, 3, 64, 96)  # levels of 16x24, 8x12, 4x6 and 2x3
    with torch.no_grad():
        assert torch.equal(model(x, mode="tensor"), stock(x, mode="tensor")) is not matched


def test_recomputed_activations_are_those_of_the_policy():
    model = build(dict(exact=True)).eval()
    x, batch = torch.randn(2, 3, 64, 96), samples(2, (64, 96))

    def gradients():
        model.zero_grad()
        sum(value for name, value in model.loss(x, batch).items() if "loss" in name).backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    expected = gradients()
    head = model.decode_head
    head.forward = functools.partial(checkpoint, head.forward, use_reentrant=False)
    for gradient, value in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(gradient, value)


def test_a_head_by_itself_obeys():
    model = build(dict(exact=True)).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(model.decode_head(model.extract_feat(x)), model(x, mode="tensor"))


def test_interpolate_can_be_scripted_still():
    build(dict(exact=True))
    x = torch.randn(1, 1, 3, 4)
    upsample = torch.nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    assert torch.equal(torch.jit.script(upsample)(x), upsample(x))


def test_exact_at_sizes_that_no_stride_divides():
    """Swin is exact as it stands at multiples of its strides, and not elsewhere."""
    cfg = get_config(CONFIGS["swin"])
    cfg.model.update(type="ResampledSegmentor", resize_policy=dict(exact=True))
    with fake_tensors():
        assert follow(build_segmentor(cfg), (512, 683)).worst < 1e-3


def test_losses_called_past_forward_run_under_the_policy():
    model = build(dict(exact=True)).eval()
    x, batch = torch.randn(2, 3, 64, 96), samples(2, (64, 96))
    with torch.no_grad():
        assert torch.equal(model.loss(x, batch)["aux.loss_ce"], model(x, batch, mode="loss")["aux.loss_ce"])


def test_another_policy_for_a_while():
    model = build(dict(exact=True)).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(x, mode="tensor")
        with ResizePolicy(rules=[dict(align_corners=True)], sizes=[(128, 128), (160, 224)]).applied(model):
            assert not torch.allclose(model(x, mode="tensor"), expected)
        assert torch.equal(model(x, mode="tensor"), expected)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (dict(rules=[dict(coordinates="halfpixel")]), "Did you mean 'half_pixel'"),
        (dict(rules=[dict(set_mode="bilinaer")]), "Did you mean 'bilinear'"),
        (dict(rules=[dict(align_corner=True)]), "Did you mean 'align_corners'"),
        (dict(rules=[dict(size=(0, 64), align_corners=True)]), "size of a rule as \\(h, w\\)"),
        (dict(exact=True, sizes=[]), "at least one"),
        (dict(), "nothing to do"),
        (dict(rules=[dict(path="*", align_corners=True, coordinates="asymmetric")]), "Keep one"),
    ],
)
def test_errors(policy, message):
    with pytest.raises(ValueError, match=message):
        ResizePolicy(**policy)


def test_unknown_segmentor():
    with pytest.raises(KeyError, match="no segmentor 'EncoderDecodr'"):
        MODELS.build(dict(type="ResampledSegmentor", segmentor="EncoderDecodr", resize_policy=dict(exact=True)))


def test_a_misspelt_policy_is_not_the_stock_segmentor():
    with pytest.raises(ValueError, match=r"keys of resize_policy .* Did you mean 'exact'"):
        MODELS.build(dict(type="ResampledSegmentor", resize_policy=dict(exat=True)))


def test_a_segmentor_that_is_no_class():
    nested = dict(type="ResampledSegmentor", segmentor="LeanSegmentor", resize_policy=dict(exact=True))
    with pytest.raises(TypeError, match="type='LeanSegmentor', segmentor='ResampledSegmentor'"):
        MODELS.build(nested)


class Decoder(nn.Module):
    """Resizes that are faster by products, one that is not, one of labels, and one whose backend is named."""

    def __init__(self, backend="torch"):
        super().__init__()
        self.stem, self.backend = nn.Conv2d(3, 64, 3, 8, 1), backend

    def forward(self, x):
        x = F.interpolate(self.stem(x), scale_factor=2.0, mode="bilinear")
        x = F.interpolate(x, scale_factor=1.9, mode="bicubic", align_corners=False)
        x = resize(x, (70, 50), mode="bilinear", align_corners=True, warning=False)
        x = F.interpolate(x, (64, 64), mode="nearest")
        return resize(x, (32, 32), mode="bilinear", warning=False, backend=self.backend)


@pytest.fixture
def backends_used(monkeypatch):
    seen = []
    select = _backends.select

    def noting(op, backend, input=None):
        seen.append(backend)
        return select(op, backend, input)

    monkeypatch.setattr(_backends, "select", noting)
    return seen


def results(model, x):
    x = x.clone().requires_grad_()
    out = model(x)
    return out, torch.autograd.grad(out.square().sum(), [x, *model.parameters()])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("policy", [{}, dict(exact=True), dict(pad="constant")])
def test_fast_resizes_change_values_by_rounding_alone(policy, layout, backends_used):
    torch.manual_seed(0)
    stock = Decoder().to(memory_format=layout)
    x = torch.randn(1, 3, 128, 128).contiguous(memory_format=layout)
    model, plain = copy.deepcopy(stock), copy.deepcopy(stock)
    ResizePolicy(**policy, fast_resize=True).install(model)
    if policy:
        ResizePolicy(**policy).install(plain)
    expected = results(plain, x)
    used = set(backends_used)
    assert not used & {"products", "numba"}  # off by default
    torch.testing.assert_close(results(model, x), expected, atol=1e-4, rtol=1e-4)
    assert set(backends_used) - used
    clone = pickle.loads(pickle.dumps(model))
    assert torch.equal(clone(x), model(x))


def test_fast_resizes_leave_audits_half_precision_and_graphs_alone(backends_used):
    model, x = Decoder().eval(), torch.randn(1, 3, 128, 128)

    def audited():
        trace = FakeCopy(model).run(lambda fake: follow(fake, (128, 128))).trace
        return [(r.site, r.mode, r.size, r.maps) for r in trace.resizes]

    before = audited()
    ResizePolicy(fast_resize=True).install(model)
    assert audited() == before
    copy.deepcopy(model).bfloat16()(x.bfloat16())
    copy.deepcopy(model).double()(x.double())
    if EXPORTS:
        graph = torch.export.export(model, (x,)).graph
        assert not any("mmseg_resample" in str(node.target) for node in graph.nodes)
    torch.jit.trace(model, x, check_trace=False)
    assert not backends_used
    model(x)
    assert backends_used


def test_a_policy_of_fast_resizes_alone_audits_no_further_sizes(monkeypatch):
    model = Decoder()
    ResizePolicy(fast_resize=True).install(model)
    policy = model.resize_policy
    monkeypatch.setattr(policy, "_audit_at", None)
    assert model(torch.randn(1, 3, 104, 136)).shape == (1, 64, 32, 32)
    assert not policy.rules and policy.padding((104, 136)) == Padding()


@pytest.mark.parametrize("policy", [None, dict(exact=False), dict(exact=True)])
def test_segmentors_take_fast_resize(policy):
    plain = build(policy).eval()
    cfg = dict(config(), type="ResampledSegmentor", fast_resize=True)
    if policy is not None:
        cfg["resize_policy"] = dict(policy, sizes=[(128, 128), (160, 224)])
    model = same_weights(MODELS.build(ConfigDict(cfg)), plain)[0]
    assert model.resize_policy.fast_resize and model.resize_policy.exact == bool(policy and policy["exact"])
    assert not getattr(getattr(plain, "resize_policy", None), "fast_resize", False)
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(model(x, mode="tensor"), plain(x, mode="tensor"), atol=1e-5, rtol=1e-5)
