"""What ``test_triton.py`` runs in a process of its own, by Triton's interpreter, or on a GPU where there is one."""

import os

import pytest
import torch

from mmseg_resample.ops import (
    AxisMap,
    _backends,
    _triton,
    resize_argmax,
    resize_cross_entropy,
)
from tests.conftest import assert_close
from tests.ops.test_resize_cross_entropy import by_pixels, case, value_and_gradient

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


@pytest.fixture(autouse=True)
def _device():
    with torch.device(DEVICE):
        yield


# --- labels -----------------------------------------------------------------------------------------------------------


def labels_of_both(*args, **options):
    ours = resize_argmax(*args, return_confidence=True, backend="triton", **options)
    return ours, resize_argmax(*args, return_confidence=True, backend="torch", **options)


def assert_labels(ours, theirs):
    assert ours.labels.dtype == theirs.labels.dtype and torch.equal(ours.labels, theirs.labels)
    assert_close(ours.confidence, theirs.confidence)


@pytest.mark.parametrize(
    "options",
    [
        dict(size=(13, 20)),
        dict(size=(13, 20), align_corners=True),
        dict(size=(5, 7)),
        dict(size=(5, 20), coordinates="asymmetric"),
        dict(size=(9, 7), coordinates=(AxisMap(0.4, 0.3), AxisMap(1.0, 0.0))),
        dict(size=(5, 4), crop=(1, 2, 0, 0), flip="horizontal"),
        dict(size=(11, 6), first_size=(10, 14), crop=(0, 3, 1, 0), flip="vertical"),
        dict(size=(10, 9), first_size=(10, 7), align_corners=True),
        dict(size=(6, 14), first_size=(5, 14), coordinates="asymmetric"),
    ],
    ids=str,
)
def test_labels(options):
    assert_labels(*labels_of_both(torch.randn(2, 3, 5, 7), **options))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_dtypes_of_logits(dtype):
    assert_labels(*labels_of_both(torch.randn(2, 3, 5, 7).to(dtype), (9, 4)))


@pytest.mark.parametrize("channels", [1, 2, 130])
def test_numbers_of_classes(channels):
    assert_labels(*labels_of_both(torch.randn(1, channels, 2, 3), (5, 4), threshold=0.4))


def test_ties_nan_and_infinity():
    ties = torch.randint(0, 3, (1, 5, 4, 4)).float()  # at these sizes exact in whatever order
    assert_labels(*labels_of_both(ties, (16, 8)))
    ties[0, 2, 1] = float("nan")
    ties[0, 3, 2, 1] = float("nan")
    ties[0, 0, 3] = float("-inf")
    ties[0, 4, 0, 2] = float("inf")
    ties[0, 1, 0, 2] = float("inf")
    ours, theirs = labels_of_both(ties, (4, 4))
    assert torch.equal(ours.labels, theirs.labels)
    torch.testing.assert_close(ours.confidence, theirs.confidence, equal_nan=True)


def test_confusion_matrix_and_empty_batch():
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 6, 6))
    target[0, 0] = 255
    ours = resize_argmax(logits, 6, target=target, backend="triton")
    assert torch.equal(ours.confusion, resize_argmax(logits, 6, target=target, backend="torch").confusion)
    for channels, label, dtype, ignore_index in ((200, 156, torch.uint8, -100), (256, 3, torch.uint8, 255)):
        target = torch.full((1, 2, 2), label, dtype=dtype)
        options = dict(target=target, ignore_index=ignore_index, backend="triton")
        assert resize_argmax(torch.randn(1, channels, 2, 2), 2, **options).confusion[label].sum() == 4
    with pytest.raises(IndexError, match="from -1 to -1"):
        resize_argmax(logits, 6, target=torch.full((2, 6, 6), -1, dtype=torch.int8), backend="triton")
    assert resize_argmax(logits[:0], 6, backend="triton").shape == (0, 6, 6)


