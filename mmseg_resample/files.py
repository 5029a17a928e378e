"""Files that are complete or absent, wherever the process that writes them is killed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; its file takes the place of ``path`` when the block ends.

    If the block raises, ``path`` stays as it was and the new file is removed. A kill can leave the new file behind,
    hidden and with another ending.

    Args:
        path: in a directory that exists. Several processes and threads may write it; the last one stays.
        durable: have the content on the disk first, so that a crash of the machine spares it too.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield partial
        if durable:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
