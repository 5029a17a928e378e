"""What somebody probably meant who misspelt a name: the end of an error message, with a space before it, or ""."""

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path


def did_you_mean(value: str, names: Iterable[str], *, count: int = 1, cutoff: float = 0.6) -> str:
    """Name the closest of ``names``, ``count`` at most, or nothing if all are less alike than ``cutoff``."""
    near = get_close_matches(value, list(names), n=count, cutoff=cutoff)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def did_you_mean_key(key: str, keys: Sequence[str]) -> str:
    """Name the dotted key that ends alike (max_iters: train_cfg.max_iters), else begins alike, else is spelt alike."""
    parent, _, name = key.rpartition(".")
    namesakes = [each for each in keys if each.rpartition(".")[2] == name]
    siblings = [each.rpartition(".")[2] for each in keys if each.rpartition(".")[0] == parent]
    near = [f"{parent}.{each}".lstrip(".") for each in get_close_matches(name, siblings, n=1)]
    return did_you_mean(key, namesakes or near, cutoff=0) or did_you_mean(key, keys, cutoff=0.9)


def did_you_mean_file(path: Path) -> str:
    """Say what is there instead of ``path``."""
    if path.is_dir():
        return " It is a folder."
    folder = next(parent for parent in path.parents if parent.is_dir())
    missing = path.relative_to(folder).parts[0]
    if (folder / missing).exists():
        return f" {folder / missing} is a file, not a folder."
    close = did_you_mean(missing, sorted(os.listdir(folder)), count=3)
    return close or f" Nothing in {folder.resolve()} is called {missing}."
