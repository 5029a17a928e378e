"""The decision that ``resize`` makes, apart from its values."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mmseg_resample.ops import AxisMap, _plan
from mmseg_resample.ops._plan import Mapped, Native, Window
from tests.conftest import needs_fake_gpu

X = torch.zeros(1, 2, 4, 6)


@pytest.fixture(autouse=True)
def _no_wish(monkeypatch):
    monkeypatch.delenv("MMSEG_RESAMPLE_BACKEND", raising=False)


def plan(
    x=X,
    size=(8, 9),
    scale_factor=None,
    mode="bilinear",
    align_corners=None,
    coordinates=None,
    antialias=False,
    recompute_scale_factor=None,
    backend="auto",
):
    return _plan.make(
        x, size, scale_factor, mode, align_corners, coordinates, antialias, recompute_scale_factor, backend
    )


CORNERS = (AxisMap(3 / 7, 0.0), AxisMap(5 / 8, 0.0))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(), Native((8, 9), None, "bilinear", None, None, False)),
        (dict(mode="area", align_corners=True), Native((8, 9), None, "area", None, None, False)),
        (
            dict(size=None, scale_factor=2, mode="bicubic", antialias=True, recompute_scale_factor=True),
            Native(None, (2, 2), "bicubic", None, True, True),
        ),
        (dict(coordinates="half_pixel"), Native((8, 9), None, "bilinear", False, None, False)),
        (dict(coordinates=CORNERS), Native((8, 9), None, "bilinear", True, None, False)),
        (
            dict(size=None, scale_factor=1.7, coordinates="half_pixel"),
            Mapped("auto", (6, 10), (AxisMap(1 / 1.7, 0.5 / 1.7 - 0.5),) * 2, "linear"),
        ),
        (
            dict(size=None, scale_factor=2.0, coordinates="half_pixel"),
            Native((8, 12), None, "bilinear", False, None, False),
        ),
        (
            dict(size=None, scale_factor=1.7, coordinates="half_pixel", recompute_scale_factor=True),
            Native((6, 10), None, "bilinear", False, None, False),
        ),
        (dict(mode="nearest", coordinates="asymmetric"), Native((8, 9), None, "nearest", None, None, False)),
        (dict(coordinates=AxisMap(0.5, 0.1)), Mapped("auto", (8, 9), (AxisMap(0.5, 0.1),) * 2, "linear")),
        (dict(mode="nearest", coordinates=AxisMap(1, 9)), Mapped("auto", (8, 9), (AxisMap(1, 9),) * 2, "nearest")),
        (dict(align_corners=True, backend="products"), Mapped("products", (8, 9), CORNERS, "linear")),
        (
            dict(size=(8, 10), coordinates=(AxisMap(3 / 8, 0.0), AxisMap(5 / 10, 0.5))),  # the whole reaches further
            Window(Native((9, 11), None, "bilinear", True, None, False), (0, 1), (8, 10)),
        ),
        (
            dict(coordinates=(AxisMap(4 / 9, -5 / 18), AxisMap(6 / 9, 1 / 6))),
            Mapped("auto", (8, 9), (AxisMap(4 / 9, -5 / 18), AxisMap(6 / 9, 1 / 6)), "linear"),
        ),
    ],
    ids=str,
)
def test_what_computes_a_resize(options, expected):
    actual = plan(**options)
    assert type(actual) is type(expected) and actual == expected


def test_a_backend_of_the_environment_is_taken_for_its_mode(monkeypatch):
    monkeypatch.setenv("MMSEG_RESAMPLE_BACKEND", "products")
    assert isinstance(plan(mode="nearest"), Native)
    assert plan(mode="bicubic").backend == "products"
    assert isinstance(plan(mode="bicubic", backend="torch"), Native)


@pytest.mark.parametrize(("device", "kind"), [("cpu", Native), pytest.param("cuda", Mapped, marks=needs_fake_gpu)])
def test_determinism_replaces_the_atomics_of_gpus(device, kind):
    with FakeTensorMode():
        x = torch.empty(1, 2, 4, 6, device=device)
        try:
            torch.use_deterministic_algorithms(True)
            assert type(plan(x)) is kind
            assert type(plan(x, mode="nearest")) is type(plan(x, antialias=True)) is Native
        finally:
            torch.use_deterministic_algorithms(False)
        assert type(plan(x)) is Native


def test_a_plan_cannot_change():
    with pytest.raises(AttributeError):
        plan().size = (1, 1)
