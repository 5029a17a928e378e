"""Which kernel computes an op; those of Triton are chosen in triton_cases.py."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from mmseg_resample.ops import _backends, _torch, resize, resize_argmax
from tests.ops.test_resize import Calls

X = torch.zeros(1, 3, 4, 4)


@pytest.fixture(autouse=True)
def _no_wish(monkeypatch):
    monkeypatch.delenv("MMSEG_RESAMPLE_BACKEND", raising=False)


@pytest.mark.parametrize("op", ["resize", "flow_warp", "deform_conv2d", "resize_argmax", "resize_cross_entropy"])
def test_torch_computes_everything_everywhere(op):
    assert "torch" in _backends.available(op, "cpu") and "torch" in _backends.available(op, "cuda")
    assert callable(_backends.select(op, "torch"))
    assert _backends.select(op, "auto", X.to("meta")) is _backends.select(op, "torch")


def test_backends_of_a_device():
    assert "triton" not in _backends.available("resize_argmax", "cpu")
    assert "numba" not in _backends.available("resize_argmax", "cuda")


def test_the_environment_names_a_backend_where_the_op_has_it(monkeypatch):
    monkeypatch.setenv("MMSEG_RESAMPLE_BACKEND", "products")
    x = torch.rand(1, 2, 5, 6)
    products = resize(x, (9, 7), mode="bicubic", backend="products")
    assert not torch.equal(products, resize(x, (9, 7), mode="bicubic", backend="torch"))
    assert torch.equal(resize(x, (9, 7), mode="bicubic"), products)
    assert torch.equal(resize_argmax(x, (9, 7)), resize_argmax(x, (9, 7), backend="torch"))
    for options in (dict(mode="area"), dict(mode="bicubic", antialias=True), dict(mode="nearest")):
        with Calls() as calls:
            assert torch.equal(resize(x, (9, 7), **options), resize(x, (9, 7), **options, backend="torch"))
        assert not any("mmseg_resample" in name for name in calls.names)
    assert _backends.select("resize", "auto", x.to("meta")) is _torch.resample


@pytest.mark.parametrize(("mode", "backend"), [("bilinear", "numba"), ("bicubic", "products")])
def test_fake_tensors_go_to_torch(mode, backend):
    with FakeTensorMode(), Calls() as calls:
        resize(torch.empty(1, 2, 4, 5), (8, 9), mode=mode, backend=backend)
    assert calls.names == ["aten.empty.memory_format", "mmseg_resample.resample.default"]


def test_unknown_backend():
    with pytest.raises(ValueError, match=r"resize: expected backend to be one of .*'products'.*, got 'cuda'"):
        resize(X, 8, mode="bilinear", backend="cuda")


def test_triton_that_does_not_work_leaves_it_to_torch():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.warns(UserWarning, match="computed by PyTorch, slower, because Triton does not work on cuda:7"):
        assert not _backends._triton_works("cuda:7")


LARGE = (1, 64, 16, 32), (32, 64)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("shape", "size", "trained", "linear"),
    [
        (*LARGE, False, True),
        (*LARGE, True, True),
        ((1, 1, 4, 4), (8, 8), True, False),
        ((1, 64, 32, 64), (64, 128), False, False),
        ((1, 64, 32, 64), (64, 128), True, True),
        ((1, 19, 32, 64), (128, 256), False, True),
    ],
)
def test_the_fastest_resize_of_a_shape(mode, layout, shape, size, trained, linear):
    x = torch.randn(shape).contiguous(memory_format=layout).requires_grad_(trained)
    backend = _backends.fastest_resize(x, mode, size)
    last = layout is torch.channels_last and shape[1] > 1
    assert (backend == "auto") == (shape[1] == 1 or (mode == "bilinear" and (last or not linear)))
    if backend != "auto":
        assert backend == ("numba" if last and "numba" in _backends.available("resize", "cpu") else "products")
        expected = F.interpolate(x.double(), size, mode=mode, align_corners=True)
        actual = resize(x, size, mode=mode, align_corners=True, warning=False, backend=backend)
        torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=1e-5)


def test_the_fastest_resize_is_pytorchs_elsewhere():
    shape, size = LARGE
    x = torch.zeros(shape)
    assert _backends.fastest_resize(x, "bilinear", size) == "products"
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.uint8):
        assert _backends.fastest_resize(x.to(dtype), "bilinear", size) == "auto"
    for other in (x.to("meta"), x.flatten(2), x[:, :0]):
        assert _backends.fastest_resize(other, "bilinear", size) == "auto"
    for mode in ("nearest", "nearest-exact", "area", "grid_sample"):
        assert _backends.fastest_resize(x, mode, size) == "auto"
    with FakeTensorMode() as mode:
        assert _backends.fastest_resize(mode.from_tensor(x), "bilinear", size) == "auto"
    torch.func.vmap(lambda y: assert_left_to_torch(y, size))(x[None])
    torch.jit.trace(lambda y: assert_left_to_torch(y, size), x, check_trace=False)


def test_several_threads_take_pytorchs_resize():
    shape, size = LARGE
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert _backends.fastest_resize(torch.zeros(shape), "bilinear", size) == "auto"
    finally:
        torch.set_num_threads(threads)


def assert_left_to_torch(x, size):
    assert _backends.fastest_resize(x, "bilinear", size) == "auto"
    return x + 1
