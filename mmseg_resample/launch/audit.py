"""Say which features of a segmentation network are misregistered, without weights or data."""

import argparse
import gc
import json
import re
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmseg_resample import launch, register

if TYPE_CHECKING:
    from mmseg_resample.grids import Audit

EXAMPLES = """\
examples:
  mmseg-resample audit mmseg::upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py
  mmseg-resample audit my_config.py --size 512 1024 513 1025 --plot audit.png --json audit.json
  mmseg-resample audit my_config.py --policy exact+pad
  mmseg-resample audit my_config.py --weights own         # judge where the weights look: those it begins with
  mmseg-resample audit my_config.py --weights epoch_40.pth   # or trained ones
  mmseg-resample audit my_config.py --max-shift 2    # exit status 1 if anything is further off: for a CI
  mmseg-resample audit torchvision.models.segmentation:fcn_resnet50 weights=None weights_backbone=None
  mmseg-resample audit segmentation_models_pytorch:FPN encoder_name=resnet18 encoder_weights=None --size 512
  mmseg-resample audit model.onnx --size 512 1024    # any ONNX file, without the network's code

A network that is no config is named by module:callable, with the callable's arguments behind it: name=value, Python
literals or strings. It needs no mmsegmentation.

An ONNX file that mmseg_resample exported says how the network was trained. Resizes of the file that read elsewhere are
listed, in pixels of the image. It needs onnx: pip install "mmseg_resample[export]".

Positions are in input pixels. "reads 1.5 px up and left" means that the evidence for a label was centred 1.5 px above
and left of it. A constant offset can be learned away by a convolution; a drift over the image cannot.
exit status: 0, 1 if --max-shift is exceeded or an ONNX file resizes otherwise than it was trained, 2 if the command
line cannot work
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Audit a config, network or ONNX file; see ``launch.run`` for what is returned.

    It is 1 if ``--max-shift`` is exceeded, or an ONNX file resizes otherwise than it was trained.
    """
    args = parse(argv)
    collects = gc.isenabled()
    gc.disable()  # a short life, in which next to nothing becomes garbage
    try:
        return launch.run(lambda: _audit(args))
    finally:
        if collects:
            gc.enable()


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; end the process with a message where it is wrong."""
    parser = launch.Parser(
        prog="mmseg-resample audit",
        description=__doc__,
        epilog=EXAMPLES,
    )
    launch.add_config_arguments(parser)
    launch.add_policy_argument(parser)
    parser.add_argument(
        "arguments", nargs="*", metavar="NAME=VALUE", help="arguments of the callable, where a network is named by one"
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="N",
        help="input sizes: one number for a square, or pairs H W H W ...; default: the config's crop, else 512 1024",
    )
    parser.add_argument(
        "--compare",
        choices=["align_corners", "none"],
        default="align_corners",
        help="also audit with the flag False and True everywhere the config reaches (default)",
    )
    parser.add_argument(
        "--weights",
        metavar="own|CHECKPOINT",
        help="measure where the weights look, and judge that: those that the network begins with (own), or those of a "
        "checkpoint; a minute",
    )
    parser.add_argument("--all", action="store_true", help="list what is registered too")
    parser.add_argument(
        "--plot", type=Path, help="draw where features are, and where the network takes them to be, to this image"
    )
    parser.add_argument("--theme", choices=["light", "dark"], default="light", help="of the picture")
    parser.add_argument("--json", type=Path, help="write all findings to this file")
    parser.add_argument(
        "--max-shift", type=float, metavar="PX", help="exit with 1 if anything is off by more than this"
    )
    args = parser.parse_args(argv)
    if args.size and min(args.size) < 1:
        parser.error(f"--size takes numbers of pixels >= 1, got {args.size}")
    if args.size and len(args.size) > 1 and len(args.size) % 2:
        parser.error(f"--size takes one number or pairs H W, got {len(args.size)} numbers: {args.size}")
    if args.plot:
        from matplotlib.backend_bases import FigureCanvasBase  # takes a third of a second

        formats = FigureCanvasBase.get_supported_filetypes()
        if args.plot.suffix[1:].lower() not in formats:
            parser.error(f"--plot takes an image, {args.plot} has none of the endings {', '.join(sorted(formats))}")
    return args


def _audit(args: argparse.Namespace) -> int:
    warnings.simplefilter("ignore")  # those of networks, about the sizes that the report is about
    for option, path in {"--plot": args.plot, "--json": args.json}.items():  # before the work, not after it
        if path:
            launch.require_file(option, path)
    if args.config.endswith(".onnx"):
        audit = _audit_onnx(args)
    else:
        audit = _audit_callable(args) if _names_a_callable(args.config) else _audit_config(args)
    from rich.console import Console

    from mmseg_resample.grids.report import print_report

    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)
    print_report(audit, console, args.all)
    try:
        if args.plot:
            audit.plot(args.plot, args.theme)
            console.print(f"picture: {args.plot}")
        if args.json:
            args.json.write_text(json.dumps(audit.to_json(), indent=1))
            console.print(f"findings: {args.json}")
    except OSError as error:  # a disk that is full, say: not what status 1 says
        raise launch.UsageError(f"{args.plot or args.json}: it cannot be written ({error}).") from error
    if getattr(audit, "differences", None):
        return 1
    if args.max_shift is None:
        return 0
    passes = audit.passes["config"]
    # What is not judged does not pass.
    return int(any((p.predicts and p.final is None) or p.trace.unknown or p.worst > args.max_shift for p in passes))


def _audit_config(args: argparse.Namespace) -> "Audit":
    if args.arguments:
        raise launch.UsageError(
            f"{' '.join(args.arguments)}: a config takes no arguments. Use --cfg-options, or name a network by "
            f"module:callable."
        )
    from mmseg_resample.compat import scipy_postponed, scripting_postponed

    with scipy_postponed(), scripting_postponed():
        register()
    from .auditing import audit_config, input_size, measure_weights

    cfg = launch.load_config(args.config, options=args.cfg_options)
    launch.require(cfg, "an audit", "model")
    if args.policy is not None:
        launch.set_policy(cfg, args.policy)
    sizes = _sizes(args.size) or [input_size(cfg)]
    try:
        weights = [] if args.weights is None else measure_weights(cfg, _checkpoint(args))
        return audit_config(cfg, args.config, sizes, flags=args.compare == "align_corners", weights=weights)
    except launch.UsageError:
        raise
    except Exception as error:  # whatever a model raises that cannot be built, or does not fit together
        raise launch.UsageError(f"{args.config} cannot be audited: {_cause(cfg, error)}") from error


def _audit_callable(args: argparse.Namespace) -> "Audit":
    for option, given in {"--cfg-options": args.cfg_options, "--policy": args.policy}.items():
        if given:
            raise launch.UsageError(f"{option}: a network named by module:callable has no config. Give its arguments.")
    from mmseg_resample.grids import audit, build, level_shifts

    try:
        name = " ".join([args.config, *args.arguments])
        if args.weights is None:
            model = build(args.config, args.arguments)
            return _at_each_size(args, lambda size: audit(model, size, name))
        if args.weights != "own":
            raise launch.UsageError(
                f"--weights {args.weights}: a network named by module:callable has its own. Give --weights own, and "
                f"arguments that load them."
            )
        model = build(args.config, args.arguments, values=True)
        weights = level_shifts(model, progress=True)
        return _at_each_size(args, lambda size: audit(model, size, name, weights))
    except (TypeError, ValueError) as error:
        raise launch.UsageError(str(error)) from error


def _audit_onnx(args: argparse.Namespace) -> "Audit":
    given = {f"--{name.replace('_', '-')}": vars(args)[name] for name in ("cfg_options", "policy", "weights")}
    given[" ".join(args.arguments)] = args.arguments
    for option, value in given.items():
        if value:
            raise launch.UsageError(
                f"{option}: an ONNX file is what it is. Change the network, export it again, and audit that."
            )
    from mmseg_resample.deploy.onnx_audit import audit_onnx

    try:
        return _at_each_size(args, lambda size: audit_onnx(args.config, size))
    except (ImportError, TypeError, ValueError) as error:
        raise launch.UsageError(str(error)) from error


def _at_each_size(args: argparse.Namespace, audit: "Callable[[tuple[int, int] | None], Audit]") -> "Audit":
    first, *others = [audit(size) for size in (*_sizes(args.size),) or (None,)]
    for other in others:
        first.add_sizes(other)
    return first


def _checkpoint(args: argparse.Namespace) -> str | None:
    return None if args.weights == "own" else args.weights


def _names_a_callable(name: str) -> bool:
    return ":" in name.replace("::", "") and not Path(name).exists()


def _cause(cfg: Any, error: Exception) -> str:
    """Say in a line why a config cannot be audited."""
    for package in sorted(set(re.findall(r"'type': '(\w+)\.", str(cfg.model.to_dict())))):
        if find_spec(package) is None:
            return f"it needs the package {package}, which is not installed."
    message = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    return (
        launch.describe_unknown_type(error) or f"{type(error).__name__}: {str(message).strip().partition(chr(10))[0]}"
    )


def _sizes(numbers: Sequence[int] | None) -> list[tuple[int, int]]:
    if not numbers:
        return []
    return [(numbers[0],) * 2] if len(numbers) == 1 else list(zip(numbers[::2], numbers[1::2], strict=True))
