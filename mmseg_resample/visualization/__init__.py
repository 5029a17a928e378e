"""Pictures of a model at work: flows, offsets, errors at boundaries; and flows as numbers while training."""

from .boundary import boundary_errors
from .explain import explanations
from .flow import flow_to_rgb, flow_wheel
from .hooks import FlowLoggerHook

__all__ = ["FlowLoggerHook", "boundary_errors", "explanations", "flow_to_rgb", "flow_wheel"]
