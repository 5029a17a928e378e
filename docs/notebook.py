"""Runs docs/tutorial.ipynb, and stores what its cells print and the picture that it draws: ``python docs/notebook.py``.

It needs no Jupyter: the code cells are plain Python, run in order in one namespace.
"""

import contextlib
import io
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NOTEBOOK, PICTURE = HERE / "tutorial.ipynb", HERE / "figures" / "notebook.png"


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """Run the code cells in the working directory, store in each what it printed, and return their namespace."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
            lines = printed.getvalue().splitlines(keepends=True)
            cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": lines}] if lines else []
    return names


def main() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        run(notebook)
        shutil.copy("before.png", PICTURE)
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
