"""Build, copy and run a model without weights, data or memory."""

import copy
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten

from .sites import resizes_unseen

_CONSTANTS = {"aten::arange", "aten::linspace", "aten::scalar_tensor", "aten::lift_fresh", "aten::tril_indices"}
T = TypeVar("T")
_ONE_AT_A_TIME = threading.RLock()  # runs patch the copy, and threads may share it


def _resized(input: Tensor, size: Sequence[int], *_: Any) -> Tensor:
    out = input.new_empty([*input.shape[:2], *size])
    if input.ndim == 4 and input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous():
        return out.contiguous(memory_format=torch.channels_last)
    return out


def _normalised(input: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    statistics = input.new_empty(0)  # in evaluation there are none
    return torch.empty_like(input), statistics, statistics


_OUTPUTS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(["aten::fill_", "aten::zero_", "aten::uniform_", "aten::normal_"], lambda filled, *_: filled),
    **dict.fromkeys(["aten::upsample_bilinear2d", "aten::upsample_bicubic2d", "aten::upsample_nearest2d"], _resized),
    **dict.fromkeys(["aten::native_batch_norm", "aten::_native_batch_norm_legit_no_training"], _normalised),
}


class _Shortcuts(TorchDispatchMode):
    """Exceptions to fake tensors: small tables (drop rates, indices) stay real, since constructors read numbers off
    them; and operators whose output has a known shape skip the decompositions that would find it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = _OUTPUTS.get(func._schema.name)
        if output is not None and not kwargs and args and isinstance(args[0], FakeTensor):
            return output(*args)
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        if all(map(has_values, tensors)) and (tensors or func._schema.name in _CONSTANTS):
            with _disable_current_modes():
                return func(*args, **kwargs)
        return func(*args, **kwargs)


def has_values(tensor: Tensor) -> bool:
    """Tell whether a tensor is a real one, whose values are known before the network runs."""
    return not isinstance(tensor, FakeTensor) and not tensor.is_meta


@contextmanager
def fake_tensors(mode: FakeTensorMode | None = None) -> Iterator[None]:
    """Give everything created or computed inside a shape and no memory, except constants.

    ``mode`` is that of fake tensors from outside, if some are used.
    """
    with mode or FakeTensorMode(allow_non_fake_inputs=True), _Shortcuts():
        yield


class FakeCopy:
    """A copy of a model that has no memory, to be run whenever an input size comes up.

    Args:
        model: any module. What it is made into later does not reach the copy.
    """

    def __init__(self, model: nn.Module) -> None:
        fakes = [t for m in model.modules() for t in _tensors(m) if isinstance(t, FakeTensor)]
        self._mode: FakeTensorMode = fakes[0].fake_mode if fakes else FakeTensorMode(allow_non_fake_inputs=True)
        with _disable_current_modes():
            if fakes:  # being built for an audit itself: tensors without values may be shared
                fake = copy.deepcopy(model, {id(t): t for t in fakes})
            else:
                with FakeCopyMode(self._mode):
                    fake = copy.deepcopy(model)
        self._model: nn.Module | None = fake.eval()

    def __deepcopy__(self, memo: Any) -> "FakeCopy":
        return self  # nobody changes it

    def __reduce__(self) -> Any:
        return _unpickled, ()  # fake tensors cannot be pickled

    def run(self, function: Callable[[nn.Module], T]) -> T:
        """Call ``function`` with the copy, on fake tensors, from wherever this is called.

        Raises:
            RuntimeError: the copy was pickled, which loses it.
        """
        if self._model is None:
            raise RuntimeError("the model was unpickled: build it from its config")
        logger = logging.getLogger("torch._subclasses.fake_tensor")  # prints what it raises
        quiet, real = _silenced(logger), torch.inference_mode(False)
        with _ONE_AT_A_TIME, quiet, resizes_unseen(), _disable_current_modes(), fake_tensors(self._mode), real:
            return function(self._model)


def _unpickled() -> FakeCopy:
    lost = FakeCopy.__new__(FakeCopy)
    lost._model = None
    return lost


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    for held in (module._parameters, module._buffers, module.__dict__):
        yield from (value for value in held.values() if isinstance(value, Tensor))


@contextmanager
def _silenced(logger: logging.Logger) -> Iterator[None]:
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
