"""Words that commands and reports share."""

import pytest

from mmseg_resample.study.words import counted, too_few_seeds


@pytest.mark.parametrize(("n", "words"), [(0, "0 seeds"), (1, "1 seed"), (2, "2 seeds")])
def test_one_is_singular(n, words):
    assert counted(n, "seed") == words


def test_too_few_seeds():
    assert too_few_seeds(1, 1, 6) == (
        "1 seed is too few for the declared comparison to be significant, whatever the numbers: that takes 6"
    )
    assert too_few_seeds(3, 4, 8) == (
        "3 seeds are too few for any of 4 declared comparisons to be significant, whatever the numbers: that takes 8"
    )
