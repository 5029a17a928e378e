"""Known displacements are measured: of continuous scenes that are rendered shifted, stretched, noisy and incomplete."""

import itertools

import numpy as np
import pytest
import torch

from mmseg_resample.evaluation import EdgeCounts, displacement, edge_counts

from .maps import patches

C = 6
SIZE = (256, 320)
IMAGES = 4
THIRDS = np.array([-1, 0, 1]) / 3


class Scene:
    """Discs and turned rectangles on a plane, over a road that narrows towards a horizon."""

    def __init__(self, seed, road=False):
        rng = np.random.default_rng(seed)
        count, reach = 220, 30
        self.centres = rng.uniform((-reach, -reach), (SIZE[0] + reach, SIZE[1] + reach), (count, 2))
        self.radii = 4 + 20 * rng.random(count) ** 2
        self.angles = rng.uniform(0, np.pi / 2, count)
        self.discs = rng.random(count) < 0.4
        self.classes = rng.integers(1, C, count)
        self.road = road

    def render(self, y, x, missing=()):
        """The class at every (y, x) of the plane; objects in ``missing`` are not there."""
        label = np.zeros((len(y), len(x)), np.int64)
        if self.road:
            label[abs(x - SIZE[1] / 2) < 1.2 * (y[:, None] - 60)] = 5
        for i, ((cy, cx), r, angle) in enumerate(zip(self.centres, self.radii, self.angles, strict=True)):
            rows, columns = np.flatnonzero(abs(y - cy) <= r), np.flatnonzero(abs(x - cx) <= r)
            if i in missing or not (len(rows) and len(columns)):
                continue
            box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            v, u = y[rows, None] - cy, x[columns] - cx
            if self.discs[i]:
                inside = u * u + v * v <= (0.8 * r) ** 2
            else:
                along, across = np.cos(angle) * u + np.sin(angle) * v, np.cos(angle) * v - np.sin(angle) * u
                inside = (abs(along) <= 0.8 * r) & (abs(across) <= 0.5 * r)
            label[box][inside] = self.classes[i]
        return label


def source(n, offset, drift):
    """Return what a prediction shows at pixels 0 to n - 1 if it displaces u by offset + drift * (u / n - 0.5)."""
    centre = (n - 1) / 2
    return centre + (np.arange(n) - centre - offset) / (1 + drift / n)


def measure(x=(0, 0), y=(0, 0), noise=0.0, missing=0.0, road=False, ignored=False, images=IMAGES, **options):
    """The displacement over some images of predictions with (offset, drift) along x and y."""
    total = None
    for seed in range(images):
        rng, scene = np.random.default_rng(1000 + seed), Scene(seed, road)
        label = scene.render(*(np.arange(n, dtype=float) for n in SIZE))
        absent = set(np.flatnonzero(rng.random(len(scene.radii)) < missing))
        pred = scene.render(source(SIZE[0], *y), source(SIZE[1], *x), absent)
        pred = np.where(rng.random(SIZE) < noise, rng.integers(0, C, SIZE), pred)
        if ignored:
            label[rng.random(SIZE) < 0.002] = 255
            label[-40:], label[:, 100:110] = 255, 255
        counts = edge_counts(torch.from_numpy(pred), torch.from_numpy(label), C, **options)
        total = counts if total is None else EdgeCounts(*(a + b for a, b in zip(total, counts, strict=True)))
    return displacement(total)


def assert_measured(result, x=(0, 0), y=(0, 0), tolerance=0.05):
    for axis, (offset, drift) in ((result.x, x), (result.y, y)):
        assert axis.overall == pytest.approx(offset, abs=tolerance)
        np.testing.assert_allclose(axis.thirds, offset + drift * THIRDS, atol=tolerance)
        # Two thirds of the image lie between the middles of the outer thirds.
        assert axis.drift == pytest.approx(drift, abs=2 * tolerance / (2 / 3))


def brute_force(pred, label, reach, bins):
    """Agreement of all pairs of neighbours, by cell and shift."""
    (h, w), shifts = label.shape, range(-reach, reach + 1)
    counts = np.zeros((bins, bins, len(shifts), len(shifts)), int)
    counted = label != 255
    for dy, dx in ((0, 1), (1, 0)):
        for y, x in itertools.product(range(reach, h - reach - dy), range(reach, w - reach - dx)):
            a, b = label[y, x], label[y + dy, x + dx]
            if a == b or not (counted[y, x] and counted[y + dy, x + dx]):
                continue
            cell = int((y + 0.5 + dy / 2) * bins / h), int((x + 0.5 + dx / 2) * bins / w)
            for (i, v), (j, u) in itertools.product(enumerate(shifts), repeat=2):
                here, there = (y + v, x + u), (y + v + dy, x + u + dx)
                if counted[here] and counted[there]:
                    c, d = pred[here], pred[there]
                    counts[cell][i, j] += int(c == a) + int(d == b) - int(d == a) - int(c == b)
    return counts


