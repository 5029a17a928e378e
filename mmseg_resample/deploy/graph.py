"""What is done to ONNX graphs, whoever wrote them: keep outputs, keep notes, leave out defaults, write."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import atomic_write
from . import requires

METADATA = "mmseg_resample"
"""Key of a file's metadata under which the exporter writes."""

OWN_DOMAINS = ("", "ai.onnx")
"""Names of ONNX's own set of operators."""


def select_outputs(model: Any, names: set[str]) -> Any:
    """Return a copy of a graph with some of its outputs, and what they need."""
    onnx = requires.package("onnx", "export")
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for output in [output for output in copied.graph.output if output.name not in names]:
        copied.graph.output.remove(output)
    needed = {output.name for output in copied.graph.output}
    kept = []
    for node in reversed(copied.graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    del copied.graph.node[:]
    copied.graph.node.extend(reversed(kept))
    return copied


def save(model: Any, path: Path) -> None:
    """Write a graph to a file, which is complete or absent."""
    with atomic_write(path) as partial:
        partial.write_bytes(model.SerializeToString())


def describe(model: Any, metadata: Mapping[str, Any]) -> None:
    """Keep JSON values in the metadata of a graph, in place of those that are there."""
    onnx = requires.package("onnx", "export")
    onnx.helper.set_model_props(model, {METADATA: json.dumps(metadata)})


def description(model: Any) -> dict[str, Any] | None:
    """Return what ``describe`` kept in a graph; None if it is of another exporter."""
    found = metadata(model).get(METADATA)
    return None if found is None else json.loads(found)


def metadata(model: Any) -> dict[str, str]:
    """Return what a file says about itself."""
    return {entry.key: entry.value for entry in model.metadata_props}


def leave_out_defaults(model: Any) -> None:
    """Remove the attributes of nodes that say what holds without them, in place: some readers refuse a ``Resize``."""
    onnx = requires.package("onnx", "export")
    version = next(entry.version for entry in model.opset_import if entry.domain in OWN_DOMAINS)
    for node in model.graph.node:
        if node.domain not in OWN_DOMAINS:
            continue
        known = onnx.defs.get_schema(node.op_type, version).attributes
        for attribute in list(node.attribute):
            if node.op_type == "Resize" and attribute.name == "nearest_mode" and not _is_nearest(node):
                node.attribute.remove(attribute)
                continue
            default = known[attribute.name].default_value if attribute.name in known else None
            if default is None or default.type == onnx.AttributeProto.UNDEFINED or attribute.name == "mode":
                continue  # OpenCV wants a mode
            if onnx.helper.get_attribute_value(attribute) == onnx.helper.get_attribute_value(default):
                node.attribute.remove(attribute)


def _is_nearest(resize: Any) -> bool:
    return all(attribute.s == b"nearest" for attribute in resize.attribute if attribute.name == "mode")


def lower_to_17(model: Any) -> None:
    """Write a graph of opset 18 in the words of 17, in place: reductions have their axes as an attribute there.

    Raises:
        ValueError: an operator has no form in opset 17.
    """
    onnx = requires.package("onnx", "export")
    known = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            known[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    for node in model.graph.node:
        if node.domain not in OWN_DOMAINS:
            continue
        newer = onnx.defs.get_schema(node.op_type, 18)
        if newer.since_version < 18:
            continue
        if node.op_type.startswith("Reduce") and len(node.input) == 2 and node.input[1] in known:
            node.attribute.append(onnx.helper.make_attribute("axes", [int(i) for i in known[node.input[1]]]))
            del node.input[1]
        elif node.op_type == "Split":
            for attribute in [a for a in node.attribute if a.name == "num_outputs"]:
                node.attribute.remove(attribute)
        elif node.op_type not in ("Resize", "Pad", "ScatterND", "ScatterElements", "Identity"):
            raise ValueError(f"export: {node.op_type} has no form in opset 17. Export with opset 18.")
    for entry in model.opset_import:
        if entry.domain in OWN_DOMAINS:
            entry.version = 17
