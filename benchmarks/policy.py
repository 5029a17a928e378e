"""What a ResizePolicy costs on a forward pass: ``python benchmarks/policy.py``.

Three models of one config with the same weights run in turn, many times: stock, a policy that leaves every site as it
is (interception alone), and exact resizes. Reported are the median and quartiles of the paired ratios to stock, on a
CPU of processor time.
"""

import argparse
import json
import platform
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from rich.console import Console
from rich.table import Table

import mmseg_resample  # noqa: F401  (makes `mmseg::` names resolvable, and registers the policy)

CONFIGS = (
    "mmseg::upernet/upernet_r18_4xb2-40k_cityscapes-512x1024.py",
    "mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py",
    "mmseg::hrnet/fcn_hr18s_4xb2-40k_cityscapes-512x1024.py",
    "mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py",
)
POLICIES = {"intercepted": dict(rules=[dict(coordinates="keep")]), "exact": dict(exact=True)}
RESULTS = Path(__file__).parent / "results" / "policy.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512), metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    rows = [measure(name, tuple(args.size), args.rounds, args.device) for name in CONFIGS]
    args.out.write_text(json.dumps({"environment": environment(args), "rows": rows}, indent=1) + "\n")
    table = Table(title=f"forward pass, {args.size[0]}x{args.size[1]}, {args.device}")
    for column in ("config", "stock ms", "interception alone", "exact"):
        table.add_column(column)
    for row in rows:
        ratios = [f"{row[k]['ratio']:.3f} [{row[k]['low']:.3f}, {row[k]['high']:.3f}]" for k in POLICIES]
        table.add_row(row["config"].split("/")[-1], f"{row['stock_ms']:.1f}", *ratios)
    Console().print(table)


def measure(name: str, size: tuple[int, int], rounds: int, device: str) -> dict:
    init_default_scope("mmseg")
    cfg = get_config(name)
    cfg.model.update(pretrained=None)
    models = {"stock": MODELS.build(cfg.model)}
    for key, policy in POLICIES.items():
        models[key] = MODELS.build(dict(cfg.model, type="ResampledSegmentor", resize_policy=policy))
        models[key].load_state_dict(models["stock"].state_dict())
    meta = [dict(img_shape=size, ori_shape=size, pad_shape=size, padding_size=[0] * 4)]
    x = torch.randn(1, 3, *size, device=device)
    times: dict[str, list[float]] = {key: [] for key in models}
    clock = time.perf_counter if device == "cuda" else time.process_time
    with torch.inference_mode():
        for _ in range(rounds + 2):
            for key, model in models.items():
                model.to(device).eval()
                start = clock()
                model.encode_decode(x, meta)
                if device == "cuda":
                    torch.cuda.synchronize()
                times[key].append(clock() - start)
    measured = {key: np.array(values[2:]) for key, values in times.items()}  # two rounds of warm-up
    row = {"config": name, "stock_ms": float(np.median(measured["stock"])) * 1e3}
    for key in POLICIES:
        paired = measured[key] / measured["stock"]
        low, ratio, high = np.quantile(paired, [0.25, 0.5, 0.75])
        row[key] = {"ratio": float(ratio), "low": float(low), "high": float(high)}
    return row


def environment(args: argparse.Namespace) -> dict:
    device = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or platform.machine()
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device,
        "threads": args.threads,
        "size": list(args.size),
        "rounds": args.rounds,
    }


if __name__ == "__main__":
    main()
