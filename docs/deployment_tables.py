"""Exports networks and compares the files with PyTorch, for docs/deployment.md: ``python docs/deployment_tables.py``.

Networks have random weights: rounding is the same with trained ones, and nothing is downloaded. Each is exported in a
process of its own; results are kept beside, so that the command goes on where it was interrupted.
"""

import argparse
import json
import re
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SHAPES = "mmseg_resample::shapes/"
OWN = {
    "SFNet, ResNet-18": "mmseg_resample::sfnet/sfnet_r18_1xb8-10k_camvid-360x360.py",
    "SFNet, STDC1": "mmseg_resample::sfnet/sfnet_stdc1_1xb8-10k_camvid-360x360.py",
    "SFNet-Lite, ResNet-18": "mmseg_resample::sfnet/sfnet-lite_r18_1xb8-10k_camvid-360x360.py",
    "SFNet's FPN, ResNet-18": "mmseg_resample::sfnet/sfnet-fpn_r18_1xb8-10k_camvid-360x360.py",
    "SFNet's FPN, EfficientNet-Lite0": "mmseg_resample::efficientnet/sfnet-fpn_lite0_1xb8-800_camvid-160x224.py",
    "SegNet": "mmseg_resample::segnet/segnet_1xb8-400_shapes-128x128.py",
    "UPerNet, ResNet-50, ours": "mmseg_resample::upernet/upernet_r50_4xb2-80k_cityscapes-512x1024.py",
    "SegFormer-B0, lean": "mmseg_resample::lean/segformer_mit-b0-lean_8xb2-160k_ade20k-512x512.py",
}
STOCK = {
    "UPerNet, ResNet-18": "mmseg::upernet/upernet_r18_4xb2-40k_cityscapes-512x1024.py",
    "PSPNet, ResNet-18": "mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py",
    "DeepLabV3+, ResNet-18": "mmseg::deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024.py",
    "SegFormer-B0": "mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py",
    "OCRNet, HRNet-18 small": "mmseg::ocrnet/ocrnet_hr18s_4xb2-40k_cityscapes-512x1024.py",
    "FCN, HRNet-18 small": "mmseg::hrnet/fcn_hr18s_4xb2-40k_cityscapes-512x1024.py",
    "BiSeNetV2": "mmseg::bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py",
    "STDC1": "mmseg::stdc/stdc1_4xb12-80k_cityscapes-512x1024.py",
    "UPerNet, Swin-T": "mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py",
    "UPerNet, ConvNeXt-T": "mmseg::convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py",
}
RESAMPLERS = dict.fromkeys(
    (
        *("Interpolate", "FlowAlign", "DeformAlign", "CARAFE", "DySample", "SAPA", "FADE", "FreqFusion"),
        *("Deconv", "PixelShuffle"),
    ),
    f"{SHAPES}fpn_r18-tiny_1xb8-400_shapes-128x128.py",
) | dict.fromkeys(
    ("JAFAR", "AnyUp", "NAF", "LoftUp", "JointBilateral"),
    "mmseg_resample::guided/fpn_r18-tiny-jafar_1xb8-400_shapes-128x128.py",
)

