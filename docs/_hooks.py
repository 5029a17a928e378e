"""What the site does to the documents beside rendering them; mkdocs.yml names it.

Documents are written for a checkout, where ``../configs/x.py`` is a link. In the site such a link leads to the
repository if ``repo_url`` is configured, and is plain text otherwise. The notebook becomes a page.
"""

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

log = logging.getLogger("mkdocs.hooks.mmseg_resample")  # its warnings end `mkdocs build --strict`
NOTEBOOK, PAGE = "tutorial.ipynb", "notebook.md"
FENCE = re.compile(r"^(```+.*?^```+ *$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the notebook as a page, beside the file to download."""
    page = notebook_page(Path(config.docs_dir, NOTEBOOK))
    files.append(File.generated(config, PAGE, content=page))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Rewrite links that leave docs/, and drop what tests read behind the language of a code block."""
    parts = FENCE.split(markdown)
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = re.sub(r"\A(```+\w+) .*", r"\1", part)
        else:
            parts[i] = LINK.sub(lambda link: rewritten(link, page.file.src_uri, config), part)
    return "".join(parts)


def rewritten(link: re.Match[str], source: str, config: Any) -> str:
    """Return a link of the document ``source`` as it is in the site."""
    text, target = link.groups()
    if ":" in target or target.startswith(("#", "/")):
        return link[0]
    path, _, anchor = target.partition("#")
    path = os.path.normpath(os.path.join(os.path.dirname(source), path))
    if path == NOTEBOOK and source != PAGE:
        return f"[{text}]({os.path.relpath(PAGE, os.path.dirname(source) or '.')})"
    if not path.startswith("..") and not path.endswith((".py", ".json")):
        return link[0]
    root = Path(config.config_file_path).parent
    file = os.path.normpath(os.path.join(os.path.basename(config.docs_dir), path))
    if not (root / file).exists():
        log.warning("%s links to %s, and %s is not in the repository.", source, target, file)
    if not config.repo_url:
        return text
    return f"[{text}]({config.repo_url.rstrip('/')}/blob/HEAD/{file}{'#' * bool(anchor)}{anchor})"


def notebook_page(notebook: Path) -> str:
    """Write a notebook as Markdown, with the outputs that are stored as text."""
    parts = []
    for cell in json.loads(notebook.read_text())["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            parts.append("```text\n" + "".join(output["text"]).rstrip() + "\n```")
    return "\n\n".join(parts) + "\n"
