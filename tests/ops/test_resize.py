import itertools
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_resample.ops import AxisMap, reference, resize
from mmseg_resample.ops.grid import Coordinates, axis_maps
from tests.conftest import ONE_GRAPH, TOLERANCE, assert_close, needs_fake_gpu

CONVENTIONS = list(Coordinates.__args__)
SIZES = [((5, 7), (9, 4)), ((1, 6), (5, 1)), ((4, 4), (4, 4)), ((3, 5), (12, 20)), ((8, 9), (3, 17))]
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")


def x_of(size, dtype=torch.float64, batch=2, channels=3):
    return torch.randn(batch, channels, *size).to(dtype)


# --- as F.interpolate -------------------------------------------------------------------------------------------------

CASES = [
    *[(mode, None, axes) for mode in ("nearest", "nearest-exact", "area") for axes in (1, 2, 3)],
    *[(LINEAR[axes], flag, axes) for axes in (1, 2, 3) for flag in (None, False, True)],
    *[("bicubic", flag, 2) for flag in (None, False, True)],
]
TARGETS = [
    dict(size=7),
    dict(size=1),
    dict(scale_factor=2),
    dict(scale_factor=1.33),
    dict(scale_factor=1.33, recompute_scale_factor=True),
    dict(scale_factor=0.6),
]


@pytest.mark.parametrize(("mode", "flag", "axes"), CASES)
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_is_interpolate(mode, flag, axes, target):
    x = x_of((6, 5, 4)[:axes]).requires_grad_()
    y = x.detach().clone().requires_grad_()
    actual, expected = (
        resize(x, mode=mode, align_corners=flag, **target),
        F.interpolate(y, mode=mode, align_corners=flag, **target),
    )
    assert torch.equal(actual, expected)
    weight = torch.randn_like(expected)
    (actual * weight).sum().backward()
    (expected * weight).sum().backward()
    assert torch.equal(x.grad, y.grad)


@pytest.mark.parametrize("target", [dict(size=(4, 9)), dict(scale_factor=(0.5, 1.7))], ids=str)
def test_one_value_per_axis(target):
    x = x_of((8, 6))
    assert torch.equal(resize(x, mode="bilinear", **target), F.interpolate(x, mode="bilinear", **target))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("coordinates", [None, "half_pixel"])
def test_antialias(mode, coordinates):
    x = x_of((16, 12))
    expected = F.interpolate(x, (5, 7), mode=mode, antialias=True)
    assert torch.equal(resize(x, (5, 7), mode=mode, antialias=True, coordinates=coordinates), expected)
    options = dict(scale_factor=0.6, mode=mode, antialias=True)
    assert torch.equal(resize(x, coordinates=coordinates, **options), F.interpolate(x, **options))


@pytest.mark.parametrize(
    ("target", "rows"),
    [(dict(size=(9, 1)), dict(size=(9, 4))), (dict(scale_factor=(1.4, 0.2)), dict(scale_factor=(1.4, 1.0)))],
)
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_antialias_to_one_column(mode, target, rows):
    """PyTorch's own is up to 3 off there, for values of order 1; it is right for four columns that are the same."""
    x = torch.randn(2, 3, 7, 5, dtype=torch.float64)
    columns = F.interpolate(x, (7, 1), mode=mode, antialias=True)
    expected = F.interpolate(columns.expand(2, 3, 7, 4), mode=mode, antialias=True, **rows)[..., :1]
    torch.testing.assert_close(resize(x, mode=mode, antialias=True, **target), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_antialias_in_half_precision(dtype):
    x = x_of((16, 12), dtype)
    actual = resize(x, (5, 7), mode="bicubic", antialias=True)
    assert torch.equal(actual, F.interpolate(x.float(), (5, 7), mode="bicubic", antialias=True).to(dtype))


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "area"])
@pytest.mark.parametrize("flag", [True, False])
def test_modes_without_corners_ignore_the_flag(mode, flag):
    x = x_of((6, 5))
    with pytest.raises(ValueError):
        F.interpolate(x, 9, mode=mode, align_corners=flag)
    assert torch.equal(resize(x, 9, mode=mode, align_corners=flag), F.interpolate(x, 9, mode=mode))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint8])
def test_other_dtypes_are_those_of_interpolate(dtype):
    x = (torch.rand(1, 3, 6, 5) * 200).to(dtype)
    try:
        expected = F.interpolate(x, (9, 10), mode="nearest")
    except RuntimeError as error:
        pytest.skip(f"torch {torch.__version__}: {error}")  # 2.1 has no float16 on the CPU
    actual = resize(x, (9, 10), mode="nearest")
    assert actual.dtype == dtype and torch.equal(actual, expected)


def test_takes_the_place_of_mmsegs_resize():
    from mmseg.models.utils import resize as stock

    x = x_of((8, 16))
    ours = resize(x, (32, 64), None, "bilinear", True, warning=False)
    assert torch.equal(ours, stock(x, (32, 64), None, "bilinear", True, False))


# --- golden: the tables printed in the documentation of nn.Upsample, and adaptive pooling -----------------------------

