"""Every rule against positions that were sent through the operator itself."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmseg_resample.grids.sites import _read_interpolate
from mmseg_resample.ops import AxisMap, resize

from .oracle import measured, tracked

HEIGHT, WIDTH = 24, 36


def assert_positions(function, height=HEIGHT, width=WIDTH, margin=0, channels=1, tolerance=1e-9):
    """Layout and measurement agree at all elements, or at those further than ``margin`` from the border."""
    layout, trace = tracked(function, height, width, channels)
    assert trace.unknown == []
    for axis in (0, 1):
        values = measured(function, height, width, axis, channels)
        assert layout.shape == tuple(values.shape)
        compared = 0
        for index in itertools.product(*(range(n) for n in values.shape)):
            position = layout.at(index)
            if margin <= position[0] <= height - 1 - margin and margin <= position[1] <= width - 1 - margin:
                assert float(values[index]) == pytest.approx(position[axis], abs=tolerance), (axis, index)
                compared += 1
        assert compared >= values.numel() / 20


MOVES = {
    "view to tokens and back": lambda x: x.flatten(2).transpose(1, 2).transpose(1, 2).reshape(1, 1, HEIGHT, WIDTH),
    "tokens": lambda x: x.flatten(2).transpose(1, 2),
    "windows": lambda x: (
        x.view(1, 1, HEIGHT // 6, 6, WIDTH // 6, 6).permute(0, 2, 4, 3, 5, 1).reshape(-1, 36, 1).contiguous()
    ),
    "windows and back": lambda x: (
        x.view(1, 1, 4, 6, 6, 6)
        .permute(0, 2, 4, 3, 5, 1)
        .reshape(24, 36)
        .view(1, 4, 6, 6, 6, 1)
        .permute(0, 5, 1, 3, 2, 4)
        .reshape(1, 1, HEIGHT, WIDTH)
    ),
    "every second row and column": lambda x: x[:, :, 1::2, 0::2],
    "patch merging": lambda x: torch.cat([x[:, :, 0::2, 0::2], x[:, :, 0::2, 0::2]], 1),
    "a crop": lambda x: x[..., 3:17, 5:30],
    "select a row": lambda x: x[:, :, 7],
    "flip": lambda x: x.flip(-1),
    "chunks put together": lambda x: torch.cat(x.chunk(3, dim=3), dim=3),
    "split with a gap": lambda x: x.split([4, 20], dim=2)[1],
    "stack and unbind": lambda x: torch.stack([x, x], dim=1).unbind(1)[1],
    "roll and back": lambda x: x.roll((-3, -3), (2, 3)).roll((3, 3), (2, 3)),
    "squeeze and unsqueeze": lambda x: x.squeeze(1).unsqueeze(-1),
    "tokens behind a class token": lambda x: torch.cat([torch.ones(1, 1, 1).double(), x.flatten(2)], 2)[:, :, 1:],
    "tokens before class tokens": lambda x: torch.cat([x.flatten(2), torch.ones(1, 1, 5).double()], 2)[:, :, :-5],
    "channels picked by an index": lambda x: torch.cat([x, -x], 1).gather(1, torch.zeros(1, 1, HEIGHT, WIDTH).long()),
    "meshed rows and columns": lambda x: x.mean(3, keepdim=True) * 0 + x,
    "unfolded windows": lambda x: x.unfold(2, 5, 3).unfold(3, 4, 2),
    "class tokens padded on": lambda x: F.pad(x.flatten(2), (1, 2))[:, :, 1:-2],
    "tokens padded and cropped": lambda x: F.pad(F.pad(x.flatten(2), (3, 2)), (-3, -2)),
    "1x1 convolution of tokens": lambda x: conv(1)(x.flatten(2)[:, :, None])[:, :, 0],
    "every third row by an index": lambda x: x[:, :, torch.arange(1, HEIGHT, 3)],
    "columns from the right by an index": lambda x: x.index_select(3, torch.arange(WIDTH - 1, 0, -2)),
    "one phase of pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2)[:, 1:2],
    "pixel_unshuffle and back": lambda x: F.pixel_shuffle(F.pixel_unshuffle(x, 3), 3),
    "nearest, every second": lambda x: F.interpolate(x, scale_factor=2, mode="nearest")[..., 1::2, ::2],
    "nearest-exact of an odd size, every second": lambda x: F.interpolate(
        x, (2 * HEIGHT - 1, 2 * WIDTH - 1), mode="nearest-exact"
    )[..., ::2, ::2],
    "pixel_shuffle, every second": lambda x: F.pixel_shuffle(torch.cat([x] * 4, 1), 2)[..., ::2, 1::2],
    "repeated by views, every second": lambda x: (
        x[:, :, :, None, :, None].expand(1, 1, HEIGHT, 2, WIDTH, 2).reshape(1, 1, 48, 72)[..., ::2, 1::2]
    ),
    "shrunk by picking what nearest repeated": lambda x: F.interpolate(
        F.interpolate(x, scale_factor=4, mode="nearest"), scale_factor=0.25, mode="nearest"
    ),
    "attention": lambda x: (
        torch.eye(HEIGHT * WIDTH).double() @ x.flatten(2).transpose(1, 2) * 0 + x.flatten(2).transpose(1, 2)
    ),
}


@pytest.mark.parametrize("name", MOVES)
def test_elements_that_move(name):
    assert_positions(MOVES[name])


def conv(kernel, stride=1, padding=0, dilation=1):
    layer = nn.Conv2d(1, 1, kernel, stride, padding, dilation, bias=False).double().requires_grad_(False)
    nn.init.ones_(layer.weight)
    return layer


def transposed(kernel, stride, padding, output_padding=0):
    layer = nn.ConvTranspose2d(1, 1, kernel, stride, padding, output_padding, bias=False).double().requires_grad_(False)
    nn.init.ones_(layer.weight)
    return layer


def unfolded(x):
    return F.unfold(x, 3, stride=2, padding=1).mean(1, keepdim=True).view(1, 1, 12, 18)


def blocks(x):
    """The 2x2 blocks of an image, their elements last, as timm's Swin merges patches."""
    return x.reshape(1, HEIGHT // 2, 2, WIDTH // 2, 2).permute(0, 1, 3, 4, 2).flatten(3)


def merged_by_a_matrix(x):
    return F.linear(blocks(x), torch.ones(1, 4).double()).permute(0, 3, 1, 2)


def merged_by_a_convolution(x):
    return F.conv2d(blocks(x).permute(0, 3, 1, 2), torch.ones(1, 4, 1, 1).double())


def same_padding(x):
    return conv(3, 2)(F.pad(x, (0, 1, 0, 1)))  # TensorFlow's SAME on an even size


WINDOWS = {
    "3x3": (conv(3, 1, 1), 1),
    "3x3 stride 2": (conv(3, 2, 1), 2),
    "7x7 stride 2": (conv(7, 2, 3), 4),
    "4x4 patches": (conv(4, 4), 0),
    "2x2 stride 2": (conv(2, 2), 0),
    "even kernel, padded": (conv(4, 2, 1), 3),
    "dilated": (conv(3, 1, 2, 2), 3),
    "stride in one axis": (conv((3, 1), (2, 1), (1, 0)), 2),
    "1x1 stride 2": (conv(1, 2), 0),
    "TF SAME": (same_padding, 3),
    "max_pool through avg": (lambda x: F.avg_pool2d(x, 3, 2, 1), 2),
    "pooling, ceil mode": (lambda x: F.avg_pool2d(x, 3, 2, 0, ceil_mode=True), 3),
    "adaptive bins": (lambda x: F.adaptive_avg_pool2d(x, (6, 9)), 0),
    "unfold": (unfolded, 2),
    "blocks merged by a matrix": (merged_by_a_matrix, 0),
    "blocks merged by a convolution": (merged_by_a_convolution, 0),
    "blocks averaged": (lambda x: blocks(x).mean(3, keepdim=True).permute(0, 3, 1, 2), 0),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2).mean(1, keepdim=True), 0),
    "reflection padding": (lambda x: F.pad(x, (2, 1, 3, 0), mode="reflect"), 1),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name):
    function, margin = WINDOWS[name]
    assert_positions(function, margin=margin)


