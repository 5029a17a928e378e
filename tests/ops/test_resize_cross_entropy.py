import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmseg.models.losses import CrossEntropyLoss, accuracy

from mmseg_resample.ops import AxisMap, _fused, resize, resize_cross_entropy
from tests.conftest import assert_close
from tests.ops.test_resize_argmax import BACKENDS, Largest, use

SIZES = [
    ((8, 8), (32, 32)),
    ((5, 7), (23, 40)),
    ((1, 1), (6, 5)),
    ((9, 4), (1, 1)),
    ((20, 30), (7, 11)),
    ((6, 6), (6, 6)),
]


@pytest.fixture(autouse=True, params=BACKENDS)
def backend(request, monkeypatch):
    return use(request.param, monkeypatch)


def case(source=(5, 7), size=(23, 40), channels=5, ignored=0.2, batch=2, dtype=torch.float64):
    logits = torch.randn(batch, channels, *source, dtype=dtype)
    target = torch.randint(0, channels, (batch, *size))
    return logits, target.masked_fill_(torch.rand(target.shape) < ignored, 255)


def by_pixels(logits, target, weight=None, label_smoothing=0.0, pixel_weight=None, **resizing):
    """The loss of every pixel in float64, by PyTorch's two ops."""
    x = resize(logits.double(), target.shape[1:], mode="bilinear", warning=False, **resizing)
    loss = F.cross_entropy(
        x,
        target.long(),
        weight=None if weight is None else weight.double(),
        ignore_index=255,
        label_smoothing=label_smoothing,
        reduction="none",
    )
    return loss if pixel_weight is None else loss * pixel_weight.double()


def value_and_gradient(loss_of, logits, upstream=None):
    x = logits.detach().clone().requires_grad_()
    loss = loss_of(x)
    (gradient,) = torch.autograd.grad(loss, x, upstream)
    return loss.detach(), gradient


