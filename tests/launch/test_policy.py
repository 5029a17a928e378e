"""A stock config plus the policy: trained, tested and loaded again, by mmseg's own tools and ours."""

import re
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmseg.apis import inference_model, init_model
from mmseg.registry import MODELS

from mmseg_resample import launch

from .test_train import TOOLS, command, finish, folder, start  # noqa: F401  (two fixtures)

STOCK = Path(mmseg.__file__).parent / ".mim" / "tools"

PLAIN = """
_base_ = 'tiny.py'
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
"""
EXACT = """
_base_ = 'plain.py'
model = dict(type='ResampledSegmentor', resize_policy=dict(exact=True))
"""


def miou(output):
    return float(re.findall(r"mIoU[: ]+([\d.]+)", output)[-1])


@pytest.mark.slow
def test_a_users_path(folder, command):  # noqa: F811
    """The policy is trained by one tool, resumed by another, and tested by all, with one result."""
    (folder / "plain.py").write_text(PLAIN)
    (folder / "exact.py").write_text(EXACT)
    command("train", "exact.py", "--work-dir", "exact")
    arguments = ("exact.py", "--work-dir", "exact", "--resume", "--cfg-options", "train_cfg.max_iters=6")
    out, err = finish(start(folder, STOCK / "train.py", *arguments))
    assert "resumed epoch: 0, iter: 4" in out
    trained = miou(out + err)
    checkpoint = folder / "exact" / "iter_6.pth"
    flat = folder / "exact" / "exact.py"  # as mmengine saved it: no bases, only custom_imports names this package
    assert "_base_" not in flat.read_text() and "custom_imports" in flat.read_text()
    out, err = finish(start(folder, STOCK / "test.py", flat, checkpoint, "--work-dir", "tested"))
    assert miou(out + err) == pytest.approx(trained, abs=0.01)
    for config in (("exact.py",), ("plain.py", "--policy", "exact")):
        out, err = command("test", *config, checkpoint, "--work-dir", "tested")
        assert miou(out + err) == pytest.approx(trained, abs=0.01)
    model = init_model(str(folder / "exact.py"), str(checkpoint), device="cpu")
    assert ("decode_head.logits", 0) in model.resize_policy.report()["exact"]
    exact = inference_model(model, str(folder / "images" / "0.png"))
    stock = init_model(str(folder / "plain.py"), str(checkpoint), device="cpu")
    assert not torch.equal(
        inference_model(stock, str(folder / "images" / "0.png")).seg_logits.data, exact.seg_logits.data
    )


@pytest.mark.parametrize(
    ("word", "policy"),
    [
        ("exact", dict(exact=True)),
        ("True", dict(rules=[dict(align_corners=True)])),
        ("asymmetric", dict(rules=[dict(coordinates="asymmetric")])),
    ],
)
def test_the_command_line_sets_the_policy(word, policy):
    cfg = Config(dict(model=dict(type="CascadeEncoderDecoder")))
    launch.set_policy(cfg, word)
    assert cfg.model == dict(type="ResampledSegmentor", segmentor="CascadeEncoderDecoder", resize_policy=policy)


@pytest.mark.parametrize(
    ("model", "segmentor"),
    [
        (dict(), dict(segmentor="EncoderDecoder")),
        (dict(segmentor="CascadeEncoderDecoder"), dict(segmentor="CascadeEncoderDecoder")),
        (dict(segmentor=dict(type="CascadeEncoderDecoder", num_stages=2)), None),
        (dict(segmentor="ResampledSegmentor", resize_policy=dict(exact=False)), {}),
    ],
)
def test_a_policy_goes_below_lean(model, segmentor):
    cfg = Config(dict(model=dict(type="LeanSegmentor", lean=dict(slide=False), **model)))
    launch.set_policy(cfg, "True")
    if segmentor is None:
        segmentor = dict(segmentor="CascadeEncoderDecoder", num_stages=2)
    policy = dict(rules=[dict(align_corners=True)])
    below = dict(type="ResampledSegmentor", resize_policy=policy, **segmentor)
    assert cfg.model == dict(type="LeanSegmentor", lean=dict(slide=False), segmentor=below)


def test_lean_and_a_policy_of_the_command_line_are_built():
    cfg = Config.fromfile(TOOLS.parent / "configs" / "shapes" / "fpn_r18-tiny_1xb8-400_shapes-128x128.py")
    cfg.model.type = "LeanSegmentor"
    launch.set_policy(cfg, "asymmetric")
    init_default_scope("mmseg")
    model = MODELS.build(cfg.model)
    assert model.lean.labels and model.resize_policy.rules[0].coordinates == "asymmetric"