def test_max_pool_looks_at_the_centre_of_its_window():
    layout, _ = tracked(lambda x: F.max_pool2d(x, 3, 2, 1), HEIGHT, WIDTH)
    average, _ = tracked(lambda x: F.avg_pool2d(x, 3, 2, 1), HEIGHT, WIDTH)
    assert layout.grid() == average.grid()


UPSAMPLINGS = {
    "bilinear False": lambda x: F.interpolate(x, (48, 71), mode="bilinear", align_corners=False),
    "bilinear True": lambda x: F.interpolate(x, (48, 71), mode="bilinear", align_corners=True),
    "bicubic False": lambda x: F.interpolate(x, (48, 71), mode="bicubic", align_corners=False),
    "scale factor": lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear", align_corners=False),
    "nn.Upsample": nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    "antialias": lambda x: F.interpolate(x, (12, 9), mode="bilinear", antialias=True),
    "asymmetric": lambda x: resize(x, (48, 71), mode="bilinear", coordinates="asymmetric"),
    "explicit": lambda x: resize(x, (30, 20), mode="bilinear", coordinates=(AxisMap(0.5, 2.25), AxisMap(1.5, 0.5))),
}


@pytest.mark.parametrize("name", UPSAMPLINGS)
def test_resizes(name):
    # Cubic convolution with a = -0.75 does not reproduce a ramp exactly between its samples.
    assert_positions(UPSAMPLINGS[name], margin=3, tolerance=0.08 if "bicubic" in name else 1e-9)
    _, trace = tracked(UPSAMPLINGS[name], HEIGHT, WIDTH)
    assert len(trace.resizes) == 1 and trace.resizes[0].source.stride == (1, 1)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (4, 2, 1), (8, 4, 2)])
