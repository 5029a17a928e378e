"""Images that are padded until features reach their border: how much, where, and the same pixels as by hand."""

import copy
import pickle
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

import mmseg_resample
from mmseg_resample.policy import ResizePolicy
from mmseg_resample.policy.padding import Padding

BN = dict(type="BN")


class SameConv2d(nn.Conv2d):
    """Convolution under TensorFlow's SAME padding, which puts the odd column at the right."""

    def forward(self, x):
        pads = []
        for n, k, s in zip(reversed(x.shape[2:]), self.kernel_size, self.stride, strict=True):
            total = max((-(-n // s) - 1) * s + k - n, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride)


class Net(nn.Module):
    """A backbone, a classifier and a resize to the image, in a dict with the features."""

    def __init__(self, backbone, align_corners=False):
        super().__init__()
        self.backbone, self.head, self.align_corners = backbone, nn.Conv2d(4, 5, 1), align_corners

    def forward(self, x):
        f = self.backbone(x)
        out = F.interpolate(self.head(f), x.shape[2:], mode="bilinear", align_corners=self.align_corners)
        return {"out": out, "features": f}


def convs(n, conv=nn.Conv2d, **kwargs):
    return nn.Sequential(*[conv(4 if i else 3, 4, 3, stride=2, **kwargs) for i in range(n)])


def unet():
    steps = [nn.Conv2d(3, 4, 3, padding=1)]
    for _ in range(3):
        steps += [nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1)]
    return nn.Sequential(*steps)


BACKBONES = {
    "odd kernels, stride 8": lambda: convs(3, padding=1),
    "odd kernels, stride 32": lambda: convs(5, padding=1),
    "patches of 8": lambda: nn.Conv2d(3, 4, 8, stride=8),
    "pools of 2, stride 8": unet,
    "SAME, stride 8": lambda: convs(3, SameConv2d),
}


@pytest.mark.parametrize(
    ("backbone", "size", "y", "x"),
    [
        # odd kernels: features on multiples of the stride; the last has to be on the last pixel or behind it
        ("odd kernels, stride 8", (64, 65), (0, 1), (0, 0)),
        ("odd kernels, stride 8", (1, 66), (0, 0), (0, 7)),
        ("odd kernels, stride 32", (64, 96), (0, 1), (0, 1)),
        ("odd kernels, stride 32", (97, 98), (0, 0), (0, 31)),
        # patches: the first centre 3.5 px inside; outputs of stride 8 want whole strides at the top and left
        ("patches of 8", (64, 72), (8, 8), (8, 8)),
        # SAME at even sizes: the first feature on pixel s - 1, the last on the last pixel
        ("SAME, stride 8", (64, 128), (8, 0), (8, 0)),
        ("SAME, stride 8", (65, 97), (0, 0), (0, 0)),
    ],
)
def test_each_geometry_gets_what_it_needs(backbone, size, y, x):
    model = mmseg_resample.exact(Net(BACKBONES[backbone]()).eval(), pad="replicate")
    assert model.resize_policy.padding(size) == Padding(y, x)


class ByHand(nn.Module):
    """A network on an image with rows above and below, whose output is cropped."""

    def __init__(self, network, above, below):
        super().__init__()
        self.network, self.above, self.below = network, above, below

    def forward(self, x):
        return self.network(F.pad(x, (0, 0, self.above, self.below)))["out"].narrow(2, self.above, x.shape[2])


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("size", [(64, 65), (73, 50)])
def test_the_fewest_rows_after_which_nothing_is_uncovered(backbone, size):
    plain = Net(BACKBONES[backbone]()).eval()
    before = mmseg_resample.audit(plain, size)
    padded = mmseg_resample.exact(copy.deepcopy(plain), pad="replicate")
    after = mmseg_resample.audit(padded, size)
    assert after.worst < 1e-6 and after.uncovered == []
    assert after.now.outputs == before.exact.outputs  # positions and sizes
    x = torch.rand(2, 3, *size)
    assert {k: v.shape for k, v in padded(x).items()} == {k: v.shape for k, v in plain(x).items()}
    fewer = sum(padded.resize_policy.padding(size).y) - 1
    for above in range(0, fewer + 1, 8):  # features, which are returned too, begin whole strides further on
        by_hand = mmseg_resample.audit(ByHand(plain, above, fewer - above), size)
        offset = by_hand.resizes[0].source.offset[0] + above
        assert any(entry.y for entry in by_hand.exact.repeats) or offset != before.levels[0].offset[0]


@pytest.mark.parametrize("pad", ["replicate", "reflect", "constant"])
def test_where_the_padding_fits_true_it_is_stock_true_on_an_image_padded_by_hand(pad):
    backbone = convs(3, padding=1)
    exact = mmseg_resample.exact(Net(backbone), pad=pad)
    x = torch.rand(2, 3, 64, 72)
    by_hand = F.pad(x, (0, 1, 0, 1), mode=pad)
    stock = Net(backbone, align_corners=True)
    stock.load_state_dict(exact.state_dict())
    expected = stock(by_hand)["out"][..., :64, :72]
    actual = exact(x)["out"]
    assert torch.equal(actual, expected)
    weight = torch.rand_like(expected)
    (expected * weight).sum().backward()
    gradient = stock.backbone[0].weight.grad.clone()
    stock.backbone[0].weight.grad = None
    (actual * weight).sum().backward()
    torch.testing.assert_close(exact.backbone[0].weight.grad, gradient)


class Doubling(nn.Module):
    """Features that are doubled twice before they are resized to the image, as by Semantic FPN's head."""

    def __init__(self):
        super().__init__()
        self.backbone = convs(4, padding=1)
        up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.head = nn.Sequential(up, nn.Conv2d(4, 4, 3, padding=1), up, nn.Conv2d(4, 5, 3, padding=1))

    def forward(self, x):
        return F.interpolate(self.head(self.backbone(x)), x.shape[2:], mode="bilinear")


def test_resizes_of_resizes_get_a_stride_more_on_every_side():
    model = mmseg_resample.exact(Doubling().eval(), pad="replicate")
    assert model.resize_policy.padding((64, 65)) == Padding((16, 17), (16, 16))
    found = mmseg_resample.audit(model, (64, 65))
    assert found.worst < 1e-6 and found.uncovered == []


@pytest.mark.parametrize(
    ("backbone", "exact", "y", "x"),
    [
        ("odd kernels, stride 8", True, (8, 9), (8, 8)),  # to 81
        ("odd kernels, stride 8", False, (8, 16), (8, 15)),
        ("odd kernels, stride 32", True, (32, 33), (32, 32)),
        ("SAME, stride 8", True, (8, 8), (8, 8)),
    ],
)
def test_with_a_margin_features_reach_beyond_the_image_on_every_side(backbone, exact, y, x):
    plain = Net(BACKBONES[backbone]()).eval()
    padded = ResizePolicy(exact=exact, pad="replicate", pad_margin=5)
    model = copy.deepcopy(plain)
    padded.install(model)
    size = (64, 65)
    assert padded.padding(size) == Padding(y, x)
    image = torch.rand(1, 3, *size)
    with padded.running():
        actual = model(image)["out"]
    stock = copy.deepcopy(plain)
    stock.align_corners = exact
    if backbone != "SAME, stride 8":  # which no flag fits
        by_hand = stock(F.pad(image, (*x, *y), mode="replicate"))["out"]
        torch.testing.assert_close(actual, by_hand[..., y[0] : y[0] + 64, x[0] : x[0] + 65])
    assert actual.shape[2:] == size


# --- mmseg's segmentors ----------------------------------------------------------------------------------------------


def segmentor(lean=False, stages=2, exact=True, head=None, **test_cfg):
    """Build a thin ResNet under an exact policy with padding, and the same weights without a policy."""
    init_default_scope("mmseg")
    norm = dict(type="BN")
    channels = [16, 32, 64, 128][:stages]
    cfg = dict(
        type="EncoderDecoder",
        data_preprocessor=dict(type="SegDataPreProcessor"),
        backbone=dict(
            type="ResNetV1c", depth=18, num_stages=stages, strides=(1, 2, 2, 2)[:stages],
            dilations=(1,) * stages, out_indices=tuple(range(stages)), stem_channels=16, base_channels=16,
            norm_cfg=norm,
        ),
        decode_head=head or dict(
            type="FCNHead", in_channels=channels[-1], in_index=stages - 1, channels=8, num_convs=1,
            concat_input=False, dropout_ratio=0.0, num_classes=4, norm_cfg=norm, align_corners=False,
        ),
        test_cfg=test_cfg or dict(mode="whole"),
    )  # fmt: skip
    torch.manual_seed(0)
    stock = MODELS.build(ConfigDict(copy.deepcopy(cfg)))
    cfg |= dict(type="ResampledSegmentor", resize_policy=dict(exact=exact, pad="replicate"))
    if lean:
        cfg = dict(type="LeanSegmentor", segmentor=cfg)
    padded = MODELS.build(ConfigDict(cfg))
    padded.load_state_dict(stock.state_dict())
    stock.decode_head.align_corners = stock.align_corners = exact
    return padded, stock


POINTS = dict(type="PointHead", in_channels=[16], in_index=[0], channels=8, num_classes=4)


def labelled(*size):
    sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size, padding_size=[0] * 4))
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 4, (1, *size)))
    return sample


