"""Positions measured, not derived: run the operators on tensors whose values are positions.

Linear operators with non-negative weights average the positions of what they read. With ``mass`` (ones) and ``moment``
(positions) sent through the same operator, ``moment / mass`` is where an output looks, zero padding included.
"""

import torch

from mmseg_resample.grids import Tracker


def image(height, width, axis, channels=1):
    """(1, channels, height, width) holding the position along ``axis`` (0: y, 1: x)."""
    line = torch.arange([height, width][axis], dtype=torch.float64)
    plane = line[:, None].expand(height, width) if axis == 0 else line.expand(height, width)
    return plane.expand(1, channels, height, width).clone()


def measured(function, height, width, axis, channels=1):
    """Measure where every output of ``function`` looks along ``axis``."""
    moment = function(image(height, width, axis, channels))
    mass = function(torch.ones(1, channels, height, width, dtype=torch.float64))
    return moment / mass


def tracked(function, height, width, channels=1):
    """The layout that the tracker gives the output, and its trace."""
    with Tracker() as tracker:
        x = torch.ones(1, channels, height, width, dtype=torch.float64)
        tracker.start(x)
        out = function(x)
        return tracker.of(out), tracker.trace
