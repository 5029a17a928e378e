"""What is the Numba backend's own; the tests of the two ops run with it too."""

import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mmseg_resample
from mmseg_resample.ops import AxisMap, _backends, resize_argmax, resize_cross_entropy
from mmseg_resample.ops._fused import Axis

numba = pytest.importorskip("numba")

from mmseg_resample.ops import _numba, _numba_kernels  # noqa: E402
from mmseg_resample.ops._numba_kernels import LANES  # noqa: E402

SIDE = st.integers(1, 40)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "inputs"),
    [("exp", np.linspace(-87, 0, 160_000)), ("log", np.geomspace(1e-30, 1e30, 160_000)), ("log", np.arange(1, 4097))],
)
def test_elementary_functions(name, inputs, dtype):
    x = np.ascontiguousarray(inputs, dtype)
    exact = getattr(np, name)(x.astype(np.longdouble))
    error = np.abs(elementwise(name, x) - exact) / np.spacing(
        np.maximum(np.abs(exact.astype(dtype)), np.finfo(dtype).tiny)
    )
    assert error.max() < 3  # units in the last place


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elementary_functions_at_the_ends(dtype):
    x = np.zeros(LANES, dtype)
    x[:4] = np.nan, -np.inf, -1e30, 0
    result = elementwise("exp", x)
    assert np.isnan(result[0]) and list(result[1:4]) == [0, 0, 1]
    x[:4] = np.nan, 1, 1, 1
    result = elementwise("log", x)
    assert np.isnan(result[0]) and result[1] == 0


def elementwise(name, x):
    function, load, store = getattr(_numba_kernels, name), _numba_kernels.load, _numba_kernels.store

    @numba.njit
    def apply(x, out):
        for i in range(0, len(x), LANES):
            store(out, i, function(load(x, i)))

    out = np.empty_like(x)
    apply(x, out)
    return out


@st.composite
def maps(draw):
    """A pixel model of two axes: align_corners, a convention or explicit maps."""
    kind = draw(st.sampled_from(["flag", "name", "maps"]))
    if kind == "flag":
        return dict(align_corners=draw(st.booleans()))
    if kind == "name":
        return dict(coordinates=draw(st.sampled_from(["asymmetric", "tf_crop_and_resize", "half_pixel_symmetric"])))
    scale, offset = st.floats(-1.5, 1.5), st.floats(-3, 20)
    return dict(coordinates=tuple(AxisMap(draw(scale), draw(offset)) for _ in range(2)))


def logits_of(data, channels, size, dtype):
    x = torch.randn(data.draw(st.integers(0, 2)), channels, *size)
    if data.draw(st.booleans()):
        x = x.round()  # ties
    if data.draw(st.booleans()):
        spoiled = torch.rand(x.shape) < 0.01
        x[spoiled] = data.draw(st.sampled_from([float("nan"), float("inf"), -float("inf")]))
    x = x.to(dtype)
    layout = data.draw(st.sampled_from(["contiguous", "channels_last", "every second"]))
    if layout == "channels_last":
        return x.to(memory_format=torch.channels_last)
    return x.repeat_interleave(2, 3)[..., ::2] if layout == "every second" else x


@settings(max_examples=80)
@given(data=st.data())
def test_labels_are_those_of_the_torch_backend(data):
    source, size = data.draw(st.tuples(SIDE, SIDE)), data.draw(st.tuples(SIDE, SIDE))
    channels = data.draw(st.sampled_from([1, 2, 5, 19]))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    x = logits_of(data, channels, source, dtype)
    options = dict(data.draw(maps()), return_confidence=True)
    if "coordinates" not in options or isinstance(options["coordinates"], str):
        options["first_size"] = data.draw(st.sampled_from([None, source, size, (7, 50)]))
    options["flip"] = data.draw(st.sampled_from([None, "horizontal", "vertical"]))
    target = torch.randint(0, max(2, channels), (len(x), *size)).to(
        data.draw(st.sampled_from([torch.uint8, torch.int32]))
    )
    target[torch.rand(target.shape) < 0.2] = 255
    ours, theirs = (resize_argmax(x, size, target=target, backend=b, **options) for b in ("numba", "torch"))
    assert torch.equal(ours.labels, theirs.labels) and ours.labels.dtype == theirs.labels.dtype
    assert torch.equal(ours.confusion, theirs.confusion)
    torch.testing.assert_close(ours.confidence, theirs.confidence, atol=1e-6, rtol=1e-5, equal_nan=True)


