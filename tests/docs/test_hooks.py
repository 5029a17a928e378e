"""What the documentation site makes of links that leave docs/, and of fences."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("mkdocs")
REPOSITORY = Path(__file__).parents[2]
HOOKS = runpy.run_path(str(REPOSITORY / "docs" / "_hooks.py"))


def rendered(markdown, source="howto/x.md", repo_url=None):
    config = SimpleNamespace(
        repo_url=repo_url, docs_dir=str(REPOSITORY / "docs"), config_file_path=str(REPOSITORY / "mkdocs.yml")
    )
    page = SimpleNamespace(file=SimpleNamespace(src_uri=source))
    return HOOKS["on_page_markdown"](markdown, page=page, config=config)


@pytest.mark.parametrize(
    ("markdown", "plain", "linked"),
    [
        ("[a](../../README.md#x)", "a", "[a](https://e.org/r/blob/HEAD/README.md#x)"),
        ("[a `b` [c]](../../configs)", "a `b` [c]", "[a `b` [c]](https://e.org/r/blob/HEAD/configs)"),
        ("[a](../figures.py)", "a", "[a](https://e.org/r/blob/HEAD/docs/figures.py)"),
        ("[a](../tutorial.ipynb)", "[a](../notebook.md)", "[a](../notebook.md)"),
        ("[a](../lean.md#b)", None, None),
        ("[a](https://e.org/x.py) [b](#c)", None, None),
        ("```text\n[a](../../README.md)\n```\n", None, None),
        ("```python notest because b\nx\n```\n", "```python\nx\n```\n", "```python\nx\n```\n"),
    ],
)
def test_markdown(markdown, plain, linked, caplog):
    assert rendered(markdown) == (plain or markdown)
    assert rendered(markdown, repo_url="https://e.org/r/") == (linked or markdown)
    assert not caplog.records


def test_a_link_to_a_file_that_is_not_there_is_a_warning(caplog):
    assert rendered("[a](../../configs/absent.py)") == "a"
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "configs/absent.py" in caplog.text
