"""Pixel grids: which ones a network really has, and where its features meet apart."""

from .audit import Audit, audit, image_size
from .build import build
from .coverage import Uncovered
from .evidence import LevelShift, level_shifts
from .fake import FakeCopy, fake_tensors
from .forward_pass import ForwardPass, follow, follow_both, follow_exact
from .layout import Layout, Offset
from .network import Network, network_of
from .sites import Site
from .track import TOLERANCE, Meeting, Resize, Trace, Tracker

__all__ = [
    "TOLERANCE",
    "Audit",
    "FakeCopy",
    "ForwardPass",
    "Layout",
    "LevelShift",
    "Meeting",
    "Network",
    "Offset",
    "Resize",
    "Site",
    "Trace",
    "Tracker",
    "Uncovered",
    "audit",
    "build",
    "fake_tensors",
    "follow",
    "follow_both",
    "follow_exact",
    "image_size",
    "level_shifts",
    "network_of",
]
