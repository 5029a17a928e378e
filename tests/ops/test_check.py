import pytest

from mmseg_resample.ops import _check


@pytest.mark.parametrize(
    ("value", "hint"),
    [("bilinaer", " Did you mean 'bilinear'?"), ("bicubicc", " Did you mean 'bicubic'?"), ("xyz", ""), ("", "")],
)
def test_did_you_mean(value, hint):
    assert _check.did_you_mean(value, ("bilinear", "bicubic")) == hint
    assert _check.did_you_mean(value, iter(["bilinear", "bicubic"])) == hint
    assert _check.did_you_mean(value, ("bilinear", "bicubic"), cutoff=1.0) == ""
