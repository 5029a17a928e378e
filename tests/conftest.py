"""Shared by all tests: one tolerance table, deterministic seeds, few threads."""

import functools
import signal

import pytest
import torch
from hypothesis import HealthCheck, settings

import mmseg_resample  # noqa: F401  (before any test imports mmseg: it makes mmseg importable on mmcv-lite)

# Largest |difference| to a float64 reference of values of order 1; docs/conventions.md publishes this table, and says
# for which sizes.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}

settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")  # how long an example takes depends on what else the machine does

ONE_GRAPH = torch.__version__ >= "2.6"  # older torch compiles the ops with breaks between graphs
EXPORTS = hasattr(getattr(torch.export, "Dim", None), "DYNAMIC")  # of open sizes, and without the compiler
needs_plain = pytest.mark.skipif(torch.__version__ < "2.2", reason="torch 2.1 does not tell whether it compiles")
needs_fake_gpu = pytest.mark.skipif(
    torch.__version__ < "2.2" and bool(torch.version.cuda) and not torch.cuda.is_available(),
    reason="fake tensors of a GPU need its driver in torch 2.1",
)
HALVES = [torch.bfloat16, torch.float16][: 1 + (torch.__version__ >= "2.3")]  # that convolve on CPUs


def needs_export() -> None:
    """Skip where PyTorch cannot export to ONNX."""
    pytest.importorskip("onnxscript")
    if not EXPORTS:
        pytest.skip(f"torch {torch.__version__} does not export open sizes")


def assert_close(actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype | None = None) -> None:
    """Same shape, and equal within the tolerance of ``dtype`` (default: of ``actual``)."""
    tolerance = TOLERANCE[dtype or actual.dtype]
    torch.testing.assert_close(
        actual.double(), expected.double(), atol=tolerance, rtol=tolerance, check_dtype=False, check_device=False
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files with slow tests first, so that no process is left alone with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _interruptible():
    """Started in the background or by nohup, pytest ignores signals, and so would the programs that tests interrupt."""
    for number, handler in {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}.items():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="session")
def _index_files_are_read_once():
    """Four fifths of the time of a config is mmengine reading mmseg's 50 index files, for every ``mmseg::`` base."""
    from mmengine.config import utils

    utils.load = functools.cache(utils.load)


@pytest.fixture(autouse=True, scope="session")
def _threads():
    torch.set_num_threads(1)  # tiny tensors, and pytest-xdist workers share the cores
