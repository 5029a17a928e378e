"""A few frames in the layout of the SegNet tutorial."""

from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = {"train": 3, "val": 2, "test": 1}
SIZE = (36, 48)  # (h, w)


def write_segnet_layout(root: Path) -> Path:
    """Frames with horizontal stripes of all labels, 0 to 11 = void."""
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for folder in (root / split, root / f"{split}annot"):
            folder.mkdir(parents=True)
        for k in range(count):
            label = np.repeat(np.arange(12, dtype=np.uint8), SIZE[0] // 12)[:, None] + np.zeros(SIZE, np.uint8)
            label = np.roll(label, k, axis=0)
            image = np.clip(label[..., None] * [20, 10, 5] + rng.integers(0, 8, (*SIZE, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(root / split / f"{split}_{k:03d}.png")
            Image.fromarray(label).save(root / f"{split}annot" / f"{split}_{k:03d}.png")
    return root
