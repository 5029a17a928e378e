import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mmseg_resample.ops import AxisMap, PixelGrid, resize


def centroid_of_gradient(layer, size, index):
    """Return where in the input, on average, output ``index`` of a linear 1-D layer looks."""
    x = torch.zeros(1, 1, size, dtype=torch.float64, requires_grad=True)
    layer(x)[0, 0, index].backward()
    weight = x.grad[0, 0]
    return float((weight * torch.arange(size)).sum() / weight.sum())


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_window_is_where_a_convolution_really_looks(kernel, stride, dilation, padding):
    weight = torch.ones(1, 1, kernel, dtype=torch.float64)
    layers = [
        lambda x: F.conv1d(x, weight, stride=stride, padding=padding, dilation=dilation),
        lambda x: F.conv1d(x, torch.ones(1, 1, 3, dtype=torch.float64), stride=2, padding=1),
    ]
    grid = PixelGrid.image((64,)).window(kernel, stride, padding, dilation).window(3, 2, 1)
    out = layers[1](layers[0](torch.zeros(1, 1, 64, dtype=torch.float64)))
    assert grid.size == tuple(out.shape[2:])
    index = grid.size[0] // 2  # an interior one: no window is cut by the border
    measured = centroid_of_gradient(lambda x: layers[1](layers[0](x)), 64, index)
    assert measured == pytest.approx(grid.positions(0)[index], abs=1e-9)


def test_strides_and_offsets_of_the_two_families():
    odd = PixelGrid.image((512, 1024)).window(7, 2, 3).window(3, 2, 1).window(3, 2, 1)
    assert (odd.stride, odd.offset, odd.size) == ((8, 8), (0, 0), (64, 128))
    patch = PixelGrid.image((512, 1024)).window(4, 4).window(2, 2)
    assert (patch.stride, patch.offset, patch.size) == ((8, 8), (3.5, 3.5), (64, 128))


def test_map_to_registers_features_exactly():
    image = PixelGrid.image((33, 40))
    feature = image.window(3, 2, 1).window(3, 2, 1)
    ramp = torch.tensor(feature.positions(1), dtype=torch.float64).expand(1, 1, *feature.size)
    resized = resize(ramp, image.size, mode="bilinear", coordinates=feature.map_to(image))
    last = int(feature.positions(1)[-1])  # beyond the last centre the edge repeats
    expected = torch.arange(40).clamp(max=last).double().expand(1, 1, *image.size)
    torch.testing.assert_close(resized, expected)


@pytest.mark.parametrize("name", ["half_pixel", "align_corners", "asymmetric"])
def test_resized_is_the_grid_of_resize(name):
    grid = PixelGrid((4.0,), (1.5,), (8,))
    resized = grid.resized((32,), name)
    x = torch.tensor(grid.positions(0), dtype=torch.float64)[None, None]
    actual = resize(x, 32, mode="linear", coordinates=name)[0, 0]
    inside = [i for i, p in enumerate(resized.positions(0)) if grid.positions(0)[0] <= p <= grid.positions(0)[-1]]
    assert len(inside) > 20
    torch.testing.assert_close(actual[inside], torch.tensor(resized.positions(0), dtype=torch.float64)[inside])


@given(
    stride=st.floats(0.25, 32), offset=st.floats(-16, 16), to_stride=st.floats(0.25, 32), to_offset=st.floats(-16, 16)
)
def test_map_to_and_positions_agree(stride, offset, to_stride, to_offset):
    source, destination = PixelGrid((stride,), (offset,), (5,)), PixelGrid((to_stride,), (to_offset,), (7,))
    (axis_map,) = source.map_to(destination)
    for i, position in enumerate(destination.positions(0)):
        assert offset + stride * axis_map(i) == pytest.approx(position, abs=1e-6)


def test_one_output_sample():
    assert AxisMap.from_convention("align_corners", 5, 1)(0) == 0
    assert AxisMap.from_convention("pytorch_half_pixel", 5, 1)(0) == 0
    assert AxisMap.from_convention("half_pixel", 5, 1)(0) == 2
    assert AxisMap.from_convention("tf_crop_and_resize", 5, 1)(0) == 2


def test_roi():
    axis_map = AxisMap.from_convention("tf_crop_and_resize", 11, 6, roi=(0.2, 0.7))
    assert (axis_map(0), axis_map(5)) == (pytest.approx(2), pytest.approx(7))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PixelGrid((1.0,), (0.0, 0.0), (3,)), "equal length"),
        (lambda: PixelGrid((0.0,), (0.0,), (3,)), "strides != 0"),
        (lambda: PixelGrid.image((4, 4)).window(7), "does not fit into size"),
        (lambda: PixelGrid.image((4, 4)).window((1, 1, 1)), "2 spatial axes"),
        (lambda: PixelGrid.image((4, 4)).map_to(PixelGrid.image((4,))), "expected 2 axes"),
        (lambda: AxisMap.from_convention("half-pixel", 2, 4), "Did you mean 'half_pixel'"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_maps_are_close_if_scale_and_offset_differ_by_less_than_the_tolerance_together():
    one = AxisMap(0.5, -0.25)
    assert one.is_close(one) and one.is_close(AxisMap(0.5 + 4e-7, -0.25 - 4e-7))
    assert not one.is_close(AxisMap(0.5 + 6e-7, -0.25 - 6e-7))
    assert one.is_close(AxisMap(0.6, -0.2), tolerance=0.2) and not one.is_close(AxisMap(0.6, -0.2), tolerance=0.1)


@pytest.mark.parametrize("align_corners", [False, True])
def test_normalised_coordinates_are_those_of_grid_sample(align_corners):
    x = torch.arange(7.0, dtype=torch.float64).view(1, 1, 1, 7).expand(1, 1, 2, 7)
    at = torch.linspace(-0.8, 0.8, 5, dtype=torch.float64)
    grid = torch.stack([at, torch.zeros_like(at)], -1)[None, None]
    samples = AxisMap.from_normalised(7, align_corners)
    read = torch.nn.functional.grid_sample(x, grid, align_corners=align_corners).flatten()
    torch.testing.assert_close(read, at * samples.scale + samples.offset)


def test_maps_one_after_the_other():
    outer, inner = AxisMap(0.5, -0.25), AxisMap(3.0, 2.0)
    assert outer.after(inner)(7) == outer(inner(7))
    assert outer.after(outer.inverse()).is_close(AxisMap(1.0, 0.0))