def test_transposed_convolution(kernel, stride, padding):
    layer = transposed(kernel, stride, padding)
    layout, _ = tracked(layer, HEIGHT, WIDTH)
    # One output reads the samples around it, on average over the phases of a stride where the layout puts it.
    for axis in (0, 1):
        error = measured(layer, HEIGHT, WIDTH, axis)[0, 0] - torch.tensor(
            [[layout.at((0, 0, i, j))[axis] for j in range(layout.shape[3])] for i in range(layout.shape[2])]
        )
        inner = error[2 * stride : -2 * stride, 2 * stride : -2 * stride]
        assert float(inner.mean()) == pytest.approx(0, abs=1e-6)


BY_FACTORS = [
    *[(mode, 2, False) for mode in ("bilinear", "bicubic", "nearest", "nearest-exact")],
    *[(mode, 2, True) for mode in ("bilinear", "bicubic")],
    *[(mode, 1, False) for mode in ("linear", "nearest", "nearest-exact")],
    *[(mode, 3, False) for mode in ("trilinear", "nearest", "nearest-exact")],
]


@pytest.mark.parametrize(("mode", "axes", "antialias"), BY_FACTORS)
@pytest.mark.parametrize(("channels", "last"), [(1, False), (4, True)])
def test_factors_that_pytorch_ignores(mode, axes, antialias, channels, last):
    """An axis whose size stays may be copied, and one that doubles repeated, whatever the factor: it is measured."""
    for factors in ((1.02, 1.02), (1.02, 2.02), (2.02, 1.02), (0.5, 1.02), (4.1, 1.02)):

        def function(x, by_axis=(1.0, *factors)[-axes:]):
            x = {1: x[:, :, 5], 2: x, 3: x[:, :, None]}[axes]
            if last and axes > 1:
                x = x.contiguous(memory_format=torch.channels_last if axes == 2 else torch.channels_last_3d)
            return F.interpolate(x, scale_factor=by_axis, mode=mode, antialias=antialias)

        layout, trace = tracked(function, HEIGHT, WIDTH, channels)
        assert trace.unknown == []
        if mode.endswith(("linear", "cubic")) and not antialias:  # a policy reads the call so too
            x = torch.ones([1, channels, *(1, HEIGHT, WIDTH)[-axes:]])
            call = _read_interpolate(x, None, (1.0, *factors)[-axes:], mode)
            assert call.maps() == trace.resizes[0].maps
        for axis in (0, 1) if axes > 1 else (1,):
            line = measured(function, HEIGHT, WIDTH, axis, channels).movedim(axis - 2, -1).flatten(0, -2)[0]
            index = [[0] * len(layout.shape) for _ in line]
            for i, each in enumerate(index):
                each[axis - 2] = i
            error = line - torch.tensor([layout.at(each)[axis] for each in index], dtype=line.dtype)
            inner = error[3:-3]  # beyond the outermost samples these are repeated
            assert abs(float(inner.mean())) < (0.05 if mode == "bicubic" or "nearest" in mode else 1e-3), (
                factors,
                axis,
            )