@settings(max_examples=80)
@given(data=st.data())
def test_losses_are_those_of_the_torch_backend(data):
    source, size = data.draw(st.tuples(SIDE, SIDE)), data.draw(st.tuples(SIDE, SIDE))
    channels = data.draw(st.sampled_from([1, 2, 5, 19]))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float16, torch.float64]))
    x = torch.randn(data.draw(st.integers(0, 2)), channels, *source).mul_(data.draw(st.sampled_from([1, 30]))).to(dtype)
    if data.draw(st.booleans()):
        x = x.to(memory_format=torch.channels_last)
    target = torch.randint(0, channels, (len(x), *size)).to(data.draw(st.sampled_from([torch.uint8, torch.int16])))
    target[torch.rand(target.shape) < data.draw(st.sampled_from([0, 0.3, 0.97]))] = 255
    target[:, : data.draw(st.integers(0, size[0]))] = 255
    axes = [
        (n, out, data.draw(st.sampled_from([False, True, AxisMap(0.7, -1.3), AxisMap(-0.6, 9.1), AxisMap(0.0, 1.5)])))
        for n, out in zip(source, size, strict=True)
    ]
    arguments = (
        torch.rand(channels) if data.draw(st.booleans()) else None,
        255,
        data.draw(st.sampled_from([0.0, 0.1, 1.0])),
        torch.rand(target.shape) if data.draw(st.booleans()) else None,
        data.draw(st.lists(st.sampled_from(["gradient", "losses", "correct"]), unique=True)),
    )
    ours, theirs = (
        _backends.select("resize_cross_entropy", b)(x, target, axes, *arguments) for b in ("numba", "torch")
    )
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    for field, a, b in zip(ours._fields, ours, theirs, strict=True):
        assert (a is None) == (b is None), field
        if b is not None:
            assert a.dtype == b.dtype and a.shape == b.shape, field
            scale = max(1.0, float(b.abs().max())) if b.numel() else 1.0
            torch.testing.assert_close(a / scale, b / scale, atol=tolerance, rtol=tolerance)


def test_nan_in_a_loss_stays_where_it_is():
    x, target = torch.randn(1, 5, 6, 6), torch.randint(0, 5, (1, 24, 24))
    x[0, 2, 1, 1] = float("nan")
    losses, expected = (resize_cross_entropy(x, target, reduction="none", backend=b) for b in ("numba", "torch"))
    assert expected.isnan().any() and not expected.isnan().all()
    torch.testing.assert_close(losses, expected, equal_nan=True)


def test_ignored_pixels_have_no_gradient_whatever_they_hold():
    x, target = torch.randn(1, 5, 4, 4), torch.randint(0, 5, (1, 16, 16))
    target[:, :10] = 255
    clean = gradient(x, target)
    x[:, 2, 1, 1] = float("nan")
    assert torch.equal(gradient(x, target), clean) and not clean[:, :, :2].any() and clean[:, :, 2:].any()


def gradient(x, target, **options):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(resize_cross_entropy(x, target, backend="numba", **options), x)[0]


