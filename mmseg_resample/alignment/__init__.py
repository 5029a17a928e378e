"""Which pixel grids a network really has, and how to make its resizes agree with them."""

from .audit import Audit, audit, audit_exact, build_fake
from .fake import fake_tensors
from .layout import Layout, Offset
from .policy import ResizePolicy
from .segmentor import ResampledSegmentor
from .track import Meeting, Resize, Trace, Tracker

__all__ = [
    "Audit",
    "Layout",
    "Meeting",
    "Offset",
    "ResampledSegmentor",
    "Resize",
    "ResizePolicy",
    "Trace",
    "Tracker",
    "audit",
    "audit_exact",
    "build_fake",
    "fake_tensors",
]
