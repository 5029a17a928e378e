"""Which resize a table of constants computes: a matrix of weights, or the indices of a gather, along one axis.

Exporters write resizes that a runtime has no operator for as products with constant matrices, and nearest ones as
gathers by constant indices. A guess is never trusted: the matrix, or the indices, are rebuilt from the map by the very
``ops.resize`` that is to compute it, and compared.
"""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes

from ..grids.sites import resizes_unseen
from ..ops import AxisMap, Coordinates, resize

Options = dict[str, AxisMap]
"""Kernel (``"bins"``, ``"linear"``, ``"cubic"``, ``"nearest"``) to the map with which it computes the table."""

_MODES = {"linear": "linear", "cubic": "bicubic", "nearest": "nearest"}
_NAMED: tuple[Coordinates, ...] = ("half_pixel", "align_corners", "asymmetric")
_SAME = 1e-5  # of a weight
_NEAR = 1e-3  # of a sample; closer positions are worth a proof
_STEPS = 64  # largest denominator of a step that is guessed for indices


def options_of_matrix(matrix: np.ndarray) -> Options:
    """Return the resizes that multiplying by ``matrix``, (size, source size), computes; none if it is no resize.

    Bins are those of ``F.adaptive_avg_pool2d``; linear and cubic kernels repeat the edge.
    """
    weights = matrix.astype(np.float64)
    size, n = weights.shape
    if not size or not n or abs(weights.sum(1) - 1).max() > 10 * _SAME:
        return {}
    found: Options = {}
    if abs(weights - bins_matrix(n, size)).max() < _SAME:
        found["bins"] = AxisMap.from_convention("half_pixel", n, size)
    for kernel in ("linear", "cubic"):
        for guess in _guesses(_positions(weights, kernel), n, size):
            if abs(rebuilt(kernel, guess, n, size) - weights).max() < _SAME:
                found[kernel] = guess
                break
    return found


def options_of_indices(index: np.ndarray, n: int) -> Options:
    """Return the nearest resize that gathers samples ``index`` of ``n``; nothing if none does."""
    if index.ndim != 1 or not index.size or index.dtype.kind not in "iu":
        return {}
    wanted = np.where(index < 0, index + n, index).astype(np.int64)
    if (np.diff(wanted) < 0).any():
        return {}
    found = nearest_map(wanted, n)
    return {} if found is None else {"nearest": found}


def nearest_map(index: np.ndarray, n: int) -> AxisMap | None:
    """Return the map that ``ops.resize(mode="nearest")`` reads samples ``index`` at; None if there is none."""
    for guess in _steps_through(index, n):
        if (np.rint(rebuilt("nearest", guess, n, len(index)) @ np.arange(n)) == index).all():
            return guess
    return None


def rebuilt(kernel: str, axis_map: AxisMap, n: int, size: int) -> np.ndarray:
    """Return the matrix (size, n) of a resize along one axis, as ``ops.resize`` computes it."""
    with _disable_current_modes(), resizes_unseen(), torch.inference_mode(False), torch.no_grad():
        unit = torch.eye(n, dtype=torch.float64)[None]
        mode: str = _MODES[kernel]
        out = resize(unit, size, mode=mode, coordinates=axis_map, warning=False)  # type: ignore[arg-type]
        return out[0].T.numpy()


def bins_matrix(n: int, bins: int) -> np.ndarray:
    """Return the matrix (bins, n) of adaptive average pooling."""
    i = np.arange(bins)
    starts, ends = i * n // bins, -(-(i + 1) * n // bins)
    samples = np.arange(n)
    inside = (samples >= starts[:, None]) & (samples < ends[:, None])
    return inside / (ends - starts)[:, None]


def _positions(weights: np.ndarray, kernel: str) -> np.ndarray:
    """Return where each row reads; NaN where it does not tell, and at the edge, which is read from beyond too."""
    n = weights.shape[1]
    if kernel == "linear":
        at = weights @ np.arange(n)
        inner = (at > _SAME) & (at < n - 1 - _SAME)
        return np.where(inner, at, np.nan)
    at = np.full(len(weights), np.nan)
    share = np.linspace(0, 1, 100001)
    falls = (1.25 * share - 2.25) * share * share + 1  # the weight of the sample before the position, a = -0.75
    for i, row in enumerate(weights):
        taps = np.flatnonzero(abs(row) > 1e-9)
        if len(taps) == 4 and taps[3] - taps[0] == 3:
            at[i] = taps[1] + np.interp(-row[taps[1]], -falls, share)
        elif len(taps) == 1 and 0 < taps[0] < n - 1:
            at[i] = taps[0]
    return at


def _guesses(positions: np.ndarray, n: int, size: int) -> Iterator[AxisMap]:
    """Yield maps that go through ``positions``: conventions first, since those fit without rounding."""
    known = np.flatnonzero(~np.isnan(positions))
    index = np.arange(size)
    for name in _NAMED:
        named = AxisMap.from_convention(name, n, size)
        if abs(named.scale * index + named.offset - positions)[known].max(initial=0) < _NEAR:
            yield named
    if len(known) == 1:
        at, i = positions[known[0]], int(known[0])
        for step in {n / size, (n - 1) / max(size - 1, 1), at, n - 1 - at}:
            yield AxisMap(step, at - step * i)
    if len(known) < 2:
        return
    first, last = int(known[0]), int(known[-1])
    step = (positions[last] - positions[first]) / (last - first)
    if abs(positions[first] + step * (index - first) - positions)[known].max() > _NEAR:
        return
    simple = Fraction(step).limit_denominator(1024)
    if abs(float(simple) - step) < 1e-6:
        yield AxisMap(float(simple), float(np.mean((positions - float(simple) * index)[known])))
    yield AxisMap(float(step), float(positions[first] - step * first))


def _steps_through(index: np.ndarray, n: int) -> Iterator[AxisMap]:
    """Yield maps whose floors, cut at the borders, are ``index``."""
    size, i = len(index), np.arange(len(index))
    lower, upper = index > 0, index < n - 1  # cut values bound a map on one side only
    steps = [n / size, (n - 1) / max(size - 1, 1), 1.0]
    if size > 1:
        slope = (index[-1] - index[0]) / (size - 1)
        steps.append(slope)
        inner = np.flatnonzero(lower & upper)
        if len(inner) > 1:
            slope = (index[inner[-1]] - index[inner[0]]) / (inner[-1] - inner[0])
        near = {Fraction(round(slope * q), q) for q in range(1, _STEPS + 1)}
        steps += [float(s) for s in sorted(near, key=lambda s: s.denominator) if s > 0]
    for step in steps:
        low = np.max((index - step * i)[lower], initial=-np.inf)
        high = np.min((index + 1 - step * i)[upper], initial=np.inf)
        if low >= high - 1e-7:
            continue
        centred = step / 2 - 0.5
        for offset in (0.0, centred, centred + 0.5, low, high - 0.5):
            if low <= offset < high - 1e-7:
                yield AxisMap(float(step), float(offset))
        if np.isfinite(low) and np.isfinite(high):
            yield AxisMap(float(step), float((low + high) / 2))
