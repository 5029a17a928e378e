"""The reference has every public class and function, and no module under the name of a function."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
PACKAGES = {page: page for page in ("ops", "policy", "resamplers", "models", "datasets", "deploy")} | {
    "metrics": "evaluation"
}
# Of other packages here, and of resamplers' parts.
INTERNAL = {"claim_bilinear_site", "installed_on", "is_active", "max_pool", "max_unpool"}


def documented(page):
    """Return the name and the object of every entry, found as mkdocstrings finds it: modules go before names."""
    found = {}
    for path in re.findall(r"^::: (\S+)$", (REFERENCE / f"{page}.md").read_text(), re.M):
        module, name = path.rsplit(".", 1)
        try:
            found[path] = importlib.import_module(path)
        except ModuleNotFoundError:
            found[path] = getattr(importlib.import_module(module), name)
    return found


@pytest.mark.parametrize("page", ["index", *PACKAGES])
def test_entries_are_classes_and_functions(page):
    entries = documented(page)
    assert entries and [path for path, entry in entries.items() if inspect.ismodule(entry)] == []


@pytest.mark.parametrize("page", PACKAGES)
def test_what_is_public_is_there(page):
    package = importlib.import_module(f"mmseg_resample.{PACKAGES[page]}")
    public = {name: getattr(package, name) for name in package.__all__}
    expected = {n for n, o in public.items() if inspect.isclass(o) or inspect.isfunction(o)} - INTERNAL
    assert {path.rsplit(".", 1)[1] for path in documented(page)} == expected
