"""Pictures of what a model did: flows, offsets, errors at boundaries; and flows as numbers while training."""

from .boundary import boundary_errors
from .explain import explanations
from .flow import flow_to_rgb, flow_wheel
from .hooks import FlowLoggerHook
from .pictures import boundary_picture, explanation_pictures

__all__ = [
    "FlowLoggerHook",
    "boundary_errors",
    "boundary_picture",
    "explanation_pictures",
    "explanations",
    "flow_to_rgb",
    "flow_wheel",
]
