"""The table of docs/guided.md says what an audit finds."""

import re
from pathlib import Path

import pytest
from torch import nn

import mmseg_resample
from mmseg_resample.resamplers import ImageGuided

TEXT = (Path(__file__).parents[2] / "docs/guided.md").read_text()


class Net(nn.Module):
    def __init__(self, patches, end_to_end):
        super().__init__()
        strides = nn.Sequential(*(nn.Conv2d(n, 8, 3, 2, 1) for n in (3, 8, 8, 8)))
        self.backbone = nn.Conv2d(3, 8, 16, 16) if patches else strides
        self.up = Reads(8, 3, align_corners=end_to_end)

    def forward(self, image):
        return self.up(self.backbone(image), image)


class Reads(ImageGuided):
    def _upsample(self, x, like, maps):
        raise AssertionError("an audit asks where it reads, not what")


@pytest.mark.parametrize(
    ("row", "patches", "size"), [("patches of 16", 1, 512), ("odd kernels (", 0, 512), ("odd kernels at", 0, 513)]
)
def test_what_is_read_off_by(row, patches, size):
    (line,) = re.findall(rf"^\| {re.escape(row)}.*", TEXT, re.MULTILINE)
    assert f"at {size} |" in line
    found = []
    for end_to_end in (False, True):
        audit = mmseg_resample.audit(Net(patches, end_to_end).eval(), size)
        y = next(m.y for m in audit.meetings if m.path == "up")
        found.append(f"{y.first:+.1f}" if round(y.first - y.last, 2) == 0 else f"{y.first:+.1f} .. {y.last:+.1f}")
    exact = mmseg_resample.audit(mmseg_resample.exact(Net(patches, True).eval()), size).worst
    cells = [cell.strip() for cell in line.strip("|").split("|")][1:]
    assert cells == [re.sub(r"[+-]0\.0", "0", text).replace("-15.0", "-15") for text in (*found, f"{exact:+.1f}")]
