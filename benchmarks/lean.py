"""What ``LeanSegmentor`` changes in stock configs of mmseg: ``python benchmarks/lean.py``.

For each config the stock model and the lean one, with the same weights: the losses of 20 training steps (in float64),
the labels of a few images, and the time and memory of a training step and of a validation image. Images are blobs of
colours, so that there is something to learn. Time is that of the processor, the least of a few calls; peak memory is
resident memory beyond the model and the batch, both of a fresh process.

``--out-of-memory`` validates on one image of 2400x3000 pixels and 150 classes, in a child process whose address space
is limited: once with the stock model, once with the lean one.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import mmseg_resample  # noqa: F401  # isort: skip  (first: it makes mmseg importable on mmcv-lite)

import torch
import torch.nn.functional as F
from measure import status
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from rich.console import Console
from rich.table import Table

Size = tuple[int, int]


class Case(NamedTuple):
    """A config, and the sizes (h, w) it is measured at: of training crops, test inputs, and the images behind them."""

    config: str
    train: Size
    test: Size
    image: Size


CASES = {
    "UPerNet": Case("mmseg::upernet/upernet_r18_4xb4-80k_ade20k-512x512.py", (512, 512), (512, 683), (512, 683)),
    "PSPNet": Case(
        "mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py", (512, 1024), (512, 1024), (1024, 2048)
    ),
    "SegFormer": Case(
        "mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py", (512, 512), (512, 683), (512, 683)
    ),
}
LARGE = Case("mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py", (512, 512), (2400, 3000), (2400, 3000))
MODELS_COMPARED = ("stock", "lean")
EQUAL_SIZE, EQUAL_STEPS, EQUAL_IMAGES = (64, 96), 20, 4
RESULTS = Path(__file__).parent / "results" / "lean.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="timed calls in each process")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="substring of the configs to run")
    parser.add_argument("--skip", choices=("equality", "cost"), help="what to leave as the results file has it")
    parser.add_argument("--out-of-memory", action="store_true")
    parser.add_argument("--limit-gib", type=float, default=8.0, help="address space for --out-of-memory")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    if args.child:
        print(json.dumps(child(*args.child, rounds=args.rounds, limit_gib=args.limit_gib)))
        return
    results = json.loads(args.out.read_text()) if args.out.exists() else {"configs": {}}
    results["environment"] = environment(args)
    if args.out_of_memory:
        results["out_of_memory"] = out_of_memory(args)
        args.out.write_text(json.dumps(results, indent=1) + "\n")
        return
    for name in CASES:
        if args.only in name:
            row = results["configs"].setdefault(name, {"config": CASES[name].config})
            if args.skip != "equality":
                row["equality"] = equality(CASES[name])
            if args.skip != "cost":
                row["cost"] = {key: cost(name, key, args) for key in ("train", "validate")}
            args.out.write_text(json.dumps(results, indent=1) + "\n")
    show(results["configs"])


def build(case: Case, model: str) -> Any:
    init_default_scope("mmseg")
    torch.manual_seed(0)
    cfg = get_config(case.config).model
    cfg.pretrained = None
    _without_sync(cfg)
    cfg.backbone.init_cfg = None
    if model == "lean":
        cfg = dict(cfg, type="LeanSegmentor", segmentor=cfg.type)
    built = MODELS.build(cfg)
    MMLogger.get_current_instance().setLevel("ERROR")  # every parameter is told
    built.init_weights()
    return built


def _without_sync(cfg: Any) -> None:
    """A single process on a CPU has no use for synchronised statistics."""
    if isinstance(cfg, dict):
        if cfg.get("type") == "SyncBN":
            cfg["type"] = "BN"
        for value in cfg.values():
            _without_sync(value)
    elif isinstance(cfg, (list, tuple)):
        for value in cfg:
            _without_sync(value)


def batch(classes: int, n: int, size: Size, image: Size, seed: int) -> dict[str, Any]:
    """``n`` images of coloured blobs with noise, and their labels at the size of ``image``; 3 % are ignored."""
    generator = torch.Generator().manual_seed(seed)
    blobs = torch.randint(0, classes, (n, 1, 12, 16), generator=generator).float()
    palette = torch.randint(0, 256, (classes, 3), generator=torch.Generator().manual_seed(0)).float()
    seen = F.interpolate(blobs, size)[:, 0].long()
    noise = 30 * torch.randn(n, 3, *size, generator=generator)
    images = (palette[seen].permute(0, 3, 1, 2) + noise).clamp(0, 255)
    labels = F.interpolate(blobs, image).long()
    labels[torch.rand(labels.shape, generator=generator) < 0.03] = 255
    meta = dict(img_shape=size, pad_shape=size, ori_shape=image, padding_size=[0] * 4)
    samples = [SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=label)) for label in labels]
    return dict(inputs=list(images), data_samples=samples)


def equality(case: Case) -> dict[str, Any]:
    """How far losses are from stock's after some training steps, and labels after that.

    Every training step multiplies the rounding errors of those before. By how much, *nudged* tells: the stock model,
    each of whose weights is the next larger number.
    """
    state = build(case, "stock").state_dict()
    differences = {}
    for dtype in (torch.float32, torch.float64):
        models = {name: build(case, name.replace("nudged", "stock")) for name in (*MODELS_COMPARED, "nudged")}
        for model in models.values():
            model.load_state_dict(state)
            model.to(dtype)
        with torch.no_grad():
            for weight in models["nudged"].parameters():
                weight.copy_(torch.nextafter(weight, torch.full_like(weight, torch.inf)))
        differences[str(dtype).removeprefix("torch.")] = losses = train_side_by_side(case, models)
    for model in models.values():
        model.float()
    models["lean"].load_state_dict(models["stock"].state_dict())
    differing, pixels, classes = 0, 0, set()
    for seed in range(EQUAL_IMAGES):
        data = batch(models["stock"].num_classes, 1, (256, 342), (300, 400), 100 + seed)
        labels = [validate(models[name], data)[0].pred_sem_seg.data for name in MODELS_COMPARED]
        differing += int((labels[0] != labels[1]).sum())
        pixels += labels[0].numel()
        classes |= set(labels[0].unique().tolist())
    return {
        "steps": EQUAL_STEPS,
        "losses": differences,
        "largest_loss_difference": losses["lean"]["largest"],
        "pixels": pixels,
        "differing_pixels": differing,
        "classes_predicted": len(classes),
    }


def train_side_by_side(case: Case, models: dict[str, Any]) -> dict[str, dict[str, float]]:
    """For every model but stock: by how much a loss differs from stock's, in the first step and at most."""
    optimizers = {name: torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9) for name, m in models.items()}
    differences: dict[str, list[float]] = {name: [] for name in models}
    for step in range(EQUAL_STEPS):
        losses: dict[str, dict[str, float]] = {}
        for name, model in models.items():
            data = batch(model.num_classes, 2, EQUAL_SIZE, EQUAL_SIZE, step)
            torch.manual_seed(step)
            losses[name] = {key: float(value) for key, value in train(model, data).items() if "loss" in key}
            optimizers[name].step()
        for name, mine in losses.items():
            differences[name].append(max(abs(mine[key] - theirs) for key, theirs in losses["stock"].items()))
    return {
        name: {"first": values[0], "largest": max(values)} for name, values in differences.items() if name != "stock"
    }