# --- loss -------------------------------------------------------------------------------------------------------------


def on_device(source=(2, 3), size=(4, 5), channels=3, **kwargs):
    return (tensor.to(DEVICE) for tensor in case(source, size, channels, **kwargs))


@pytest.mark.parametrize(
    ("source", "size", "resizing", "dtype"),
    [
        ((3, 4), (5, 7), dict(align_corners=True), torch.float32),
        ((5, 6), (3, 2), dict(), torch.float64),
        ((1, 1), (3, 4), dict(align_corners=True), torch.float64),
        ((4, 3), (1, 1), dict(), torch.float64),
        ((3, 3), (3, 6), dict(), torch.float64),
        ((3, 3), (6, 3), dict(coordinates="asymmetric"), torch.float64),
        ((2, 3), (4, 5), dict(coordinates=AxisMap(0.4, -2.0)), torch.float64),
    ],
    ids=str,
)
def test_loss_against_float64(source, size, resizing, dtype):
    logits, target = on_device(source, size, dtype=dtype)
    ours = value_and_gradient(
        lambda x: resize_cross_entropy(x, target, reduction="sum", backend="triton", **resizing), logits
    )
    expected = value_and_gradient(lambda x: by_pixels(x, target, **resizing).sum(), logits)
    for a, b in zip(ours, expected, strict=True):
        assert a.dtype == dtype
        scale = max(1.0, float(b.abs().max()))
        assert_close(a / scale, b / scale)


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize(
    "options",
    [
        dict(weight=[0.5, 2.0, 1.0]),
        dict(label_smoothing=0.1),
        dict(weight=[0.5, 2.0, 1.0], label_smoothing=1.0, sampled=True),
        dict(sampled=True),
    ],
    ids=str,
)
def test_options_of_the_loss(reduction, options):
    logits, target = on_device(batch=1)
    options = dict(options)
    if options.pop("sampled", False):
        options["pixel_weight"] = torch.rand(target.shape)
    upstream = torch.randn(target.shape, dtype=torch.float64) if reduction == "none" else None
    ours = value_and_gradient(
        lambda x: resize_cross_entropy(x, target, reduction=reduction, backend="triton", **options), logits, upstream
    )
    if "weight" in options:
        options["weight"] = torch.tensor(options["weight"])
    expected = value_and_gradient(
        lambda x: by_pixels(x, target, **options) if reduction == "none" else by_pixels(x, target, **options).sum(),
        logits,
        upstream,
    )
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("weight", [None, [0.5, 2.0, 1.0]])
def test_means_and_accuracy(weight):
    logits, target = on_device(dtype=torch.float32, batch=1)
    for avg_non_ignore in (True, False):
        options = dict(weight=weight, avg_non_ignore=avg_non_ignore, return_accuracy=True)
        ours = resize_cross_entropy(logits, target, backend="triton", **options)
        torch.testing.assert_close(ours, resize_cross_entropy(logits, target, backend="torch", **options))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_computed_in_float32(dtype):
    logits, target = on_device(dtype=torch.float32, batch=1)
    low = logits.to(dtype)
    loss, gradient = value_and_gradient(lambda x: resize_cross_entropy(x, target, backend="triton"), low)
    exact = value_and_gradient(lambda x: resize_cross_entropy(x, target, backend="triton"), low.float())
    assert loss.dtype == torch.float32 and gradient.dtype == dtype
    assert torch.equal(loss, exact[0]) and torch.equal(gradient, exact[1].to(dtype))


def test_equal_bits_again_in_pieces_and_with_wide_offsets(monkeypatch):
    logits, target = on_device(channels=4, dtype=torch.float32)

    def run():
        loss = value_and_gradient(lambda x: resize_cross_entropy(x, target, backend="triton"), logits)
        labels = resize_argmax(logits, (5, 4), return_confidence=True, backend="triton")
        return [*loss, labels.labels, labels.confidence]

    once = run()
    for name, value in ((None, None), ("_CHUNK", 3 * 2 * 5), ("_WIDE", 1)):
        if name is not None:
            monkeypatch.setattr(_triton, name, value)
        assert all(torch.equal(a, b) for a, b in zip(run(), once, strict=True))


