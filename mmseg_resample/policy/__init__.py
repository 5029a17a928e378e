"""Policies: make the resizes of any network agree with its pixel grids, without editing it."""

from .intercept import claim_bilinear_site, installed_on
from .resize_policy import ResizePolicy
from .rule import Rule

__all__ = ["ResizePolicy", "Rule", "claim_bilinear_site", "installed_on"]
