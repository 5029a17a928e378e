"""Other runtimes: export, and audits of graphs that came from elsewhere."""

from .deployed import DeployedNetwork, Normalisation
from .graph import save, select_outputs
from .onnx_audit import OnnxAudit, audit_onnx
from .parity import Comparison, compare, sizes_to_compare
from .to_onnx import ExportError, Options, export

__all__ = [
    "Comparison",
    "DeployedNetwork",
    "ExportError",
    "Normalisation",
    "OnnxAudit",
    "Options",
    "audit_onnx",
    "compare",
    "export",
    "save",
    "select_outputs",
    "sizes_to_compare",
]