@pytest.mark.parametrize("lean", [False, True])
def test_a_segmentor_s_loss_is_of_the_image_s_own_pixels(lean):
    padded, stock = segmentor(lean)
    x, sample = torch.rand(2, 3, 64, 80), labelled(64, 80)
    losses = padded.loss(x, [sample, sample])
    logits = stock.decode_head(stock.extract_feat(F.pad(x, (0, 1, 0, 1), mode="replicate")))
    logits = F.interpolate(logits, (65, 81), mode="bilinear", align_corners=True)[..., :64, :80]
    expected = F.cross_entropy(logits, sample.gt_sem_seg.data.expand(2, -1, -1))
    torch.testing.assert_close(losses["decode.loss_ce"], expected)


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("slide", [False, True])
def test_a_segmentor_predicts_the_image_s_own_pixels(lean, flip, slide):
    options = dict(mode="slide", crop_size=(48, 64), stride=(32, 48)) if slide else {}
    padded, stock = segmentor(lean, **options)
    padded.eval(), stock.eval()
    x, sample = torch.rand(1, 3, 64, 80), labelled(64, 80)

    def by_hand(image):
        *_, height, width = image.shape
        logits = stock.decode_head(stock.extract_feat(F.pad(image, (0, 1, 0, 1), mode="replicate")))
        grown = F.interpolate(logits, (height + 1, width + 1), mode="bilinear", align_corners=True)
        return grown[..., :height, :width]

    with torch.no_grad():
        if slide:
            expected, count = torch.zeros(1, 4, 64, 80), torch.zeros(64, 80)
            for y in (0, 16):
                for left in (0, 16):
                    window = (..., slice(y, y + 48), slice(left, left + 64))
                    expected[window] += by_hand(x[window])
                    count[window[1:]] += 1
            expected /= count
        else:
            expected = by_hand(x)
        if flip:
            sample.set_metainfo(dict(flip=True, flip_direction="horizontal"))
            expected = expected.flip(3)
        (result,) = padded.predict(x, [sample])
    torch.testing.assert_close(result.seg_logits.data, expected[0])
    assert torch.equal(result.pred_sem_seg.data[0], expected[0].argmax(0)) or lean
    assert (result.pred_sem_seg.data[0] != expected[0].argmax(0)).float().mean() < 1e-3


