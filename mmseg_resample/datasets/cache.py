"""``CachedLoading``: decoded samples in memory, once for all processes of a machine.

A sample is a file in the temporary directory, ready to be read: the system keeps it in its page cache, which all
processes share and which gives way when memory runs short. A file appears complete or not at all, so no process waits
for another, and one that is killed leaves nothing that could be mistaken for a sample.
"""

import atexit
import contextlib
import fcntl
import functools
import hashlib
import logging
import os
import pickle
import shutil
import struct
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log
from mmseg.registry import TRANSFORMS

from ..files import atomic_write

DIRECTORY = "MMSEG_RESAMPLE_CACHE"
"""Environment variable: a directory for the samples, in place of the temporary one. /dev/shm is no disk."""

_KEPT_FREE = 0.2, 4 << 30  # of the file system, or bytes if that is less: the rest of the machine needs room too
_ALIGNMENT = 64  # bytes


@TRANSFORMS.register_module()
class CachedLoading(BaseTransform):
    """A loading step that keeps each sample decoded on this machine, and reads it back bit for bit the same.

    Takes the place of the transforms that begin a pipeline: ``LoadImageFromFile``, ``LoadAnnotations``, ``LoadShapes``,
    a ``Resize`` to a fixed size. They must depend on nothing but their input and the files that it names: one that
    draws random numbers would draw them once. A sample is loaded anew when its files, its transforms or their source
    text change. Input that holds arrays or other objects is loaded every time.

    The samples are removed when the last process that uses them ends. After a kill they stay, and the next process uses
    them. Once less than 4 GiB and less than a fifth of the file system are free, no more are kept.

    Args:
        transforms: Configs of the loading transforms.

    Raises:
        RuntimeError: On first use, if the directory belongs to somebody else, who could put anything there.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]]) -> None:
        self.transforms = [TRANSFORMS.build(dict(transform)) for transform in transforms]
        self._identity = repr([[dict(config) for config in transforms], [_source(t) for t in self.transforms], _boot()])

    def transform(self, results: dict) -> dict | None:
        if not _is_plain(results):
            return self._load(results)
        path = _open(_base()) / self._key(results)
        sample = _read(path)
        if sample is None:
            sample = self._load(results)
            if sample is not None:
                _write(path, sample)
        return sample

    def _key(self, results: dict) -> str:
        return hashlib.sha256(f"{self._identity}{results!r}{_files(results)}".encode()).hexdigest()

    def _load(self, results: dict) -> dict | None:
        for transform in self.transforms:
            loaded = transform(results)
            if loaded is None:
                return None
            results = loaded
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(transforms={self.transforms})"


# --------------------------------------------------------------------------------------------------------------------
# What a sample depends on


def _is_plain(value: Any) -> bool:
    """Tell whether ``repr`` says all there is to know about ``value``."""
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or type(value) in (str, bytes, bool, int, float)


def _files(results: Mapping[str, Any]) -> list[tuple[str, int, int] | None]:
    return [_stat(value) for key, value in results.items() if key.endswith("path") and isinstance(value, str)]


def _source(transform: Any) -> tuple[str, int, int] | None:
    """Return the text of the module: another one may load otherwise, in another checkout too."""
    return _stat(getattr(sys.modules[type(transform).__module__], "__file__", None) or "")


def _stat(path: str) -> tuple[str, int, int] | None:
    try:
        stat = os.stat(path)
    except (OSError, ValueError):  # an address, not a file
        return None
    return path, stat.st_size, stat.st_mtime_ns


def _boot() -> str:
    """Identify this boot: a crash of the machine can leave files without their content; a crash of a process cannot."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text()
    return ""


# --------------------------------------------------------------------------------------------------------------------
# The directory


def _base() -> Path:
    return Path(os.environ.get(DIRECTORY) or tempfile.gettempdir()) / f"mmseg_resample-{os.getuid()}"


@functools.cache
def _open(base: Path) -> Path:
    """Open the directory of the samples, of which this process is a user until it ends."""
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    stat = base.lstat()
    if stat.st_uid != os.getuid() or stat.st_mode & 0o022:
        raise RuntimeError(
            f"CachedLoading: {base} must be writable by this user alone, but its owner is {stat.st_uid} and its mode "
            f"{stat.st_mode & 0o777:o}. Remove it, or set {DIRECTORY} to a directory of your own."
        )
    lock = os.open(base / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)  # the system releases it with the process, however that ends
    samples = base / "samples"
    samples.mkdir(exist_ok=True)
    atexit.register(_leave, lock, samples, os.getpid())
    return samples


def _leave(lock: int, samples: Path, owner: int) -> None:
    if os.getpid() != owner:  # a child that was forked; it shares the lock, its parent goes on
        return
    with contextlib.suppress(OSError):  # BlockingIOError: others still use the samples
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(samples, ignore_errors=True)
    os.close(lock)


# --------------------------------------------------------------------------------------------------------------------
# A sample as a file: the lengths of its parts, a pickle without the arrays, the arrays


def _read(path: Path) -> dict | None:
    try:
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        return None
    count = 1 + int(data[:8].view(np.uint64)[0])
    lengths = data[8 : 8 * (1 + count)].view(np.uint64).tolist()
    parts, start = [], _aligned(8 * (1 + count))
    for length in lengths:
        parts.append(data[start : start + length])
        start = _aligned(start + length)
    header, *arrays = parts
    return pickle.loads(header, buffers=arrays)  # type: ignore[arg-type]  # views of `data`: private, writable


def _write(path: Path, sample: dict) -> None:
    arrays: list[pickle.PickleBuffer] = []
    header = pickle.dumps(sample, protocol=5, buffer_callback=arrays.append)
    parts = [memoryview(header), *(array.raw() for array in arrays)]
    lengths = struct.pack(f"={1 + len(parts)}Q", len(arrays), *(part.nbytes for part in parts))
    try:
        usage = shutil.disk_usage(path.parent)
        fraction, enough = _KEPT_FREE
        if usage.free < min(fraction * usage.total, enough):
            _warn_full(path.parent)
            return
        with atomic_write(path) as partial, open(partial, "wb", opener=_private) as file:
            for part in (memoryview(lengths), *parts):
                file.write(part)
                file.write(bytes(_aligned(file.tell()) - file.tell()))
    except OSError as error:  # the disk is full after all, or somebody removed the directory: training goes on
        _warn_full(path.parent, str(error))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


@functools.cache
def _warn_full(directory: Path, reason: str = "the file system is nearly full") -> None:
    print_log(
        f"CachedLoading: not all samples can be kept in {directory} ({reason}); the others are loaded every time. "
        f"Set {DIRECTORY} to a directory with more room.",
        logger="current",
        level=logging.WARNING,
    )
