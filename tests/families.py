"""The families of mmseg, each by the config that docs/families.py chooses."""

import sys
from pathlib import Path

from mmengine.utils import get_installed_path

sys.path.append(str(Path(__file__).parents[1] / "docs"))
from families import representative

ROOT = Path(get_installed_path("mmsegmentation")) / ".mim" / "configs"
FAMILIES = [folder for folder in sorted(ROOT.iterdir()) if folder.is_dir() and not folder.name.startswith("_")]

__all__ = ["FAMILIES", "representative"]
