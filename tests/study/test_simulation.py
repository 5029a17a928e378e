"""Simulated studies with known effects: do 95 % intervals cover 95 %, do tests of level 5 % err in 5 %?

The tables of docs/statistics.md are measured here, and the tests hold fresh simulations against them. To measure again:
``python -m tests.study.test_simulation``, which prints the rows.
"""

import functools
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mmseg_resample.study import design, image_bootstrap, intervals, significance

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "docs" / "statistics.md"
MEASURED = 20_000  # studies per figure in the document; the nested bootstrap has MEASURED_NESTED
MEASURED_NESTED = 4_000
SEEDS = (3, 6, 10)

Study = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Rate:
    """Count of the simulated studies, of so many, that did something."""

    hits: int
    studies: int

    @property
    def value(self) -> float:
        return self.hits / self.studies

    def error(self, expected: float) -> float:
        """Monte Carlo standard error, if ``expected`` is the true rate."""
        return math.sqrt(expected * (1 - expected) / self.studies)

    def is_near(self, expected: float, expected_from: float = math.inf) -> bool:
        """Tell whether four standard errors reach a rate that is known, or was itself measured from so many studies."""
        error = math.hypot(self.error(expected), math.sqrt(expected * (1 - expected) / expected_from))
        # Counts are whole, and the document has a tenth of a percent.
        return abs(self.value - expected) <= 4 * error + 1 / self.studies + 0.0005

    def is_at_most(self, expected: float) -> bool:
        return self.value <= expected + 4 * self.error(expected)


def rate(happens: Callable[[np.random.Generator], bool], studies: int, name: str) -> Rate:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return Rate(sum(bool(happens(rng)) for _ in range(studies)), studies)


# --- Differences per seed with mean 0 and standard deviation 1 --------------------------------------------------------

SHAPES: dict[str, Study] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "skewed": lambda rng, n: rng.exponential(size=n) - 1,
    "heavy tails": lambda rng, n: rng.standard_t(3, n) / math.sqrt(3),
}


def covers(method: str, shape: str, n: int, rng: np.random.Generator) -> bool:
    differences = SHAPES[shape](rng, n)
    if method == "t_interval":
        interval = intervals.t_interval(differences)
    else:
        interval = intervals.bca_interval(differences, rng=rng, replicates=1999)
    return interval.low <= 0 <= interval.high


def refutes_zero(method: str, shape: str, n: int, rng: np.random.Generator) -> bool:
    differences = SHAPES[shape](rng, n)
    test = {"sign_flip_test": significance.sign_flip_test, "t_test": significance.t_test}[method]
    return test(differences).p <= 0.05


def finds_effect(method: str, n: int, rng: np.random.Generator) -> bool:
    test = {"sign_flip_test": significance.sign_flip_test, "t_test": significance.t_test}[method]
    return test(rng.normal(1, 1, n)).p <= 0.05


def claims_equivalence(margin: float, n: int, rng: np.random.Generator) -> bool:
    """Draw a study whose true difference is the margin, and test it."""
    return significance.equivalence_test(rng.normal(margin, 1, n), margin).equivalent


def errs_in_family(method: str, real: int, n: int, rng: np.random.Generator) -> bool:
    """Tell whether Holm's correction of four comparisons with one reference lets a true null through.

    ``real`` of them differ by 3 sd; the others do not. All are correlated by their reference.
    """
    reference = rng.standard_normal(n)
    test = {"sign_flip_test": significance.sign_flip_test, "t_test": significance.t_test}[method]
    p = {k: test((3 if k < real else 0) + (rng.standard_normal(n) - reference) / math.sqrt(2)).p for k in range(4)}
    adjusted = significance.holm(p)
    return any(adjusted[k] <= 0.05 for k in range(real, 4))