TWO = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
THREE = F.pad(TWO, (0, 1, 0, 1))


def table(rows):
    return torch.tensor(rows)[None, None]


@pytest.mark.parametrize(
    ("x", "flag", "expected"),
    [
        (
            TWO,
            False,
            table([[1, 1.25, 1.75, 2], [1.5, 1.75, 2.25, 2.5], [2.5, 2.75, 3.25, 3.5], [3, 3.25, 3.75, 4]]),
        ),
        (
            TWO,
            True,
            table(
                [
                    [1.0000, 1.3333, 1.6667, 2.0000],
                    [1.6667, 2.0000, 2.3333, 2.6667],
                    [2.3333, 2.6667, 3.0000, 3.3333],
                    [3.0000, 3.3333, 3.6667, 4.0000],
                ]
            ),
        ),
        (
            THREE,
            False,
            table(
                [
                    [1.0000, 1.2500, 1.7500, 1.5000, 0.5000, 0.0000],
                    [1.5000, 1.7500, 2.2500, 1.8750, 0.6250, 0.0000],
                    [2.5000, 2.7500, 3.2500, 2.6250, 0.8750, 0.0000],
                    [2.2500, 2.4375, 2.8125, 2.2500, 0.7500, 0.0000],
                    [0.7500, 0.8125, 0.9375, 0.7500, 0.2500, 0.0000],
                    [0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000],
                ]
            ),
        ),
        (
            THREE,
            True,
            table(
                [
                    [1.0000, 1.4000, 1.8000, 1.6000, 0.8000, 0.0000],
                    [1.8000, 2.2000, 2.6000, 2.2400, 1.1200, 0.0000],
                    [2.6000, 3.0000, 3.4000, 2.8800, 1.4400, 0.0000],
                    [2.4000, 2.7200, 3.0400, 2.5600, 1.2800, 0.0000],
                    [1.2000, 1.3600, 1.5200, 1.2800, 0.6400, 0.0000],
                    [0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000],
                ]
            ),
        ),
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_documented_tables(x, flag, expected, named):
    model = dict(coordinates="align_corners" if flag else "half_pixel") if named else dict(align_corners=flag)
    torch.testing.assert_close(resize(x, scale_factor=2, mode="bilinear", **model), expected, atol=5e-5, rtol=0)


def keys(t):
    """The cubic convolution kernel, typed here a second time."""
    t = abs(t)
    if t <= 1:
        return 1.25 * t**3 - 2.25 * t**2 + 1
    return -0.75 * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


@pytest.mark.parametrize("flag", [False, True])
def test_bicubic_three_to_four(flag):
    x = torch.arange(1.0, 10.0, dtype=torch.float64).view(1, 1, 3, 3)
    weights = np.zeros((4, 3))
    for i in range(4):
        u = i * 2 / 3 if flag else (i + 0.5) * 3 / 4 - 0.5
        for tap in range(int(np.floor(u)) - 1, int(np.floor(u)) + 3):
            weights[i, min(max(tap, 0), 2)] += keys(u - tap)
    expected = torch.from_numpy(weights @ x[0, 0].numpy() @ weights.T)[None, None]
    torch.testing.assert_close(resize(x, 4, mode="bicubic", align_corners=flag), expected)


def test_bicubic_three_to_four_golden():
    # torch 2.13.0: F.interpolate(torch.arange(1., 10.).view(1, 1, 3, 3), 4, mode="bicubic", align_corners=flag)[0, 0]
    golden = {
        False: [
            [0.7129, 1.3145, 2.2549, 2.8564],
            [2.5176, 3.1191, 4.0596, 4.6611],
            [5.3389, 5.9404, 6.8809, 7.4824],
            [7.1436, 7.7451, 8.6855, 9.2871],
        ],
        True: [
            [1.0000, 1.5741, 2.4259, 3.0000],
            [2.7222, 3.2963, 4.1481, 4.7222],
            [5.2778, 5.8519, 6.7037, 7.2778],
            [7.0000, 7.5741, 8.4259, 9.0000],
        ],
    }
    x = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    for flag, rows in golden.items():
        torch.testing.assert_close(resize(x, 4, mode="bicubic", align_corners=flag), table(rows), atol=5e-5, rtol=0)


def test_area_is_adaptive_average_pooling():
    x = x_of((15, 17))
    actual = resize(x, (10, 11), mode="area")
    assert torch.equal(actual, F.adaptive_avg_pool2d(x, (10, 11)))
    matrices = [reference.area_matrix(15, 10), reference.area_matrix(17, 11)]
    assert_close(actual, reference.resample(x, matrices))


# --- coordinates ------------------------------------------------------------------------------------------------------


def oracle(x, size, kernel, maps):
    matrices = [reference.kernel_matrix(kernel, m, n, out) for m, n, out in zip(maps, x.shape[2:], size, strict=True)]
    return reference.resample(x, matrices)


def mode_of(kernel, axes):
    return {"linear": LINEAR[axes], "cubic": "bicubic"}.get(kernel, kernel)


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("kernel", ["nearest", "nearest-exact", "linear", "cubic"])
@pytest.mark.parametrize(("source", "size"), SIZES)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_conventions(name, kernel, source, size, axes):
    source, size = (*source, 6)[-axes:], (*size, 8)[-axes:]
    x = x_of(source)
    actual = resize(x, size, mode=mode_of(kernel, axes), coordinates=name)
    assert_close(actual, oracle(x, size, kernel, axis_maps(name, source, size)))


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("kernel", ["nearest", "linear", "cubic"])
def test_conventions_with_a_given_scale_factor(name, kernel):
    x = x_of((10, 7))
    factors = (1.33, 2.6)
    size = (13, 18)
    actual = resize(x, scale_factor=factors, mode=mode_of(kernel, 2), coordinates=name)
    assert_close(actual, oracle(x, size, kernel, axis_maps(name, (10, 7), size, factors)), torch.float32)
    recomputed = resize(x, scale_factor=factors, mode=mode_of(kernel, 2), coordinates=name, recompute_scale_factor=True)
    assert torch.equal(recomputed, resize(x, size, mode=mode_of(kernel, 2), coordinates=name))


def antialias_matrix(kernel, n, size, scale):
    """Fill (size, n) with weights of the filter, as wide as a step if that is wider, cut at the edge, normalised."""
    width = max(scale, 1.0)
    matrix = torch.zeros(size, n, dtype=torch.float64)
    for x in range(size):
        for i in range(n):
            t = abs(i - scale * (x + 0.5) + 0.5) / width
            tail = -0.5 * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0
            cubic = 1.5 * t**3 - 2.5 * t**2 + 1 if t <= 1 else tail  # a = -0.5 here
            matrix[x, i] = max(1 - t, 0.0) if kernel == "linear" else cubic
    return matrix / matrix.sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("kernel", "antialias", "axes"),
    [
        *[(kernel, False, axes) for kernel in ("nearest", "nearest-exact", "linear") for axes in (1, 2, 3)],
        ("cubic", False, 2),
        ("linear", True, 2),
        ("cubic", True, 2),
    ],
)
@pytest.mark.parametrize(
    "factors", [(1.09,) * 3, (1.09, 2.06, 1.02), (0.55, 1.1, 2.1), (0.12, 1.1, 1.0), (1.1, 0.12, 1)]
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_factor_holds_where_the_size_stays(kernel, antialias, axes, factors, memory_format):
    """PyTorch's kernels ignore some factors of axes that keep their size, or double."""
    if axes != 2 and memory_format is torch.channels_last:
        pytest.skip("images have channels last")
    factors, source = factors[:axes], (10, 9, 8)[:axes]
    x = x_of(source, channels=5).to(memory_format=memory_format).requires_grad_()
    mode, size = mode_of(kernel, axes), [int(n * f) for n, f in zip(source, factors, strict=True)]
    name = "asymmetric" if kernel == "nearest" else "half_pixel"
    if antialias:
        pairs = zip(source, size, factors, strict=True)
        matrices = [antialias_matrix(kernel, n, out, 1 / factor) for n, out, factor in pairs]
    else:
        maps = zip(axis_maps(name, source, size, factors), source, size, strict=True)
        matrices = [reference.kernel_matrix(kernel, m, n, out) for m, n, out in maps]
    actual = resize(x, scale_factor=factors, mode=mode, coordinates=name, antialias=antialias)
    assert_close(actual, reference.resample(x.detach(), matrices))
    assert actual.is_contiguous(memory_format=memory_format)
    weight = torch.randn_like(actual)
    (actual * weight).sum().backward()
    assert_close(x.grad, reference.resample(weight, [matrix.T for matrix in matrices]))
    options = dict(mode=mode, antialias=antialias, recompute_scale_factor=True)
    recomputed = resize(x, scale_factor=factors, coordinates=name, **options)
    assert_close(recomputed, resize(x, size, mode=mode, antialias=antialias, coordinates=name))


@pytest.mark.parametrize(("mode", "backend"), [("bilinear", "products"), ("bicubic", "numba")])
@pytest.mark.parametrize("factors", [(1.09, 2.06), (1.09, 1.1), (0.5, 1.1)])
def test_other_backends_ignore_the_factors_that_pytorch_ignores(mode, backend, factors):
    x = x_of((10, 9))
    actual = resize(x, scale_factor=factors, mode=mode, backend=backend)
    assert_close(actual, F.interpolate(x, scale_factor=factors, mode=mode), torch.float32)


@pytest.mark.parametrize(("kernel", "name"), [("nearest", "asymmetric"), ("nearest-exact", "half_pixel")])
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest_reads_where_the_map_says(kernel, name, axes, dtype):
    """PyTorch ignores factors where there are n or 2 n outputs, and rounds coordinates across the edges of samples."""
    x = x_of((3, 4, 5)[:axes], dtype)
    for factors in ((2.1, 1, 2.05), (1.1, 2.1, 1.9), (1, 2, 0.5)):
        size = [int(n * f) for n, f in zip(x.shape[2:], factors, strict=False)]
        actual = resize(x, scale_factor=factors[:axes], mode=kernel, coordinates=name)
        maps = axis_maps(name, x.shape[2:], size, factors[:axes])
        assert torch.equal(actual.double(), oracle(x, size, kernel, maps))
    for n, size in ((4, 82), (4, 47), (5, 49), (6, 41 * 3), (61, 7), (3, 3000)):
        x = x_of((n,) * axes, dtype, batch=1, channels=1)
        size = (size, *(n,) * (axes - 1))
        actual = resize(x, size, mode=kernel, coordinates=name)
        assert torch.equal(actual.double(), oracle(x, size, kernel, axis_maps(name, x.shape[2:], size)))


def test_nearest_of_a_factor_that_pytorch_ignores():
    x = torch.arange(3.0).view(1, 1, 3, 1)
    out = resize(x, scale_factor=(2.1, 1), mode="nearest", coordinates="asymmetric")
    assert out.flatten().tolist() == [0, 0, 0, 1, 1, 2]
    assert resize(x, scale_factor=(2.1, 1), mode="nearest").flatten().tolist() == [0, 0, 1, 1, 2, 2]  # as PyTorch


@pytest.mark.parametrize("n", [256, 2**14])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_where_the_tolerance_holds(n, mode):
    """PyTorch's kernels have coordinates in float32, whose error grows with the size; the gather has not."""
    x = torch.rand(1, 1, 1, n)
    size = (1, 2 * n + 1)
    for name in ("half_pixel", "align_corners", "tf_half_pixel_for_nn"):
        error = resize(x, size, mode=mode, coordinates=name) - resize(x.double(), size, mode=mode, coordinates=name)
        native = name != "tf_half_pixel_for_nn"
        assert error.abs().max() < (max(TOLERANCE[torch.float32], 2e-7 * n) if native else TOLERANCE[torch.float32])
        assert n == 256 or not native or error.abs().max() > TOLERANCE[torch.float32]  # else the documentation is wrong


@pytest.mark.parametrize("name", [c for c in CONVENTIONS if c not in ("tf_half_pixel_for_nn", "tf_crop_and_resize")])
@pytest.mark.parametrize("kernel", ["linear", "cubic"])
def test_conventions_are_those_of_onnx(name, kernel):
    op_resize = pytest.importorskip("onnx.reference.ops.op_resize")
    x = x_of((5, 6), batch=1, channels=1)
    for size in ((9, 6), (3, 11), (10, 12), (1, 1)):
        coefficients = op_resize._linear_coeffs if kernel == "linear" else op_resize._cubic_coeffs
        expected = op_resize._interpolate_nd(
            x[0, 0].numpy(),
            lambda ratio, scale, coefficients=coefficients: (
                coefficients(ratio, scale) if kernel == "linear" else coefficients(ratio, scale, A=-0.75)
            ),
            output_size=list(size),
            scale_factors=[size[0] / 5, size[1] / 6],
            coordinate_transformation_mode=name,
        )
        actual = resize(x, size, mode=mode_of(kernel, 2), coordinates=name)
        if name == "pytorch_half_pixel" and size == (1, 1):
            continue  # ONNX's reference reads index -0.5 there, which the specification and we read as 0
        np.testing.assert_allclose(actual[0, 0].numpy(), expected, atol=1e-9)


@settings(max_examples=60)
@given(
    n=st.integers(1, 9),
    out=st.integers(1, 12),
    scale=st.floats(0.05, 3),
    offset=st.floats(-4, 4),
    kernel=st.sampled_from(["nearest", "nearest-exact", "linear", "cubic"]),
)
def test_any_axis_map(n, out, scale, offset, kernel):
    axis_map = AxisMap(scale, offset)
    x = torch.randn(1, 2, n, dtype=torch.float64)
    actual = resize(x, out, mode=mode_of(kernel, 1), coordinates=axis_map)
    assert_close(actual, oracle(x, (out,), kernel, [axis_map]))


def test_ties_of_nearest_exact_go_right_however_the_map_was_rounded():
    # 0.3 * 3 - 0.4 = 0.5 in whole arithmetic, less than that in floating point.
    x = torch.arange(4.0).view(1, 1, 4)
    assert resize(x, 4, mode="nearest-exact", coordinates=AxisMap(0.3, -0.4))[0, 0, 3] == 1


@pytest.mark.parametrize("factor", [np.float32(1.4), 1.4, 1.2])
def test_sizes_are_those_of_interpolate_for_any_kind_of_number(factor):
    x = torch.zeros(1, 1, 5)
    expected = F.interpolate(x, scale_factor=float(factor), mode="linear").shape
    assert resize(x, scale_factor=factor, mode="linear", coordinates="asymmetric").shape == expected


def test_meta_tensors():
    x = torch.zeros(1, 2, 4, 5, device="meta")
    assert resize(x, (7, 9), mode="bilinear", coordinates="asymmetric").shape == (1, 2, 7, 9)


MAPS = (AxisMap(0.37, -0.2), AxisMap(1.7, 0.6))


@pytest.mark.parametrize("kernel", ["nearest", "nearest-exact", "linear", "cubic"])
def test_gradients_are_the_adjoint_bit_for_bit_repeatable(kernel):
    x = x_of((6, 9)).requires_grad_()
    size = (11, 5)

    def grad():
        out = resize(x, size, mode=mode_of(kernel, 2), coordinates=MAPS)
        return torch.autograd.grad(out, x, weight)[0]

    weight = torch.randn(2, 3, *size, dtype=torch.float64)
    matrices = [reference.kernel_matrix(kernel, m, n, out) for m, n, out in zip(MAPS, (6, 9), size, strict=True)]
    assert_close(grad(), reference.resample(weight, [m.T for m in matrices]))
    assert torch.equal(grad(), grad())


@pytest.mark.parametrize("kernel", ["linear", "cubic"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_gradcheck(kernel, axes):
    x = torch.randn(2, 1, *(3, 4, 2)[:axes], dtype=torch.float64, requires_grad=True)
    size = (5, 3, 4)[:axes]

    def f(x):
        return resize(x, size, mode=mode_of(kernel, axes), coordinates="asymmetric")

    assert torch.autograd.gradcheck(f, x)
    assert torch.autograd.gradgradcheck(f, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kernel", ["linear", "cubic"])
def test_no_channels(kernel, dtype):
    x = torch.zeros(2, 0, 5, 4, dtype=dtype, requires_grad=True)
    for name in ("half_pixel", "asymmetric"):
        out = resize(x, (9, 7), mode=mode_of(kernel, 2), coordinates=name)
        assert out.shape == (2, 0, 9, 7) and torch.autograd.grad(out.sum(), x)[0].shape == x.shape


@pytest.mark.parametrize("kernel", ["linear", "cubic", "nearest"])
def test_transforms(kernel):
    x, weight = x_of((5, 6)), torch.randn(2, 3, 9, 4, dtype=torch.float64)

    def f(x):
        return (resize(x, (9, 4), mode=mode_of(kernel, 2), coordinates="tf_half_pixel_for_nn") * weight).sum()

    y = x.clone().requires_grad_()
    expected = torch.autograd.grad(f(y), y)[0]
    torch.testing.assert_close(torch.func.grad(f)(x), expected)
    torch.testing.assert_close(torch.func.jvp(f, (x,), (x,))[1], f(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no batching rule: slower
        each = torch.func.vmap(torch.func.grad(f))(torch.stack([x, 2 * x]))
    torch.testing.assert_close(each, torch.stack([expected, expected]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kernel", ["linear", "cubic"])
def test_coordinates_keep_their_precision_in_half(dtype, kernel):
    # A ramp of small whole numbers is exact in every dtype: what differs is the coordinate alone.
    x = torch.arange(200.0).div(2).floor().mul(2).view(1, 1, 1, 200).to(dtype)
    actual = resize(x, (1, 801), mode=mode_of(kernel, 2), coordinates=(AxisMap(1, 0), AxisMap(0.249, 0.01)))
    expected = oracle(x, (1, 801), kernel, (AxisMap(1, 0), AxisMap(0.249, 0.01)))
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-4)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_memory_format_and_empty_batch(mode):
    x = x_of((6, 5), torch.float32).to(memory_format=torch.channels_last)
    actual = resize(x, (9, 11), mode=mode, coordinates=MAPS)
    assert actual.is_contiguous(memory_format=torch.channels_last)
    assert_close(actual, resize(x.contiguous(), (9, 11), mode=mode, coordinates=MAPS))
    empty = torch.zeros(0, 3, 6, 5, requires_grad=True)
    out = resize(empty, (9, 11), mode=mode, coordinates=MAPS)
    out.sum().backward()
    assert out.shape == (0, 3, 9, 11) and empty.grad.shape == empty.shape


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_nearest_moves_labels(dtype):
    x = torch.randint(0, 2, (1, 1, 5, 6)).to(dtype)
    actual = resize(x, (7, 9), mode="nearest-exact", coordinates="asymmetric")
    assert actual.dtype == dtype
    assert torch.equal(actual.double(), oracle(x, (7, 9), "nearest-exact", axis_maps("asymmetric", (5, 6), (7, 9))))


def test_constants_stay_and_flips_commute():
    ones = torch.ones(1, 2, 7, 5, dtype=torch.float64)
    x = x_of((7, 5))
    for name, kernel in itertools.product(CONVENTIONS, ["linear", "cubic"]):
        out = resize(ones, (4, 13), mode=mode_of(kernel, 2), coordinates=name)
        torch.testing.assert_close(out, torch.ones_like(out), atol=1e-14, rtol=0)
    for name in ("half_pixel", "align_corners", "half_pixel_symmetric"):
        flipped = resize(x.flip(-1), (4, 13), mode="bilinear", coordinates=name)
        torch.testing.assert_close(flipped, resize(x, (4, 13), mode="bilinear", coordinates=name).flip(-1))


def test_half_pixel_symmetric_is_symmetric_for_fractional_sizes():
    x = torch.randn(1, 1, 10, dtype=torch.float64)
    args = dict(scale_factor=1.36, mode="linear", coordinates="half_pixel_symmetric")
    torch.testing.assert_close(resize(x.flip(-1), **args), resize(x, **args).flip(-1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("ratios", [(1, 2), (4, 4), (8, 2)])
@pytest.mark.parametrize("excess", [(0, 0), (-3, 1), (5, -1), (-1, -7), (20, 0)])
def test_first_samples_coincide(dtype, memory_format, ratios, excess):
    """Strides of 2, 4, 8 from offset 0, which PyTorch's aligned kernel computes; fewer and more outputs than it has."""
    x = x_of((5, 7), dtype).contiguous(memory_format=memory_format)
    size = tuple(n * ratio + more for n, ratio, more in zip((5, 7), ratios, excess, strict=True))
    maps = [AxisMap(1 / ratio, 0.0) for ratio in ratios]
    out = resize(x, size, mode="bilinear", coordinates=maps)
    assert out.is_contiguous(memory_format=memory_format)
    assert_close(out, oracle(x.double(), size, "linear", maps), dtype)


def test_asymmetric_is_the_pad_resize_crop_of_stock_ops():
    x = x_of((5, 6))
    padded = F.pad(x, (0, 1, 0, 1), mode="replicate")
    expected = F.interpolate(padded, (41, 49), mode="bilinear", align_corners=True)[..., :-1, :-1]
    torch.testing.assert_close(resize(x, (40, 48), mode="bilinear", coordinates="asymmetric"), expected)


@pytest.mark.parametrize(
    ("mode", "coordinates", "native"),
    [
        ("bilinear", "half_pixel", dict(mode="bilinear", align_corners=False)),
        ("bicubic", "align_corners", dict(mode="bicubic", align_corners=True)),
        ("nearest", "asymmetric", dict(mode="nearest")),
        ("nearest", "tf_half_pixel_for_nn", dict(mode="nearest-exact")),
        ("nearest-exact", "half_pixel", dict(mode="nearest-exact")),
    ],
)
def test_native_kernels_run_where_they_compute_the_same(mode, coordinates, native, monkeypatch):
    monkeypatch.setattr("mmseg_resample.ops._backends.select", lambda *_: pytest.fail("no native kernel ran"))
    x = x_of((6, 5), torch.float32)
    assert torch.equal(resize(x, (13, 9), mode=mode, coordinates=coordinates), F.interpolate(x, (13, 9), **native))


@pytest.mark.parametrize("kwargs", [dict(coordinates="asymmetric"), dict(align_corners=True)], ids=str)
def test_compiles_in_one_graph(kwargs):
    def f(x):
        return resize(x, (9, 12), mode="bilinear", **kwargs).square().sum()

    x = x_of((5, 6), torch.float32).requires_grad_()
    expected = torch.autograd.grad(f(x), x)[0]
    compiled = torch.compile(f, fullgraph=ONE_GRAPH, backend="aot_eager")
    actual = torch.autograd.grad(compiled(x), x)[0]
    torch.testing.assert_close(actual, expected)


@pytest.mark.skipif(not ONE_GRAPH, reason="torch < 2.6 compiles the ops with breaks between graphs")
@pytest.mark.parametrize("kwargs", [dict(coordinates="asymmetric"), dict(align_corners=False)], ids=str)
def test_compiles_for_symbolic_sizes(kwargs):
    def f(x, like):
        return resize(x, like.shape[2:], mode="bilinear", **kwargs)

    torch._dynamo.reset()
    compiled = torch.compile(f, fullgraph=True, dynamic=True, backend="aot_eager")
    for source, size in [((5, 6), (9, 12)), ((7, 4), (8, 13))]:
        x, like = x_of(source, torch.float32), x_of(size)
        torch.testing.assert_close(compiled(x, like), f(x, like))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kwargs", [dict(coordinates="asymmetric"), dict(align_corners=True)], ids=str)
def test_traces(kwargs):
    x = x_of((5, 6), torch.float32)
    traced = torch.jit.trace(lambda x: resize(x, (9, 12), mode="bilinear", **kwargs), x)
    y = torch.randn_like(x)
    assert_close(traced(y), resize(y, (9, 12), mode="bilinear", warning=False, **kwargs))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_fake_tensors(memory_format):
    def f(x):
        return resize(x, (9, 4), mode="bilinear", coordinates="asymmetric")

    real = f(x_of((5, 6)).to(memory_format=memory_format))
    with FakeTensorMode():
        fake = f(x_of((5, 6)).to(memory_format=memory_format))
    assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)


@pytest.mark.skipif(not hasattr(torch.library, "opcheck"), reason="torch < 2.4 has no opcheck")
def test_opcheck():
    from mmseg_resample.ops import _torch

    for x in (x_of((5, 6), torch.float32), x_of((5, 6), torch.float32).to(memory_format=torch.channels_last)):
        args = (x.requires_grad_(), [9, 4], [0.5, 1.5], [0.0, 0.1], "linear")
        torch.library.opcheck(_torch.resample, args)


def test_autocast_keeps_the_dtype():
    x = x_of((5, 6), torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert resize(x, (9, 12), mode="bilinear", coordinates="asymmetric").dtype == torch.bfloat16


def test_tables_made_under_inference_mode_serve_training():
    size = (23, 29)
    with torch.inference_mode():
        resize(torch.zeros(1, 1, 5, 6), size, mode="bilinear", coordinates="asymmetric")
    x = torch.zeros(1, 1, 5, 6, requires_grad=True)
    resize(x, size, mode="bilinear", coordinates="asymmetric").sum().backward()
    assert x.grad.sum() == pytest.approx(size[0] * size[1])


# --- kernels asked for by name, or by determinism --------------------------------------------------------------------

BANDED = [((5, 7), (9, 4)), ((1, 6), (5, 1)), ((4, 4), (4, 4)), ((33, 70), (65, 560)), ((130, 9), (40, 3))]
MIXING = [pytest.param("products"), pytest.param("numba", marks=needs_numba)]


@pytest.mark.parametrize(("source", "size"), BANDED)
@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("backend", "dtype"), [("products", torch.float32), ("products", torch.bfloat16)])
def test_products_are_interpolate(source, size, flag, mode, backend, dtype):
    x = x_of(source, dtype).requires_grad_()
    y = x.detach().float().requires_grad_()
    actual = resize(x, size, mode=mode, align_corners=flag, warning=False, backend=backend)
    expected = F.interpolate(y, size, mode=mode, align_corners=flag)
    assert actual.dtype == dtype
    assert_close(actual, expected)
    weight = torch.randn_like(expected).to(dtype)
    gradient, exact = torch.autograd.grad(actual, x, weight)[0], torch.autograd.grad(expected, y, weight.float())[0]
    assert_close(gradient / exact.abs().max(), exact / exact.abs().max(), dtype)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("source", "size"), BANDED)
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("backend", MIXING)
def test_kernels_of_any_map_against_float64(layout, source, size, mode, backend):
    kernel = {"bilinear": "linear", "bicubic": "cubic"}[mode]
    x, weight = x_of(source).contiguous(memory_format=layout), x_of(size).contiguous(memory_format=layout)

    def run():
        y = x.clone(memory_format=torch.preserve_format).requires_grad_()
        out = resize(y, size, mode=mode, coordinates=MAPS, backend=backend)
        return out.detach(), torch.autograd.grad(out, y, weight)[0]

    matrices = [reference.kernel_matrix(kernel, m, n, out) for m, n, out in zip(MAPS, source, size, strict=True)]
    expected = reference.resample(x, matrices), reference.resample(weight, [m.T for m in matrices])
    once = run()
    for actual, exact in zip(once, expected, strict=True):
        scale = max(1.0, float(exact.abs().max()))  # many outputs may read one edge sample
        assert_close(actual / scale, exact / scale)
        assert actual.is_contiguous(memory_format=layout)
    assert all(torch.equal(a, b) for a, b in zip(run(), once, strict=True))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("backend", MIXING)
def test_kernels_of_any_map_under_autocast_in_compiled_code_and_without_a_batch(backend, layout):
    x = x_of((5, 6), torch.float32).contiguous(memory_format=layout).requires_grad_()

    def f(x):
        return resize(x, (9, 12), mode="bicubic", coordinates=MAPS, backend=backend).square().sum()

    expected = f(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(f(x), expected)
    compiled = torch.compile(f, fullgraph=ONE_GRAPH, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(x), x)[0], torch.autograd.grad(expected, x)[0])
    assert resize(x[:0], (9, 12), mode="bicubic", coordinates=MAPS, backend=backend).shape == (0, 3, 9, 12)


@needs_numba
def test_channels_last_images_are_mixed_by_numba_with_any_number_of_threads():
    x = x_of((15, 17), torch.float32, channels=20).to(memory_format=torch.channels_last)
    with Calls() as calls:
        one = resize(x, (31, 23), mode="bilinear", coordinates=MAPS)
    assert "mmseg_resample.numba_resample.default" in calls.names
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(resize(x, (31, 23), mode="bilinear", coordinates=MAPS), one)
    finally:
        torch.set_num_threads(threads)


class Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=needs_fake_gpu), "cpu"])
@pytest.mark.parametrize(
    "options",
    [dict(mode="bilinear", align_corners=True), dict(mode="bicubic"), dict(mode="bilinear", coordinates="half_pixel")],
    ids=str,
)
def test_determinism_on_gpus_takes_the_products(device, options):
    def kernels():
        with FakeTensorMode(), Calls() as calls:
            resize(torch.empty(1, 2, 4, 5, device=device), (8, 9), warning=False, **options)
        return calls.names

    products = "mmseg_resample.resample.default"
    assert products not in kernels()
    try:
        torch.use_deterministic_algorithms(True)
        assert (products in kernels()) == (device == "cuda")
    finally:
        torch.use_deterministic_algorithms(False)


# --- refusals and warnings --------------------------------------------------------------------------------------------

X = torch.zeros(1, 1, 4, 4)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (dict(size=8, mode="bilinaer"), "Did you mean 'bilinear'"),
        (dict(), "either size or scale_factor"),
        (dict(size=8, scale_factor=2), "either size or scale_factor"),
        (dict(size=(8, 8, 8)), "2 spatial axes"),
        (dict(size=(8, 0)), "size >= 1"),
        (dict(size=8.5), "whole pixels"),
        (dict(scale_factor=(2, 2, 2)), "2 spatial axes"),
        (dict(scale_factor=-1.0), "scale_factor > 0"),
        (dict(size=8, mode="linear"), "3-dimensional input, got 4"),
        (dict(size=8, recompute_scale_factor=True), "goes with scale_factor"),
        (dict(size=2, mode="nearest", antialias=True), "antialias=True is for"),
    ],
    ids=str,
)
def test_refuses_what_interpolate_refuses(args, message):
    with pytest.raises(Exception):  # noqa: B017  (whatever the type: PyTorch refuses the call)
        F.interpolate(X, **args)
    with pytest.raises((ValueError, TypeError, NotImplementedError), match=message):
        resize(X, **args)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (dict(size=8, mode="bilinear", align_corners=True, antialias=True), "antialias=True with align_corners=True"),
        (dict(size=8, mode="bilinear", coordinates="asymmetric", antialias=True), "half-pixel centres"),
        (dict(size=8, mode="bilinear", coordinates="align_corners", align_corners=True), "Keep one"),
        (dict(size=8, mode="bilinear", coordinates="half-pixel"), "Did you mean 'half_pixel'"),
        (dict(size=8, mode="bilinear", coordinates=(AxisMap(1, 0),)), "2 spatial axes"),
        (dict(size=8, mode="bilinear", coordinates=(0.5, 0)), "one AxisMap per spatial axis"),
        (dict(size=8, mode="bilinear", coordinates=AxisMap(float("nan"), 0)), "finite scale and offset"),
        (dict(size=8, mode="nearest", coordinates=(AxisMap(1, 0), AxisMap(1, float("inf")))), "finite scale and off"),
        (dict(size=8, mode="area", coordinates="asymmetric"), "averages bins"),
        (dict(scale_factor=2, mode="bilinear", coordinates=AxisMap(0.5, 0)), "Give size instead"),
        (dict(size=8, mode="bilinear", coordinates="asymmetric", backend="cuda"), "backend to be one of"),
        (dict(size=8, mode="bilinear", backend="numbe"), "Did you mean 'numba'"),
        (dict(size=8, mode="area", backend="products"), "by PyTorch alone"),
        (dict(size=8, mode="bicubic", antialias=True, backend="products"), "by PyTorch alone"),
        (dict(size=8, mode="nearest", backend="products"), "mode='nearest' takes them as they are"),
        (dict(scale_factor=0.1, mode="bilinear", coordinates="asymmetric"), ">= 1 along every axis"),
    ],
    ids=str,
)
def test_refuses_what_is_beyond_interpolate(args, message):
    with pytest.raises((ValueError, TypeError), match=message):
        resize(X, **args)


def test_refuses_nothing_to_read():
    with pytest.raises(ValueError, match="at least one sample"):
        resize(torch.zeros(1, 1, 0, 4), 8, mode="bilinear", coordinates="asymmetric")


def test_refuses_whole_numbers_for_weighted_kernels():
    with pytest.raises(TypeError, match=r"floating dtype, got torch.int64"):
        resize(X.long(), 8, mode="bilinear", coordinates="asymmetric")


def warning_of(source, size, flag):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resize(torch.zeros(1, 1, *source), size, mode="bilinear", align_corners=flag)
    return str(caught[0].message) if caught else None


@pytest.mark.parametrize(
    ("source", "size", "flag"),
    [
        ((16, 16), (128, 128), False),
        ((17, 17), (129, 129), True),
        ((128, 128), (60, 60), True),  # shrinking
        ((1, 1), (64, 64), True),
        ((16, 16), (16, 16), True),
        ((60, 60), (133, 141), False),  # neither fits: half-pixel is what image resizing uses
    ],
)
def test_no_warning_where_the_flag_fits(source, size, flag):
    assert warning_of(source, size, flag) is None


def test_warning_names_the_value_that_fits():
    assert "align_corners=False fits these sizes" in warning_of((16, 16), (128, 128), True)
    assert "align_corners=True fits 16 -> 121" in warning_of((16, 16), (128, 128), True)
    assert "align_corners=True fits these sizes" in warning_of((17, 17), (129, 129), False)
    assert "neither value" in warning_of((60, 60), (133, 141), True)


def test_warning_needs_one_bad_axis_only():
    # mmseg 1.2.2 compares output_w with output_h and stays silent unless both axes misfit.
    assert warning_of((17, 16), (129, 128), True) is not None
    assert warning_of((16, 17), (128, 129), True) is not None


def test_warning_can_be_silenced():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resize(X, 8, mode="bilinear", align_corners=True, warning=False)
