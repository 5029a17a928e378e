"""Segmentors under a resize policy, and segmentors that compute losses and labels without full-resolution logits."""

from .lean import Lean, LeanSegmentor
from .logits import LogitsOnRequest
from .network import SegmentorNetwork
from .resampled import ResampledSegmentor
from .tta import TTASegmentor

__all__ = ["Lean", "LeanSegmentor", "LogitsOnRequest", "ResampledSegmentor", "SegmentorNetwork", "TTASegmentor"]
