"""Fake tensors of audits are what PyTorch makes of real ones, where they are made past its bookkeeping too."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from mmseg_resample.grids import fake_tensors

IMAGE, WEIGHT = (2, 4, 9, 11), (6, 4, 3, 3)
LAST = torch.channels_last


def image(shape=IMAGE):
    return torch.ones(shape)


CALLS = {
    "conv": lambda: F.conv2d(image(), torch.ones(WEIGHT), torch.ones(6), (2, 1), (1, 2), (1, 2)),
    "grouped": lambda: F.conv2d(image(), torch.ones(6, 2, 3, 3), groups=2),
    "conv1d": lambda: F.conv1d(image((2, 4, 9)), torch.ones(6, 4, 3), padding=1),
    "conv3d": lambda: F.conv3d(image((1, 2, 5, 6, 7)), torch.ones(3, 2, 3, 3, 3), stride=2),
    "one image": lambda: F.conv2d(image(IMAGE[1:]), torch.ones(WEIGHT)),
    "transposed": lambda: F.conv_transpose2d(image(), torch.ones(4, 6, 3, 3), stride=2),
    "conv, channels last": lambda: F.conv2d(image().contiguous(memory_format=LAST), torch.ones(WEIGHT)),
    "norm": lambda: F.batch_norm(image(), *[torch.ones(4)] * 4),
    "norm, channels last": lambda: F.batch_norm(image().contiguous(memory_format=LAST), *[torch.ones(4)] * 4),
    "relu": lambda: F.relu(image()),
    "relu of columns": lambda: F.relu(image().transpose(2, 3)),
    "relu in place": lambda: F.relu(image(), inplace=True),
    "bilinear": lambda: F.interpolate(image(), (5, 6), mode="bilinear"),
    "bilinear, channels last": lambda: F.interpolate(image().contiguous(memory_format=LAST), (5, 6), mode="bilinear"),
    "detached": lambda: image()[:, 1:].detach(),
    "empty": lambda: torch.empty(2, 3, dtype=torch.int16),
    "zeros": lambda: torch.zeros(2, 3),
    "ones": lambda: torch.ones((2, 3), dtype=torch.float64),
    "parameter": lambda: nn.Parameter(torch.empty(3)),
}


@pytest.mark.parametrize("name", CALLS)
def test_fake_tensors_look_like_real_ones(name):
    with torch.no_grad():
        real = CALLS[name]()
        with fake_tensors():
            fake = CALLS[name]()
            assert isinstance(fake, FakeTensor) and fake.device == real.device
    assert isinstance(fake, nn.Parameter) == isinstance(real, nn.Parameter)
    assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)
    assert fake.storage_offset() == real.storage_offset()


@pytest.mark.parametrize(
    ("input", "weight", "bias"),
    [(IMAGE, (6, 5, 3, 3), None), (IMAGE, (6, 4, 13, 3), None), (IMAGE, WEIGHT, (5,)), ((4, 9), WEIGHT, None)],
    ids=["channels", "kernel", "bias", "rank"],
)
def test_convolutions_that_do_not_fit_are_refused(input, weight, bias):
    with fake_tensors(), pytest.raises(RuntimeError):
        F.conv2d(image(input), torch.ones(weight), None if bias is None else torch.ones(bias))


def test_a_detached_tensor_shares_its_memory():
    with fake_tensors():
        whole = torch.empty(4)
        assert whole.detach().untyped_storage()._cdata == whole.untyped_storage()._cdata
