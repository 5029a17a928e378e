"""Work-arounds that let mmsegmentation 1.2.2 run on today's torch, numpy, setuptools and Python, and on mmcv-lite.

The only place that works around versions of other packages. One function per work-around; each says which versions
need it and until when, and does nothing where it is not needed. ``apply`` calls them all.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import urlparse

import torch

from . import unpickle
from .ops.psa_mask import Kind, psa_mask, psa_mask_transpose

__all__ = [
    "FrameworkError",
    "MissingOperatorError",
    "apply",
    "defer_missing_mmcv_operators",
    "find_own_configs",
    "find_packages_by_module",
    "own_files",
    "read_checkpoints_as_data",
    "require_mmseg",
    "require_mmseg_models",
    "scipy_postponed",
    "scripting_postponed",
]


def apply() -> None:
    """Apply every work-around that this environment needs. A second call changes nothing.

    Raises:
        ImportError: mmseg, mmengine or mmcv cannot be imported together; the message says why and what to install.
    """
    require_mmseg()
    defer_missing_mmcv_operators()
    require_mmseg_models()
    find_packages_by_module()
    find_own_configs()
    read_checkpoints_as_data()


# --------------------------------------------------------------------------------------------------------------------
# What must be there


class FrameworkError(ImportError):
    """mmseg and what it needs cannot be imported together; the message says why and what to install."""


def require_mmseg() -> None:
    """Import mmcv, mmengine and mmseg, or say which versions are there, what the rule is and how to repair it.

    The modules decide, not the names of the distributions, so forks under the same import names count.
    Needed as long as mmsegmentation, mmengine and mmcv are extras of this package, and mmsegmentation 1.2.2 asserts
    ``mmcv<2.2.0`` in a message that does not name this bound.

    Raises:
        FrameworkError: one of the imports fails, for whatever reason.
    """
    try:
        import mmcv  # noqa: F401
        import mmengine  # noqa: F401
        import mmseg.registry  # noqa: F401  (there from mmsegmentation 1.0 on)
    except (ImportError, AssertionError) as error:
        raise FrameworkError(
            f"mmseg_resample: mmcv, mmengine and mmseg cannot be imported: {error}\n"
            f"Found: {_found('mmseg', 'mmengine', 'mmcv')}.\n"
            f"Rule: mmsegmentation 1.x with an mmengine and an mmcv or mmcv-lite that it accepts; "
            f"mmsegmentation 1.2.2 accepts mmcv>=2.0.0rc4,<2.2.0 and mmengine>=0.5.0,<1.0.0.\n"
            f'Fix: pip install "mmseg_resample[lite]"'
        ) from error


def require_mmseg_models() -> None:
    """Import ``mmseg.models``, or say which torchvision and timm are there and how to make them fit this torch.

    mmseg imports timm where that is installed, timm imports torchvision, and a torchvision that was built for another
    torch raises RuntimeError ("operator torchvision::nms does not exist"), where mmseg is prepared for ImportError.
    Needed as long as mmseg's ``timm_backbone`` guards against nothing else.

    Raises:
        FrameworkError: the import fails, for whatever reason.
    """
    try:
        import mmseg.models  # noqa: F401
    except (ImportError, RuntimeError, AttributeError, OSError) as error:  # as broken extensions raise
        raise FrameworkError(
            f"mmseg_resample: mmseg.models cannot be imported: {error}\n"
            f"Found: {_found('torch', 'torchvision', 'timm', 'mmseg')}.\n"
            f"Rule: torchvision is built for one torch (0.N for torch 2.(N-15): torchvision 0.28 for torch 2.13), and "
            f"timm needs such a torchvision; mmseg needs neither, but imports them where they are installed.\n"
            f"Fix: pip install --upgrade torchvision timm, from the index that torch came from; "
            f"or pip uninstall torchvision timm"
        ) from error


def _found(*modules: str) -> str:
    return ", ".join(_describe(module) for module in modules)


def _describe(module: str) -> str:
    """Name the distribution and the version that a module comes from."""
    if importlib.util.find_spec(module) is None:
        return f"no {module}"
    names = metadata.packages_distributions().get(module, [])
    return f"{module} from " + (" and ".join(f"{name} {metadata.version(name)}" for name in names) or "a bare folder")


@contextmanager
def scripting_postponed() -> Iterator[None]:
    """Leave in Python what is imported inside and asks to be compiled by TorchScript. ``PYTORCH_JIT`` goes before.

    Needed as long as mmengine imports ``torch.distributed.optim``, which compiles eight optimizers as it is imported:
    half a second, for a command that trains nothing.
    """
    if not torch.jit._state._enabled or "PYTORCH_JIT" in os.environ:
        yield
        return
    torch.jit._state.disable()
    try:
        yield
    finally:
        torch.jit._state.enable()


class _Late(ModuleType):
    """A module that is imported when one of ``functions`` is called, or when anything else of it is asked for."""

    def __init__(self, spec: ModuleSpec, functions: Sequence[str]) -> None:
        super().__init__(spec.name)
        self.__file__ = spec.origin  # what every look through `sys.modules` asks for
        self.__path__ = _LatePath(self)  # and every `from` statement
        for function in functions:
            setattr(self, function, partial(self._call, function))

    def _call(self, function: str, *args: Any, **kwargs: Any) -> Any:
        return self._imported(function)(*args, **kwargs)

    def _imported(self, attribute: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), attribute)

    __getattr__ = _imported


class _LatePath(list[str]):
    """The folders of a late module, read where one of its submodules is imported: the module is then needed."""

    def __init__(self, module: _Late) -> None:
        self._module = module

    def __iter__(self) -> Iterator[str]:
        return iter(self._module._imported("__path__"))


@contextmanager
def scipy_postponed() -> Iterator[None]:
    """Leave unimported what mmseg takes from scipy until it is called.

    Needed as long as ``mmseg.models`` imports it at the top of its files, for losses, assigners, transforms and the
    weights of BEiT: 0.4 s, for a command that trains nothing.
    """
    taken = {
        "scipy.interpolate": [],
        "scipy.ndimage": ["distance_transform_edt", "gaussian_filter"],
        "scipy.optimize": ["linear_sum_assignment"],
    }
    late = {}
    for name in taken if importlib.util.find_spec("scipy") is not None else ():
        spec = importlib.util.find_spec(name)
        if name not in sys.modules and spec is not None:
            late[name] = sys.modules[name] = _Late(spec, taken[name])
    try:
        yield
    finally:
        for name, module in late.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


# --------------------------------------------------------------------------------------------------------------------
# mmcv without compiled operators


class MissingOperatorError(ModuleNotFoundError):
    """Error of a call of a compiled operator of ``mmcv.ops`` where mmcv is installed without ``mmcv._ext``."""


# What computes the same without the extension, by the beginning of the operator's name.
_ALTERNATIVES = {
    "sigmoid_focal_loss": "mmseg.models.losses.focal_loss.py_sigmoid_focal_loss computes the same loss from one-hot "
    "targets in PyTorch.",
    "ms_deform_attn": "mmcv.ops.multi_scale_deform_attn.multi_scale_deformable_attn_pytorch computes the same in "
    "PyTorch, and MultiScaleDeformableAttention itself uses it for tensors on the CPU.",
}


def defer_missing_mmcv_operators() -> None:
    """Let ``mmcv.ops`` import without its compiled extension; the compiled operators raise when they are called.

    Needed with mmcv-lite, and with mmcv built without operators, as long as mmseg imports ``mmcv.ops`` unguarded
    (1.2.2 does in its focal loss, its SAN head and its point sampling, so ``mmseg.models`` cannot be imported).
    What is written in PyTorch there works: ``point_sample``, ``CrissCrossAttention``, the CPU path of
    ``MultiScaleDeformableAttention``; and so does PSANet's ``PSAMask``, which ``ops.psa_mask`` computes.
    ``mmcv_full_available()`` still says no.
    """
    if importlib.util.find_spec("mmcv._ext") is not None:
        return
    from mmcv.utils import ext_loader

    ext_loader.load_ext = _load_missing_extension


def _load_missing_extension(name: str, functions: list[str]) -> SimpleNamespace:
    return SimpleNamespace(**{function: _missing_operator(function) for function in functions})


def _missing_operator(name: str) -> Any:
    if name in ("get_compiler_version", "get_compiling_cuda_version"):
        return lambda: "n/a"  # what mmcv's own collect_env reports without the extension
    if name in _IN_PYTORCH:
        return _IN_PYTORCH[name]
    hint = next((f" {text}" for start, text in _ALTERNATIVES.items() if name.startswith(start)), "")

    def operator(*args: Any, **kwargs: Any) -> Any:
        raise MissingOperatorError(
            f"mmcv.ops: {name} is a compiled operator, and this mmcv has none (no module mmcv._ext; found "
            f"{_describe('mmcv')}).{hint} To get it: pip uninstall mmcv-lite, then install a wheel of mmcv 2.1 that "
            f"OpenMMLab built for this torch, or compile it: pip install 'setuptools<81' and "
            f"pip install --no-build-isolation mmcv==2.1.0.",
            name="mmcv._ext",
        )

    operator.__name__ = name
    return operator


def _psamask_forward(input: Any, output: Any, *, psa_type: int, h_mask: int, w_mask: int, **_: int) -> None:
    output.copy_(psa_mask(input, _PSA_KINDS[psa_type], (h_mask, w_mask)))


def _psamask_backward(grad_output: Any, grad_input: Any, *, psa_type: int, h_mask: int, w_mask: int, **_: int) -> None:
    grad_input.add_(psa_mask_transpose(grad_output, _PSA_KINDS[psa_type], (h_mask, w_mask)))


_PSA_KINDS: tuple[Kind, Kind] = ("collect", "distribute")  # by mmcv's number
_IN_PYTORCH: dict[str, Any] = {"psamask_forward": _psamask_forward, "psamask_backward": _psamask_backward}


# --------------------------------------------------------------------------------------------------------------------
# `mmseg::` in configs


def find_packages_by_module() -> None:
    """Let mmengine resolve ``mmseg::`` (and ``mmdet::`` ...) in configs by importable module.

    Needed by mmengine up to 0.10.7, which asks ``pkg_resources``, until mmengine 0.11: setuptools no longer has it from
    82 on, and where it does it warns of it and takes a tenth of a second; and by every mmengine where mmseg comes from
    a distribution that is not called ``mmsegmentation`` (onedl-mmsegmentation, a folder on PYTHONPATH), because
    mmengine looks for that name.
    """
    from mmengine.utils import package_utils

    if package_utils.is_installed is _is_installed:
        return
    asks_pkg_resources = "pkg_resources" in package_utils.is_installed.__code__.co_names
    if not asks_pkg_resources and _distribution("mmsegmentation") is not None:
        return
    for name, replacement in {
        "is_installed": _is_installed,
        "get_installed_path": _get_installed_path,
        "package2module": _package2module,
    }.items():
        original = getattr(package_utils, name)
        for module in list(sys.modules.values()):  # mmengine binds the names in its utils, config and hub modules
            if getattr(module, "__dict__", {}).get(name) is original:
                setattr(module, name, replacement)


def _is_installed(package: str) -> bool:
    """Replace ``mmengine.utils.is_installed``, without pkg_resources."""
    spec = _find_spec(package)
    return _distribution(package) is not None or (spec is not None and spec.origin is not None)


def _get_installed_path(package: str) -> str:
    """Replace ``mmengine.utils.get_installed_path``, without pkg_resources."""
    spec = _find_spec(package)
    if spec is None:
        raise metadata.PackageNotFoundError(package)
    if spec.origin is None:
        raise RuntimeError(f"get_installed_path: {package} is a namespace package, which has no single path.")
    return os.path.dirname(spec.origin)


def _package2module(package: str) -> str:
    """Replace ``mmengine.utils.package_utils.package2module``, without pkg_resources."""
    modules = (metadata.distribution(package).read_text("top_level.txt") or "").split()
    if not modules:
        raise ValueError(f"package2module: the distribution {package} does not name its top-level module.")
    return modules[0]


def _find_spec(package: str) -> ModuleSpec | None:
    from mmengine.config.utils import MODULE2PACKAGE

    modules = {distribution: module for module, distribution in MODULE2PACKAGE.items()}
    module = modules.get(package, package)
    spec = importlib.util.find_spec(module)
    if spec is None and _distribution(package) is not None:  # a distribution under another name than its module
        spec = importlib.util.find_spec(_package2module(package))
    return spec


def _distribution(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def find_own_configs() -> None:
    """Let mmengine resolve ``mmseg_resample::`` in ``_base_`` and in ``get_config``, as it does ``mmseg::``.

    Needed by every mmengine: it knows a fixed list of packages, and gives what it reads from one a scope of the
    package's name, where ours registers in mmseg's; and up to 0.10.7 it does not find packages that are installed
    editable.
    """
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE

    if _OWN in MODULE2PACKAGE:
        return
    MODULE2PACKAGE[_OWN] = _OWN
    original = Config._get_cfg_path

    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, _, name = cfg_path.partition("::")
        return (str(own_files("configs") / name), "mmseg") if package == _OWN else original(cfg_path, filename)

    Config._get_cfg_path = staticmethod(get_cfg_path)


_OWN = "mmseg_resample"


def own_files(kind: str) -> Path:
    """Return the folder of this package's ``configs`` or ``tools``, where OpenMMLab's packages have theirs.

    A checkout has links there; where it was made without links, the folder of the checkout is returned.
    """
    folder = Path(__file__).parent / ".mim" / kind
    return folder if folder.is_dir() else Path(__file__).parents[1] / kind


# --------------------------------------------------------------------------------------------------------------------
# Checkpoints


def read_checkpoints_as_data() -> None:
    """Let mmengine read checkpoints by ``unpickle.load``, which runs nothing of them, from files and URLs alike.

    Needed by every mmengine up to 0.10.7: it calls ``torch.load`` without ``weights_only``, so that torch before 2.6
    runs what a file says, and torch from 2.6 on refuses what mmengine itself stores; what comes from a URL every torch
    runs; and ``Runner.resume`` executes a config that a checkpoint holds as text.
    """
    from mmengine.runner import checkpoint

    if isinstance(checkpoint.torch, _Torch):
        return
    checkpoint.torch = _Torch("torch")
    checkpoint.load_url = _load_url


class _Torch(ModuleType):
    """Module ``torch`` with another ``load``."""

    load = staticmethod(unpickle.load)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def _load_url(url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True, **_: Any) -> Any:
    """Replace ``torch.hub.load_state_dict_from_url``, with the same cache."""
    folder = Path(model_dir or os.path.join(torch.hub.get_dir(), "checkpoints"))
    file = folder / os.path.basename(urlparse(url).path)
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), progress=progress)
    return unpickle.load(file, map_location)
