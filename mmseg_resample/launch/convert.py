"""Convert a released checkpoint of SFSegNets (SFNet, SFNet-Lite, their FPN) or of an upsampler for the configs here."""

import argparse
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmseg_resample import launch, register
from mmseg_resample.files import atomic_write

from .sfsegnets import Convention, Conversion, convert
from .upsamplers import UPSAMPLERS, convert_upsampler

if TYPE_CHECKING:
    from torch import Tensor

EXAMPLES = """\
examples:
  convert, and put the printed lines into a config
    mmseg-resample convert sfnet_r18.pth sfnet_r18-mmseg.pth
  nobody knows which grid_sample the checkpoints of 2020 were trained with: test both, keep the better one
    mmseg-resample test my_config.py sfnet_r18-mmseg.pth
    mmseg-resample test my_config.py sfnet_r18-mmseg.pth \\
      --cfg-options model.decode_head.resampler.convention=sfsegnets-2020
  an upsampler guided by the image, for a LinearProbeHead, or elsewhere by --prefix
    mmseg-resample convert jafar_dinov2.pth jafar.pth --upsampler JAFAR

The convention changes the printed lines, never the weights. "sfsegnets" is the code since 2022-07 (grid_sample with
align_corners=True), "sfsegnets-2020" the code before it on torch 1.3 and later. The file is read as weights alone: no
code in it runs. The result is checked: it loads strictly into the model of the printed lines. Backbones are ResNet and
STDC: those of DF, and heads with global_context='sppm', have no counterpart here and are refused.
exit status: 0 done, 2 a file or the command line is wrong (one message says what), 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a checkpoint; see ``launch.run`` for what is returned."""
    args = parse(argv)
    return launch.run(lambda: _convert(args))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; end the process with a message where it is wrong."""
    parser = launch.Parser(
        prog="mmseg-resample convert",
        description=__doc__,
        epilog=EXAMPLES,
    )
    parser.add_argument("source", type=Path, help="a state dict, or a dict with one under 'state_dict' or 'model'")
    parser.add_argument("destination", type=Path, help="where to write the converted checkpoint")
    parser.add_argument(
        "--convention",
        choices=get_args(Convention),
        default="sfsegnets",
        help="how the flows are sampled, see below (default: %(default)s)",
    )
    parser.add_argument("--upsampler", choices=UPSAMPLERS, help="the checkpoint is that of an upsampler, alone")
    parser.add_argument(
        "--prefix",
        default="decode_head.resamplers.0.",
        help="of the upsampler's weights in the model (default: %(default)s)",
    )
    parser.add_argument("--all", action="store_true", help="list every key, not one line per part of the model")
    parser.add_argument("--overwrite", action="store_true", help="replace the destination if it is there")
    return parser.parse_args(argv)


def _convert(args: argparse.Namespace) -> None:
    if args.destination.exists() and not args.overwrite:
        raise launch.UsageError(f"destination {args.destination}: it is there already. Give --overwrite to replace it.")

    launch.require_file("destination", args.destination)
    register()
    source = read(args.source)
    if args.upsampler:
        _convert_upsampler(args, source)
        return
    try:
        conversion = convert(source)
        settings = conversion.config(args.convention)
        check(conversion.state_dict, settings)
    except ValueError as error:
        raise launch.UsageError(f"checkpoint {args.source}: {error}") from error
    write(dict(meta=dict(convention=args.convention), state_dict=conversion.state_dict), args.destination)

    console = Console()
    console.print(summary(conversion, args.all), soft_wrap=True)
    console.print(
        f"{escape(conversion.model)}: {len(source)} weights, {len(conversion.renamed)} renamed, "
        f"{len(conversion.dropped)} dropped -> {escape(str(args.destination))}\n"
        "The lines that go with it, over any config of configs/sfnet:\n",
        soft_wrap=True,
    )
    print(lines(settings))


def _convert_upsampler(args: argparse.Namespace, source: "Mapping[str, Tensor]") -> None:
    try:
        state, settings = convert_upsampler(args.upsampler, source)
    except ValueError as error:
        raise launch.UsageError(f"checkpoint {args.source}: {error}") from error
    write(dict(state_dict={f"{args.prefix}{name}": value for name, value in state.items()}), args.destination)
    print(
        f"{args.upsampler}: {len(source)} weights of the source, {len(state)} here -> {args.destination}\n"
        f"The line that goes with it, in a head behind backbone=dict(type='WithImage', ...) and beside "
        f"load_from={str(args.destination)!r}:\n\n"
        f"resampler={settings!r}"
    )


def read(path: Path) -> "dict[str, Tensor]":
    """Read the state dict in a file, without running code from it."""
    import torch

    content = launch.read_file(str(path))
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not all(torch.is_tensor(v) for v in content.values()):
        raise launch.UsageError(
            f"checkpoint {path}: expected a state dict, or a dict with one under 'state_dict' or 'model', "
            f"got {described(content)}."
        )
    return dict(content)


def described(content: object) -> str:
    """Say what a file holds instead of weights."""
    if isinstance(content, Mapping):
        return f"a dict with {', '.join(map(repr, list(content)[:4])) or 'nothing in it'}"
    return f"a {type(content).__name__}"


def check(weights: "Mapping[str, Tensor]", settings: dict[str, Any]) -> None:
    """Raise ValueError unless the weights are all of the model, and nothing else."""
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope("mmseg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmseg's own, about how it builds models
        model = MODELS.build(dict(type="EncoderDecoder", **settings, test_cfg=dict(mode="whole")))
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ValueError(f"incomplete, or of another model. {error}") from error


def write(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint that is complete or absent."""
    import torch

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial, partial.open("wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        raise launch.UsageError(f"destination {path}: cannot be written ({error}).") from error


def summary(conversion: Conversion, every: bool) -> Table:
    """Tabulate what became of the keys: one line each, or one per part of the model, with the number of weights."""

    def group(key: str) -> str:
        return key if every else ".".join(key.split(".")[:2])

    rows: dict[tuple[str, str], int] = {}
    for key, name in (conversion.renamed | conversion.dropped).items():
        fate = f"[dim]dropped: {escape(name)}[/]" if key in conversion.dropped else escape(group(name))
        row = (escape(group(key)), fate)
        rows[row] = rows.get(row, 0) + 1
    table = Table("SFSegNets", "here", *([] if every else ["weights"]), box=None, pad_edge=False)
    for row, count in rows.items():
        table.add_row(*row, *([] if every else [str(count)]))
    return table


def lines(settings: dict[str, Any]) -> str:
    """Write ``settings`` as a part of a config that replaces what its base has."""
    from mmengine.config import Config

    replaced = {part: dict(_delete_=True, **options) for part, options in settings.items()}
    return Config(dict(model=dict(pretrained=None, **replaced))).pretty_text
