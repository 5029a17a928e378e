from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.structures import SegDataSample
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_resample.ops import AxisMap, Segmentation, _fused, reference, resize_argmax
from mmseg_resample.ops.grid import Coordinates, axis_maps
from tests.conftest import TOLERANCE

SIZES = [
    ((8, 16), (64, 128)),
    ((5, 7), (23, 40)),
    ((1, 1), (6, 5)),
    ((9, 4), (1, 1)),
    ((20, 30), (7, 11)),
    ((6, 6), (6, 9)),
]


BACKENDS = [
    "torch",
    "torch, as on other devices",
    pytest.param("numba", marks=pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")),
]


def use(backend, monkeypatch):
    """Make ``auto`` take one of ``BACKENDS``; returns its name."""
    name, *off_cpu = backend.split(", ")
    monkeypatch.setenv("MMSEG_RESAMPLE_BACKEND", name)
    if off_cpu:
        monkeypatch.setattr(_fused, "_is_by_slabs", lambda device: True)
        monkeypatch.setattr(_fused, "_LARGE_BAND", 500)  # several bands of most cases
    return name


@pytest.fixture(autouse=True, params=BACKENDS)
def backend(request, monkeypatch):
    return use(request.param, monkeypatch)


def bilinear(x, size, align_corners=False):
    """Axis by axis: for small maps and 3 channels, the two-dimensional call takes a kernel that rounds differently."""
    x = F.interpolate(x.flatten(1, 2), size[1], mode="linear", align_corners=align_corners).unflatten(1, x.shape[1:3])
    x = x.transpose(2, 3)
    x = F.interpolate(x.flatten(1, 2), size[0], mode="linear", align_corners=align_corners).unflatten(1, x.shape[1:3])
    return x.transpose(2, 3)


def two_steps(logits, size, align_corners=False, crop=(0, 0, 0, 0), flip=None, first_size=None):
    """Compute what mmseg does, with full-resolution logits."""
    x = logits
    if first_size is not None:
        x = bilinear(x, first_size, align_corners)
    left, right, top, bottom = crop
    x = x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]
    if flip is not None:
        x = x.flip(3 if flip == "horizontal" else 2)
    return bilinear(x, size, align_corners)


def with_ties(channels, size, batch=2):
    """Few values: many pixels have several largest logits."""
    return torch.randint(0, 3, (batch, channels, *size)).float()


@pytest.mark.parametrize(("source", "size"), SIZES)
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("channels", [2, 19, 300])
def test_labels_at_odd_sizes(source, size, align_corners, channels):
    for x in (torch.randn(2, channels, *source), with_ties(channels, source)):
        labels = resize_argmax(x, size, align_corners=align_corners, dtype=torch.int64)
        assert torch.equal(labels, two_steps(x, size, align_corners).argmax(1))


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("channels", [2, 19, 150])
@pytest.mark.parametrize(("source", "size"), [((32, 64), (256, 512)), ((33, 17), (129, 65)), ((40, 90), (77, 200))])
def test_labels_are_those_of_interpolate(source, size, align_corners, channels):
    for x in (torch.randn(1, channels, *source), with_ties(channels, source, batch=1)):
        labels = resize_argmax(x, size, align_corners=align_corners, dtype=torch.int64)
        stock = F.interpolate(x, size, mode="bilinear", align_corners=align_corners)
        assert torch.equal(labels, stock.argmax(1))