def test_pixel_shuffle_on_average_over_the_phases():
    def function(x):
        return F.pixel_shuffle(x.expand(1, 4, HEIGHT, WIDTH), 2)

    layout, _ = tracked(function, HEIGHT, WIDTH)
    error = measured(function, HEIGHT, WIDTH, 1)[0, 0, 0] - torch.tensor([at[1] for at in places(layout.dims[3])])
    assert float(error.mean()) == pytest.approx(0, abs=1e-9)


def places(dim, phases=False):
    return [dim.at(i, phases) for i in range(dim.size)]


def assert_samples(function, width):
    """Every output along x is the very sample that the layout tells; on average they lie where its grid says."""
    layout, trace = tracked(function, 3, width)
    assert not trace.notes and not trace.unknown
    dim, values = layout.dims[3], measured(function, 3, width, 1)[0, 0, 0]
    claimed = torch.tensor([[at[1] for at in places(dim, phases)] for phases in (False, True)], dtype=torch.float64)
    free = (claimed[1] >= 0) & (claimed[1] <= width - 1)  # what lies behind the border reads the last sample
    assert float((claimed[1] - values)[free].abs().max()) < 1e-6
    whole = dim.size // max(len(dim.parts[0][0].phases), 1) * len(dim.parts[0][0].phases)
    if whole:
        assert float((claimed[0] - claimed[1])[:whole].mean()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_nearest_samples(mode):
    for n, size in itertools.product((2, 3, 8, 20), (1, 2, 3, 5, 8, 9, 12, 16, 17, 31, 46)):
        assert_samples(lambda x, size=size: F.interpolate(x, (3, size), mode=mode), n)
    for n, factor in itertools.product((2, 3, 17, 20), (0.3, 0.75, 1.3, 1.7, 2.3, 2 / 3, 4)):
        for new in (None, True):
            if int(n * factor):
                assert_samples(
                    lambda x, factor=factor, new=new: F.interpolate(
                        x, scale_factor=(1, factor), mode=mode, recompute_scale_factor=new
                    ),
                    n,
                )
    maps = ["half_pixel", "align_corners", "asymmetric", (AxisMap(1, 0), AxisMap(0.53, 1.4))]
    for n, size, coordinates in itertools.product((4, 7), (3, 5, 8), maps):
        assert_samples(
            lambda x, size=size, coordinates=coordinates: resize(x, (3, size), mode=mode, coordinates=coordinates), n
        )


@pytest.mark.parametrize(
    ("width", "sizes"), [(17, (33, 59)), (29, (42, 55, 18)), (27, (41, 57, 14)), (25, (46, 53, 27))]
)
def test_nearest_samples_of_nearest_samples(width, sizes):
    for mode in ("nearest", "nearest-exact"):

        def function(x, mode=mode):
            for size in sizes:
                x = F.interpolate(x, (3, size), mode=mode)
            return x

        assert_samples(function, width)


def test_bins_of_nearest_samples():
    for size, bins in ((12, 4), (18, 6), (15, 3)):

        def function(x, size=size, bins=bins):
            return F.adaptive_avg_pool2d(F.interpolate(x, (3, size), mode="nearest"), (3, bins))

        assert_samples(function, 6)


def test_fold_is_the_inverse_of_unfold():
    def function(x):
        return F.fold(F.unfold(x, 4, stride=4), (HEIGHT, WIDTH), 4, stride=4)

    layout, _ = tracked(function, HEIGHT, WIDTH)
    grid = layout.grid()
    assert grid.stride == (1, 1) and grid.offset == (0, 0)


def test_grid_sample_lands_on_the_grid_of_its_flow():
    def function(x):
        like = F.avg_pool2d(x, 2)
        ys, xs = torch.meshgrid(torch.linspace(-1, 1, 12), torch.linspace(-1, 1, 18), indexing="ij")
        grid = torch.stack([xs, ys], -1) + torch.cat([like, like], 1).permute(0, 2, 3, 1)
        return F.grid_sample(F.avg_pool2d(x, 4), grid, align_corners=False)

    layout, trace = tracked(function, HEIGHT, WIDTH)
    assert layout.grid().stride == (2, 2) and layout.grid().offset == (0.5, 0.5)
    assert trace.resizes[0].mode == "grid_sample" and trace.notes == []


def identity(size, flag, like):
    theta = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]], dtype=like.dtype)
    return F.affine_grid(theta, [1, 1, *size], align_corners=flag)


