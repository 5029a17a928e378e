"""``ops``, ``grids``, ``policy``, ``audit`` and ``exact`` where no part of mmsegmentation can be imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmseg_resample

PACKAGES = ("mmseg", "mmengine", "mmcv")

BLOCK = f"""
import sys

for _name in {PACKAGES!r}:
    sys.modules[_name] = None  # to the import system: not there
"""

NETWORK = """
import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)

    def forward(self, x):
        fine = self.stem(x)
        coarse = F.interpolate(self.down(fine), fine.shape[2:], mode="bilinear", align_corners=False)
        return F.interpolate(fine + coarse, x.shape[2:], mode="bilinear", align_corners=False)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(mmseg_resample.__path__[0]).parent)
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", BLOCK + program], env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_the_block_works(package):
    done = run(f"import {package}")
    assert done.returncode and f"import of {package} halted" in done.stderr


def test_audit_and_exact():
    done = run(
        NETWORK
        + """
import mmseg_resample.grids, mmseg_resample.ops, mmseg_resample.policy

model = Model().eval()
print(mmseg_resample.audit(model, 64).worst)
mmseg_resample.exact(model)
print(mmseg_resample.audit(model, 64).worst, tuple(model(torch.rand(1, 3, 61, 64)).shape))
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1.0", "0.0 (1, 4, 61, 64)"]


def test_a_config_says_what_is_missing():
    done = run("import mmseg_resample\nmmseg_resample.audit('mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py')")
    assert done.returncode and "FrameworkError" in done.stderr and "pip install" in done.stderr
