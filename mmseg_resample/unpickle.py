"""Read checkpoints as data: whatever a file holds, reading it runs no code.

torch's own ``weights_only=True`` is no help to those who want a checkpoint of mmengine: before torch 2.4 it takes none,
and where it is allowed arrays of NumPy, it fills the same one twice, so that a tensor can point to freed memory.
"""

import os
import pickle
import sys
import tarfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import torch

__all__ = ["RefusedError", "load"]


class RefusedError(pickle.UnpicklingError):
    """Error of a checkpoint that holds what could run code, or write where it must not.

    Attributes:
        name: of the function or class that it asks for, None for anything else.
    """

    def __init__(self, problem: str, name: str | None = None) -> None:
        super().__init__(f"the checkpoint holds {problem}. Nothing of it was run.")
        self.name = name


def load(file: str | Path | IO[bytes], map_location: Any = None, **_: Any) -> Any:
    """Read what ``torch.save`` wrote; the arguments are those of ``torch.load``.

    Read are tensors, Python's builtin types and what mmengine stores beside the weights: log histories, numbers and
    arrays of NumPy in the byte order of this machine, dicts of a config, functions of its own classes. What somebody
    allowed by ``torch.serialization.add_safe_globals`` is read too. A config as text under ``meta["config"]``, as
    mmcv 1 stored it, is left out: ``Runner.resume`` of mmengine would run it. Where the environment sets
    TORCH_FORCE_WEIGHTS_ONLY_LOAD, torch's own rules hold, by which most checkpoints of a training cannot be read.

    Raises:
        RefusedError: the file asks for anything else, is a TorchScript archive, or of the tar format of 2017.
    """
    if _is_program(file):
        raise RefusedError("a TorchScript program, or is a tar archive")
    rules: dict[str, Any] = {
        "pickle_module": SimpleNamespace(__name__=__name__, Unpickler=_Unpickler, load=_load_pickle),
        "weights_only": False,
    }
    if os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0").lower() in ("1", "y", "yes", "true"):
        rules = {"weights_only": True}  # torch takes no others then
    content = torch.load(file, map_location=map_location, **rules)
    # By the methods of dict: an instance may have attributes of these names.
    meta = dict.get(content, "meta") if isinstance(content, dict) else None
    if isinstance(meta, dict):
        dict.pop(meta, "config", None)
    return content


def _is_program(file: str | Path | IO[bytes]) -> bool:
    """Tell whether ``torch.load`` would not read a pickle, but leave the file to ``torch.jit`` or to ``tarfile``."""
    if isinstance(file, str | Path):
        with open(file, "rb") as opened:
            return _is_program(opened)
    start = file.tell()
    zipped = file.read(4) == b"PK\x03\x04"
    file.seek(start)
    try:
        return "constants.pkl" in torch._C.PyTorchFileReader(file).get_all_records() if zipped else _is_tar(file)
    finally:
        file.seek(start)


def _is_tar(file: IO[bytes]) -> bool:
    try:
        tarfile.open(fileobj=file, mode="r:", format=tarfile.PAX_FORMAT).close()
    except tarfile.TarError:
        return False
    return True


def _load_pickle(file: IO[bytes], **options: Any) -> Any:
    return _Unpickler(file, **options).load()


# --------------------------------------------------------------------------------------------------------------------
# What stands in for functions that could do more than a checkpoint needs


def _number_dtypes() -> dict[str, np.dtype]:
    codes = "?" + np.typecodes["AllInteger"] + np.typecodes["AllFloat"]
    names = [np.dtype(code).str[1:] for code in codes]
    return {name: np.dtype(name) for name in names}


_DTYPES = _number_dtypes()


def _dtype(name: Any, *_: Any) -> np.dtype:
    """Stand in for ``numpy.dtype``: the builtin one of a type of numbers, never a copy that could be written into."""
    if type(name) is not str or name not in _DTYPES:
        raise RefusedError(f"numpy.dtype({name!r}), which is not a type of numbers", "numpy.dtype")
    return _DTYPES[name]