@pytest.mark.parametrize(("size", "flag"), [((24, 36), False), ((48, 72), False), ((47, 71), True), ((13, 20), True)])
def test_grid_sample_at_constants_is_a_resize(size, flag):
    def function(x):
        return F.grid_sample(x, identity(size, flag, x), align_corners=flag, padding_mode="border")

    assert_positions(function, margin=1, tolerance=1e-3)
    layout, trace = tracked(function, HEIGHT, WIDTH)
    resized, _ = tracked(lambda x: F.interpolate(x, size, mode="bilinear", align_corners=flag), HEIGHT, WIDTH)
    assert layout.grid().offset == pytest.approx(resized.grid().offset, abs=1e-3)
    assert len(trace.resizes[0].maps) == 2


def test_a_grid_of_the_other_convention_shifts():
    """Corners of the image at corners of samples, read as if at their centres: half a sample at both ends."""
    layout, _ = tracked(lambda x: F.grid_sample(x, identity((24, 36), False, x), align_corners=True), HEIGHT, WIDTH)
    assert layout.at((0, 0, 0, 0)) == pytest.approx((0.5 * 23 / 24, 0.5 * 35 / 36), abs=1e-3)


def test_grid_sample_at_data_is_not_judged():
    def function(x):
        points = torch.cat([x, x], 1).flatten(2).transpose(1, 2)[:, :, None]
        return F.grid_sample(x, points, align_corners=False)

    layout, trace = tracked(function, HEIGHT, WIDTH)
    assert not layout.spatial
    assert trace.notes == [("", "not judged: sampled at coordinates that are data")] and trace.unknown == []


def test_one_tap_of_unfold_lies_where_it_reads():
    assert_positions(lambda x: F.unfold(x, 3, padding=1).view(1, 9, HEIGHT, WIDTH)[:, 3:4], margin=1)
    assert_positions(lambda x: x.unfold(2, 3, 1).mean(-1))
    assert_positions(lambda x: F.fold(F.unfold(x, (4, 2), stride=(4, 2)), (HEIGHT, WIDTH), (4, 2), stride=(4, 2)))


def test_taps_do_not_meet_the_weights_of_their_sum():
    """CARAFE: nine neighbours times nine weights, summed up."""

    def function(x):
        taps = F.unfold(x, 3, padding=1).view(1, 1, 9, HEIGHT, WIDTH)
        return (taps * torch.softmax(torch.cat([x] * 9, 1), 1).unsqueeze(1)).sum(2)

    layout, trace = tracked(function, HEIGHT, WIDTH)
    assert all(meeting.worst == 0 for meeting in trace.meetings) and trace.unknown == []
    assert layout.grid().offset == (0, 0)