# --- Studies with images ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Population:
    """Two variants of a segmentor whose accuracy on a class is a logit with these standard deviations.

    Attributes:
        seed: of a training's own part; twins of one seed share another ``SHARED_SEED``.
        image: of an image's part that only one variant has; both variants share another ``SHARED_IMAGE``.
        both: of the part that one training has on one image.
    """

    seed: float
    image: float
    both: float

    EFFECT = 0.2
    BASE = np.array([2.0, 1.0, 1.0, 0.5])
    PROPORTIONS = np.array([3.0, 1.5, 1.5, 0.6])  # of the classes: Dirichlet, image by image
    IMAGES, PIXELS = 60, 100_000
    SHARED_SEED, SHARED_IMAGE = 0.2, 0.5

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw (2, n, images, C, C) confusion matrices."""
        classes = len(self.BASE)
        labels = np.floor(rng.dirichlet(self.PROPORTIONS, self.IMAGES) * self.PIXELS).astype(np.int64)
        logit = self.BASE + np.array([self.EFFECT, 0])[:, None, None, None]
        logit = logit + self.SHARED_SEED * rng.standard_normal((1, n, 1, 1))
        logit = logit + self.SHARED_IMAGE * rng.standard_normal((1, 1, self.IMAGES, 1))
        logit = logit + self.seed * rng.standard_normal((2, n, 1, 1))
        logit = logit + self.image * rng.standard_normal((2, 1, self.IMAGES, 1))
        logit = logit + self.both * rng.standard_normal((2, n, self.IMAGES, 1))
        hits = np.rint(labels * _sigmoid(logit)).astype(np.int64)
        share, rest = np.divmod(labels - hits, classes - 1)  # what is missed goes to the other classes alike
        confusion = np.empty((*hits.shape, classes), np.int64)
        index = np.arange(classes)
        confusion[..., index, index] = hits
        for step in range(1, classes):
            confusion[..., index, (index + step) % classes] = share + (step <= rest)
        return confusion

    @functools.cached_property
    def effect(self) -> float:
        """The difference in mIoU over all seeds and all images: the integrals over the logits, by quadrature."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        weights = weights / weights.sum()
        of_seed = math.hypot(self.SHARED_SEED, self.seed) * nodes[:, None, None]
        of_image = math.hypot(self.SHARED_IMAGE, self.image, self.both) * nodes
        labels = self.PROPORTIONS / self.PROPORTIONS.sum()
        means = []
        for effect in (self.EFFECT, 0.0):
            hits = labels * (_sigmoid(self.BASE[:, None] + effect + of_seed + of_image) @ weights)
            missed = labels - hits
            predicted = hits + (missed.sum(-1, keepdims=True) - missed) / (len(labels) - 1)
            means.append(100 * weights @ (hits / (labels + predicted - hits)).mean(-1))
        return means[0] - means[1]


POPULATIONS = {
    "seeds dominate": Population(seed=0.15, image=0.1, both=0.2),
    "seeds and images alike": Population(seed=0.1, image=0.5, both=0.3),
    "images dominate": Population(seed=0.02, image=0.8, both=0.1),
}
NESTED = ("student", "percentile", "t_interval")


def nested_coverage(population: str, n: int, studies: int) -> dict[str, Rate]:
    """Count how often each interval for both sources, and Student's for seeds alone, covers the true effect."""
    rng = np.random.default_rng(zlib.crc32(f"{population} {n}".encode()))
    truth = POPULATIONS[population].effect
    hits = dict.fromkeys(NESTED, 0)
    for _ in range(studies):
        arms = image_bootstrap.image_counts(POPULATIONS[population].draw(rng, n))
        result = image_bootstrap.nested_bootstrap(list(arms), rng=rng, replicates=500)
        found = (result.student, result.percentile, intervals.t_interval(result.by_seed))
        for name, interval in zip(NESTED, found, strict=True):
            hits[name] += interval.low <= truth <= interval.high
    return {name: Rate(count, studies) for name, count in hits.items()}


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# --- The table of the document ----------------------------------------------------------------------------------------

SIMULATIONS: dict[tuple[str, str], Callable[[int, np.random.Generator], bool]] = {
    **{(m, s): functools.partial(covers, m, s) for m in ("t_interval", "bca_interval") for s in SHAPES},
    **{
        (m, f"no effect, {s}"): functools.partial(refutes_zero, m, s)
        for m in ("sign_flip_test", "t_test")
        for s in SHAPES
    },
    **{
        ("equivalence_test", f"effect = margin = {margin} sd"): functools.partial(claims_equivalence, margin)
        for margin in (0.25, 4)
    },
    **{
        (f"holm of 4 {m}s", f"{real} real effects"): functools.partial(errs_in_family, m, real)
        for m in ("sign_flip_test", "t_test")
        for real in (0, 2)
    },
    **{(m, "effect = sd"): functools.partial(finds_effect, m) for m in ("sign_flip_test", "t_test")},
}


def simulate(case: tuple[str, str], n: int, studies: int) -> Rate:
    return rate(functools.partial(SIMULATIONS[case], n), studies, f"{case} {n}")


def documented() -> dict[tuple[str, str, int], float]:
    """(figure, situation, n) -> rate, from the tables of the document whose columns are numbers of seeds."""
    found, columns = {}, []
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if cells[2:] and all(cell.startswith("n = ") for cell in cells[2:]):
            columns = [int(cell.removeprefix("n = ")) for cell in cells[2:]]
        elif not cells:
            columns = []
        elif columns and not cells[0].startswith("-"):
            found |= {(cells[0], cells[1], n): float(cell) / 100 for n, cell in zip(columns, cells[2:], strict=True)}
    return found


