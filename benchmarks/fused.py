"""What the fused ops cost beside mmseg's own path: ``python benchmarks/fused.py``.

Loss: mmseg's ``BaseDecodeHead.loss_by_feat`` (resize, CrossEntropyLoss, accuracy) and its gradient, against
``resize_cross_entropy``. Prediction: mmseg's ``predict_by_feat`` and ``postprocess_result`` (two resizes, argmax)
against ``resize_argmax``. The two run in turn, many times; reported are medians of time (of the processor, on a CPU)
and the median and quartiles of the paired ratio. Peak memory is that of a fresh process which makes one call, less what
it held before.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import mmseg_resample  # noqa: F401  # isort: skip  (first: it makes mmseg importable on mmcv-lite)

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.structures import SegDataSample
from rich.console import Console
from rich.table import Table

from mmseg_resample.ops import resize_argmax, resize_cross_entropy  # isort: skip

# name: (what is computed, shape of the logits, size of the labels)
CASES: dict[str, tuple[str, tuple[int, ...], tuple[int, int]]] = {
    "loss 2x19x128x128 -> 512x512": ("loss", (2, 19, 128, 128), (512, 512)),
    "loss 2x150x128x128 -> 512x512": ("loss", (2, 150, 128, 128), (512, 512)),
    "labels 19x128x256 -> 1024x2048": ("labels", (1, 19, 128, 256), (1024, 2048)),
    "labels 150x128x128 -> 512x512": ("labels", (1, 150, 128, 128), (512, 512)),
    "labels 150x128x256 -> 1024x2048": ("labels", (1, 150, 128, 256), (1024, 2048)),
}
PATHS = ("mmseg", "fused")
RESULTS = Path(__file__).parent / "results" / "fused.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="substring of the cases to run")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "PATH"), help="print the peak of one call in MiB, and stop")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    if args.peak:
        print(peak_here(*args.peak))
        return
    rows = [measure(name, args.rounds, args.threads) for name in CASES if args.only in name]
    args.out.write_text(json.dumps({"environment": environment(args), "rows": rows}, indent=1) + "\n")
    table = Table(title=f"mmseg's path against the fused op, {args.threads} thread(s)")
    for column in ("case", "mmseg ms", "fused ms", "times faster", "mmseg MiB", "fused MiB", "other labels"):
        table.add_column(column)
    for row in rows:
        ratio = row["ratio"]
        table.add_row(
            row["case"],
            *(f"{row[path]['ms']:.1f}" for path in PATHS),
            f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]",
            *(f"{row[path]['peak_mib']:.1f}" for path in PATHS),
            "-" if row["differing_pixels"] is None else str(row["differing_pixels"]),
        )
    Console().print(table)


def measure(name: str, rounds: int, threads: int) -> dict:
    calls = {path: build(name, path) for path in PATHS}
    results = {path: call() for path, call in calls.items()}
    times: dict[str, list[float]] = {path: [] for path in PATHS}
    for _ in range(rounds):
        for path, call in calls.items():
            start = time.process_time()
            call()
            times[path].append(time.process_time() - start)
    low, ratio, high = np.quantile(np.array(times["mmseg"]) / np.array(times["fused"]), [0.25, 0.5, 0.75])
    row: dict = {"case": name, "ratio": {"median": float(ratio), "low": float(low), "high": float(high)}}
    for path in PATHS:
        row[path] = {"ms": float(np.median(times[path])) * 1e3, "peak_mib": peak(name, path, threads)}
    row["differing_pixels"] = None
    if CASES[name][0] == "labels":
        row["differing_pixels"] = int((results["mmseg"] != results["fused"]).sum())
    else:
        (stock_loss, stock_gradient), (loss, gradient) = (results[path] for path in PATHS)
        row["loss_difference"] = abs(float(stock_loss - loss))
        row["gradient_difference"] = float((stock_gradient - gradient).abs().max() / stock_gradient.abs().max())
    return row


def build(name: str, path: str) -> Callable[[], object]:
    """One call of ``path`` on the inputs of case ``name``, the same in every process."""
    kind, shape, size = CASES[name]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator)
    if kind == "labels":
        return stock_labels(logits, size) if path == "mmseg" else lambda: resize_argmax(logits, size, first_size=size)
    logits.requires_grad_()
    target = torch.randint(0, shape[1], (shape[0], *size), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.05] = 255
    loss_of = stock_loss(shape[1], target) if path == "mmseg" else fused_loss(target)

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        loss = loss_of(logits)
        return loss.detach(), torch.autograd.grad(loss, logits)[0]

    return step


def stock_loss(classes: int, target: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    head = FCNHead(in_channels=1, channels=1, num_classes=classes, norm_cfg=None, align_corners=False)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=labels[None])) for labels in target]
    return lambda logits: head.loss_by_feat(logits, samples)["loss_ce"]  # and acc_seg, unread


def fused_loss(target: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda logits: resize_cross_entropy(logits, target, return_accuracy=True)[0]


def stock_labels(logits: torch.Tensor, size: tuple[int, int]) -> Callable[[], torch.Tensor]:
    head = FCNHead(in_channels=1, channels=1, num_classes=logits.shape[1], align_corners=False)
    model = SimpleNamespace(align_corners=False, decode_head=head)
    meta = dict(img_shape=size, pad_shape=size, ori_shape=size)

    @torch.no_grad()
    def predict() -> torch.Tensor:
        samples = [SegDataSample(metainfo=meta)]
        BaseSegmentor.postprocess_result(model, head.predict_by_feat(logits, [meta]), samples)
        return samples[0].pred_sem_seg.data

    return predict


def peak(name: str, path: str, threads: int) -> float:
    command = [sys.executable, __file__, "--threads", str(threads), "--peak", name, path]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    return float(done.stdout.split()[-1])


def peak_here(name: str, path: str) -> float:
    """MiB of resident memory that the first call needs beyond the inputs (Linux)."""
    small = torch.randn(1, 3, 8, 8, requires_grad=True)  # loads what any call loads
    resize_cross_entropy(small, torch.zeros(1, 16, 16, dtype=torch.long)).backward()
    torch.nn.functional.cross_entropy(small, torch.zeros(1, 8, 8, dtype=torch.long)).backward()
    call = build(name, path)
    Path("/proc/self/clear_refs").write_text("5")  # from here on the high-water mark is the peak since now
    before = status("VmRSS")
    call()
    return (status("VmHWM") - before) / 1024


def status(field: str) -> int:
    """A field of the process's status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def environment(args: argparse.Namespace) -> dict:
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": platform.processor() or platform.machine(),
        "threads": args.threads,
        "rounds": args.rounds,
    }


if __name__ == "__main__":
    main()