def _check_dtype(dtype: Any) -> None:
    if not isinstance(dtype, np.dtype) or _DTYPES.get(dtype.str[1:]) is not dtype:
        raise RefusedError(f"an array of {dtype!r}")


def _new_array(*_: Any) -> np.ndarray:
    """Stand in for ``numpy._core.multiarray._reconstruct``, whose array is filled next."""
    return np.empty(0)


def _scalar(dtype: Any, data: Any) -> Any:
    """Stand in for ``numpy._core.multiarray.scalar``."""
    _check_dtype(dtype)
    return np.float64().__reduce__()[0](dtype, data)  # type: ignore[operator]


def _latin1(text: Any, encoding: Any) -> bytes:
    """Stand in for ``_codecs.encode``, by which pickle stores bytes."""
    if encoding != "latin1":
        raise RefusedError(f"_codecs.encode to {encoding!r}", "_codecs.encode")
    return str.encode(text, "latin1")


def _no_bytes() -> bytes:
    """Stand in for ``bytes``, by which pickle stores empty ones."""
    return b""


def _mmengine_function(owner: Any, name: Any) -> Any:
    """Stand in for ``getattr``, through which pickle refers to a function that was defined in a class.

    Returns the statistics of ``HistoryBuffer`` and the annealing functions of the one-cycle schedulers. The builtin
    would hand a checkpoint the module globals behind any function.
    """
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    functions = {
        HistoryBuffer: ("min", "max", "mean", "current"),
        OneCycleParamScheduler: ("_annealing_cos", "_annealing_linear"),
    }
    if not isinstance(owner, type) or name not in functions.get(owner, ()):
        raise RefusedError(f"getattr({owner!r}, {name!r}), which is not what mmengine stores", "getattr")
    return getattr(owner, name)


class _ArrayType:
    """Substitute for ``numpy.ndarray``, which makes objects of any bytes: ``ndarray((1,), "O", buffer=address)``."""


def _own_globals() -> dict[str, Any]:
    from mmengine.config import ConfigDict
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    found: dict[str, Any] = {
        f"{kind.__module__}.{kind.__qualname__}": kind for kind in (ConfigDict, HistoryBuffer, OneCycleParamScheduler)
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # of NumPy 1 and 2, whichever wrote the file
        found |= {f"{module}._reconstruct": _new_array, f"{module}.scalar": _scalar}
    return found | {
        "numpy.dtype": _dtype,
        "numpy.ndarray": _ArrayType,
        "_codecs.encode": _latin1,
        "builtins.bytes": _no_bytes,
        "builtins.set": set,
        "builtins.getattr": _mmengine_function,
        "torch.device": torch.device,
        **{str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)},
    }


def _allowed_by_others() -> dict[str, Any]:
    """Return what somebody allowed for ``weights_only=True``, by name; there is nothing before torch 2.4."""
    entries: list[Any] = getattr(torch.serialization, "get_safe_globals", list)()
    pairs = [
        entry if isinstance(entry, tuple) else (entry, f"{entry.__module__}.{entry.__qualname__}") for entry in entries
    ]
    return {name: value for value, name in pairs}


# --------------------------------------------------------------------------------------------------------------------
# The rules


class _Dispatch(dict[int, Callable[[Any], None]]):
    """Map from opcode to method, for the opcodes that ``torch.save`` writes."""

    def __missing__(self, opcode: int) -> Callable[[Any], None]:
        raise RefusedError(f"the pickle opcode {bytes([opcode])!r}, which torch.save does not write")


_Python: Any = pickle._Unpickler  # type: ignore[attr-defined]  # the one in Python, whose rules can be changed


