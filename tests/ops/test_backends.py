"""Which kernel computes an op; those of Triton are chosen in triton_cases.py."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mmseg_resample.ops import _backends, _fastest, _torch, resize, resize_argmax
from tests.ops.test_resize import Calls

X = torch.zeros(1, 3, 4, 4)
LINEAR = dict(mode="bilinear", align_corners=True, warning=False)


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
    monkeypatch.setenv("MMSEG_RESAMPLE_BACKEND", "banded")
    x = torch.rand(1, 2, 5, 6)
    banded = resize(x, (9, 7), mode="bicubic", backend="banded")
    assert not torch.equal(banded, resize(x, (9, 7), mode="bicubic", backend="torch"))
    assert torch.equal(resize(x, (9, 7), mode="bicubic"), banded)
    assert torch.equal(resize_argmax(x, (9, 7)), resize_argmax(x, (9, 7), backend="torch"))
    for options in (dict(mode="area"), dict(mode="bicubic", antialias=True), dict(mode="nearest"), LINEAR):
        with Calls() as calls:
            assert torch.equal(resize(x, (9, 7), **options), resize(x, (9, 7), **options, backend="torch"))
        assert not any("mmseg_resample" in name for name in calls.names)
    assert _backends.select("resize", "auto", x.to("meta")) is _torch.resample  # banded is for CPUs


@pytest.mark.parametrize(("mode", "backend"), [("bilinear", "triton"), ("bicubic", "banded")])
def test_fake_tensors_go_to_torch(mode, backend):
    with FakeTensorMode(), Calls() as calls:
        resize(torch.empty(1, 2, 4, 5), (8, 9), mode=mode, backend=backend)
    assert calls.names == ["aten.empty.memory_format", "mmseg_resample.resample.default"]


def test_unknown_backend():
    with pytest.raises(ValueError, match=r"resize: expected backend to be one of .*'banded'.*, got 'cuda'"):
        resize(X, 8, mode="bilinear", backend="cuda")


def test_triton_that_does_not_work_leaves_it_to_torch():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.warns(UserWarning, match="computed by PyTorch, slower, because Triton does not work on cuda:7"):
        assert not _backends._triton_works("cuda:7")


# --- by the clock -----------------------------------------------------------------------------------------------------


class Way:
    """Takes ``cost`` on a clock of the test's, forward, and ``backward`` more if there is a gradient."""

    now = 0.0

    def __init__(self, cost, backward=0.0, error=None):
        self.cost, self.backward, self.error, self.calls = cost, backward, error, 0

    def __call__(self, x):
        self.calls += 1
        if self.error is not None:
            raise self.error
        Way.now += self.cost
        out = 2 * x
        if out.requires_grad:
            out.register_hook(self._spend)
        return out

    def _spend(self, grad):
        Way.now += self.backward


@pytest.fixture(autouse=True)
def _clock(monkeypatch):
    monkeypatch.setattr(_fastest.time, "perf_counter", lambda: Way.now)
    monkeypatch.setattr(_fastest, "_winners", {})


@pytest.mark.parametrize(
    ("costs", "winner"),
    [((1.0, 0.5), "other"), ((1.0, 0.95), "first"), ((1.0, 1.0), "first"), ((1.0, 2.0), "first")],
)
def test_the_first_stays_unless_another_is_clearly_faster(costs, winner):
    ways = dict(zip(("first", "other"), map(Way, costs), strict=True))
    assert _fastest.fastest("op", ways, X) == winner


def test_a_gradient_is_part_of_the_time():
    ways = {"first": Way(1.0, backward=5.0), "other": Way(2.0, backward=1.0)}
    assert _fastest.fastest("op", ways, X) == "first"
    x = X.clone().requires_grad_()
    assert _fastest.fastest("op", ways, x) == "other"
    assert x.grad is None
    with torch.no_grad():
        assert _fastest.fastest("op", ways, x) == "first"


def test_what_fails_is_out_and_measuring_never_raises():
    broken = RuntimeError("out of memory")
    assert _fastest.fastest("a", {"first": Way(1.0), "other": Way(0.1, error=broken)}, X) == "first"
    assert _fastest.fastest("b", {"first": Way(1.0, error=broken), "other": Way(9.0)}, X) == "other"
    assert _fastest.fastest("c", {"first": Way(1.0, error=broken), "other": Way(1.0, error=broken)}, X) == "first"


def test_measured_once_for_sizes_alike():
    ways = {"first": Way(1.0), "other": Way(0.5)}
    for shape in [(1, 3, 4, 4), (1, 3, 4, 4), (1, 2, 5, 5)]:
        assert _fastest.fastest("op", ways, torch.zeros(shape)) == "other"
    assert (once := ways["other"].calls) == _fastest._CALLS * (_fastest._ROUNDS + 1)
    for x in (torch.zeros(1, 3, 8, 8), X.double(), X.contiguous(memory_format=torch.channels_last)):
        _fastest.fastest("op", ways, x)
    assert ways["other"].calls == 4 * once


def test_wanted_only_where_pytorch_was_told_so(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    assert not _fastest.is_wanted(X)  # on a CPU
