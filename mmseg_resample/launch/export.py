"""Export a trained segmentor to ONNX, and prove that the file computes the same labels."""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmseg_resample import launch, register

EXAMPLES = """\
examples:
  labels from normalised images of any size, in deployed.onnx, and deployed.py, which uses it without PyTorch
    mmseg-resample export my_config.py work_dirs/my_config/iter_40000.pth --out deployed.onnx
  normalisation in the graph, exact resizes on a covered image, which need one size; three runtimes compared
    mmseg-resample export my_config.py iter_40000.pth --out deployed.onnx --normalize --policy exact+pad \\
        --size 512 1024 --runtimes onnxruntime openvino ncnn
  the mIoU of PyTorch and of the file on the test set
    mmseg-resample export my_config.py iter_40000.pth --out deployed.onnx --evaluate

The file takes images (N, 3, height, width), float32, and gives labels (N, height, width). What it computes is compared
with PyTorch at the size that it was traced at, another ratio, an odd size and a smaller one. Labels that differ where
PyTorch's two largest logits are closer than rounding can tell apart are counted as near-ties.

It needs `pip install "mmseg_resample[export]"`. `mmseg-resample audit deployed.onnx` compares, later and elsewhere, the
resizes of the file with those of the training.
exit status: 0, 1 if labels differ beyond near-ties, 2 if the command line cannot work
"""

RUNTIMES = ("onnxruntime", "openvino", "opencv", "ncnn")


def main(argv: Sequence[str] | None = None) -> int:
    """Export a config with its checkpoint; see ``launch.run`` for what is returned, and 1 if the file is not equal."""
    args = parse(argv)
    return launch.run(lambda: _export(args))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; end the process with a message where it is wrong."""
    parser = launch.Parser(prog="mmseg-resample export", description=__doc__, epilog=EXAMPLES)
    launch.add_config_arguments(parser)
    parser.add_argument("checkpoint", help="a file, or a URL")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file, ending in .onnx")
    launch.add_policy_argument(parser)
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="take images of this size alone (default: of any)"
    )
    parser.add_argument(
        "--output",
        choices=["labels", "logits", "both"],
        default="labels",
        help="what the file returns: labels, uint8 (int32 for more than 256 classes), logits of the image's size, "
        "float32, or both (default: labels)",
    )
    parser.add_argument(
        "--normalize", action="store_true", help="put mean and standard deviation into the graph: it takes 0 .. 255"
    )
    parser.add_argument(
        "--form",
        choices=["portable", "fast"],
        default="portable",
        help="of exact linear resizes: as a part of one that every runtime computes (default), or matrix products, "
        "three times faster in ONNX Runtime and twenty times slower in ncnn",
    )
    parser.add_argument("--opset", type=int, default=18, help="of ONNX, 17 to 23 (default: 18)")
    parser.add_argument(
        "--runtimes",
        nargs="+",
        choices=RUNTIMES,
        default=["onnxruntime"],
        metavar="RUNTIME",
        help=f"compare with PyTorch in these: {', '.join(RUNTIMES)} (default: onnxruntime)",
    )
    parser.add_argument("--evaluate", action="store_true", help="test PyTorch and the file on the config's test set")
    args = parser.parse_args(argv)
    if args.out.suffix != ".onnx":
        parser.error(f"--out takes a file that ends in .onnx, got {args.out}")
    if args.size and min(args.size) < 1:
        parser.error(f"--size takes numbers of pixels >= 1, got {args.size}")
    if not 17 <= args.opset <= 23:
        parser.error(f"--opset takes 17 to 23, got {args.opset}")
    return args


def _export(args: argparse.Namespace) -> int:
    _require_packages(args.runtimes)
    launch.require_file("--out", args.out)
    register()
    from mmseg_resample.deploy import graph, parity, script
    from mmseg_resample.deploy import to_onnx as exporting
    from mmseg_resample.deploy.deployed import DeployedNetwork, Normalisation

    cfg = launch.load_config(args.config, options=args.cfg_options)
    launch.require(cfg, "an export", "model")
    if args.policy is not None:
        launch.set_policy(cfg, args.policy)
    model, content = _load(cfg, args.checkpoint)
    preprocessing = _preprocessing(cfg)
    normalisation = Normalisation(*(preprocessing[key] for key in ("mean", "std"))) if args.normalize else None
    network = DeployedNetwork(
        model, threshold=float(getattr(model.decode_head, "threshold", None) or 0.5), normalisation=normalisation
    )
    options = exporting.Options(tuple(args.size) if args.size else None, args.opset, args.form)
    metadata = {
        **preprocessing,
        "normalised in the graph": args.normalize,
        "output": args.output,
        "classes": _classes(cfg, content),
        "palette": _palette(cfg, content),
        "size": args.size,
        "policy": args.policy,
        "config": cfg.pretty_text,
        "versions": _versions(),
    }
    try:
        network.find_logits(options.traced_size)
        exported = exporting.export(network, options, metadata)
    except ValueError as error:
        raise launch.UsageError(f"{args.config}: {error}") from error
    wanted = {"labels", "logits"} if args.output == "both" else {args.output}
    graph.save(graph.select_outputs(exported, wanted), args.out)
    print(f"file: {args.out} ({args.out.stat().st_size / 2**20:.1f} MiB)")
    if "labels" in wanted:
        written = args.out.with_suffix(".py")
        written.write_text(script.source(args.out.name))
        print(f"script: {written} IMAGE LABELS, without PyTorch")
    if (model.test_cfg or {}).get("mode") == "slide":
        print("note: the config tests by sliding windows; the file is the network of one window")
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole.onnx")
        graph.save(exported, whole)
        sizes = parity.sizes_to_compare(options.traced_size, options.size is not None)
        comparisons = parity.compare(network, whole, sizes, args.runtimes)
        _print(comparisons)
        if args.evaluate:
            _evaluate(args, cfg, whole, normalisation)
    return int(not comparisons or not all(each.equal for each in comparisons))


def _require_packages(runtimes: Sequence[str]) -> None:
    from mmseg_resample.deploy import requires
    from mmseg_resample.deploy.runtimes import RUNTIMES as KNOWN

    try:
        for name in ("onnx", "onnxscript", *(KNOWN[runtime].module for runtime in runtimes)):
            requires.package(name, "mmseg-resample export")
    except ModuleNotFoundError as error:
        raise launch.UsageError(str(error)) from error


def _load(cfg: Any, checkpoint: str) -> tuple[Any, Mapping[str, Any]]:
    """Build the segmentor of a config with the weights of a checkpoint."""
    from .auditing import build_segmentor
    from .checkpoints import check_weights, compare_geometry, read_checkpoint, shapes_of, state_of

    content = read_checkpoint(checkpoint)
    compare_geometry(cfg.to_dict()["model"], content, checkpoint)
    model: Any = build_segmentor(cfg)
    check_weights(model, shapes_of(content), checkpoint)
    own, state = model.state_dict(), state_of(content)
    model.load_state_dict({k: v for k, v in state.items() if k in own and own[k].shape == v.shape}, strict=False)
    return model, content


def _preprocessing(cfg: Any) -> dict[str, Any]:
    """Return what is done to an image before the network sees it."""
    settings = cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor") or {}
    test = settings.get("test_cfg") or {}
    return {
        "mean": [float(value) for value in settings.get("mean") or (0.0, 0.0, 0.0)],
        "std": [float(value) for value in settings.get("std") or (1.0, 1.0, 1.0)],
        "channels": "RGB" if settings.get("bgr_to_rgb") else "BGR",
        "pad to": list(test["size"]) if test.get("size") else None,
        "pad to multiples of": test.get("size_divisor"),
    }


def _classes(cfg: Any, content: Mapping[str, Any]) -> list[str] | None:
    return _of_dataset(cfg, content, "classes", "CLASSES")


def _palette(cfg: Any, content: Mapping[str, Any]) -> list[list[int]] | None:
    found = _of_dataset(cfg, content, "palette", "PALETTE")
    return None if found is None else [[int(value) for value in colour] for colour in found]


def _of_dataset(cfg: Any, content: Mapping[str, Any], key: str, old_key: str) -> Any:
    """Return what a checkpoint says of the data that it was trained on, else what the test set's type says."""
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    stored = meta.get("dataset_meta")
    stored = stored if isinstance(stored, Mapping) else {}
    found = stored.get(key, meta.get(old_key))
    if found is None and cfg.get("test_dataloader"):
        from mmseg.registry import DATASETS

        from ..datasets.wrapped import leaves

        _, dataset = next(leaves(cfg.test_dataloader.dataset), ("", {}))
        cls = DATASETS.get(str(dataset.get("type")))
        found = getattr(cls, "METAINFO", {}).get(key)
    return None if found is None else list(found)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("mmseg_resample", "mmsegmentation", "torch", "onnx", "onnxscript")
    return {name: version(name) for name in names}