@settings(max_examples=60)
@given(data=st.data())
def test_any_two_steps(data):
    side = st.integers(1, 24)
    source, first, size = (data.draw(st.tuples(side, side)) for _ in range(3))
    first = data.draw(st.sampled_from([first, source, size]))
    cut = [data.draw(st.integers(0, n - 1)) for n in (first[1], first[0])]
    left, top = (data.draw(st.integers(0, c)) for c in cut)
    step = dict(
        align_corners=data.draw(st.booleans()),
        crop=(left, cut[0] - left, top, cut[1] - top),
        flip=data.draw(st.sampled_from([None, "horizontal", "vertical"])),
        first_size=first,
    )
    x = with_ties(4, source, batch=1) + data.draw(st.sampled_from([0, 1])) * torch.randn(1, 4, *source)
    expected = two_steps(x, size, **step).argmax(1)
    assert torch.equal(resize_argmax(x, size, **step, dtype=torch.int64), expected)


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize(
    "meta",
    [
        dict(ori_shape=(64, 96)),
        dict(ori_shape=(67, 83), padding_size=[3, 5, 0, 7]),
        dict(ori_shape=(99, 40), padding_size=[0, 6, 2, 0], flip=True, flip_direction="horizontal"),
        dict(ori_shape=(96, 100), flip=True, flip_direction="vertical"),
    ],
    ids=str,
)
def test_labels_are_those_of_mmseg(channels, meta):
    logits = torch.randn(1, channels, 16, 24)
    first = F.interpolate(logits, (64, 96), mode="bilinear", align_corners=False)
    model = SimpleNamespace(align_corners=False, decode_head=SimpleNamespace(threshold=0.3))
    sample = BaseSegmentor.postprocess_result(model, first, [SegDataSample(metainfo=meta)])[0]
    labels = resize_argmax(
        logits,
        meta["ori_shape"],
        first_size=(64, 96),
        crop=meta.get("padding_size"),
        flip=meta.get("flip_direction"),
    )
    assert torch.equal(labels, sample.pred_sem_seg.data.to(torch.uint8))