@pytest.mark.parametrize(("source", "size"), [((40, 33), (300, 290)), ((128, 20), (128, 100)), ((90, 70), (31, 37))])
def test_equal_bits_for_threads_repeats_and_callers(source, size):
    x, target = torch.randn(2, 7, *source), torch.randint(0, 7, (2, *size))
    target[:, :20, :90] = 255

    def run():
        result = resize_argmax(x, size, target=target, return_confidence=True, backend="numba")
        loss = resize_cross_entropy(x, target, reduction="sum", backend="numba")
        return (*result, loss, gradient(x, target, reduction="sum"), gradient(x, target, label_smoothing=0.1))

    def same(results):
        return all(torch.equal(a, b) for a, b in zip(results, once, strict=True))

    once = run()
    try:
        for threads in (1, 2, 5, 64):
            torch.set_num_threads(threads)
            assert same(run()), threads
        torch.set_num_threads(3)
        with ThreadPoolExecutor(4) as callers:
            assert all(callers.map(lambda _: same(run()), range(8)))
    finally:
        torch.set_num_threads(1)


def _labels_with_two_threads(x):
    torch.set_num_threads(2)
    return resize_argmax(torch.from_numpy(x), (64, 64), backend="numba").numpy()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_after_a_fork():
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 16), np.float32)
    try:
        expected = _labels_with_two_threads(x)  # the pool of the parent has threads now
    finally:
        torch.set_num_threads(1)
    with get_context("fork").Pool(1) as pool:
        assert np.array_equal(pool.apply_async(_labels_with_two_threads, (x,)).get(timeout=60), expected)


@settings(max_examples=100)
@given(
    n=st.integers(1, 60),
    size=st.integers(1, 400),
    rule=st.one_of(st.booleans(), st.builds(AxisMap, st.floats(-2, 2), st.floats(-9, 70))),
)
def test_bands_share_one_row_with_the_next(n, size, rule):
    neighbours = Axis(n, size, rule).table(torch.float32)[0]
    starts = _numba._starts(neighbours)
    assert starts[0] == 0 and starts[-1] == size and (np.diff(starts) > 0).all()
    rows = [set(neighbours[:, a:b].ravel().tolist()) for a, b in pairwise(starts)]
    for k, own in enumerate(rows):
        assert all(len(own & other) <= (distance == 0) for distance, other in enumerate(rows[k + 1 :]))
    if rule in (False, True) and size >= 4 * n >= 64:
        assert len(rows) > 4


@settings(max_examples=100)
@given(
    n=st.integers(1, 60),
    size=st.integers(1, 400),
    rule=st.one_of(st.booleans(), st.builds(AxisMap, st.floats(-2, 2), st.floats(-9, 70))),
    cut=st.integers(0, 3),
    flipped=st.booleans(),
)
def test_strips_are_the_table_again(n, size, rule, cut, flipped):
    keep = (cut, max(cut + 1, size - 1), 1) if size > cut else (0, size, 1)
    keep = (keep[1] - 1, keep[0] - 1, -1) if flipped else keep
    stage = _numba._stage((3, 3, False), (n, size, rule), (0, 3, 1), keep, np.float32)
    index, weight = (array[:, np.arange(*keep)] for array in Axis(n, size, rule).table(torch.float32))
    padded = np.concatenate([[0], np.arange(n), [n - 1], np.full(LANES, -1)])
    seen = []
    for strip, base in enumerate(stage.base):
        for lane in range(LANES):
            x = stage.pixels[strip * LANES + lane]
            far, near = stage.far[strip * LANES + lane], stage.near[strip * LANES + lane]
            if x < 0:
                assert far == near == 0
                continue
            seen.append(x)
            assert [padded[base + lane + 1], padded[base + lane]] == index[:, x].tolist()
            assert [far, near] == weight[:, x].astype(np.float32).tolist()
    assert sorted(seen) == list(range(len(index[0])))
    assert (stage.base + LANES < n + _numba_kernels.PAD).all()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the memory of a process of Linux")
@pytest.mark.parametrize("op", ["labels", "loss"])
def test_full_resolution_logits_never_exist(op):
    x, size = torch.randn(1, 60, 32, 32), (512, 512)  # 60 MiB at full resolution
    target = torch.randint(0, 60, (1, *size))

    def run():
        resize_argmax(x, size, backend="numba") if op == "labels" else gradient(x, target)

    def status(field):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))

    run()  # compiles
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    run()
    assert status("VmHWM") - before < 8 * 1024


