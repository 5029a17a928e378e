"""Advice of audits: which finding leads to what, and that its numbers are those of the published reports."""

import json
import re
from pathlib import Path
from statistics import mean, median

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mmseg_resample
from mmseg_resample.grids import advice
from mmseg_resample.grids.advice import LOOK, MARGIN, PHOTOS, SHAPES, SIZES, STRIDES

ROOT = Path(__file__).parents[2]


class Net(nn.Module):
    def __init__(self, align_corners, stages=3):
        super().__init__()
        self.backbone = nn.Sequential(*[nn.Conv2d(3, 3, 3, stride=2, padding=1) for _ in range(stages)])
        self.align_corners = align_corners

    def forward(self, x):
        return F.interpolate(self.backbone(x), x.shape[2:], mode="bilinear", align_corners=self.align_corners)


@pytest.mark.parametrize(
    ("model", "size", "actions"),
    [
        (Net(False), (64, 64), ["cover"]),  # 3.5 px everywhere, stride 8
        (Net(False, stages=2), (64, 64), ["leave"]),  # 1.5 px, stride 4
        (Net(True), (64, 64), ["change"]),  # 0 .. -7
        (Net(True), (65, 65), []),
        (Net(False, stages=5), (64, 64), ["cover", "pad alike", "pad alike"]),
        (Net(True, stages=5), (64, 64), ["change", "pad alike", "pad alike"]),
        (mmseg_resample.exact(Net(False).eval()), (64, 64), ["cover"]),
        (mmseg_resample.exact(Net(False).eval(), pad="reflect"), (64, 64), []),
        (nn.Conv2d(3, 3, 1), (64, 64), []),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)), (8, 8), []),
    ],
)
def test_what_to_do(model, size, actions):
    audit = mmseg_resample.audit(model.eval(), size)
    assert [each.action for each in audit.advice] == actions
    assert all("".join(each.text.split()) in "".join(str(audit).split()) for each in audit.advice)
    assert [each["action"] for each in audit.to_json()["advice"]] == actions


def test_a_config_is_told_which_flag_and_to_keep_that_of_the_training():
    torch.manual_seed(0)
    config = "mmseg_resample::shapes/fcn_r18-d8-tiny_1xb8-400_shapes-128x128.py"
    found = mmseg_resample.audit(config, 128).advice
    assert [each.action for each in found] == ["cover", "deploy as trained"]
    from mmseg_resample.launch import load_config

    cfg = load_config(config)
    cfg.model.decode_head.align_corners = True
    change, deploy = mmseg_resample.audit(cfg, 128).advice
    assert change.text.startswith("Change to align_corners=False or align_corners=True at 129x129 or resize_policy=")
    assert deploy.reports == (SHAPES, PHOTOS)


def differences(report, evaluation):
    content = json.loads((ROOT / report / "report.json").read_text())
    return {
        (c["combination"]["input"], d["variant"]): abs(d["mean"])
        for c in content["comparisons"]
        if c["evaluation"] == evaluation
        for d in c["differences"]
    }, {tuple(t["variants"].values()): abs(t["mean"]) for t in content["transfers"] if t["evaluation"] == "other_flag"}


def on_photographs():
    """Return what pixel models gain under the padding of the pretraining, and the suiting flag loses elsewhere."""
    content = json.loads((ROOT / PHOTOS / "report.json").read_text())
    gains = {
        (c["combination"]["input"], d["variant"]): d["mean"]
        for c in content["comparisons"]
        if c["evaluation"] == "own" and c["combination"]["padding"] == "same"
        for d in c["differences"]
    }
    tested = {
        (t["variants"]["pixel_model"], t["variants"]["padding"], t["evaluation"]): t["mean"]
        for t in content["transfers"]
        if (t["variants"]["pixel_model"], t["variants"]["input"]) in (("false", "even"), ("true", "odd"))
    }
    return gains, tested


def test_every_number_is_that_of_its_report():
    own, deployed = differences(SHAPES, "own")
    content = json.loads((ROOT / STRIDES / "report.json").read_text())
    gains, bands = {}, {}
    for stride in ("4", "8", "16"):
        scores = {"false": {}, "exact_pad": {}}
        for run in content["runs"]:
            if run["variants"]["stride"] == stride and run["variants"]["pixel_model"] in scores:
                scores[run["variants"]["pixel_model"]][run["seed"]] = run["evaluations"]["own"]["metrics"]
        pairs = [(scores["exact_pad"][seed], scores["false"][seed]) for seed in range(8)]
        middle = median if stride == "16" else mean  # where one training went wrong
        gains[stride] = middle(exact["mIoU"] - false["mIoU"] for exact, false in pairs)
        bands[stride] = [
            middle(exact[band] - false[band] for exact, false in pairs)
            for band in ("mIoU_frame_0-4px", "mIoU_frame_16px_up")
        ]
    photos, tested = on_photographs()
    numbers = {
        advice._DRIFT: [own["128", "true"], own["129", "true"], -photos["even", "true"], photos["odd", "true"]],
        advice._GAINS[16]: [gains["16"], *bands["16"]],
        advice._GAINS[8]: [gains["8"], *bands["8"]],
        advice._NO_GAIN: [gains["4"], content["margin"]],
        advice._OTHER_FLAG: [deployed["false", "128"], deployed["true", "129"]]
        + [-tested[of, "same", name] for name in ("other_flag", "asymmetric_runtime") for of in ("false", "true")],
    }
    sizes = json.loads((ROOT / SIZES / "report.json").read_text())
    numbers[advice._ALIKE] = [
        abs(d["mean"])
        for c in sizes["comparisons"]
        if c["evaluation"] == "twice" and c["combination"]["input"] in ("112", "144")
        for d in c["differences"]
    ]
    margin = json.loads((ROOT / MARGIN / "report.json").read_text())
    numbers[advice._MARGIN] = [
        abs(t["mean"])
        for name in ("with_margin", "exact_pad")
        for t in margin["transfers"]
        if t["evaluation"] == "twice" and t["variants"]["pixel_model"] == name
    ]
    look = json.loads((ROOT / LOOK / "report.json").read_text())
    gains = {
        (c["combination"]["input"], c["combination"]["padding"], d["variant"]): d
        for c in look["comparisons"]
        if c["evaluation"] == "own"
        for d in c["differences"]
    }
    off = [gains[where]["mean"] for where in (("even", "symmetric", "by_weights"), ("odd", "same", "by_weights"))]
    right = gains["even", "same", "by_weights"]
    numbers[advice._BY_WEIGHTS], numbers[advice._RIGHT] = off, [right["mean"]]
    numbers[advice._PRETRAINED] = [-photos["even", "exact_pad"]]
    assert right["status"] == "undecided"
    for text, expected in numbers.items():
        assert re.findall(r"-?\d+\.\d", text) == [f"{value:.1f}" for value in expected]
    declared = [
        (c["combination"]["stride"], d) for c in content["comparisons"] for d in c["differences"] if d["declared"]
    ]
    verdicts = {stride: difference["status"] for stride, difference in declared}
    assert verdicts == {"4": "equivalent", "8": "significant", "16": "significant"}
