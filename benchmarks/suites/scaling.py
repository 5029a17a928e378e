"""What loss and labels cost as pixels and classes grow."""

from dataclasses import replace
from functools import partial
from typing import Any

from measure import Case, Options

from . import loss, predict

TITLE = "Cost against pixels and classes"
NOTE = "Loss and labels as above, of logits at a quarter of the size of the labels."
FIXED_CLASSES, FIXED_SIZE = 19, (512, 512)
CLASSES = [2, 8, 19, 64, 150]
SIZES = [(128, 128), (256, 256), (512, 512), (1024, 1024), (1024, 2048)]


def cases(options: Options) -> list[Case]:
    """Facts tell the panel (``work`` and ``along``) beside the coordinates."""
    sizes, classes = (SIZES, CLASSES) if not options.quick else ([(32, 32), (64, 64)], [2, 8])
    fixed = FIXED_SIZE if not options.quick else sizes[-1]
    sweeps = [("pixels", [(FIXED_CLASSES, size) for size in sizes]), ("classes", [(n, fixed) for n in classes])]
    found = []
    for along, points in sweeps:
        for n, size in points:
            h, w = size[0] // 4, size[1] // 4
            for work, case in (
                ("loss", loss.case((1, n, h, w), size, options.device)),
                ("labels", predict.case((n, h, w), size, size, options.device)),
            ):
                name = f"{case.name}, along {along}"
                found.append(replace(case, name=name, facts=partial(_facts, case, work, along)))
    return found


def _facts(case: Case, work: str, along: str) -> dict[str, Any]:
    return {**case.facts(), "work": work, "along": along}
