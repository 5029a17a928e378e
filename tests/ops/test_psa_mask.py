import itertools

import pytest
import torch

from mmseg_resample.ops.psa_mask import psa_mask, psa_mask_transpose


def by_definition(x, kind, mask):
    """Zhao et al., PSANet, ECCV 2018: the mask of a position is centred on it, and cut at the border of the map."""
    n, _, h, w = x.shape
    out = torch.zeros(n, h * w, h, w, dtype=x.dtype)
    for y, x_, i, j in itertools.product(range(h), range(w), range(mask[0]), range(mask[1])):
        to_y, to_x = y + i - (mask[0] - 1) // 2, x_ + j - (mask[1] - 1) // 2
        if 0 <= to_y < h and 0 <= to_x < w:
            value = x[:, i * mask[1] + j, y, x_]
            if kind == "collect":
                out[:, to_y * w + to_x, y, x_] = value
            else:
                out[:, y * w + x_, to_y, to_x] = value
    return out


@pytest.mark.parametrize("kind", ["collect", "distribute"])
@pytest.mark.parametrize("mask", [(5, 3), (1, 1), (5, 7), (2, 4)])
def test_is_its_definition(kind, mask):
    x = torch.randn(2, mask[0] * mask[1], 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.equal(psa_mask(x, kind, mask), by_definition(x.detach(), kind, mask))
    assert torch.autograd.gradcheck(lambda x: psa_mask(x, kind, mask), (x,))


@pytest.mark.parametrize("kind", ["collect", "distribute"])
def test_the_transpose_is_the_gradient(kind):
    x = torch.randn(2, 15, 3, 4, dtype=torch.float64, requires_grad=True)
    out = psa_mask(x, kind, (5, 3))
    weight = torch.randn_like(out)
    torch.testing.assert_close(psa_mask_transpose(weight, kind, (5, 3)), torch.autograd.grad(out, x, weight)[0])


def test_refusals():
    x = torch.zeros(1, 15, 3, 4)
    with pytest.raises(ValueError, match="Did you mean 'collect'"):
        psa_mask(x, "colect", (5, 3))
    with pytest.raises(ValueError, match=r"expected input \(N, 9, H, W\)"):
        psa_mask(x, "collect", (3, 3))
    with pytest.raises(ValueError, match=r"expected output \(N, H \* W, H, W\)"):
        psa_mask_transpose(x, "collect", (5, 3))