@pytest.mark.parametrize("lean", [False, True])
def test_padding_alone_is_stock_false_on_whole_strides_more(lean):
    padded, stock = segmentor(lean, exact=False)
    padded.eval(), stock.eval()
    x = torch.rand(1, 3, 64, 77)
    with torch.no_grad():
        logits = stock.decode_head(stock.extract_feat(F.pad(x, (0, 11, 0, 8), mode="replicate")))
        expected = F.interpolate(logits, (72, 88), mode="bilinear")[..., :64, :77]
        (result,) = padded.predict(x, [labelled(64, 77)])
    torch.testing.assert_close(result.seg_logits.data, expected[0])
    kept = dict(exact=True, pad="replicate", rules=[dict(path="decode_head.logits", coordinates="keep")])
    with ResizePolicy(**kept).applied(stock), torch.no_grad():  # one row and column more, under the flag that it has
        logits = stock.decode_head(stock.backbone(F.pad(x, (0, 4, 0, 1), mode="replicate")))
        own = F.interpolate(logits, (65, 81), mode="bilinear")[..., :64, :77]
        torch.testing.assert_close(stock.predict(x, [labelled(64, 77)])[0].seg_logits.data, own[0])
    generic = Net(convs(3, padding=1)).eval()
    expected = generic(F.pad(x, (0, 11, 0, 8), mode="replicate"))["out"][..., :64, :77]
    with ResizePolicy(pad="replicate").applied(generic):
        torch.testing.assert_close(generic(x)["out"], expected)