def test_a_kernel_without_a_folder_for_its_cache():
    scope = {}
    exec("def double(x):\n    return 2 * x", scope)
    assert _numba_kernels._compiled(scope["double"])(4) == 8


@pytest.fixture
def first_call(tmp_path, monkeypatch):
    """Call a cached kernel as a new process would: whether it came from the cache, and what was warned of."""
    (tmp_path / "double_module.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    double = import_module("double_module").double

    def call():
        monkeypatch.setattr(_numba_kernels, "_warned", [])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            kernel = _numba_kernels._compiled(double)
            assert [kernel(4), kernel(0.5)] == [8, 1.0]
        return sum(kernel.stats.cache_hits.values()), [str(each.message) for each in caught]

    yield call
    del sys.modules["double_module"]


@pytest.mark.parametrize(("damaged", "content"), [("nbi", slice(0)), ("nbi", slice(30)), ("nbc", slice(1000))])
def test_a_damaged_cache_is_a_warning_and_made_again(first_call, tmp_path, damaged, content):
    assert [first_call(), first_call()] == [(0, []), (2, [])]
    for path in (tmp_path / "cache").rglob(f"*.{damaged}"):
        path.write_bytes(path.read_bytes()[content])
    hits, (warning,) = first_call()
    assert hits == 0
    assert f"Numba's cache {tmp_path / 'cache'}" in warning and "is damaged (" in warning
    assert "compiled, which takes seconds" in warning
    assert first_call() == (2, [])


def test_a_cache_on_a_full_disk_is_a_warning(first_call):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # every write fails, as on a full disk
    try:
        hits, (warning,) = first_call()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert hits == 0 and "cannot be written to (OSError: " in warning
    assert [first_call(), first_call()] == [(0, []), (2, [])]


def test_auto_takes_it_on_cpus_where_it_is_installed(monkeypatch):
    monkeypatch.delenv("MMSEG_RESAMPLE_BACKEND", raising=False)
    x = torch.zeros(1, 3, 4, 4)
    for op in ("resize_argmax", "resize_cross_entropy"):
        assert _backends.select(op, "auto", x) is getattr(_numba, op)
        assert _backends.select(op, "auto", x.to("meta")) is not getattr(_numba, op)
    with pytest.raises(ValueError, match="expected a tensor on a CPU, got one on meta"):
        resize_argmax(x.to("meta"), 8, backend="numba")
    monkeypatch.setattr(_backends, "_is_installed", lambda package: False)
    assert _backends.select("resize_argmax", "auto", x) is not _numba.resize_argmax
    for backend, install in (("numba", r"mmseg_resample\[fast\]"), ("triton", "pip install triton")):
        with pytest.raises(ModuleNotFoundError, match=f"resize_argmax: backend='{backend}' needs.*{install}"):
            resize_argmax(x, 8, backend=backend)


@pytest.mark.parametrize("numba", ["absent", "broken"])
def test_ops_run_without_numba(numba, tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 2.2 or less')")
    code = f"""
import sys, types, warnings
package = types.ModuleType('mmseg_resample')  # ops alone: the package itself imports mmseg
package.__path__ = [sys.argv[1]]
sys.modules.update(mmseg_resample=package)
if {numba!r} == 'absent':
    sys.modules['numba'] = None
else:
    sys.path.insert(0, sys.argv[2])
import torch
from mmseg_resample.ops import resize_argmax
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    for _ in range(2):
        assert resize_argmax(torch.eye(2).view(1, 2, 1, 2), (1, 4)).tolist() == [[[0, 0, 1, 1]]]
messages = [str(each.message) for each in caught]
warned = sum('Numba does not work here (ImportError: Numba needs' in message for message in messages)
assert warned == {int(numba == "broken")}, messages
assert 'mmseg_resample.ops._numba' not in sys.modules
"""
    package = str(Path(mmseg_resample.__file__).parent)
    subprocess.run([sys.executable, "-c", code, package, str(tmp_path)], check=True)
