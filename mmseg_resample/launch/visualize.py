"""Draw what a model did with an image: prediction, label, boundary errors, and the flows of its resamplers."""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmseg_resample import launch, register

EXAMPLES = """\
examples:
  the fourth test image of the config, pictures in work_dirs/visualize/vis_data/vis_image
    mmseg-resample visualize configs/sfnet/<name>.py work_dirs/<name>/iter_10000.pth test:3
  any image, with its label map
    mmseg-resample visualize <config> <checkpoint> street.jpg --label street.png --out-dir pictures
  into TensorBoard
    mmseg-resample visualize <config> <checkpoint> test:3 --backend TensorboardVisBackend
pictures: <name>_prediction, beside the label; <name>_boundary_errors by direction and sign; <name>_resampler_<module>
flows (hue: direction, saturation: length), offsets and gates of every resampler that learns, in pixels of its own grid,
of which the title says how many pixels of the image they are
exit status: 0 done, 2 the command line cannot work (one message says why), 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Draw what a model did with images; see ``launch.run`` for what is returned."""
    args = parse(argv)
    return launch.run(lambda: _visualize(args))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; end the process with a message where it is wrong."""
    parser = launch.Parser(
        prog="mmseg-resample visualize",
        description=__doc__,
        epilog=EXAMPLES,
    )
    launch.add_config_arguments(parser)
    launch.add_policy_argument(parser)
    parser.add_argument("checkpoint", help="a file, or a URL")
    parser.add_argument("image", nargs="+", help="files, or test:N for sample N of the test set, which has its label")
    parser.add_argument("--label", help="label map of the image, as the data set stores annotations")
    parser.add_argument("--out-dir", default="work_dirs/visualize", help="default: work_dirs/visualize")
    parser.add_argument(
        "--backend", nargs="+", default=["LocalVisBackend"], help="vis backends of mmengine (default: LocalVisBackend)"
    )
    return parser.parse_args(argv)


def _visualize(args: argparse.Namespace) -> None:
    if args.label and len(args.image) > 1:
        raise launch.UsageError(f"--label: expected one image with it, got {len(args.image)}.")
    register()
    from mmseg_resample.visualization.inference import draw, load_sample

    cfg = launch.load_config(args.config, options=args.cfg_options, work_dir=args.out_dir)
    if args.policy is not None:
        launch.set_policy(cfg, args.policy)
    weights = launch.prepare_test(cfg, args.checkpoint)
    if any(image.startswith("test:") for image in args.image):
        launch.require_data(cfg, "test_dataloader")
    cfg.custom_hooks = None  # of training; EMAHook cannot load without a loop that runs
    cfg.visualizer = dict(
        type="SegLocalVisualizer", vis_backends=[dict(type=b) for b in args.backend], save_dir=args.out_dir
    )
    try:
        samples = {image: load_sample(cfg, image, args.label) for image in args.image}
    except (FileNotFoundError, IndexError, ValueError) as error:
        raise launch.UsageError(str(error)) from error
    runner = launch.build_runner(cfg)
    launch.check_weights(runner.model, weights, args.checkpoint)
    runner.load_or_resume()
    out, names = Path(args.out_dir).resolve(), _names(list(samples))
    drawn = [picture for image, sample in samples.items() for picture in draw(runner, sample, names[image])]
    files = {path.name: path for path in out.rglob("*.png")}
    for picture in drawn:  # other backends have places of their own
        print(files.get(f"{picture}_0.png", picture))


def _names(images: Sequence[str]) -> dict[str, str]:
    """Name the pictures of each image by its file, or by its path where files share a name."""
    short = {image: image.replace(":", "") if image.startswith("test:") else Path(image).stem for image in images}
    count = Counter(short.values())
    return {
        image: name if count[name] == 1 else "_".join(Path(image).with_suffix("").parts).lstrip("/_")
        for image, name in short.items()
    }
