"""The direction of imports: ops <- grids <- policy <- resamplers <- models, evaluation <- study."""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mmseg_resample

ROOT = Path(mmseg_resample.__file__).parent

# What each part may import from the package, beside itself.
ALLOWED = {
    "__main__": {"cli"},
    "api": {"deploy", "grids", "launch", "policy"},
    "cli": {"suggest", "version"},  # and, by name, the one command of launch or study that is asked for
    "compat": {"ops", "unpickle"},
    "datasets": {"files", "grids"},
    "deploy": {"files", "grids", "ops"},
    "derive": set(),
    "evaluation": {"deploy", "files", "grids", "ops"},
    "files": set(),
    "grids": {"ops", "suggest"},
    "launch": {
        "compat",
        "datasets",
        "deploy",
        "evaluation",
        "files",
        "grids",
        "ops",
        "policy",
        "register",
        "suggest",
        "unpickle",
        "visualization",
    },
    "models": {"derive", "grids", "ops", "policy", "resamplers"},
    "ops": {"suggest"},
    "policy": {"derive", "grids", "ops", "suggest"},
    "resamplers": {"grids", "ops", "policy"},  # those guided by an image are sites
    "study": {"datasets", "evaluation", "files", "grids", "launch", "register", "suggest"},
    "suggest": set(),
    "unpickle": set(),
    "version": set(),
    "visualization": {"datasets", "resamplers", "suggest"},
}
# What the parts that serve every network may import from outside, besides the standard library.
OUTSIDE = {
    "ops": {"torch", "torchvision", "numpy", "triton", "numba"},
    "grids": {"torch", "numpy", "rich", "matplotlib"},  # the last three to show an audit
    "policy": {"torch"},
    "deploy": {"torch", "numpy", "onnx"},  # the last inside functions alone
}


def imported(source: str, module: tuple[str, ...]) -> set[str]:
    """Absolute names imported by ``source``, the text of ``module`` (its dotted path as a tuple)."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(module[: len(module) - node.level]) if node.level else []
            base += node.module.split(".") if node.module else []
            names |= {".".join([*base, alias.name]) for alias in node.names}
    return names


def names_of(path: Path, module: tuple[str, ...]) -> set[str]:
    return imported(path.read_text(), module)


def modules():
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        # A package's relative imports count from inside the package.
        yield path, (*parts[:-1], "__init__") if parts[-1] == "__init__" else parts


def violations(part: str, names: set[str]) -> set[str]:
    inside = {name.split(".")[1] for name in names if name.startswith("mmseg_resample.")}
    return inside - ALLOWED[part] - {part}


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_direction(part):
    found = False
    for path, module in modules():
        if module[1].removesuffix(".py") == part:
            found = True
            assert not violations(part, imported(path.read_text(), module)), path
    assert found, f"no module of the package belongs to {part}"


def test_nothing_is_allowed_that_nobody_does():
    used: dict[str, set[str]] = {}
    for path, module in modules():
        names = imported(path.read_text(), module)
        used.setdefault(module[1], set()).update(
            name.split(".")[1] for name in names if name.startswith(ROOT.name + ".")
        )
    assert {part: allowed - used[part] for part, allowed in ALLOWED.items() if allowed - used[part]} == {}


def test_every_part_is_listed():
    parts = {module[1] for _, module in modules()} - {"__init__"}
    assert parts <= set(ALLOWED)


@pytest.mark.parametrize("part", sorted(OUTSIDE))
def test_what_serves_every_network_imports_no_framework(part):
    found = {name.split(".")[0] for path, module in modules() if module[1] == part for name in names_of(path, module)}
    assert found - set(sys.stdlib_module_names) - {ROOT.name} == OUTSIDE[part]


def test_no_circle():
    tuple(TopologicalSorter(ALLOWED).static_order())


def test_nothing_imports_the_tools():
    for path, module in modules():
        assert not any(name.split(".")[0] == "tools" for name in imported(path.read_text(), module)), path


def test_the_check_can_fail():
    names = imported("from ..models import SFNetHead\nimport mmseg.registry", ("mmseg_resample", "ops", "resize"))
    assert names == {"mmseg_resample.models.SFNetHead", "mmseg.registry"}
    assert violations("ops", names) == {"models"}
    assert not violations("models", imported("from ..ops import resize", ("mmseg_resample", "models", "x")))
    with pytest.raises(CycleError):
        tuple(TopologicalSorter(ALLOWED | {"ops": {"policy"}}).static_order())