@pytest.mark.parametrize(("source", "size"), SIZES)
@pytest.mark.parametrize(
    "resizing", [dict(align_corners=True), dict(align_corners=False), dict(coordinates="asymmetric")]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_against_float64(source, size, resizing, dtype):
    logits, target = case(source, size, dtype=dtype)
    ours = value_and_gradient(lambda x: resize_cross_entropy(x, target, reduction="sum", **resizing), logits)
    exact = value_and_gradient(lambda x: by_pixels(x, target, **resizing).sum(), logits)
    assert ours[0].dtype == ours[1].dtype == dtype
    for a, b in zip(ours, exact, strict=True):
        scale = max(1.0, float(b.abs().max()))  # sums over many pixels: the tolerance is for values of order 1
        assert_close(a / scale, b / scale)


@settings(max_examples=40)
@given(data=st.data())
def test_any_options_against_float64(data):
    side = st.integers(1, 16)
    source, size = (data.draw(st.tuples(side, side)) for _ in range(2))
    logits, target = case(
        source,
        size,
        data.draw(st.integers(1, 6)),
        data.draw(st.sampled_from([0, 0.3, 1])),
        data.draw(st.integers(1, 2)),
    )
    options = dict(
        align_corners=data.draw(st.booleans()),
        weight=torch.rand(logits.shape[1]) if data.draw(st.booleans()) else None,
        label_smoothing=data.draw(st.sampled_from([0.0, 0.1, 1.0])),
        pixel_weight=torch.rand(target.shape) if data.draw(st.booleans()) else None,
    )
    upstream = torch.randn(target.shape, dtype=torch.float64)
    ours = value_and_gradient(lambda x: resize_cross_entropy(x, target, reduction="none", **options), logits, upstream)
    exact = value_and_gradient(lambda x: by_pixels(x, target, **options), logits, upstream)
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)
    total, gradient = value_and_gradient(lambda x: resize_cross_entropy(x, target, reduction="sum", **options), logits)
    exact = value_and_gradient(lambda x: by_pixels(x, target, **options).sum(), logits)
    torch.testing.assert_close(total, exact[0], atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(gradient, exact[1], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("avg_non_ignore", [True, False])
@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize(
    ("class_weight", "ignored"),
    # mmseg looks up the class weight of ignore_index, and fails
    [(None, 0), (None, 0.3), (None, 1), ([0.5, 2.0, 1.0, 0.1, 3.0], 0)],
)
def test_is_mmsegs_loss(avg_non_ignore, sampled, class_weight, ignored):
    logits, target = case(ignored=ignored)
    pixel_weight = (torch.rand(target.shape) < 0.5).float() if sampled else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        criterion = CrossEntropyLoss(class_weight=class_weight, avg_non_ignore=avg_non_ignore)

    def stock(x):
        x = F.interpolate(x, target.shape[1:], mode="bilinear")
        return criterion(x, target, weight=pixel_weight, ignore_index=255)

    def ours(x):
        return resize_cross_entropy(
            x, target, weight=class_weight, avg_non_ignore=avg_non_ignore, pixel_weight=pixel_weight
        )

    for a, b in zip(value_and_gradient(ours, logits), value_and_gradient(stock, logits), strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)  # mmseg adds float32's eps to the divisor


def test_class_weights_with_ignored_pixels_are_pytorchs():
    logits, target = case()
    weight = torch.rand(5)
    x = F.interpolate(logits, target.shape[1:], mode="bilinear")
    expected = F.cross_entropy(x, target, weight.double(), ignore_index=255)
    torch.testing.assert_close(resize_cross_entropy(logits, target, weight=weight), expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("avg_non_ignore", [False, True])
def test_class_weights_where_all_pixels_are_ignored(avg_non_ignore):
    """There is nothing to learn; mmseg's own loss indexes its weights by the ignored label and raises."""
    logits = torch.randn(1, 11, 4, 4, requires_grad=True)
    void = torch.full((1, 8, 8), 255)
    with pytest.raises(IndexError):
        CrossEntropyLoss(class_weight=[1.0] * 11, avg_non_ignore=avg_non_ignore)(torch.randn(1, 11, 8, 8), void)
    loss = resize_cross_entropy(logits, void, weight=torch.ones(11), avg_non_ignore=avg_non_ignore)
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


@pytest.mark.parametrize("ignored", [0, 0.3, 1])
def test_accuracy_is_mmsegs(ignored):
    logits, target = case(dtype=torch.float32, ignored=ignored)
    x = F.interpolate(logits, target.shape[1:], mode="bilinear")
    for reduction in ("mean", "none"):
        loss, percent = resize_cross_entropy(logits, target, reduction=reduction, return_accuracy=True)
        assert percent.shape == () and not percent.requires_grad
        torch.testing.assert_close(percent, accuracy(x, target, ignore_index=255)[0])
        assert torch.equal(loss, resize_cross_entropy(logits, target, reduction=reduction))


def test_accuracy_counts_the_first_of_equal_logits():
    target = torch.arange(4).view(1, 2, 2)
    assert resize_cross_entropy(torch.zeros(1, 4, 2, 2), target, return_accuracy=True)[1].item() == pytest.approx(25)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("resizing", [dict(align_corners=True), dict(), dict(coordinates=AxisMap(0.4, 0.1))], ids=str)
def test_gradcheck(reduction, resizing):
    logits, target = case((3, 4), (7, 5), 3, batch=1)
    pixel_weight = torch.rand(target.shape)

    def loss(x):
        return resize_cross_entropy(
            x,
            target,
            weight=[1.0, 0.5, 2.0],
            label_smoothing=0.1,
            pixel_weight=pixel_weight,
            reduction=reduction,
            **resizing,
        )

    assert torch.autograd.gradcheck(loss, logits.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_half_is_computed_in_float32(dtype, reduction):
    logits, target = case(dtype=torch.float32)
    low = logits.to(dtype)
    upstream = torch.ones(target.shape) if reduction == "none" else None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, gradient = value_and_gradient(
            lambda x: resize_cross_entropy(x, target, reduction=reduction), low, upstream
        )
    exact = value_and_gradient(lambda x: resize_cross_entropy(x, target, reduction=reduction), low.float(), upstream)
    assert loss.dtype == torch.float32 and gradient.dtype == dtype
    assert torch.equal(loss, exact[0]) and torch.equal(gradient, exact[1].to(dtype))


def test_scaled_loss_does_not_underflow():
    logits, target = case((4, 4), (64, 64), dtype=torch.float32, ignored=0)
    target[:, 1:] = 255  # few pixels, divided by many
    low = (logits * 3).half()
    x = low.clone().requires_grad_()
    (resize_cross_entropy(x, target) * 2**16).backward()
    exact = value_and_gradient(lambda x: by_pixels(x, target).mean() * 2**16, low.double())[1]
    torch.testing.assert_close(x.grad.double(), exact, atol=1e-3, rtol=2e-3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_target_dtypes_and_layouts(dtype):
    logits, target = case(dtype=torch.float32)
    expected = value_and_gradient(lambda x: resize_cross_entropy(x, target), logits)
    last = logits.to(memory_format=torch.channels_last)
    actual = value_and_gradient(lambda x: resize_cross_entropy(x, target.to(dtype)), last)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize(("channels", "size"), [(19, (300, 310)), (150, (37, 333)), (3, (91, 1027))])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_equal_bits_for_every_number_of_threads(reduction, channels, size):
    logits, target = case((40, 40), size, channels, batch=1, dtype=torch.float32)
    upstream = torch.rand(target.shape) if reduction == "none" else None

    def run():
        return value_and_gradient(lambda x: resize_cross_entropy(x, target, reduction=reduction), logits, upstream)

    once = run()
    try:
        torch.set_num_threads(2)
        again = run()
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def test_height_of_a_band_does_not_matter(monkeypatch):
    logits, target = case((9, 12), (40, 45), dtype=torch.float32)
    loss, gradient = value_and_gradient(lambda x: resize_cross_entropy(x, target, backend="torch"), logits)
    monkeypatch.setattr(_fused, "BAND", 1)
    row_by_row = value_and_gradient(lambda x: resize_cross_entropy(x, target, backend="torch"), logits)
    torch.testing.assert_close(row_by_row, (loss, gradient), atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("avg_non_ignore", [True, False])
def test_nothing_to_learn_from(avg_non_ignore):
    logits, target = case(ignored=1)
    loss, gradient = value_and_gradient(
        lambda x: resize_cross_entropy(x, target, avg_non_ignore=avg_non_ignore), logits
    )
    assert loss.item() == 0 and not gradient.any()
    x = logits[:0].requires_grad_()
    loss, percent = resize_cross_entropy(x, target[:0], return_accuracy=True)
    loss.backward()
    assert loss.item() == 0 and percent.item() == 0 and x.grad.shape == x.shape


@pytest.mark.parametrize("anything", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_ignored_pixels_may_hold_anything(anything, label_smoothing, reduction):
    logits, target = case((4, 4), (4, 4), ignored=0)
    target[:, 2] = 255
    pixel_weight = torch.rand(target.shape)
    upstream = torch.rand(target.shape) if reduction == "none" else None

    def run():
        options = dict(label_smoothing=label_smoothing, pixel_weight=pixel_weight, reduction=reduction)
        return value_and_gradient(lambda x: resize_cross_entropy(x, target, **options), logits, upstream)

    expected = run()
    assert not expected[1][:, :, 2].any()
    logits[:, :, 2] = anything
    pixel_weight[:, 2] = anything
    assert all(torch.equal(a, b) for a, b in zip(run(), expected, strict=True))


def test_full_resolution_logits_never_exist():
    logits, target = case((16, 16), (512, 512), 30, batch=1, dtype=torch.float32)
    with Largest() as stock:
        value_and_gradient(lambda x: F.cross_entropy(F.interpolate(x, (512, 512)), target, ignore_index=255), logits)
    assert stock.numel == 30 * 512 * 512
    for reduction in ("mean", "none"):
        with Largest() as ours:
            value_and_gradient(
                lambda x, reduction=reduction: resize_cross_entropy(
                    x, target, reduction=reduction, backend="torch"
                ).sum(),
                logits,
            )
        assert ours.numel <= 2**19


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_double_backward_is_refused(reduction):
    logits, target = case()
    logits.requires_grad_()
    loss = resize_cross_entropy(logits, target, reduction=reduction).sum()
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="its gradient has no derivative"):
        torch.autograd.grad(gradient.square().sum(), logits)


def test_target_changed_before_backward_is_refused():
    logits, target = case()
    loss = resize_cross_entropy(logits.requires_grad_(), target, reduction="none").sum()
    target.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_without_gradient():
    logits, target = case()
    expected = resize_cross_entropy(logits, target)
    with torch.no_grad():
        assert torch.equal(resize_cross_entropy(logits.requires_grad_(), target), expected)
    with torch.inference_mode():
        assert torch.equal(resize_cross_entropy(logits, target, reduction="mean"), expected)


def test_inside_a_compiled_function():
    logits, target = case(dtype=torch.float32)
    compiled = torch.compile(lambda x: resize_cross_entropy(x * 2, target) * 3, backend="eager")
    expected = value_and_gradient(lambda x: resize_cross_entropy(x * 2, target) * 3, logits)
    assert all(torch.equal(a, b) for a, b in zip(value_and_gradient(compiled, logits), expected, strict=True))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(logits=torch.zeros(3, 4, 4)), ValueError, r"logits\[None\]"),
        (dict(logits=torch.zeros(1, 3, 4, 4).int()), TypeError, "floating dtype"),
        (dict(target=torch.zeros(1, 1, 8, 8).long()), ValueError, r"squeeze\(1\)"),
        (dict(target=torch.zeros(2, 8, 8).long()), ValueError, "expected target"),
        (dict(target=torch.zeros(1, 0, 8).long()), ValueError, "H, W >= 1"),
        (dict(target=torch.zeros(1, 8, 8)), TypeError, "integer dtype"),
        (dict(target=torch.full((1, 8, 8), 3)), IndexError, "from 3 to 3"),
        (dict(target=torch.full((1, 8, 8), -1)), IndexError, "from -1 to -1"),
        (dict(target=torch.full((1, 8, 8), -1, dtype=torch.int8)), IndexError, "from -1 to -1"),
        (dict(size=(8, 9)), ValueError, "Drop size"),
        (dict(weight=[1.0, 2.0]), ValueError, "each of the 3 classes"),
        (dict(pixel_weight=torch.ones(1, 8, 9)), ValueError, "expected pixel_weight"),
        (dict(pixel_weight=torch.ones(1, 8, 8, requires_grad=True)), ValueError, "pixel_weight gets no gradient"),
        (dict(reduction="avg"), ValueError, "expected reduction"),
        (dict(label_smoothing=1.5), ValueError, "label_smoothing in"),
        (dict(align_corners=True, coordinates="half_pixel"), ValueError, "Keep one"),
        (dict(align_corners=False, coordinates="half_pixel"), ValueError, "Keep one"),
        (dict(backend="tritn"), ValueError, "expected backend"),
    ],
)
def test_errors(change, error, message):
    good = dict(logits=torch.zeros(1, 3, 4, 4), target=torch.zeros(1, 8, 8).long())
    with pytest.raises(error, match=message):
        resize_cross_entropy(**(good | change))


def test_transforms_are_refused():
    logits, target = case()
    with pytest.raises(RuntimeError, match=r"resize_cross_entropy: torch\.func has no transform"):
        torch.func.grad(lambda x: resize_cross_entropy(x, target))(logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_default_dtype_does_not_matter(dtype, backend):
    logits, target = case(size=(300, 300), dtype=torch.float32)

    def both():
        return resize_cross_entropy(logits, target, avg_non_ignore=True, return_accuracy=True)

    expected = both()
    torch.set_default_dtype(dtype)
    try:
        actual = both()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