def test_rows_and_columns_span_a_plane_where_they_lie():
    def function(x):
        folded = x.reshape(1, 1, 12, 2, 18, 2).permute(0, 1, 3, 5, 2, 4).reshape(1, 4, 12, 18)
        y = F.conv2d(folded, torch.full((1, 4, 1, 1), 0.25, dtype=x.dtype))
        return y.mean(3, keepdim=True) + y.mean(2, keepdim=True)

    layout, _ = tracked(function, HEIGHT, WIDTH)
    assert layout.grid().offset == (0.5, 0.5) and layout.grid().stride == (2, 2)


def test_samples_repeated_by_views_can_be_convolved():
    def function(x):
        return conv(3, 2, 1)(x[:, :, :, None, :, None].expand(1, 1, HEIGHT, 2, WIDTH, 2).reshape(1, 1, 48, 72))

    layout, trace = tracked(function, HEIGHT, WIDTH)
    # Output i averages the samples of outputs 2i - 1, 2i and 2i + 1: i - 1, i and i.
    assert trace.unknown == []
    assert layout.grid().stride == (1, 1) and layout.grid().offset == pytest.approx((-1 / 3, -1 / 3))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (4, 2, 1), (3, 2, 1), (4, 4, 0)])
@pytest.mark.parametrize("phase", [0, 1])
def test_a_stride_behind_a_transposed_convolution_picks_its_phase(kernel, stride, padding, phase):
    layer = transposed(kernel, stride, padding)
    assert_positions(lambda x: layer(x)[..., phase::stride, phase::stride], margin=2)


def test_attention_sits_at_its_queries():
    def function(x):
        tokens = x.flatten(2).transpose(1, 2)
        coarse = F.avg_pool2d(x, 2).flatten(2).transpose(1, 2)
        return torch.softmax(tokens @ coarse.transpose(1, 2), -1) @ coarse

    layout, trace = tracked(function, HEIGHT, WIDTH)
    assert trace.unknown == [] and trace.meetings == []
    assert layout.at((0, WIDTH + 2, 0)) == (1, 2)


def test_scaled_dot_product_attention_sits_at_its_queries():
    def function(x):
        tokens = x.flatten(2).transpose(1, 2).unsqueeze(1)
        coarse = F.avg_pool2d(x, 2).flatten(2).transpose(1, 2).unsqueeze(1)
        return F.scaled_dot_product_attention(tokens, coarse, coarse)

    layout, trace = tracked(function, HEIGHT, WIDTH)
    assert trace.unknown == []
    assert layout.at((0, 0, WIDTH + 2, 0)) == (1, 2)


def test_a_map_of_attention_meets_the_weights_of_its_rows():
    """They are no features: neither is anywhere else than the other."""

    def function(x):
        tokens = x.flatten(2).transpose(1, 2)
        weights = tokens @ tokens.transpose(1, 2)
        return (weights / weights.sum(-1, keepdim=True)) @ tokens

    layout, trace = tracked(function, HEIGHT, WIDTH)
    assert trace.unknown == [] and trace.meetings == []
    assert layout.at((0, WIDTH + 2, 0)) == (1, 2)


def test_a_map_of_attention_to_coarser_keys_meets_weights_of_its_queries():
    def function(x):
        tokens, keys = x.flatten(2).transpose(1, 2), F.avg_pool2d(x, 4).flatten(2)
        return (tokens @ keys + tokens) @ keys.transpose(1, 2)

    layout, trace = tracked(function, HEIGHT, WIDTH)
    assert trace.unknown == [] and trace.meetings == []
    assert layout.at((0, WIDTH + 2, 0)) == (1, 2)


def test_nothing_joined_to_nothing():
    layout, trace = tracked(lambda x: torch.cat([torch.cat([x[:, :0], x[:, :0]], 1), x], 1), HEIGHT, WIDTH)
    assert trace.unknown == [] and layout.grid().stride == (1, 1)


@pytest.mark.parametrize("function", [F.hardswish, F.logsigmoid, lambda x: F.channel_shuffle(torch.cat([x, x], 1), 2)])
def test_what_leaves_positions_alone(function):
    layout, trace = tracked(function, HEIGHT, WIDTH)
    assert trace.unknown == []
    assert (layout.grid().stride, layout.grid().offset, layout.grid().size) == ((1, 1), (0, 0), (HEIGHT, WIDTH))


