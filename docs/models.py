"""Counts parameters and FLOPs of the SFNet and upsampler configs, writes docs/models.md: ``python docs/models.py``."""

import argparse
import json
import logging
import warnings
from pathlib import Path

import torch
import yaml
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.utils import get_installed_path
from mmseg.registry import MODELS
from rich.progress import track

import mmseg_resample  # noqa: F401  (registers the models)

CONFIGS = Path(__file__).parents[1] / "configs"
RESULTS = Path(__file__).parent / "results"
SIZE = 512

HEAD = f"""\
# Models

Every config of `configs/sfnet` and `configs/upsamplers`, with its parameters (those for training only included), its
FLOPs at {SIZE}x{SIZE} as mmengine's `get_model_complexity_info` counts them, and published scores of what it follows.
The counter knows convolutions, linear layers and matrix products (a multiplication and an addition are one);
interpolation, sampling by a flow and the weighted sums of CARAFE, FADE, SAPA and FreqFusion are not in it.

A published score is the mIoU in percent of the authors' own code, data processing and schedule, from the source that
stands beside it; differences of half a point between such numbers mean little: two papers of one group give bilinear
SegFormer-B1 as 41.68 and 42.11. Scores that no source at hand shows are left out. Scores of ours are from the studies
in [results](results/index.md), whose schedules are shorter than that of the config. Variants with `align-corners` in
their names differ in the flag alone and are not listed.

Regenerate with `python docs/models.py`.
"""

README = "SFSegNets README"
SAPA = "SAPA README"
PUBLISHED = {  # beginning of a config's name -> score and source
    "sfnet_r18-sfsegnets_4xb4-56k_cityscapes": f"79.0 val ({README}; 600 epochs, SFSegNets#7), 78.4 without class-"
    "uniform sampling; 80.4 test, trained on train and val (Papers with Code)",
    "sfnet_r50-sfsegnets_4xb4-56k_cityscapes": f"80.4 val ({README})",
    "sfnet-lite_r18-sfsegnets_4xb4-186k_cityscapes": f"80.1 test, trained on train and val ({README}, abstract)",
    "sfnet-lite_stdc1-sfsegnets_4xb4-186k_cityscapes": "78.8 test, trained on train and val (abstract)",
    "sfnet-lite_stdc2-sfsegnets_4xb4-186k_cityscapes": f"about 79.1 test (read off a figure of the {README})",
    "segformer_mit-b1_": f"41.68 (FADE), 42.11 ({SAPA})",
    "segformer_mit-b1-deconv": f"40.71 with 3.5M parameters more than bilinear, fewer than here ({SAPA})",
    "segformer_mit-b1-pixel-shuffle": f"41.50 with 3.5M parameters more than bilinear, fewer than here ({SAPA})",
    "segformer_mit-b1-carafe": f"42.82 ({SAPA})",
    "segformer_mit-b1-fade_": "43.06 (FADE, ECCV), 44.41 (FADE, IJCV)",
    "segformer_mit-b1-fade-lite": f"43.49 ({SAPA})",
    "segformer_mit-b1-sapa": f"43.20 ({SAPA})",
    "upernet_r50_": f"41.09 ({SAPA})",
    "upernet_r50-carafe": f"41.49 ({SAPA})",
    "upernet_r50-fade": f"41.83 ({SAPA})",
    "upernet_r50-sapa": f"42.60 of SAPA-D ({SAPA})",
}
MEASURED = {  # config -> study in docs/results, combination, evaluation and variant that are the config
    "sfnet-fpn_r18-thin_1xb8-1k_camvid-160x160": (
        "align_corners_camvid_240_iterations",
        {"input": "160"},
        "own",
        "false",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "models.md")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # the counter lists what it does not count
    zoo = stock_scores()
    text = HEAD
    for folder in ("sfnet", "upsamplers"):
        text += (
            f"\n## {folder}\n\n| config | parameters, M | FLOPs, G | published mIoU | ours |\n"
            "| --- | ---: | ---: | --- | --- |\n"
        )
        paths = [p for p in sorted((CONFIGS / folder).glob("*.py")) if "align-corners" not in p.stem]
        for path in track(paths, description=folder):
            text += row(path, zoo)
    args.out.write_text(text)
    print(args.out)


def row(path: Path, zoo: dict[str, float]) -> str:
    cfg = Config.fromfile(path)
    init_default_scope("mmseg")
    cfg.model.pretrained = None
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
    with torch.no_grad():
        found = get_model_complexity_info(model, inputs=torch.rand(1, 3, SIZE, SIZE), show_table=False, show_arch=False)
    scores = [text for start, text in PUBLISHED.items() if path.stem.startswith(start)]
    if path.stem in zoo:
        scores.append(f"{zoo[path.stem]:.2f} (mmseg's model zoo)")
    link = f"[{path.stem}](../configs/{path.parent.name}/{path.name})"
    counts = f"{found['params'] / 1e6:.3f} | {found['flops'] / 1e9:.2f}"
    return f"| {link} | {counts} | {'; '.join(scores)} | {measured(path.stem)} |\n"


def measured(config: str) -> str:
    """Mean and standard deviation over seeds of the study that trained the config."""
    if config not in MEASURED:
        return ""
    study, combination, evaluation, variant = MEASURED[config]
    report = json.loads((RESULTS / study / "report.json").read_text())
    (found,) = (
        each
        for each in report["comparisons"]
        if each["combination"] == combination and each["evaluation"] == evaluation
    )
    scores = found["variants"][variant]
    link = f"[{study}](results/{study}/report.md)"
    return f"{scores['mean']:.2f} ± {scores['sd']:.2f}, {len(scores['seeds'])} seeds ({link})"


def stock_scores() -> dict[str, float]:
    """Config of mmsegmentation -> the mIoU that its metafiles state."""
    scores = {}
    for path in (Path(get_installed_path("mmsegmentation")) / ".mim" / "configs").glob("*/metafile.yaml"):
        for model in yaml.safe_load(path.read_text())["Models"]:
            metrics = model["Results"]["Metrics"] if "Results" in model else {}
            if "mIoU" in metrics:
                scores[model["Name"]] = float(metrics["mIoU"])
    return scores


if __name__ == "__main__":
    main()
