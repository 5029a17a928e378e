"""Policies: make the resizes of any network agree with its pixel grids, without editing it."""

from .intercept import claim_bilinear_site, installed_on
from .padding import MODES as PADDING_MODES
from .resize_policy import ResizePolicy, is_active
from .rule import Rule

__all__ = ["PADDING_MODES", "ResizePolicy", "Rule", "claim_bilinear_site", "installed_on", "is_active"]
