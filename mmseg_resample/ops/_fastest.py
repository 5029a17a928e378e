"""Choose between kernels of one result by the clock, as cuDNN does for convolutions, and where it was allowed to."""

import time
from collections.abc import Callable, Hashable, Mapping

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

_ROUNDS, _CALLS = 3, 3
_MARGIN = 1.1  # what is slower than the first, or hardly faster, is not worth other roundings

_winners: dict[Hashable, str] = {}


def is_on_a_gpu(input: Tensor) -> bool:
    """Whether kernels for CUDA can be tried out on ``input``: it is there, and no fake tensor."""
    return input.is_cuda and torch.cuda.is_available() and not isinstance(input, FakeTensor)


def is_wanted(input: Tensor) -> bool:
    """Whether PyTorch was told to choose by the clock, by ``torch.backends.cudnn.benchmark = True``.

    mmengine sets it from ``env_cfg=dict(cudnn_benchmark=True)``, which mmseg's configs have.
    """
    return (
        is_on_a_gpu(input)
        and input.is_floating_point()
        and torch.backends.cudnn.benchmark
        and not torch.backends.cudnn.deterministic
        and not torch.cuda.is_current_stream_capturing()
    )


def fastest(key: Hashable, ways: Mapping[str, Callable[[Tensor], Tensor]], input: Tensor) -> str:
    """The name of the fastest of ``ways`` on inputs like ``input``, with the backward pass if it needs one.

    The first stays unless another is faster by a tenth. One that fails, for want of memory too, is out. Results are
    kept by ``key``, dtype, layout, device, and sizes to a factor of two.
    """
    with_gradient = torch.is_grad_enabled() and input.requires_grad
    layout = input.is_contiguous(), input.is_contiguous(memory_format=torch.channels_last) if input.ndim == 4 else False
    key = key, tuple(ways), input.dtype, input.device, layout, with_gradient, _magnitudes(input.shape)
    if key not in _winners:
        x = input.detach().requires_grad_(with_gradient)
        _winners[key] = _measure({name: _step(way, x) for name, way in ways.items()}, x.device)
    return _winners[key]


def magnitude(number: int) -> int:
    """Equal for numbers between two powers of two."""
    return number.bit_length()


def _magnitudes(shape: torch.Size) -> tuple[int, int]:
    return magnitude(shape[:2].numel()), magnitude(shape[2:].numel())


def _step(way: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    def step() -> None:
        out = way(x)
        if x.requires_grad:
            torch.autograd.grad(out, x, out.detach())

    return step


def _measure(steps: dict[str, Callable[[], None]], device: torch.device) -> str:
    """The steps in turn, so that what else happens meets them alike; the least of several times counts."""
    first = next(iter(steps))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(1 + _ROUNDS):  # the first round compiles and warms up
        for name in list(times):
            try:
                times[name].append(_seconds(steps[name], device))
            except Exception:
                del times[name]
    least = {name: min(taken[1:]) for name, taken in times.items()}
    best = min(least, key=lambda name: least[name], default=first)
    return best if first not in least or least[first] > _MARGIN * least[best] else first


def _seconds(step: Callable[[], None], device: torch.device) -> float:
    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    start = now()
    for _ in range(_CALLS):
        step()
    return now() - start
