"""Files that run a command, if anything in them is run: each makes a marker."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch


class Call:
    """Object that pickles as a call of ``function``."""

    def __init__(self, function, *args, state=None):
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.call


def program(marker: Path) -> str:
    """Write a config, or any other text of Python, that makes the marker."""
    return f"__import__('pathlib').Path({str(marker)!r}).touch()\n"


def checkpoint_of(stream: bytes) -> io.BytesIO:
    """Make a checkpoint of torch whose pickle is ``stream``."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", stream)
        archive.writestr("archive/version", "3\n")
    file.seek(0)
    return file


def stream_of(value: object) -> bytes:
    """Return the opcodes that put ``value`` on the stack of a pickle."""
    return pickle.dumps(value, protocol=2)[2:-1]


def _call(path: Path, marker: Path, content: dict, **options: bool) -> None:
    torch.save(
        {**content, "meta": {**content["meta"], "callback": Call(os.system, f"touch {marker}")}}, path, **options
    )


def _legacy_call(path: Path, marker: Path, content: dict) -> None:
    _call(path, marker, content, _use_new_zipfile_serialization=False)


def _config(path: Path, marker: Path, content: dict) -> None:
    torch.save({**content, "meta": {**content["meta"], "config": program(marker)}}, path)


def _weights_with_config(path: Path, marker: Path, content: dict) -> None:
    """Save what the report of the fault has: nothing but weights, a text and two numbers."""
    torch.save({"state_dict": content["state_dict"], "meta": {"config": program(marker), "iter": 1, "epoch": 0}}, path)


def _hidden_config(path: Path, marker: Path, content: dict) -> None:
    """A meta whose ``pop`` is a function that leaves the config where it is."""
    meta = OrderedDict(content["meta"], config=program(marker))
    meta.pop = dict
    torch.save({**content, "meta": meta}, path)


CHECKPOINTS = {
    "a call": _call,
    "a call in the format of torch before 1.6": _legacy_call,
    "a config": _config,
    "a config beside weights": _weights_with_config,
    "a config that hides": _hidden_config,
}
"""Name -> writes a checkpoint that makes the marker; arguments: path, marker, content of a real checkpoint."""