class TestEdgeCounts:
    @pytest.mark.parametrize("seed", range(5))
    def test_equals_a_loop_over_edges_and_shifts(self, seed):
        pred, label = patches(seed, size=(19, 24))
        counts = edge_counts(pred, label, 4, max_displacement=1, bins=3)
        np.testing.assert_equal(counts.pred.numpy(), brute_force(pred.numpy(), label.numpy(), 5, 3))
        assert counts.pred.any()

    def test_own_agreement_and_edges(self):
        _, label = patches(3, size=(25, 31))
        counts = edge_counts(label.where(label != 255, 0), label, 4, max_displacement=2, bins=3)
        np.testing.assert_equal(counts.label.numpy(), counts.pred.numpy())
        # An edge agrees with itself by 2.
        np.testing.assert_equal(counts.edges[..., 0].numpy(), counts.label[..., 6, 6].numpy() / 2)

    def test_positions_are_fractions_of_the_image(self):
        """One edge along y, right of column 20 of 60: at 21 / 60; and its rows 6 to 11 of 18, in the middle."""
        label = (torch.arange(60) > 20).long().expand(18, -1)
        edges = edge_counts(label, label, 2, max_displacement=2, bins=3).edges
        assert edges[1, 1].tolist() == [6, pytest.approx(0, abs=1e-12), pytest.approx(6 * (21 / 60 - 0.5))]
        assert edges.sum(dim=(0, 1))[0] == 6

    def test_axes_are_alike(self):
        pred, label = patches(8, size=(40, 50))
        counts, turned = edge_counts(pred, label, 4), edge_counts(pred.T, label.T, 4)
        assert torch.equal(turned.pred, counts.pred.permute(1, 0, 3, 2))
        assert torch.equal(turned.label, counts.label.permute(1, 0, 3, 2))
        torch.testing.assert_close(turned.edges, counts.edges.transpose(0, 1)[..., [0, 2, 1]])

    @pytest.mark.parametrize("size", [(24, 24), (24, 90), (90, 24), (3, 3), (1, 1)])
    def test_too_small_to_look_around(self, size):
        counts = edge_counts(*torch.randint(4, (2, *size)), 4, max_displacement=8)
        assert not any(array.any() for array in counts)
        assert np.isnan(displacement(counts).x.overall)

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"max_displacement": 0}, "max_displacement in whole pixels, >= 1, got 0"),
            ({"max_displacement": 2.5}, "max_displacement in whole pixels, >= 1, got 2.5"),
            ({"bins": 4}, "bins to be a multiple of 3, so that thirds are bins, got 4"),
            ({"bins": 0}, "bins to be a multiple of 3"),
        ],
    )
    def test_errors(self, option, message):
        with pytest.raises(ValueError, match=message):
            edge_counts(*torch.zeros(2, 4, 4, dtype=torch.int64), 2, **option)