@pytest.mark.parametrize("name", Coordinates.__args__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coordinates_against_float64(name, dtype):
    x = torch.randn(2, 4, 6, 9, dtype=dtype)
    assert_labels(x, (17, 14), axis_maps(name, (6, 9), (17, 14)), coordinates=name)


def test_explicit_maps_may_flip():
    maps = AxisMap(-0.3, 5.2), AxisMap(0.45, 0.1)
    x = torch.randn(1, 3, 6, 9)
    assert_labels(x, (17, 18), maps, coordinates=maps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_resized_in_float32(dtype):
    x = torch.randn(1, 7, 9, 10).to(dtype)
    assert torch.equal(resize_argmax(x, (31, 33)), resize_argmax(x.float(), (31, 33)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(resize_argmax(x, (31, 33)), resize_argmax(x.float(), (31, 33)))


@pytest.mark.parametrize(("source", "first", "size"), [((5, 7), (20, 29), (33, 31)), ((9, 6), (30, 21), (14, 40))])
def test_each_resize_has_its_pixel_model(source, first, size):
    for x in (torch.randn(2, 4, *source), with_ties(4, source)):
        expected = bilinear(bilinear(x, first, True), size, False).argmax(1)
        by_name = resize_argmax(x, size, first_size=first, first_coordinates="align_corners", dtype=torch.int64)
        assert torch.equal(by_name, expected)
        assert not torch.equal(resize_argmax(x, size, first_size=first, dtype=torch.int64), expected)


def test_each_resize_has_its_maps():
    sizes = (6, 9), (17, 20), (30, 26)
    maps = (AxisMap(0.33, 0.2), AxisMap(-0.4, 7.7)), (AxisMap(0.6, -0.3), AxisMap(0.7, 1.1))
    x = torch.randn(1, 4, *sizes[0])
    exact = x
    for pair, source, size in zip(maps, sizes[:2], sizes[1:], strict=True):
        matrices = (reference.kernel_matrix("linear", *axis) for axis in zip(pair, source, size, strict=True))
        exact = reference.resample(exact, list(matrices))
    labels = resize_argmax(
        x, sizes[2], first_size=sizes[1], first_coordinates=maps[0], coordinates=maps[1], dtype=torch.int64
    )
    best, second = exact.topk(2, dim=1).values.unbind(1)
    clear = best - second > 2 * TOLERANCE[x.dtype]
    assert clear.float().mean() > 0.99 and torch.equal(labels[clear], exact.argmax(1)[clear])


def assert_labels(x, size, maps, **options):
    """Labels are those of the float64 reference wherever two classes are not within rounding of each other."""
    matrices = [
        reference.kernel_matrix("linear", axis_map, n, out)
        for axis_map, n, out in zip(maps, x.shape[2:], size, strict=True)
    ]
    exact = reference.resample(x, matrices)
    best, second = exact.topk(2, dim=1).values.unbind(1)
    clear = best - second > 2 * TOLERANCE[x.dtype]
    assert clear.float().mean() > 0.99
    labels = resize_argmax(x, size, dtype=torch.int64, **options)
    assert torch.equal(labels[clear], exact.argmax(1)[clear])


def test_layouts_and_empty_batch():
    x = torch.randn(2, 5, 9, 8)
    expected = resize_argmax(x, (40, 33))
    assert torch.equal(resize_argmax(x.to(memory_format=torch.channels_last), (40, 33)), expected)
    assert torch.equal(
        resize_argmax(torch.randn(4, 5, 9, 8).copy_(x.repeat(2, 1, 1, 1))[::2], (40, 33))[0], expected[0]
    )
    empty = resize_argmax(x[:0], (40, 33), target=torch.zeros(0, 40, 33).int(), return_confidence=True)
    assert empty.labels.shape == empty.confidence.shape == (0, 40, 33) and not empty.confusion.any()


def test_nan_and_infinity_as_argmax():
    x = torch.randn(1, 4, 6, 6)
    x[0, 2, 1, 1] = float("nan")
    x[0, 3, 4, 4] = float("inf")
    x[0, 1, 3, 2] = -float("inf")
    expected = two_steps(x, (24, 24)).argmax(1)
    assert torch.equal(resize_argmax(x, (24, 24), dtype=torch.int64), expected)


def test_confidence():
    x = torch.randn(2, 5, 6, 7)
    result = resize_argmax(x, (24, 20), return_confidence=True)
    assert isinstance(result, Segmentation) and result.confusion is None
    torch.testing.assert_close(result.confidence, two_steps(x, (24, 20)).softmax(1).amax(1))
    one = resize_argmax(x[:, :1], (24, 20), return_confidence=True, threshold=0.6)
    p = two_steps(x[:, :1], (24, 20)).sigmoid()[:, 0]
    assert torch.equal(one.labels.bool(), p > 0.6)
    torch.testing.assert_close(one.confidence, torch.where(p > 0.6, p, 1 - p))


@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_confusion(channels, dtype):
    classes = max(2, channels)
    x, target = torch.randn(2, channels, 6, 7), torch.randint(0, classes, (2, 24, 20)).to(dtype)
    target[:, :5] = 255
    result = resize_argmax(x, (24, 20), target=target, return_confidence=False)
    expected = torch.zeros(classes, classes, dtype=torch.int64)
    for truth, seen in zip(target.flatten().tolist(), result.labels.flatten().tolist(), strict=True):
        if truth != 255:
            expected[truth, seen] += 1
    assert torch.equal(result.confusion, expected) and result.confidence is None


@pytest.mark.parametrize(
    ("channels", "label", "dtype", "ignore_index"),
    [
        (200, 156, torch.uint8, -100),  # 156 is -100 in eight bits
        (256, 3, torch.uint8, 255),  # and 256 is 0
        (300, 0, torch.uint8, 256),
        (300, 44, torch.int8, 300),
        (200, 100, torch.int8, -156),
        (200, 100, torch.int16, 100 - 2**16),
    ],
)
def test_confusion_does_not_wrap_around(channels, label, dtype, ignore_index):
    target = torch.full((1, 2, 2), label, dtype=dtype)
    result = resize_argmax(torch.randn(1, channels, 2, 2), 2, target=target, ignore_index=ignore_index)
    assert result.confusion.sum() == result.confusion[label].sum() == 4
    assert not resize_argmax(torch.randn(1, channels, 2, 2), 2, target=target, ignore_index=label).confusion.any()


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, torch.uint8), (256, torch.uint8), (257, torch.int16), (2**15 + 1, torch.int32)]
)
def test_narrowest_dtype(channels, dtype):
    x = torch.zeros(1, channels, 1, 1)
    x[:, -1] = 1
    labels = resize_argmax(x, 2)
    assert labels.dtype == dtype and labels.unique().item() == max(channels - 1, 1)


def test_equal_bits_for_every_number_of_threads():
    x = torch.randn(1, 19, 40, 40)
    once = resize_argmax(x, (300, 310), return_confidence=True)
    try:
        torch.set_num_threads(2)
        again = resize_argmax(x, (300, 310), return_confidence=True)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(once.labels, again.labels) and torch.equal(once.confidence, again.confidence)


class Largest(TorchDispatchMode):
    """The largest number of values that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.numel = max(self.numel, tensor.numel())
        return out


def test_full_resolution_logits_never_exist():
    x, size = torch.randn(1, 30, 16, 16), (512, 512)
    with Largest() as ours:
        resize_argmax(x, size, first_size=(500, 480), backend="torch")
    with Largest() as stock:
        two_steps(x, size, first_size=(500, 480)).argmax(1)
    assert stock.numel == 30 * 512 * 512
    assert ours.numel <= 2**19


def test_inside_a_compiled_function():
    x = torch.randn(1, 3, 4, 4)
    compiled = torch.compile(lambda x: resize_argmax(x * 2, (9, 9)) + 1, backend="eager")
    assert torch.equal(compiled(x), resize_argmax(x * 2, (9, 9)) + 1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(logits=torch.zeros(3, 4, 4)), ValueError, r"logits\[None\]"),
        (dict(logits=torch.zeros(1, 0, 4, 4)), ValueError, "C, H, W >= 1"),
        (dict(logits=torch.zeros(1, 3, 4, 4).int()), TypeError, "floating dtype"),
        (dict(size=0), ValueError, "size >= 1"),
        (dict(flip="horizonal"), ValueError, "Did you mean 'horizontal'"),
        (dict(crop=(4, 4, 0, 0)), ValueError, "leaves pixels"),
        (dict(crop=(-1, 0, 0, 0)), ValueError, "leaves pixels"),
        (dict(align_corners=True, coordinates="half_pixel"), ValueError, "Keep one"),
        (dict(align_corners=False, coordinates="half_pixel"), ValueError, "Keep one"),
        (dict(coordinates=AxisMap(1, 0), first_size=8), ValueError, "explicit AxisMaps fit one resize"),
        (dict(first_coordinates="half_pixel"), ValueError, "Give first_size"),
        (dict(dtype=torch.float32), TypeError, "expected dtype"),
        (dict(logits=torch.zeros(1, 300, 4, 4), dtype=torch.uint8), ValueError, "torch.int16"),
        (dict(target=torch.zeros(1, 8, 9).int()), ValueError, "expected target"),
        (dict(target=torch.zeros(1, 8, 8)), TypeError, "integer dtype"),
        (dict(target=torch.full((1, 8, 8), 3)), IndexError, "from 3 to 3"),
        (dict(target=torch.full((1, 8, 8), -1, dtype=torch.int8)), IndexError, "from -1 to -1"),
        (dict(target=torch.full((1, 8, 8), -1, dtype=torch.int16), ignore_index=2**16 - 1), IndexError, "-1 to -1"),
        (dict(coordinates=AxisMap(float("nan"), 0)), ValueError, "finite scale and offset"),
        (dict(backend="tritn"), ValueError, "expected backend"),
    ],
)
def test_errors(change, error, message):
    with pytest.raises(error, match=message):
        resize_argmax(**(dict(logits=torch.zeros(1, 3, 4, 4), size=8) | change))
