"""Test a checkpoint; mmseg's tools/test.py, which refuses a checkpoint that lacks weights of the model."""

import argparse
from collections.abc import Sequence

from mmseg_resample import launch

EXAMPLES = """\
examples:
  the metrics of the config, written to <work dir>/<time>/<time>.json
    mmseg-resample test configs/sfnet/<name>.py work_dirs/<name>/iter_50000.pth
  paint every prediction into painted/vis_data/vis_image, and write the label maps into predictions
    mmseg-resample test <config> <checkpoint> --show-dir painted --out predictions
  average over scales and flips; four GPUs
    mmseg-resample test <config> <checkpoint> --tta
    torchrun --nproc-per-node=4 -m mmseg_resample test <config> <checkpoint> --launcher pytorch
exit status: 0 done, 2 the command line cannot work (one message says why), 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Test a checkpoint; see ``launch.run`` for what is returned."""
    args = parse(argv)
    return launch.run(lambda: _test(args))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; end the process with a message where it is wrong."""
    parser = launch.Parser(
        prog="mmseg-resample test",
        description=__doc__,
        epilog=EXAMPLES,
    )
    launch.add_arguments(parser)
    parser.add_argument("checkpoint", help="a file, or a URL")
    parser.add_argument("--out", help="write the predicted label maps into this folder")
    parser.add_argument("--show", action="store_true", help="open a window with each prediction")
    parser.add_argument("--show-dir", help="paint each prediction into SHOW_DIR/vis_data/vis_image")
    parser.add_argument("--wait-time", type=float, default=2.0, help="seconds that a window stays open (default: 2)")
    parser.add_argument("--tta", action="store_true", help="average over the test-time augmentations of the config")
    return parser.parse_args(argv)


def _test(args: argparse.Namespace) -> None:
    cfg = launch.config_from_arguments(args)
    weights = launch.prepare_test(
        cfg,
        args.checkpoint,
        out=args.out,
        show=args.show,
        show_dir=args.show_dir,
        wait_time=args.wait_time,
        tta=args.tta,
    )
    launch.require_data(cfg, "test_dataloader")
    runner = launch.build_runner(cfg)
    launch.check_weights(runner.model, weights, args.checkpoint)
    launch.report(runner, runner.test())
