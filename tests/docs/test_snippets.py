"""The code in the documents works; ``snippets.py`` has the rules."""

import copy
import json
import re
import runpy
import sys
from pathlib import Path

import pytest

from . import snippets

PROGRAM, CONFIG = "import math", "model = dict(type='LeanSegmentor')"


def names(document):
    return str(document.relative_to(snippets.REPOSITORY))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The working directory of a document's blocks, which forgets what they import from there."""
    folder = snippets.project(tmp_path)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("MMSEG_RESAMPLE_BACKEND", "torch")  # Numba compiles for ten seconds
    yield folder
    theirs = [name for name, m in sys.modules.items() if str(getattr(m, "__file__", None)).startswith(str(folder))]
    for name in theirs:
        del sys.modules[name]
    for registry in snippets.REGISTRIES:
        for key, registered in list(registry.module_dict.items()):
            if registered.__module__ in theirs:
                del registry.module_dict[key]


@pytest.mark.parametrize("document", [d for d in snippets.DOCUMENTS if snippets.blocks(d, "python")], ids=names)
def test_python(document, project):
    namespace, skipped = {"__name__": "__main__"}, []
    for block in snippets.blocks(document, "python"):
        if missing := block.missing():
            skipped.append(f"{block} needs {', '.join(missing)}")
        else:
            snippets.check_python(block, namespace, project)
    if skipped:
        pytest.skip("; ".join(skipped))


@pytest.mark.parametrize("document", [d for d in snippets.DOCUMENTS if [*snippets.command_lines(d)]], ids=names)
def test_shell(document):
    for where, words in snippets.command_lines(document):
        snippets.check_command(where, words)


def test_the_notebook_prints_what_is_stored_in_it(project):
    """``python docs/notebook.py`` stores it."""
    docs = snippets.REPOSITORY / "docs"
    stored = json.loads((docs / "tutorial.ipynb").read_text())
    made = copy.deepcopy(stored)
    names = runpy.run_path(str(docs / "notebook.py"))["run"](made)
    assert made == stored and sum(bool(cell.get("outputs")) for cell in made["cells"]) == 4
    assert (names["before"].worst, names["after"].worst) == (4, 0)
    assert len(names["after"].uncovered) == 4 and not names["covered"].uncovered
    assert all(Path(name).stat().st_size > 10_000 for name in ("before.png", "covered.png"))


def test_results_are_quoted_from_their_reports():
    results = snippets.REPOSITORY / "docs" / "results"
    quoted = {}
    for line in (results / "index.md").read_text().splitlines():
        if link := re.match(r"\*\*\[.*\]\((.+)\)\*\*", line):
            report = quoted.setdefault(link[1], (results / link[1]).read_text().replace("*", ""))
        elif line.startswith("> "):
            assert line[2:] in report, line
    assert set(quoted) == {str(path.relative_to(results)) for path in results.glob("*/report.md")}


# The checks can fail


def block(code, words=""):
    return snippets.Block(Path("x.md"), 7, "python", words, code)


@pytest.mark.parametrize(
    ("code", "words", "message"),
    [
        ("model = dict(type='LeanSegmenter')", "", "no registry has the type LeanSegmenter"),
        ("model = dict(neck=dict(type='ResampleFPN', resampler=dict(type='CARAFE', kernel=3)))", "", "no kernel"),
        ("_base_ = 'my_config.py'\nmodel = dict(decode_head=dict(chanels=3))", "", "UPerHead takes no chanels"),
        ("model = dict(resize_policy=dict(pad='zeros'))", "", "replicate"),
        ("_base_ = '../sfnet/absent.py'", "", "absent.py"),
        ("import math\nmath.absent", "", "absent"),
        ("x = 1", " notest", "notest because"),
        ("x = ", " notest because of that", "invalid syntax"),
    ],
)
def test_wrong_python_is_found(code, words, message, project):
    with pytest.raises(Exception, match=message):
        snippets.check_python(block(code, words), {}, project)


@pytest.mark.parametrize(
    "line",
    [
        "mmseg-resample audit CONFIG --max-shfit 2",
        "cd x && mmseg-resample study --new",
        "torchrun --nproc-per-node=4 -m mmseg_resample train CONFIG --luncher pytorch",
        "python tools/prepare_camvid.py a b --jpg",
        "python tools/absent.py",
        "python benchmarks/absent.py",
        "mmseg-resample train configs/sfnet/absent.py",
        "mmseg-resample audit mmseg::pspnet/absent.py",
    ],
)
def test_wrong_commands_are_found(line, tmp_path):
    document = tmp_path / "x.md"
    document.write_text(f"```bash\n{line}   # a comment\n```\n")
    with pytest.raises(snippets.WrongSnippet):
        for where, words in snippets.command_lines(document):
            snippets.check_command(where, words)


def test_fences_are_found(tmp_path):
    document = tmp_path / "x.md"
    document.write_text(f"a\n```python\n{PROGRAM}\n```\n1. b\n\n   ```python notest because c\n   {CONFIG}\n   ```\n")
    first, second = snippets.blocks(document, "python")
    assert (first.line, first.code, first.is_program) == (3, f"{PROGRAM}\n", True)
    assert (second.line, second.code, second.is_program) == (8, f"{CONFIG}\n", False)
