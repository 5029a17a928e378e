"""Argument checks that the statistics of a study share."""

import numpy as np
from numpy.typing import ArrayLike

RandomSource = np.random.Generator | int
"""A generator, which advances, or a seed, which fixes the result."""


def check_differences(function: str, differences: ArrayLike) -> np.ndarray:
    """Convert ``differences`` to float64 of shape (n,), and refuse what is not finite."""
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(
            f"{function}: expected finite differences of shape (seeds,), got shape {values.shape}: {values}. "
            f"Leave out the seeds that have no score."
        )
    return values


def all_equal(values: np.ndarray) -> bool:
    """Tell whether the values are equal, up to the rounding of the scores that they are differences of."""
    return bool(values.size and np.ptp(values) <= 1e-10 * np.abs(values).max())


def check_probability(function: str, name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{function}: expected {name} in (0, 1), got {value}.")


def check_positive(function: str, name: str, value: float) -> None:
    if not 0 < value < np.inf:
        raise ValueError(f"{function}: expected a positive, finite {name}, got {value}.")