@torch.no_grad()
def validate(model: Any, data: dict[str, Any]) -> list[SegDataSample]:
    """One step of mmengine's validation loop, with mmseg's metric."""
    samples = model.eval().val_step(data)
    metric = IoUMetric()
    metric.dataset_meta = dict(classes=[str(i) for i in range(model.num_classes)])
    metric.process(data, [sample.to_dict() for sample in samples])
    return samples


def train(model: Any, data: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A training step up to the gradients; returns what mmengine would log."""
    model.data_preprocessor.size = tuple(data["inputs"][0].shape[1:])
    data = model.train().data_preprocessor(data, True)
    data["inputs"] = data["inputs"].to(next(model.parameters()).dtype)
    total, logs = model.parse_losses(model(**data, mode="loss"))
    model.zero_grad()
    total.backward()
    return logs


def cost(name: str, kind: str, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    return {model: run_child(args, kind, name, model) for model in MODELS_COMPARED}


def run_child(args: argparse.Namespace, *what: str) -> dict[str, Any]:
    options = ["--rounds", str(args.rounds), "--threads", str(args.threads), "--limit-gib", str(args.limit_gib)]
    command = [sys.executable, __file__, *options, "--child", *what]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(what)}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def child(kind: str, *what: str, rounds: int, limit_gib: float) -> dict[str, Any]:
    """What a fresh process measures: ``train`` or ``validate`` of a config and a model, or ``limited`` of a model."""
    if kind == "limited":
        return limited(what[0], limit_gib)
    name, path = what
    case = CASES[name]
    model = build(case, path)
    if kind == "train":
        data = batch(model.num_classes, 2, case.train, case.train, 0)
        train(model, batch(model.num_classes, 2, (64, 64), (64, 64), 0))  # loads what any step loads
    else:
        data = batch(model.num_classes, 1, case.test, case.image, 0)
        validate(model, batch(model.num_classes, 1, (64, 64), (64, 64), 0))
    step = train if kind == "train" else validate
    Path("/proc/self/clear_refs").write_text("5")  # from here on the high-water mark is the peak since now
    before = status("VmRSS")
    times = []
    for i in range(rounds):
        start = time.process_time()
        step(model, data)
        times.append(time.process_time() - start)
        if i == 0:
            peak = (status("VmHWM") - before) / 1024
    return {"seconds": min(times), "peak_mib": peak}


def limited(path: str, limit_gib: float) -> dict[str, Any]:
    model = build(LARGE, path)
    data = batch(model.num_classes, 1, LARGE.test, LARGE.image, 0)
    limit = int(limit_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    start = time.process_time()
    try:
        (sample,) = validate(model, data)
    except (RuntimeError, MemoryError) as error:
        return {"passed": False, "error": str(error).splitlines()[0]}
    return {
        "passed": True,
        "labels": list(sample.pred_sem_seg.data.shape),
        "seconds": time.process_time() - start,
        "peak_address_space_gib": status("VmPeak") / 2**20,
    }


def out_of_memory(args: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {"config": LARGE.config, "image": LARGE.image, "classes": 150, "limit_gib": args.limit_gib}
    for path in MODELS_COMPARED:
        result[path] = run_child(args, "limited", path)
        print(f"{path}, {args.limit_gib} GiB: {result[path]}", flush=True)
    return result


def show(rows: dict[str, Any]) -> None:
    table = Table(title="stock -> lean")
    for column in ("config", "what", "s", "MiB", "loss difference", "other labels"):
        table.add_column(column)
    for name, row in rows.items():
        for kind, measured in row.get("cost", {}).items():
            stock, lean = measured["stock"], measured["lean"]
            times, peaks = (f"{stock[k]:.1f} -> {lean[k]:.1f}" for k in ("seconds", "peak_mib"))
            table.add_row(name, kind, times, peaks, "", "")
        if "equality" in row:
            equal = row["equality"]
            labels = f"{equal['differing_pixels']} of {equal['pixels']}"
            table.add_row(name, "equality", "", "", f"{equal['largest_loss_difference']:.1e}", labels)
    Console().print(table)


def environment(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": platform.processor() or platform.machine(),
        "threads": args.threads,
        "rounds": args.rounds,
    }


if __name__ == "__main__":
    main()