def test_features_cover_the_image_in_tensor_mode_and_under_any_odd_size():
    padded, _ = segmentor(stages=4)
    for size in ((1, 33), (45, 70), (64, 97)):
        assert mmseg_resample.audit(padded, size).uncovered == []
    assert padded.eval()(torch.rand(1, 3, 64, 97), mode="tensor").shape[2:] == (3, 4)


# --- what else a network lives through --------------------------------------------------------------------------------


@dataclass
class Outputs:
    """Dataclass of outputs, as some frameworks return it."""

    logits: torch.Tensor
    name: str = "outputs"


class Wrapped(Net):
    def __init__(self, wrap):
        super().__init__(convs(3, padding=1))
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(super().forward(x)["out"])


WRAPPERS = {
    "dataclass": Outputs,
    "tuple": lambda x: (x, [x]),
    "dict": lambda x: {"a": {"b": x}, "n": 3},
    "tensor": lambda x: x,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_outputs_of_any_kind_are_cropped(wrap):
    model = mmseg_resample.exact(Wrapped(wrap).eval(), pad="constant")
    output = model(x=torch.rand(1, 3, 64, 64))
    found = torch.utils._pytree.tree_flatten(output.logits if isinstance(output, Outputs) else output)[0]
    assert {t.shape[2:] for t in found if isinstance(t, torch.Tensor)} == {(64, 64)}
    assert not isinstance(output, Outputs) or output.name == "outputs"


@pytest.mark.parametrize("wrap", [lambda x: x[:, 0], lambda x: x.permute(0, 2, 3, 1), lambda x: {"a": x.argmax(1)}])
def test_rows_and_columns_are_cropped_wherever_they_are(wrap):
    model = mmseg_resample.exact(Wrapped(lambda x: x).eval(), pad="replicate")
    other = Wrapped(wrap).eval()
    other.load_state_dict(model.state_dict())
    mmseg_resample.exact(other, pad="replicate")
    x = torch.rand(1, 3, 64, 72)
    torch.testing.assert_close(other(x), wrap(model(x)))


@pytest.mark.parametrize("wrap", [lambda x: x.flatten(2), lambda x: torch.fft.fft2(x).real])
def test_what_cannot_be_cropped_is_refused(wrap):
    with pytest.raises(ValueError, match=r"output '' of .* cannot be cut back to the image: its rows and columns"):
        mmseg_resample.exact(Wrapped(wrap).eval(), pad="replicate")


class InTraining(Net):
    """A network that returns something else in training mode."""

    def __init__(self, wrap):
        super().__init__(convs(3, padding=1))
        self.wrap = wrap

    def forward(self, x):
        found = super().forward(x)
        return self.wrap(found["out"], found["features"]) if self.training else found["out"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda out, features: out,
        lambda out, features: (out, 2 * out),
        lambda out, features: {"out": out, "aux": features},
        lambda out, features: features,
        lambda out, features: out.mean(),
    ],
)
def test_outputs_of_training_mode_are_cropped_as_what_they_are(wrap):
    model = InTraining(wrap).train()
    x = torch.rand(1, 3, 64, 72)
    plain = torch.utils._pytree.tree_map(lambda t: t.shape, model(x))
    mmseg_resample.exact(model, pad="replicate")
    for size in ((64, 72), (64, 72), (80, 72)):
        x = torch.rand(1, 3, *size)
        assert model.eval()(x).shape[2:] == size
        found = torch.utils._pytree.tree_map(lambda t: t.shape, model.train()(x))
        assert found == plain or size != (64, 72)
    copied = copy.deepcopy(model)
    assert torch.utils._pytree.tree_map(lambda t: t.shape, copied(torch.rand(1, 3, 64, 72))) == plain


