"""Advice of audits: which finding leads to what, and that its numbers are those of the published reports."""

import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mmseg_resample
from mmseg_resample.grids import advice
from mmseg_resample.grids.advice import PYRAMID, SHAPES

ROOT = Path(__file__).parents[2]


class Net(nn.Module):
    def __init__(self, align_corners):
        super().__init__()
        self.backbone = nn.Sequential(*[nn.Conv2d(3, 3, 3, stride=2, padding=1) for _ in range(3)])
        self.align_corners = align_corners

    def forward(self, x):
        return F.interpolate(self.backbone(x), x.shape[2:], mode="bilinear", align_corners=self.align_corners)


@pytest.mark.parametrize(
    ("model", "size", "actions"),
    [
        (Net(False), (64, 64), ["leave"]),  # 3.5 px everywhere
        (Net(True), (64, 64), ["change"]),  # 0 .. -7
        (Net(True), (65, 65), []),
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
    assert [each.action for each in found] == ["leave", "deploy as trained"]
    from mmseg_resample.launch import load_config

    cfg = load_config(config)
    cfg.model.decode_head.align_corners = True
    change, deploy = mmseg_resample.audit(cfg, 128).advice
    assert change.text.startswith("Change to align_corners=False or align_corners=True at 129x129 or resize_policy=")
    assert deploy.report == SHAPES


def differences(report, evaluation):
    content = json.loads((ROOT / report / "report.json").read_text())
    return {
        (c["combination"]["input"], d["variant"]): abs(d["mean"])
        for c in content["comparisons"]
        if c["evaluation"] == evaluation
        for d in c["differences"]
    }, {tuple(t["variants"].values()): abs(t["mean"]) for t in content["transfers"] if t["evaluation"] == "other_flag"}


def test_every_number_is_that_of_its_report():
    own, deployed = differences(SHAPES, "own")
    pyramid, _ = differences(PYRAMID, "own")
    numbers = {
        advice._DRIFT: [own["128", "true"], own["129", "true"]],
        advice._CONSTANT: [own["128", "exact"], pyramid["128", "exact"]],
        advice._OTHER_FLAG: [deployed["false", "128"], deployed["true", "129"]],
    }
    for text, expected in numbers.items():
        assert re.findall(r"\d+\.\d", text) == [f"{value:.1f}" for value in expected]
