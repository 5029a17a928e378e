"""Build and run a model without weights, data or memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten

_CONSTANTS = {"aten::arange", "aten::linspace", "aten::scalar_tensor", "aten::lift_fresh", "aten::tril_indices"}


class _RealConstants(TorchDispatchMode):
    """Small tables (drop rates, indices) stay real: constructors read numbers off them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        real = all(not isinstance(x, FakeTensor) and x.device.type != "meta" for x in tensors)
        if real and (tensors or func._schema.name in _CONSTANTS):
            with _disable_current_modes():
                return func(*args, **kwargs)
        return func(*args, **kwargs)


@contextmanager
def fake_tensors(mode: FakeTensorMode | None = None) -> Iterator[None]:
    """Everything created or computed inside has a shape and no memory, except constants.

    ``mode`` is that of fake tensors from outside, if some are used.
    """
    with mode or FakeTensorMode(allow_non_fake_inputs=True), _RealConstants():
        yield