def test_an_output_that_no_audit_saw_is_refused():
    model = Wrapped(lambda x: {"out": x}).eval()
    mmseg_resample.exact(model, pad="replicate")
    model.wrap = lambda x: {"out": x, "more": x}
    with pytest.raises(ValueError, match=r"output 'more' of \(1, 5, 65, 73\) cannot be cut back .*: no audit saw it"):
        model(torch.rand(1, 3, 64, 72))


class WithDepth(Net):
    """A second image beside the first: through the same layers, or the first itself where there is none."""

    def forward(self, x, depth=None):
        f = self.backbone(x)
        f = f + F.interpolate(self.backbone(x if depth is None else depth), f.shape[2:], mode="bilinear")
        return F.interpolate(self.head(f), x.shape[2:], mode="bilinear")


def test_images_beside_the_first_are_padded_alike():
    model = mmseg_resample.exact(WithDepth(convs(3, padding=1)).eval(), pad="replicate")
    x = torch.rand(1, 3, 64, 72)
    torch.testing.assert_close(model(x, x.clone()), model(x))
    torch.testing.assert_close(model(x, depth=x.clone()), model(x))


def test_outputs_finer_than_the_image():
    class Fine(Net):
        def forward(self, x):
            y = super().forward(x)["out"]
            return y, F.interpolate(y, scale_factor=2, mode="nearest")

    model = mmseg_resample.exact(Fine(convs(3, padding=1)).eval(), pad="replicate")
    assert [y.shape[2:] for y in model(torch.rand(1, 3, 64, 72))] == [(64, 72), (128, 144)]


def test_survives_copies_autocast_and_memory_formats_and_pickles_keep_known_sizes():
    model = mmseg_resample.exact(Net(convs(3, padding=1)).eval(), pad="replicate")
    x = torch.rand(2, 3, 64, 72)
    expected = model(x)["out"]
    assert torch.equal(copy.deepcopy(model)(x)["out"], expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x)["out"], expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(x)["out"].shape == expected.shape
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last))["out"], expected)
    assert model(x[:0])["out"].shape == (0, 5, 64, 72)
    model.train()(x)["out"].sum().backward()


@pytest.mark.skipif(torch.__version__ < "2.7", reason="older torch cannot compile a policy")
def test_compiled_it_pads_as_eager():
    model = mmseg_resample.exact(Net(convs(3, padding=1)).eval(), pad="replicate")
    x = torch.rand(1, 3, 64, 72)
    expected = model(x)["out"]
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(x)["out"], expected)


def test_with_applied_it_ends_with_the_block():
    model = Net(convs(3, padding=1)).eval()
    x = torch.rand(1, 3, 64, 64)
    before = model(x)["features"].shape
    with ResizePolicy(exact=True, pad="replicate").applied(model):
        assert model.backbone(x).shape == before  # a part by itself sees what it is given
        assert model(x)["out"].shape[2:] == (64, 64)
    assert model(x)["features"].shape == before and "resize_policy" not in model.__dict__


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResizePolicy(exact=True, pad="mirror"), "pad='mirror'|expected pad to be"),
        (lambda: ResizePolicy(exact=True, pad_margin=8), "and pad with it, got 8 and pad=None"),
        (lambda: Padding(y=(0, 9)).apply(torch.rand(1, 3, 8, 8), "reflect"), "cannot mirror 9 pixels of an image of"),
        (lambda: segmentor(head=POINTS), "PointHead compares features and labels at points"),
    ],
)
def test_refusals_say_what_to_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()
