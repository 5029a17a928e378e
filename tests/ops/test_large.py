"""Maps of more than 2**31 elements."""

import os
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

from mmseg_resample.ops import resize_argmax

SIDE = 46_400  # squared, more than 2**31
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0

pytestmark = [pytest.mark.slow, pytest.mark.skipif(MEMORY < 2**33, reason="needs 8 GiB of memory")]


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_labels(backend):
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    logits = torch.randn(1, 2, 100, 100, generator=torch.Generator().manual_seed(0))
    labels = resize_argmax(logits, SIDE, backend=backend)[0]
    assert labels.numel() > 2**31 and labels.dtype == torch.uint8
    limit = 2**31 // SIDE
    for row in (0, 1, limit - 1, limit, limit + 1, SIDE - 1):
        u = min(max((row + 0.5) * 100 / SIDE - 0.5, 0.0), 99.0)
        low, share = int(u), u - int(u)
        line = logits[:, :, low].double() * (1 - share) + logits[:, :, min(low + 1, 99)].double() * share
        line = F.interpolate(line, SIDE, mode="linear", align_corners=False)[0]
        certain = (line[0] - line[1]).abs() > 1e-4
        assert certain.float().mean() > 0.99
        assert torch.equal(labels[row][certain], line.argmax(0)[certain].byte())
