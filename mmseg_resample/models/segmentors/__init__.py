"""Segmentors that compute losses and labels without full-resolution logits."""

from .lean import Lean, LeanSegmentor
from .logits import LogitsOnRequest

__all__ = ["Lean", "LeanSegmentor", "LogitsOnRequest"]