@pytest.mark.parametrize(
    ("model", "lines"),
    [
        (dict(), []),
        (
            dict(type="ResampledSegmentor", resize_policy=dict(exact=True)),
            ["ResizePolicy is in force, resizes: 8 exact"],
        ),
        (
            dict(
                type="LeanSegmentor",
                lean=dict(slide=False),
                segmentor="ResampledSegmentor",
                resize_policy=dict(rules=[dict(align_corners=True)]),
            ),
            ["ResizePolicy is in force, 1 rule", "LeanSegmentor is in force: loss, labels, fusion, seg_logits"],
        ),
    ],
)
def test_the_log_says_what_is_in_force(tmp_path, model, lines):
    config = TOOLS.parent / "configs" / "shapes" / "fpn_r18-tiny_1xb8-400_shapes-128x128.py"
    cfg = launch.load_config(str(config), work_dir=str(tmp_path))
    cfg.model.update(model)
    runner = launch.build_runner(cfg)
    (log,) = tmp_path.glob("*/*.log")
    MMLogger._instance_dict.clear()
    said = [line.partition("INFO - ")[2] for line in log.read_text().splitlines() if "in force" in line]
    assert said == lines and runner.model is not None


def test_the_command_line_refuses():
    with pytest.raises(launch.UsageError, match=r"expected exact, exact\+pad, True, False or one of half_pixel"):
        launch.set_policy(Config(dict(model=dict(type="EncoderDecoder"))), "exakt")
    cfg = Config(dict(model=dict(type="ResampledSegmentor", resize_policy=dict(exact=True))))
    with pytest.raises(launch.UsageError, match="Keep one"):
        launch.set_policy(cfg, "True")
    below = dict(type="ResampledSegmentor", resize_policy=dict(exact=True))
    with pytest.raises(launch.UsageError, match="Keep one"):
        launch.set_policy(Config(dict(model=dict(type="LeanSegmentor", segmentor=below))), "True")


HEAD = dict(type="FCNHead", align_corners=False)
STOCK_MODEL = dict(type="EncoderDecoder", decode_head=HEAD)
EXACT_MODEL = dict(type="ResampledSegmentor", resize_policy=dict(exact=True), decode_head=HEAD)


@pytest.mark.parametrize(
    ("trained", "tested", "difference"),
    [
        (STOCK_MODEL, STOCK_MODEL, None),
        (EXACT_MODEL, STOCK_MODEL, "model.resize_policy={'exact': True} (now None)"),
        (EXACT_MODEL, EXACT_MODEL, None),
        (EXACT_MODEL, dict(type="LeanSegmentor", segmentor=dict(EXACT_MODEL)), None),
        (EXACT_MODEL, {**EXACT_MODEL, "type": "LeanSegmentor", "segmentor": "ResampledSegmentor"}, None),
        (STOCK_MODEL, {**EXACT_MODEL, "resize_policy": dict(exact=False)}, None),
        (STOCK_MODEL, {**STOCK_MODEL, "type": "LeanSegmentor"}, None),
        (
            STOCK_MODEL,
            dict(type="CascadeEncoderDecoder", decode_head=[HEAD, dict(HEAD, align_corners=True)]),
            "model.type=EncoderDecoder (now CascadeEncoderDecoder), model.decode_head.1.align_corners=None (now True)",
        ),
        (STOCK_MODEL, dict(type="EncoderDecoder", decode_head=dict(type="FCNHead")), None),  # False is the default
        (
            dict(STOCK_MODEL, decode_head=dict(HEAD, classes={0: "sky", "a b": dict(align_corners=True)})),
            STOCK_MODEL,
            "model.decode_head.classes.a b.align_corners=True (now None)",
        ),
    ],
)
@pytest.mark.parametrize("formatted", [True, False])
def test_another_pixel_model_than_in_training_is_a_warning(capsys, tmp_path, trained, tested, difference, formatted):
    stored = Config(dict(model=trained, work_dir="x"), format_python_code=formatted).pretty_text
    path = str(tmp_path / "iter_1.pth")
    torch.save(dict(state_dict={}, meta=dict(cfg=stored)), path)
    cfg = Config(dict(model=tested, test_dataloader={}, test_cfg={}, test_evaluator={}))
    launch.prepare_test(cfg, path)
    expected = f"warning: checkpoint {path}: trained with {difference}.\n" if difference else ""
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    "stored", [None, 3, "model = (", "a = 1", "model = build()", "model = dict(type=open('x', 'w'))"]
)
def test_a_stored_config_is_never_run(capsys, tmp_path, monkeypatch, stored):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}, meta=dict(cfg=stored)), "iter_1.pth")
    cfg = Config(dict(model=STOCK_MODEL, test_dataloader={}, test_cfg={}, test_evaluator={}))
    launch.prepare_test(cfg, "iter_1.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["iter_1.pth"]
    assert "Traceback" not in capsys.readouterr().err
