"""Studies written for a config of somebody's own: they load, and say what fits its geometry."""

import pytest

from mmseg_resample.launch.messages import UsageError
from mmseg_resample.study import loading, new
from mmseg_resample.study.command import main

FCN = "mmseg_resample::shapes/fcn_r18-d8-tiny_1xb8-400_shapes-128x128.py"
MIT = "mmseg_resample::shapes/fcn_swin-tiny_1xb8-400_shapes-128x128.py"


def test_odd_kernels_get_both_sizes_and_an_interaction(tmp_path):
    study = loading.load(new.write(FCN, tmp_path / "study.py"))
    assert study.train == {"pixel_model": ["false", "true", "exact_pad"], "input": ["128x128", "129x129"]}
    assert [(each.variant, dict(each.along)) for each in study.family] == [("true", {"input": ("128x128", "129x129")})]
    configs = {tuple(run.variants.values()): run.config for run in study.runs()}
    assert configs["true", "129x129"].model.decode_head.align_corners is True
    assert configs["true", "129x129"].model.data_preprocessor.size == (129, 129)
    for loader in ("train_dataloader", "test_dataloader"):
        assert configs["true", "129x129"][loader].dataset.size == (129, 129)
    policy = configs["exact_pad", "128x128"].model.resize_policy
    assert policy["exact"] and policy["pad"] == "replicate"


def test_patches_get_the_size_that_false_fits(tmp_path):
    study = loading.load(new.write(MIT, tmp_path / "study.py"))
    assert study.train == {"pixel_model": ["false", "exact_pad"], "input": ["128x128"]}
    assert [(each.variant, each.along) for each in study.family] == [("exact_pad", ())]


def test_a_stock_config_of_somebody_s_own(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("_base_ = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'\n")
    assert main(["--new", "mine.py"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "mine_study.py: 30 runs" in output and "not known yet: test_dataloader" in output.replace("train_", "test_")
    (run, *_) = loading.load("mine_study.py").runs()
    (crop,) = (step for step in run.config.train_dataloader.dataset.pipeline if step["type"] == "RandomCrop")
    assert crop["crop_size"] == (512, 1024) and run.config.model.auxiliary_head.align_corners is False
    assert main(["--new", "mine.py"]) == 2
    assert "mine_study.py exists. Name another file with --out" in capsys.readouterr().err


def test_a_config_whose_size_nothing_sets(tmp_path):
    (tmp_path / "c.py").write_text(
        f"_base_ = {FCN!r}\nmodel = dict(data_preprocessor=dict(size=None, size_divisor=8))\n"
        "train_dataloader = dict(dataset=dict(size=64))\n"
    )
    with pytest.raises(UsageError, match="no crop_size and no size for its training images"):
        new.write(str(tmp_path / "c.py"), tmp_path / "study.py")