def test_global_pooling_has_no_position_and_poisons_nothing():
    layout, trace = tracked(
        lambda x: x * torch.sigmoid(F.adaptive_avg_pool2d(x, 1)) + x.mean((2, 3), True), HEIGHT, WIDTH
    )
    assert trace.meetings == [] and trace.unknown == []
    assert layout.grid().stride == (1, 1)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: torch.fft.fft2(x).abs(), "_fft_c2c: no rule"),
        (lambda x: x.view(1, 1, 16, 54), "reshape that cuts an axis"),
        (lambda x: x[:, :, torch.tensor([0, 1, 3, 7])], "picks positions unevenly"),
        (lambda x: F.avg_pool1d(x.flatten(2), 3), "folds several axes"),
    ],
)
def test_what_cannot_be_followed_is_reported(function, reason):
    layout, trace = tracked(function, HEIGHT, WIDTH)
    assert len(trace.unknown) == 1 and reason in trace.unknown[0][1]
    assert not layout.spatial


def test_a_matrix_over_positions_is_noted():
    _, trace = tracked(lambda x: nn.Linear(WIDTH, 5).double()(x), HEIGHT, WIDTH)
    assert trace.notes == [("", "a matrix mixes positions")]


def test_positions_picked_by_an_index_are_noted():
    layout, trace = tracked(lambda x: x.gather(3, torch.zeros(1, 1, HEIGHT, WIDTH).long()), HEIGHT, WIDTH)
    assert trace.notes == [("", "an index picks positions")] and trace.unknown == []
    assert not layout.dims[3].spatial and layout.dims[2].spatial


@settings(max_examples=150)
@given(data=st.data())
def test_any_sequence_of_moves(data):
    """Random views, permutations, slices and regroupings keep the position of every element."""

    def function(x, steps):
        for step in steps:
            x = step(x)
        return x

    steps, shape = [], [1, 1, 8, 12]
    for _ in range(data.draw(st.integers(1, 5))):
        kind = data.draw(st.sampled_from(["permute", "split", "merge", "slice", "flip"]))
        if kind == "permute":
            order = data.draw(st.permutations(range(len(shape))))
            steps.append(lambda x, order=order: x.permute(order))
            shape = [shape[i] for i in order]
        elif kind == "split":
            i = data.draw(st.sampled_from(range(len(shape))))
            factors = [f for f in (2, 3) if shape[i] % f == 0]
            if not factors or len(shape) > 6:
                continue
            f = data.draw(st.sampled_from(factors))
            shape = [*shape[:i], shape[i] // f, f, *shape[i + 1 :]]
            steps.append(lambda x, shape=tuple(shape): x.reshape(shape))
        elif kind == "merge" and len(shape) > 1:
            i = data.draw(st.sampled_from(range(len(shape) - 1)))
            shape = [*shape[:i], shape[i] * shape[i + 1], *shape[i + 2 :]]
            steps.append(lambda x, shape=tuple(shape): x.reshape(shape))
        elif kind == "slice":
            i = data.draw(st.sampled_from(range(len(shape))))
            if shape[i] < 3:
                continue
            step = data.draw(st.integers(1, 2))
            start = data.draw(st.integers(0, 1))
            steps.append(lambda x, i=i, start=start, step=step: x[(slice(None),) * i + (slice(start, None, step),)])
            shape[i] = len(range(start, shape[i], step))
        elif kind == "flip":
            i = data.draw(st.sampled_from(range(len(shape))))
            steps.append(lambda x, i=i: x.flip(i))
    layout, trace = tracked(lambda x: function(x, steps), 8, 12)
    if trace.unknown:
        return  # refused, not guessed
    for axis in (0, 1):
        values = measured(lambda x: function(x, steps), 8, 12, axis)
        for index in itertools.product(*(range(n) for n in values.shape)):
            assert layout.at(index)[axis] == pytest.approx(float(values[index])), (axis, index)