def _print(comparisons: Sequence[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="The file against PyTorch", title_justify="left")
    for name in ("runtime", "input", "labels that differ", "near-ties", "logits differ by", "their spread"):
        table.add_column(name, justify="left" if name in ("runtime", "input") else "right")
    for each in comparisons:
        at = f"{each.size[0]}x{each.size[1]}"
        if each.error is not None:
            table.add_row(each.runtime, at, f"[red]{each.error}", "", "", "")
            continue
        colour = "" if each.equal else "[red]"
        table.add_row(
            each.runtime,
            at,
            f"{colour}{each.labels} of {each.pixels}",
            str(each.ties),
            f"{each.difference:.1e}",
            f"{each.spread:.1e}",
        )
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)
    console.print(table)
    if not comparisons:
        console.print("[red]not compared: the network itself takes none of the sizes that were tried; give --size")


def _evaluate(args: argparse.Namespace, cfg: Any, path: Path, normalisation: Any) -> None:
    """Test PyTorch and the file on the test set of a config, by the same pipeline and metrics."""
    from mmseg_resample.evaluation.runtime import RuntimeHook

    cfg.work_dir = str(args.out.parent / f"{args.out.stem}_evaluation")
    weights = launch.prepare_test(cfg, args.checkpoint)
    launch.require_data(cfg, "test_dataloader")
    print("PyTorch:")
    runner = launch.build_runner(cfg)
    launch.check_weights(runner.model, weights, args.checkpoint)
    launch.report(runner, runner.test())
    for name in args.runtimes:
        print(f"{name}:")
        hook = RuntimeHook(name, str(path), normalisation)
        runner.register_hook(hook)
        launch.report(runner, runner.test())
        runner.hooks.remove(hook)
