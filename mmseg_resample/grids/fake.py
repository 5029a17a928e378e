"""Build, copy and run a model without weights, data or memory."""

import copy
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensor, FakeTensorMode, in_kernel_invocation_manager
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten

from .sites import resizes_unseen

_CONSTANTS = {"aten::arange", "aten::linspace", "aten::scalar_tensor", "aten::lift_fresh", "aten::tril_indices"}
T = TypeVar("T")
_ONE_AT_A_TIME = threading.RLock()  # runs patch the copy, and threads may share it


def _like(input: FakeTensor, size: Sequence[int] | None = None) -> Tensor:
    """Return ``torch.empty_like(input)``, or ``input.new_empty(size)`` in its memory format, in a tenth of the time."""
    if input.is_contiguous():
        memory_format = torch.contiguous_format
    elif input.ndim == 4 and input.is_contiguous(memory_format=torch.channels_last):
        memory_format = torch.channels_last
    else:
        return torch.empty_like(input) if size is None else input.new_empty(size)
    wanted = input.shape if size is None else size
    with in_kernel_invocation_manager(input.fake_mode):
        out = torch.empty(wanted, dtype=input.dtype, device="meta", memory_format=memory_format)
    return FakeTensor(input.fake_mode, out, input.fake_device)


def _resized(input: FakeTensor, size: Sequence[int], *_: Any) -> Tensor:
    return _like(input, [*input.shape[:2], *size])


def _normalised(input: FakeTensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    statistics = _like(input, [0] * input.ndim)  # in evaluation there are none
    return _like(input), statistics, statistics


def _convolved(
    input: FakeTensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    windows = zip(input.shape[2:], weight.shape[2:], stride, padding, dilation, strict=False)
    size = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in windows]
    plain = (
        (not transposed and len(size) == input.ndim - 2 == weight.ndim - 2 and min(size) > 0)
        and (input.shape[1] == weight.shape[1] * groups and (bias is None or bias.shape == weight.shape[:1]))
        and all(
            isinstance(x, FakeTensor) and x.fake_device == input.fake_device for x in (weight, bias) if x is not None
        )
        and input.dtype == weight.dtype
        and input.is_contiguous()
        and weight.is_contiguous()
    )
    if plain:
        return _like(input, [input.shape[0], weight.shape[0], *size])
    arguments = bias, stride, padding, dilation, transposed, output_padding, groups
    return torch.ops.aten.convolution.default(input, weight, *arguments)


def _detached(input: FakeTensor) -> Tensor:
    with in_kernel_invocation_manager(input.fake_mode):
        out = torch.ops.aten.detach.default(input)
    return FakeTensor(input.fake_mode, out, input.fake_device)


_OUTPUTS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(["aten::fill_", "aten::zero_", "aten::uniform_", "aten::normal_"], lambda filled, *_: filled),
    **dict.fromkeys(["aten::upsample_bilinear2d", "aten::upsample_bicubic2d", "aten::upsample_nearest2d"], _resized),
    **dict.fromkeys(["aten::native_batch_norm", "aten::_native_batch_norm_legit_no_training"], _normalised),
    "aten::convolution": _convolved,
    "aten::detach": _detached,
    "aten::relu": _like,
    "aten::relu_": lambda input: input,
    "prim::device": lambda input: input.fake_device,
}
_FACTORIES = {"aten::empty", "aten::zeros", "aten::ones"}
_CPU = torch.device("cpu")


class _Shortcuts(TorchDispatchMode):
    """Exceptions to fake tensors: small tables (drop rates, indices) stay real, since constructors read numbers off
    them; and operators whose output has a known shape skip the decompositions and bookkeeping that would find it."""

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self._mode = mode

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = _OUTPUTS.get(func._schema.name)
        if output is not None and not kwargs and args and isinstance(args[0], FakeTensor):
            return output(*args)
        if func._schema.name in _FACTORIES and kwargs.get("device") == _CPU:
            with in_kernel_invocation_manager(self._mode):
                out = func(*args, **{**kwargs, "device": "meta"})
            return FakeTensor(self._mode, out, _CPU)
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
    mode = mode or FakeTensorMode(allow_non_fake_inputs=True)
    with mode, _Shortcuts(mode):
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