HEAD = """\
# Networks, exported

`mmseg-resample export` of each network, as configured and with exact resizes, at opset 18: one file for images of every
size and batch, traced at 103x139, and compared with PyTorch in ONNX Runtime at the sizes below. How to export, and what
the command does, is in [howto/deploy.md](howto/deploy.md).

- **labels**: pixels whose labels differ, at all sizes together; behind a plus sign those at which PyTorch's two largest
  logits are closer than rounding can tell apart.
- **logits**: the largest difference, in standard deviations of the logits.
- **seconds**: of processor time, export and comparison.

Where a file for every size cannot be made, the row says why, and is followed by that of a file for one size, the crop
that the config trains at.

LoftUp's logits differ by more than rounding of the sums: it takes sines of colours times up to e^10, and float32 leaves
that angle uncertain by 1e-3 radians, in PyTorch as in a runtime. JointBilateral becomes a graph of 7000 operators.

Regenerate with `python docs/deployment_tables.py`.
"""
HEADER = """
| network | resizes | file | sizes compared | labels | logits | seconds |
| --- | --- | --- | --- | --- | --- | --- |
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "deployment.md")
    parser.add_argument("--records", type=Path, default=Path("work_dirs/deployment_tables"), help="kept results")
    parser.add_argument("--limit", type=int, default=900, help="seconds for each network (default: 900)")
    parser.add_argument("--only", nargs="+", help="networks with one of these texts in their names")
    parser.add_argument("--row", nargs=3, metavar=("NAME", "POLICY", "SIZE"), help="print one result as JSON")
    args = parser.parse_args()
    if args.row:
        print(json.dumps(result(*args.row)))
        return
    args.records.mkdir(parents=True, exist_ok=True)
    text = HEAD
    for title, networks in (
        ("Of this package", OWN),
        ("Of mmsegmentation", STOCK),
        ("Resamplers, each in an FPN", RESAMPLERS),
    ):
        rows = []
        for name in networks:
            if args.only and not any(part in name for part in args.only):
                continue
            for policy in ("stock", "exact"):
                rows.append(row(name, policy, "any", args.records, args.limit))
                if rows[-1][1]:
                    rows.append(row(name, policy, "one", args.records, args.limit))
        text += f"\n## {title}\n{HEADER}" + "".join(written for written, _ in rows)
    packages = ("torch", "onnx", "onnxscript", "onnxruntime")
    text += f"\n{', '.join(f'{name} {version(name)}' for name in packages)}.\n"
    args.out.write_text(text)


def row(name: str, policy: str, size: str, records: Path, limit: int) -> tuple[str, bool]:
    """Return the line of a table, and whether there is no file."""
    kept = records / f"{name} {policy} {size}.json".replace("/", "-")
    if not kept.is_file():
        command = [sys.executable, __file__, "--row", name, policy, size]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
            lines = done.stdout.strip().splitlines()
            found = json.loads(lines[-1]) if done.returncode == 0 and lines else {"error": done.stderr.strip()[-300:]}
        except subprocess.TimeoutExpired:
            found = {"error": f"not finished in {limit} s"}
        kept.write_text(json.dumps(found))
        print(name, policy, size, found, flush=True)
    found = json.loads(kept.read_text())
    head = f"| {name} | {'as configured' if policy == 'stock' else policy} | "
    if "error" in found:
        reason = re.sub(r"/\S+/", "", found["error"]).replace("|", "\\|").replace("\n", " ")  # no paths of this machine
        return f"{head}none | {reason} | | | |\n", True
    broken = [entry for entry in found["comparisons"] if entry["error"]]
    compared = [entry for entry in found["comparisons"] if not entry["error"]]
    labels = sum(entry["labels"] - entry["ties"] for entry in compared)
    ties = sum(entry["ties"] for entry in compared)
    apart = max((entry["difference"] / entry["spread"] for entry in compared), default=0.0)
    sizes = ", ".join(f"{h}x{w}" for h, w in (entry["size"] for entry in compared))
    if broken:
        sizes += f"; refused: {', '.join('x'.join(map(str, entry['size'])) for entry in broken)}"
    total = sum(entry["pixels"] for entry in compared)
    cell = f"{labels}{f' + {ties}' if ties else ''} of {total}"
    named = found.get("differences", [])
    if named:
        cell += f"; its audit names: {'; '.join(named)}"
    kind = "any size" if size == "any" else "one size"
    line = f"{head}{kind} | {sizes} | {cell} | {apart:.0e} | {found['seconds']:.0f} |\n"
    return line, bool(labels or broken or named)


def result(name: str, policy: str, size: str) -> dict[str, Any]:
    """Export a network and compare the file with it."""
    import tempfile

    import torch

    from mmseg_resample import launch, register
    from mmseg_resample.deploy.deployed import DeployedNetwork
    from mmseg_resample.deploy.graph import save
    from mmseg_resample.deploy.onnx_audit import audit_onnx
    from mmseg_resample.deploy.parity import compare, sizes_to_compare
    from mmseg_resample.deploy.to_onnx import Options, export

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    register()
    start = time.process_time()
    try:
        cfg = launch.load_config({**OWN, **STOCK, **RESAMPLERS}[name])
        if name in RESAMPLERS:
            cfg.model.neck.resampler = dict(type=name)
        if policy != "stock":
            launch.set_policy(cfg, policy)
        network = DeployedNetwork(build(cfg))
        crop = cfg.get("crop_size") or cfg.model.data_preprocessor.size
        options = Options(tuple(crop) if size == "one" else None)
        network.find_logits(options.traced_size)
        model = export(network, options)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "network.onnx")
            save(model, path)
            sizes = sizes_to_compare(options.traced_size, size == "one")
            comparisons = compare(network, path, sizes)
            differences = [str(each) for each in audit_onnx(path).differences]
    except Exception as error:  # what cannot be exported is a finding
        lines = str(error).strip().splitlines() or [""]
        return {"error": f"{lines[0][:300]}"}
    seconds = time.process_time() - start
    return {"comparisons": [vars(each) for each in comparisons], "differences": differences, "seconds": seconds}


def build(cfg: Any) -> Any:
    """Build the network of a config with random weights and statistics, so that its labels change over an image."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    from mmseg_resample.launch.auditing import build_segmentor

    torch.manual_seed(0)
    network = build_segmentor(cfg)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    for key, weight in network.named_parameters():
        if "conv_seg.weight" in key:
            torch.nn.init.normal_(weight, 0, 0.5)
    return network


if __name__ == "__main__":
    main()
