"""An audit for the eye: the displacement fields of a network."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .audit import Audit
from .report import grouped
from .track import TOLERANCE
from .words import in_pixels


def plot(audit: Audit, path: Path, panels: int = 6) -> None:
    """Draw the displacement field of the prediction and of the worst meetings over the image plane.

    An arrow starts at a position of the feature it is compared with and ends where the evidence lies.
    """
    titles = {"config": "as configured", "False": "align_corners=False", "True": "align_corners=True", "exact": "exact"}
    fields = [
        (f"prediction, {titles[key]}", audit.passes[key][0].final)
        for key in ("False", "True", "config", "exact")
        if key in audit.passes and not (key == "config" and "True" in audit.passes)
    ]
    fields += [(f"{m.op} in {m.path or 'model'}", m) for m, _ in grouped(audit.now.misregistered)[:panels]]
    drawn = [(title, m) for title, m in fields if m is not None and m.y is not None and m.x is not None]
    height, width = audit.sizes[0]
    columns = min(3, max(1, len(drawn)))
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(4.4 * columns, (4.0 * height / width + 0.7) * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    largest = max((m.worst for _, m in drawn), default=1.0) or 1.0
    for axis in axes.flat[len(drawn) :]:
        axis.axis("off")
    for axis, (title, meeting) in zip(axes.flat, drawn, strict=False):
        assert meeting.y is not None and meeting.x is not None
        n = 9
        t = np.linspace(0, 1, n)
        dy, dx = (np.interp(t, [0, 0.5, 1], [o.first, o.middle, o.last]) for o in (meeting.y, meeting.x))
        xs, ys = np.meshgrid(t * (width - 1), t * (height - 1))
        u, v = np.broadcast_to(dx[None, :], (n, n)), np.broadcast_to(dy[:, None], (n, n))
        # One scale per panel, so that small fields can be read; the colour compares panels.
        axis.quiver(
            xs,
            ys,
            u,
            v,
            np.hypot(u, v),
            angles="xy",
            scale_units="xy",
            scale=max(meeting.worst, 1e-6) / (0.09 * width),
            cmap="viridis",
            clim=(0, largest * np.sqrt(2)),
            width=0.005,
        )
        if meeting.worst <= TOLERANCE:
            axis.plot(xs, ys, ".", color="tab:green", ms=3)
        axis.set(xlim=(-0.06 * width, 1.06 * width), ylim=(1.06 * height, -0.06 * height), aspect="equal")
        axis.set_title(f"{title}\ny {in_pixels(meeting.y)}, x {in_pixels(meeting.x)} px", fontsize=9, loc="left")
        axis.tick_params(labelsize=7)
    figure.suptitle(f"{audit.name} at {height}x{width}: from where the evidence is read", fontsize=10)
    figure.savefig(path, dpi=150)