class TestDisplacement:
    def test_positive_is_right_of_and_below_the_label(self):
        label = torch.zeros(80, 80, dtype=torch.int64)
        label[30:45, 30:50] = 1
        result = displacement(edge_counts(label.roll((-2, 3), (0, 1)), label, 2))
        assert result.x.overall == pytest.approx(3, abs=1e-3)
        assert result.y.overall == pytest.approx(-2, abs=1e-3)

    @pytest.mark.parametrize(("right", "down"), [(1, 0), (0, 1), (1, 1), (1, -1), (5, 2)])
    def test_an_edge_says_nothing_along_itself(self, right, down):
        """All shifts along it agree as well; the smallest is taken."""
        across = right * (torch.arange(80) - 40) + down * (torch.arange(80)[:, None] - 40)
        label = (across > 0).long()
        result = displacement(edge_counts(label, label, 2))
        assert (result.x.overall, result.y.overall) == pytest.approx((0, 0), abs=1e-9)
        assert result.found == 1
        moved = displacement(edge_counts((across > right**2 + down**2).long(), label, 2))
        assert (moved.x.overall, moved.y.overall) == pytest.approx((right, down), abs=0.01)

    @pytest.mark.parametrize("seed", range(4))
    def test_thin_objects(self, seed):
        """The opposite edge of a pole is near; and along it little changes."""
        rng = np.random.default_rng(seed)
        label = np.zeros((180, 240), np.int64)
        for left, width, lean, top in rng.uniform((20, 2, 0, 0), (220, 5, 0.06, 100), (4, 4)):
            for row in range(int(top), len(label)):
                label[row, int(left + lean * row) :][: int(width)] = 1
        label = torch.from_numpy(label)
        for dx in (0, 3):
            result = displacement(edge_counts(label.roll(dx, 1), label, 2))
            assert (result.x.overall, result.y.overall) == pytest.approx((dx, 0), abs=0.01)
            assert result.found == pytest.approx(1, abs=0.01)

    def test_a_perfect_prediction_has_none(self):
        result = measure(images=1)
        assert_measured(result, tolerance=1e-3)
        assert result.found == pytest.approx(1, abs=1e-3)

    @pytest.mark.parametrize(
        ("x", "y"), [(0.25, 0), (0, -0.5), (-1.3, 0), (3.7, -2.3), (-7.6, 0.4), (8, 8), (8, -8), (-8, 5.5)]
    )
    def test_shifts(self, x, y):
        result = measure(x=(x, 0), y=(y, 0))
        assert_measured(result, x=(x, 0), y=(y, 0))
        np.testing.assert_allclose(result.x.profile, x, atol=0.1)
        np.testing.assert_allclose(result.y.profile, y, atol=0.1)

    @pytest.mark.parametrize(("x", "y"), [((0, 8), (0, 0)), ((0.5, -14), (-3.3, 4)), ((-2, 6), (3, -10))])
    def test_stretches(self, x, y):
        result = measure(x=x, y=y)
        assert_measured(result, x=x, y=y)
        middle = (np.arange(6) + 0.5) / 6 - 0.5
        np.testing.assert_allclose(result.x.profile, x[0] + x[1] * middle, atol=0.1)
        np.testing.assert_allclose(result.y.profile, y[0] + y[1] * middle, atol=0.1)

    @pytest.mark.parametrize(("x", "y"), [((2.3, 0), (-1.6, 0)), ((7.3, 0), (0, 0)), ((0.5, 8), (1, -5))])
    def test_noise_and_missing_objects(self, x, y):
        result = measure(x=x, y=y, noise=0.05, missing=0.2, images=2 * IMAGES)
        assert_measured(result, x=x, y=y)
        assert 0.6 < result.found < 0.85

    def test_a_slanted_edge_does_not_turn_one_axis_into_the_other(self):
        """Look at more than rows: by these alone, both sides of a road that moves down seem to move outwards."""
        assert_measured(measure(y=(4.6, 0), road=True), y=(4.6, 0))

    def test_ignored_pixels(self):
        assert_measured(measure(x=(2.6, 0), y=(-4, 0), ignored=True), x=(2.6, 0), y=(-4, 0))

    def test_one_third_alone(self):
        """Leave to the regions what is no line."""
        scene = Scene(0)
        y, x = (np.arange(n, dtype=float) for n in SIZE)
        label = scene.render(y, x)
        pred = np.where(x > 2 * SIZE[1] / 3, scene.render(y, x - 3), label)
        thirds = displacement(edge_counts(torch.from_numpy(pred), torch.from_numpy(label), C)).x.thirds
        np.testing.assert_allclose(thirds, [0, 0, 3], atol=0.3)

    def test_more_bins_and_a_greater_range(self):
        result = measure(x=(-12, 0), max_displacement=12, bins=9)
        np.testing.assert_allclose(result.x.profile, np.full(9, -12.0), atol=0.05)

    def test_out_of_range(self):
        """Agreement is counted up to 7 px here, so the peak is seen, and is where it may not be."""
        result = measure(x=(6, 0), images=1, max_displacement=3)
        assert np.isnan([result.x.overall, *result.x.thirds]).all()
        assert result.y.overall == pytest.approx(0, abs=0.05)

    def test_noise_is_not_found(self):
        generator = torch.Generator().manual_seed(0)
        pred, label = torch.randint(C, (2, *SIZE), generator=generator)
        found = displacement(edge_counts(pred, label, C)).found
        assert np.isnan(found) or abs(found) < 0.05

    @pytest.mark.filterwarnings("error")
    def test_nothing_to_measure(self):
        """No edges at all, and edges in one corner only."""
        label = torch.zeros(60, 60, dtype=torch.int64)
        result = displacement(edge_counts(label, label, 2))
        assert np.isnan([result.x.overall, result.y.drift, result.found, *result.x.thirds, *result.y.profile]).all()
        label[15:19, 15:19] = 1
        result = displacement(edge_counts(label.roll(1, 1), label, 2))
        assert result.x.thirds[0] == pytest.approx(1, abs=0.01)
        assert np.isnan(result.x.thirds[2])
