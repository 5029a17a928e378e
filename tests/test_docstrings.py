"""A function's docstring begins with a verb, a class's with a noun: neither is the end of a sentence about its name."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmseg_resample

ROOT = Path(mmseg_resample.__file__).parent

ROOMS = [
    *("ops", "grids", "policy", "resamplers", "models", "datasets", "evaluation", "visualization"),
    *("study", "launch", "__init__.py", "__main__.py", "api.py", "cli.py", "compat.py", "derive.py", "files.py"),
    *("suggest.py", "unpickle.py"),
]

QUESTIONS = {"how", "what", "when", "where", "whether", "which", "who", "why"}
PREPOSITIONS = set(
    re.findall(
        r"\w+",
        """above across after against along among around as at before behind below beneath beside between beyond by down
        during for from if in inside into like of off on onto out over per since through to toward towards under until
        up upon via while with within without""",
    )
)
PRONOUNS = set(
    re.findall(
        r"\w+",
        """all another any anything both each either every everything he her his i it its less many more most much
        neither no none nothing one other others our ours own same she some something such that their them there these
        they this those we you your""",
    )
)
ARTICLES = {"a", "an", "the"}
NOT_FOR_FUNCTIONS = QUESTIONS | PREPOSITIONS | PRONOUNS | ARTICLES
NOT_FOR_CLASSES = QUESTIONS | PREPOSITIONS
VALUES = {"property", "cached_property", "fixture"}  # a function with this decorator stands for a value, a noun


def first_word(docstring: str) -> str:
    """The first word in lower case, or "" where the docstring begins with code, a tuple or a number."""
    word = docstring.split()[0].rstrip(",.;:")
    return word.lower() if word.replace("-", "").replace("'", "").isalpha() else ""


def decorators(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> set[str]:
    """The last names of all decorators: ``cached_property`` of ``@functools.cached_property``."""
    names = (ast.unparse(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list)
    return {name.rpartition(".")[2] for name in names}


def fragments(source: str) -> Iterator[str]:
    """The docstrings of ``source`` that have to be read twice, each after its line and its owner."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        docstring = ast.get_docstring(node)
        if not docstring:
            continue
        is_class = isinstance(node, ast.ClassDef)
        if not is_class and decorators(node) & VALUES:
            continue
        word = first_word(docstring)
        refused = word in NOT_FOR_CLASSES if is_class else (not word or word in NOT_FOR_FUNCTIONS)
        if refused:
            yield f"{node.lineno}: {node.name}: {docstring.splitlines()[0]}"


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_are_sentences(room):
    paths = sorted((ROOT / room).rglob("*.py")) if (ROOT / room).is_dir() else [ROOT / room]
    assert paths
    found = [f"{path.relative_to(ROOT)}:{line}" for path in paths for line in fragments(path.read_text())]
    assert not found, "begin with a verb (functions) or a noun (classes):\n" + "\n".join(found)


def of_function(docstring: str, decorator: str = "") -> bool:
    return bool(list(fragments(f'{decorator}\ndef f():\n    """{docstring}"""')))


@pytest.mark.parametrize(
    "docstring",
    [
        "The size of x.",
        "Whether it fits.",
        "Of a shift by its distance.",
        "(N, C, H, W) to (N, C).",
        "``x`` at these rows.",
        "1x1 convolution.",
    ],
)
def test_the_check_can_fail(docstring):
    assert of_function(docstring)


def test_the_check_can_pass():
    assert not of_function("Return the size of x.")
    assert not of_function("Re-use the size.")
    assert not of_function("The size of x.", "@functools.cached_property")
    assert of_function("The size of x.", "@functools.cache")
    assert not list(fragments('class C:\n    """The size."""')) and not list(fragments('class C:\n    """``x``."""'))
    assert list(fragments('class C:\n    """How it is done."""'))