class _Unpickler(_Python):
    """Unpickler that calls and fills only what is on its list; torch derives from it, and adds the storages."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        others = _allowed_by_others()
        own = _own_globals()
        if "builtins.getattr" in others:  # somebody's own decision; numbers of NumPy are read safely all the same
            del own["builtins.getattr"]
        self._globals = {**torch._weights_only_unpickler._get_allowed_globals(), **others, **own}
        self._callables = {id(value) for value in self._globals.values()} - {id(_ArrayType)}
        self._classes = [value for name, value in others.items() if isinstance(value, type) and name not in own]
        self._classes.append(own["mmengine.logging.history_buffer.HistoryBuffer"])
        self._unfilled: dict[int, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name in the file stands for."""
        module, name = NAME_MAPPING.get((module, name), (module, name))  # of Python 2, as protocol 2 writes them
        full = f"{IMPORT_MAPPING.get(module, module)}.{name}"
        if full not in self._globals:
            full = full.removeprefix("builtins.")
            raise RefusedError(full, full)
        return self._globals[full]

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if id(function) not in self._callables or type(arguments) is not tuple:
            raise RefusedError(f"a call of {function!r}")
        result = function(*arguments)
        if function is _new_array:
            self._unfilled[id(result)] = result
        self.append(result)

    def _create(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not any(kind is each for each in self._classes) or type(arguments) is not tuple:
            raise RefusedError(f"an object of {kind!r}")
        self.append(kind.__new__(kind, *arguments))

    def _fill(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is np.ndarray and id(target) in self._unfilled:
            del self._unfilled[id(target)]
            if type(state) is not tuple or len(state) != 5:
                raise RefusedError("an array of another version")
            _check_dtype(state[2])
            target.__setstate__(state)
        elif isinstance(target, np.dtype):  # which stays as it is
            order = {"little": "<", "big": ">"}[sys.byteorder]
            if state[1] not in ("|", "=", order) or any(part is not None for part in state[2:5]):
                raise RefusedError("an array with fields, or in the byte order of another machine")
        elif type(target) is OrderedDict and type(state) is dict and state.keys() <= {"_metadata"}:  # of a state dict
            vars(target).update(state)
        elif any(type(target) is each for each in self._classes):
            if hasattr(target, "__setstate__"):
                target.__setstate__(state)
            else:
                vars(target).update(state)
        else:
            raise RefusedError(f"a state for an object of {type(target)!r}")

    def _load_storage(self) -> None:
        if type(self.stack[-1]) is not tuple or self.stack[-1][:1] not in (("storage",), (b"storage",)):
            raise RefusedError("a reference to something else than a storage")
        self.load_binpersid()

    def _append(self) -> None:
        self._check_container(self.stack[-2], list)
        self.load_append()

    def _extend(self) -> None:
        self._check_container(self.metastack[-1][-1], list)
        self.load_appends()

    def _set_item(self) -> None:
        self._check_container(self.stack[-3], dict, OrderedDict, Counter)
        self.load_setitem()

    def _set_items(self) -> None:
        self._check_container(self.metastack[-1][-1], dict, OrderedDict, Counter)
        self.load_setitems()

    def _check_container(self, target: Any, *kinds: type) -> None:
        if not any(type(target) is kind for kind in kinds):
            raise RefusedError(f"items for an object of {type(target)!r}")


_AS_THEY_ARE = (
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINSTRING "
    "EMPTY_TUPLE EMPTY_LIST EMPTY_DICT EMPTY_SET TUPLE TUPLE1 TUPLE2 TUPLE3 "
    "BINGET LONG_BINGET BINPUT LONG_BINPUT GLOBAL"
)
_RULES = {
    pickle.REDUCE: _Unpickler._call,
    pickle.NEWOBJ: _Unpickler._create,
    pickle.BUILD: _Unpickler._fill,
    pickle.BINPERSID: _Unpickler._load_storage,
    pickle.APPEND: _Unpickler._append,
    pickle.APPENDS: _Unpickler._extend,
    pickle.SETITEM: _Unpickler._set_item,
    pickle.SETITEMS: _Unpickler._set_items,
}
_Unpickler.dispatch = _Dispatch(
    {getattr(pickle, name)[0]: _Unpickler.dispatch[getattr(pickle, name)[0]] for name in _AS_THEY_ARE.split()}
    | {opcode[0]: method for opcode, method in _RULES.items()}
)
