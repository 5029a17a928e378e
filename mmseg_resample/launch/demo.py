"""See, fix and measure in half a minute: no data, no download, files in a folder and a table in the terminal."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmseg_resample import launch, register

if TYPE_CHECKING:
    import numpy as np
    from mmengine.config import Config
    from mmseg.structures import SegDataSample
    from rich.console import Console
    from rich.text import Text

EXAMPLES = """\
what it does:
  1. audits mmseg's UPerNet-R50, and draws where its features are and where it takes them to be
  2. audits it again with exact resizes on a covered image, as resize_policy=dict(exact=True, pad='replicate') has them
  3. lets a tiny network that was trained so predict scenes that are drawn on the spot, under another pixel model and
     under its own: the same weights

examples:
  mmseg-resample demo --out-dir pictures --theme dark
exit status: 0 done, 2 the command line cannot work (one message says why), 130 interrupted
"""

UPERNET = "mmseg::upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py"
CONFIG = "mmseg_resample::shapes/fcn_r18-d8-tiny_1xb8-400_shapes-128x128.py"
"""The tiny network. It was trained as its lean twin, and predicts without what has to be compiled."""
TRAINED = "mmseg_resample::lean/fcn_r18-d8-tiny-lean_1xb8-400_shapes-128x128.py"
POLICY = "exact+pad"
WEIGHTS = Path(__file__).with_name("demo.pth")
"""Weights of the tiny network, which tools/train_demo.py trained."""
PROVENANCE = WEIGHTS.with_suffix(".json")
"""What they were trained with."""

_SCENES, _DRAWN = 40, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration; see ``launch.run`` for what is returned."""
    args = parse(argv)
    return launch.run(lambda: _demonstrate(args))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; end the process with a message where it is wrong."""
    parser = launch.Parser(prog="mmseg-resample demo", description=__doc__, epilog=EXAMPLES)
    parser.add_argument(
        "--out-dir", type=Path, default=Path("mmseg_resample_demo"), help="of the pictures (default: %(default)s)"
    )
    parser.add_argument("--theme", choices=["light", "dark"], default="light", help="of the pictures")
    return parser.parse_args(argv)


def config(policy: str = POLICY, name: str = CONFIG) -> "Config":
    """Return the config of the tiny network, under the policy that it was trained with, or another."""
    cfg = launch.load_config(name)
    launch.set_policy(cfg, policy)
    return cfg


def _demonstrate(args: argparse.Namespace) -> None:
    import warnings

    from rich.console import Console

    warnings.simplefilter("ignore")  # those of networks, about what this is about
    launch.require_folder("--out-dir", args.out_dir)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    register()
    console = Console()
    _see_and_fix(console, args)
    _measure(console, args)
    console.print(
        "\nYour own network: [bold]mmseg-resample audit my_config.py --plot audit.png[/bold]; then what fits it: "
        "[bold]mmseg-resample train my_config.py --policy exact+pad[/bold], "
        "[bold]mmseg-resample study --new my_config.py[/bold]."
    )


def _see_and_fix(console: "Console", args: argparse.Namespace) -> None:
    from rich.panel import Panel

    from mmseg_resample.grids.words import describe

    from .auditing import audit_config

    steps = (("1. See", None, "before.png"), ("2. Fix", POLICY, "after.png"))
    for title, policy, name in steps:
        cfg = launch.load_config(UPERNET)
        if policy is not None:
            launch.set_policy(cfg, policy)
        with console.status("audit of UPerNet-R50, without weights"):
            network = "UPerNet-R50" + (f", {policy}" if policy else "")
            audit = audit_config(cfg, network, [(512, 1024)], flags=policy is None)
            audit.plot(args.out_dir / name, args.theme)
        console.print(Panel(describe(audit), title=f"{title}: {audit.name}", title_align="left", border_style="cyan"))
        console.print(f"   picture: {args.out_dir / name}\n")


def _measure(console: "Console", args: argparse.Namespace) -> None:
    import json

    import torch
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope
    from mmseg.registry import DATASETS, MODELS
    from rich.table import Table

    init_default_scope("mmseg")
    MMLogger.get_current_instance().setLevel("ERROR")  # metrics print tables of their own
    weights = torch.load(WEIGHTS, map_location="cpu", weights_only=True)
    own = config()
    data: Any = DATASETS.build({**own.test_dataloader.dataset, "length": _SCENES})
    table = Table(title="3. Measure: the same weights, on scenes they have not seen", title_justify="left", box=None)
    for column in ("resizes", "mIoU (%)", "displaced at the left", "at the right"):
        table.add_column(column, justify="left" if column == "resizes" else "right")
    predicted = {}
    for name, policy in (("align_corners=True", "True"), ("align_corners=False", "False"), ("as trained", POLICY)):
        model = MODELS.build(config(policy).model).eval()
        model.load_state_dict(weights)
        with console.status(f"prediction of {_SCENES} scenes, {name}"):
            predicted[name], scores = _predict(model, data)
        shifts = [f"{scores[key]:+.1f} px" for key in ("dx_left", "dx_right")]
        table.add_row(name, f"{scores['mIoU']:.1f}", *shifts)
    console.print(table)
    provenance = json.loads(PROVENANCE.read_text(encoding="utf-8"))
    about = f"{provenance['iterations']} iterations on Shapes under {provenance['policy']}, {provenance['script']}"
    console.print(f"   trained for {about}; {_SCENES} scenes of {own.crop_size[0]} pixels\n")
    columns = _columns([data[i]["inputs"] for i in range(_DRAWN)], predicted, data.metainfo["palette"])
    path = args.out_dir / "predictions.png"
    _draw(columns, path, args.theme)
    if console.is_terminal and console.color_system in ("256", "truecolor") and console.width >= 100:
        _print(console, {title: images[0] for title, images in columns.items()})
    console.print(f"   picture: {path}")


def _predict(model: Any, data: Any) -> "tuple[list[SegDataSample], dict[str, float]]":
    """Return what a model predicts for all of ``data``, and how good that is."""
    import torch
    from mmengine.evaluator import Evaluator

    metrics: Any = [dict(type="IoUMetric", prefix=""), dict(type="DisplacementMetric", prefix="")]
    evaluator = Evaluator(metrics)
    evaluator.dataset_meta = data.metainfo
    samples = []
    with torch.no_grad():
        for start in range(0, len(data), 8):
            items = [data[i] for i in range(start, min(start + 8, len(data)))]
            batch = {key: [item[key] for item in items] for key in items[0]}
            found = model.test_step(batch)
            evaluator.process(data_batch=batch, data_samples=found)
            samples += found
    return samples, evaluator.evaluate(len(data))


def _columns(
    images: Sequence[Any], predicted: "Mapping[str, Sequence[SegDataSample]]", palette: Sequence[Sequence[int]]
) -> "dict[str, list[np.ndarray]]":
    """Return what is drawn, by title: images, labels, and what each pixel model predicts and gets wrong."""
    import numpy as np

    colours = np.asarray(palette, np.uint8)
    labels = [sample.gt_sem_seg.data[0].numpy() for sample in predicted["as trained"][:_DRAWN]]
    columns = {
        "image": [image.numpy()[::-1].transpose(1, 2, 0) for image in images],
        "labels": [colours[label] for label in labels],
    }
    for title in ("align_corners=False", "as trained"):
        maps = [sample.pred_sem_seg.data[0].numpy() for sample in predicted[title][:_DRAWN]]
        columns[title] = [colours[each] for each in maps]
        columns[f"errors, {title}"] = [
            np.where((each != label)[..., None], np.array([215, 60, 40], np.uint8), colours[label] // 4 + 180)
            for each, label in zip(maps, labels, strict=True)
        ]
    return columns


def _draw(columns: "dict[str, list[np.ndarray]]", path: Path, theme: str) -> None:
    from matplotlib.figure import Figure

    from mmseg_resample.grids.picture import THEMES

    colours = THEMES[theme]
    figure = Figure(figsize=(2.2 * len(columns), 2.2 * _DRAWN + 0.3), layout="constrained", facecolor=colours["page"])
    for row, axes in enumerate(figure.subplots(_DRAWN, len(columns), squeeze=False)):
        for axis, (title, images) in zip(axes, columns.items(), strict=True):
            axis.imshow(images[row], interpolation="nearest")
            axis.axis("off")
            if row == 0:
                axis.set_title(title, fontsize=9, color=colours["ink"])
    figure.savefig(path, dpi=150)


def _print(console: "Console", images: "dict[str, np.ndarray]") -> None:
    """Print images side by side, two pixels per character."""
    from rich.text import Text

    width = max(12, min(30, (console.width - 4) // len(images) - 1))
    lines = [Text("   ") for _ in range(width // 2 + 1)]
    for title, image in images.items():
        lines[0].append(f"{title[:width]:<{width}} ")
        for line, blocks in zip(lines[1:], _blocks(image, width), strict=True):
            line.append(blocks)
            line.append(" ")
    for line in lines:
        console.print(line, no_wrap=True)


def _blocks(image: "np.ndarray", width: int) -> "list[Text]":
    """Write an image in half blocks, ``width`` pixels wide and high."""
    import numpy as np
    from rich.style import Style
    from rich.text import Text

    at = (np.arange(width // 2 * 2) + 0.5) * image.shape[0] / (width // 2 * 2)
    across = (np.arange(width) + 0.5) * image.shape[1] / width
    small = image[at.astype(int)][:, across.astype(int)]
    rows = []
    for upper, lower in zip(small[::2], small[1::2], strict=True):
        text = Text()
        for above, below in zip(upper, lower, strict=True):
            text.append("▀", Style(color="rgb({},{},{})".format(*above), bgcolor="rgb({},{},{})".format(*below)))
        rows.append(text)
    return rows