def test_target_dtypes_and_layouts():
    logits, target = on_device(dtype=torch.float32)
    expected = value_and_gradient(lambda x: resize_cross_entropy(x, target, backend="triton"), logits)
    last = logits.to(memory_format=torch.channels_last)
    turned = target.to(torch.uint8).transpose(1, 2).contiguous().transpose(1, 2)
    actual = value_and_gradient(lambda x: resize_cross_entropy(x, turned, backend="triton"), last)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_nothing_to_learn_from():
    logits, target = on_device(ignored=1)
    loss, gradient = value_and_gradient(lambda x: resize_cross_entropy(x, target, backend="triton"), logits)
    assert loss.item() == 0 and not gradient.any()
    loss, gradient = value_and_gradient(lambda x: resize_cross_entropy(x, target[:0], backend="triton"), logits[:0])
    assert loss.item() == 0 and gradient.shape == (0, 3, 2, 3)


def test_ignored_pixels_may_hold_anything():
    logits, target = on_device((3, 2), (3, 2), ignored=0)
    target[:, 1] = 255
    expected = value_and_gradient(lambda x: resize_cross_entropy(x, target, backend="triton"), logits)
    logits[:, :, 1] = float("nan")
    actual = value_and_gradient(lambda x: resize_cross_entropy(x, target, backend="triton"), logits)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize(("label", "weight"), [(3, None), (-1, [0.5, 2.0, 1.0]), (254, [0.5, 2.0, 1.0])])
def test_unknown_labels_are_loud(label, weight):
    logits, target = on_device()
    target[0, 2, 2] = label
    loss, gradient = value_and_gradient(
        lambda x: resize_cross_entropy(x, target, weight=weight, backend="triton"), logits
    )
    assert loss.isnan() and gradient[0].isnan().any() and not gradient[1].isnan().any()


def test_training_repeats_itself():
    torch.use_deterministic_algorithms(True)
    try:
        once, again = train(), train()
    finally:
        torch.use_deterministic_algorithms(False)
    assert once[0] != once[-1] and once == again


def train():
    torch.manual_seed(1)
    first, last = torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.Conv2d(4, 3, 1)
    optimizer = torch.optim.SGD([*first.parameters(), *last.parameters()], lr=0.5)
    image, target = torch.randn(1, 3, 8, 6), torch.randint(0, 3, (1, 8, 6))
    losses = []
    for _ in range(3):
        loss = resize_cross_entropy(last(first(image).relu()), target, backend="triton")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# --- what "auto" takes ------------------------------------------------------------------------------------------------


def test_tried_out_before_it_is_trusted(monkeypatch):
    _triton.check(torch.device(DEVICE))
    right = _triton._linear_table

    def wrong(*args):
        table = right(*args)
        return table._replace(indices=table.indices.clamp(max=2))

    monkeypatch.setattr(_triton, "_linear_table", wrong)
    with pytest.raises(AssertionError):
        _triton.check(torch.device(DEVICE))
    with pytest.warns(UserWarning, match="because Triton does not work on"):
        assert not _backends._triton_works(f"{DEVICE}:0")


def test_the_environment_chooses(monkeypatch):
    monkeypatch.setenv("MMSEG_RESAMPLE_BACKEND", "triton")
    assert _backends.select("resize_argmax", "auto", torch.zeros(1, 2, 3, 5)) is _triton.resize_argmax


def test_refuses_more_than_a_grid_has():
    with pytest.raises(ValueError, match="Split the batch"):
        _triton._launch(_triton._triton_kernels.argmax, 2**31, torch.device(DEVICE))