def test_document_has_every_figure():
    figures = [*SIMULATIONS, *((name, population) for population in POPULATIONS for name in NESTED)]
    assert documented().keys() == {(*figure, n) for figure in figures for n in SEEDS}


@pytest.mark.parametrize("case", SIMULATIONS, ids=" ".join)
def test_simulation_agrees_with_the_document(case):
    for n in SEEDS:
        measured = simulate(case, n, studies=300)
        expected = documented()[(*case, n)]
        assert measured.is_near(expected, expected_from=MEASURED), (n, measured, expected)


@pytest.mark.parametrize("population", POPULATIONS)
@pytest.mark.parametrize("n", SEEDS)
def test_nested_bootstrap_agrees_with_the_document(population, n):
    for name, measured in nested_coverage(population, n, studies=200).items():
        expected = documented()[name, population, n]
        assert measured.is_near(expected, expected_from=MEASURED_NESTED), (name, measured, expected)


# --- What the document must show, from the many studies it was measured with ------------------------------------------


def test_t_is_exact_for_normal_differences():
    for n in SEEDS:
        assert Rate(round(documented()["t_interval", "normal", n] * MEASURED), MEASURED).is_near(0.95)
        assert Rate(round(documented()["t_test", "no effect, normal", n] * MEASURED), MEASURED).is_near(0.05)


@pytest.mark.parametrize(("n", "level"), [(3, 0.0), (6, 2 / 64), (10, 50 / 1024)])
def test_sign_flips_have_their_discrete_level_under_symmetry(n, level):
    for shape in ("normal", "heavy tails"):
        measured = documented()["sign_flip_test", f"no effect, {shape}", n]
        assert Rate(round(measured * MEASURED), MEASURED).is_near(level)


def test_bca_cannot_cover_more_than_its_range():
    for n in SEEDS:
        measured = Rate(round(documented()["bca_interval", "normal", n] * MEASURED), MEASURED)
        assert measured.is_at_most(1 - significance.smallest_p(n))
        assert measured.value < 0.92


def test_equivalence_and_families_err_in_at_most_a_twentieth():
    for (figure, situation, n), value in documented().items():
        if figure == "equivalence_test" or figure.startswith("holm"):
            assert Rate(round(value * MEASURED), MEASURED).is_at_most(0.05), (figure, situation, n)
    for n in SEEDS:
        measured = documented()["equivalence_test", "effect = margin = 4 sd", n]
        assert Rate(round(measured * MEASURED), MEASURED).is_near(0.05)  # a margin that does not bind the other side


def test_student_covers_with_both_sources():
    for population in POPULATIONS:
        for n in SEEDS:
            measured = documented()["student", population, n]
            assert 0.94 <= measured <= 0.97, (population, n, measured)


def test_power_is_that_of_the_noncentral_t():
    for n in SEEDS:
        measured = Rate(round(documented()["t_test", "effect = sd", n] * MEASURED), MEASURED)
        assert measured.is_near(design.t_power(1, 1, n))


# --- Plans ------------------------------------------------------------------------------------------------------------


def test_adding_seeds_until_significant_finds_what_is_not_there():
    """12 % of the studies that test after every seed from 6 to 12, as the document says."""

    def finds(rng):
        differences = rng.standard_normal(12)
        return any(significance.sign_flip_test(differences[:n]).p <= 0.05 for n in range(6, 13))

    assert rate(finds, 300, "stopping").is_near(0.12)


def test_a_cautious_plan_reaches_its_power_in_four_studies_of_five():
    """Plan from 3 pilot seeds, effect = sd / 2 given: Browne's guarantee. The plan with the observed sd has none."""

    def reaches(cautious, rng):
        sd = rng.normal(0.5, 1, 3).std(ddof=1)
        needed = design.seeds_needed(0.5, design.sd_limit(sd, 3) if cautious else sd)
        return needed is None or design.t_power(0.5, 1, needed) >= 0.8 - 1e-9

    assert rate(functools.partial(reaches, True), 300, "cautious").is_near(0.81)
    assert rate(functools.partial(reaches, False), 300, "plan").is_near(0.39)


if __name__ == "__main__":
    for case in SIMULATIONS:
        rates = [simulate(case, n, MEASURED) for n in SEEDS]
        print(f"| `{case[0]}` | {case[1]} | {' | '.join(f'{100 * r.value:.1f}' for r in rates)} |", flush=True)
    for population in POPULATIONS:
        by_n = [nested_coverage(population, n, MEASURED_NESTED) for n in SEEDS]
        for name in NESTED:
            cells = " | ".join(f"{100 * of_n[name].value:.1f}" for of_n in by_n)
            print(f"| `{name}` | {population} | {cells} |", flush=True)
