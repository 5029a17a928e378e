import pytest

from mmseg_resample.suggest import did_you_mean, did_you_mean_file, did_you_mean_key


@pytest.mark.parametrize(
    ("value", "names", "options", "expected"),
    [
        ("bilinaer", ("bilinear", "bicubic"), {}, " Did you mean 'bilinear'?"),
        ("xyz", ("bilinear", "bicubic"), {}, ""),
        ("", ("bilinear",), {}, ""),
        ("ab", (), {}, ""),
        ("size1", ("size", "sizes"), {"count": 2}, " Did you mean 'size' or 'sizes'?"),
        ("xyz", ("abz",), {"cutoff": 0.1}, " Did you mean 'abz'?"),
    ],
)
def test_names(value, names, options, expected):
    assert did_you_mean(value, names, **options) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("max_iters", " Did you mean 'train_cfg.max_iters'?"),
        ("train_cfg.max_iter", " Did you mean 'train_cfg.max_iters'?"),
        ("modl.head.align_corners", " Did you mean 'model.head.align_corners'?"),
        ("modl.head.algn_corners", " Did you mean 'model.head.align_corners'?"),
        ("train_cfg.zzz", ""),
    ],
)
def test_keys(key, expected):
    assert (
        did_you_mean_key(key, ["train_cfg", "train_cfg.max_iters", "model.head", "model.head.align_corners"])
        == expected
    )


def test_files(tmp_path):
    (tmp_path / "tiny.py").touch()
    (tmp_path / "folder").mkdir()
    assert did_you_mean_file(tmp_path / "tinny.py") == " Did you mean 'tiny.py'?"
    assert did_you_mean_file(tmp_path / "foldr" / "x.py") == " Did you mean 'folder'?"
    assert did_you_mean_file(tmp_path / "folder") == " It is a folder."
    assert did_you_mean_file(tmp_path / "tiny.py" / "x") == f" {tmp_path / 'tiny.py'} is a file, not a folder."
    assert did_you_mean_file(tmp_path / "zzz") == f" Nothing in {tmp_path} is called zzz."
