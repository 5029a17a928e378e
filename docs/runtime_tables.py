"""Asks runtimes how they resize under each convention of ONNX, for docs/runtimes.md: ``python docs/runtime_tables.py``.

The reference is ``mmseg_resample.ops.resize`` in float64, whose own tests hold it against ONNX's reference.
"""

import argparse
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, checker, helper, numpy_helper

from mmseg_resample.deploy.runtimes import RUNTIMES
from mmseg_resample.ops import resize

SIZES = [((7, 9), (14, 27)), ((13, 17), (97, 131)), ((26, 26), (64, 64)), ((17, 5), (61, 1)), ((64, 60), (24, 20))]
EXACT = 1e-4  # float32, of values about 1

LINEAR = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric")
CASES = [
    *[("linear", name, None) for name in LINEAR],
    *[("cubic", name, None) for name in LINEAR[:3]],
    ("nearest", "asymmetric", "floor"),
    ("nearest", "half_pixel", "round_prefer_ceil"),
    ("nearest", "half_pixel", "round_prefer_floor"),
    ("nearest", "half_pixel", "floor"),
    ("nearest", "align_corners", "round_prefer_floor"),
]
AS_PYTORCH = {
    ("linear", "half_pixel", None): "bilinear, `align_corners=False`",
    ("linear", "align_corners", None): "bilinear, `align_corners=True`",
    ("cubic", "half_pixel", None): "bicubic, `align_corners=False`",
    ("cubic", "align_corners", None): "bicubic, `align_corners=True`",
    ("nearest", "asymmetric", "floor"): "nearest",
    ("nearest", "half_pixel", "round_prefer_ceil"): "nearest-exact",
}

HEAD = """\
# How runtimes resize

One `Resize` of ONNX in each runtime, against the formulas of its specification in float64, at {sizes}.

- **exact**: all values agree to {exact:g}.
- **ties**: some outputs read the neighbour, where the coordinate lies on the border between two samples to rounding.
- **wrong**: other samples are read, with the share of outputs and the largest distance, in samples of the source.
- **refused**: the runtime says that it cannot.

`mmseg-resample export` writes what is exact everywhere: linear resizes as half_pixel or align_corners, all other maps
as a part of align_corners or as matrix products, nearest ones as a table of samples.

Regenerate with `python docs/runtime_tables.py`; it needs onnxruntime, openvino, opencv-python, ncnn and pnnx.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "runtimes.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = list(RUNTIMES)
    sizes = ", ".join(f"{h}x{w} -> {out_h}x{out_w}" for (h, w), (out_h, out_w) in SIZES)
    text = HEAD.format(sizes=sizes, exact=EXACT)
    text += f"\n| mode, convention | PyTorch's | {' | '.join(names)} |\n| --- | --- |{' --- |' * len(names)}\n"
    for case in CASES:
        cells = [verdict(name, *case) for name in names]
        mode, coordinates, rounding = case
        text += f"| {mode}, {coordinates}{f', {rounding}' if rounding else ''} | {AS_PYTORCH.get(case, '')} | "
        text += " | ".join(cells) + " |\n"
        print(case, cells, flush=True)
    packages = ("onnx", "onnxruntime", "openvino", "opencv-python", "ncnn", "pnnx")
    text += f"\n{', '.join(f'{name} {version(name)}' for name in packages)}.\n"
    args.out.write_text(text)


def verdict(runtime: str, mode: str, coordinates: str, rounding: str | None) -> str:
    """Say how a runtime computes a resize, over all sizes."""
    total = apart = 0
    distance = 0.0
    refusals = 0
    for source, size in SIZES:
        expected = reference(source, size, mode, coordinates, rounding)
        try:
            found = run(runtime, source, size, mode, coordinates, rounding)
        except Exception:  # whatever a runtime raises
            refusals += 1
            continue
        if found.shape != expected.shape:
            refusals += 1
            continue
        off = np.abs(found - expected)
        total += off.size
        apart += int((off > EXACT).sum())
        distance = max(distance, float(off.max()))
    if not total:
        return "refused"
    some = f", {refusals} of {len(SIZES)} sizes refused" if refusals else ""
    if not apart:
        return f"exact{some}"
    share = 100 * apart / total
    kind = "ties" if mode == "nearest" and distance <= 1 + EXACT and share < 5 else "**wrong**"
    return f"{kind}: {share:.1f} %, up to {distance:.2g}{some}"


def positions(source: tuple[int, int]) -> np.ndarray:
    """Return an image of two channels that hold the row and the column of each sample: what is read is what is seen."""
    rows, columns = np.indices(source)
    return np.stack([rows, columns])[None].astype(np.float32)


def reference(source: Any, size: Any, mode: str, coordinates: str, rounding: str | None) -> np.ndarray:
    """Compute what the specification says, in float64."""
    image = positions(source).astype(np.float64)
    if mode != "nearest":
        kernel = {"linear": "bilinear", "cubic": "bicubic"}[mode]
        return resize(torch.from_numpy(image), size, mode=kernel, coordinates=coordinates).numpy()
    picked = image
    for axis, (n, out) in enumerate(zip(source, size, strict=True), 2):
        i = np.arange(out)
        reads = {
            "asymmetric": i * n / out,
            "half_pixel": (i + 0.5) * n / out - 0.5,
            "align_corners": i * (n - 1) / (out - 1) if out > 1 else i * 0.0,
        }[coordinates]
        reads = np.where(np.abs(reads - np.round(reads * 2) / 2) < 1e-9, np.round(reads * 2) / 2, reads)
        index = {
            "floor": np.floor(reads),
            "round_prefer_ceil": np.floor(reads + 0.5),
            "round_prefer_floor": np.ceil(reads - 0.5),
        }[str(rounding)]
        picked = picked.take(np.clip(index, 0, n - 1).astype(int), axis)
    return picked


def run(runtime: str, source: Any, size: Any, mode: str, coordinates: str, rounding: str | None) -> np.ndarray:
    """Resize in a runtime."""
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if rounding is not None:
        attributes["nearest_mode"] = rounding
    node = helper.make_node("Resize", ["image", "", "", "size"], ["logits"], **attributes)
    shape = [1, 2, *size]
    graph = helper.make_graph(
        [node],
        "resize",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 2, *source])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array(shape, np.int64), "size")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    for attribute in list(model.graph.node[0].attribute):  # pnnx refuses what holds without being said
        if attribute.s in (b"half_pixel", b"round_prefer_floor"):
            model.graph.node[0].attribute.remove(attribute)
    checker.check_model(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "resize.onnx")
        path.write_bytes(model.SerializeToString())
        return RUNTIMES[runtime].session(path)(positions(source))["logits"]


if __name__ == "__main__":
    main()
