"""The script beside an exported file: from an image to its labels with NumPy and ONNX Runtime alone."""

_SOURCE = '''\
"""Segment an image: python {stem}.py IMAGE.ppm LABELS.pgm (other formats where Pillow is installed)."""
import json, re, sys
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(__file__[: -len(".py")] + ".onnx")
about = json.loads(session.get_modelmeta().custom_metadata_map["mmseg_resample"])
source, target = sys.argv[1:]
if source.endswith(".ppm"):  # P6: width, height, 255, then RGB
    head, *numbers = re.match(rb"(P6\\s+(\\d+)\\s+(\\d+)\\s+255\\s)", content := open(source, "rb").read()).groups()
    image = np.frombuffer(content[len(head) :], np.uint8).reshape(int(numbers[1]), int(numbers[0]), 3)
else:
    from PIL import Image
    image = np.asarray(Image.open(source).convert("RGB"))
mean, std = np.float32(about["mean"]), np.float32(about["std"])
x = image[..., :: 1 if about["channels"] == "RGB" else -1].astype(np.float32)
x = x if about["normalised in the graph"] else (x - mean) / std
height, width = image.shape[:2]
step = about["pad to multiples of"] or 1
to = about["size"] or about["pad to"] or [-(-height // step) * step, -(-width // step) * step]
border = mean if about["normalised in the graph"] else np.float32(0)
padded = np.zeros((max(to[0], height), max(to[1], width), 3), np.float32) + border
padded[:height, :width] = x
(labels,) = session.run(["labels"], {{"image": np.ascontiguousarray(padded.transpose(2, 0, 1)[None])}})
labels = labels[0, :height, :width].astype(np.uint8)
open(target, "wb").write(b"P5 %d %d 255\\n" % (width, height) + labels.tobytes())
'''


def source(file: str) -> str:
    """Return the source of the script that belongs beside ``file``, under the same name."""
    return _SOURCE.format(stem=file.removesuffix(".onnx"))
