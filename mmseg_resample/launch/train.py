"""Train a model from a config; mmseg's tools/train.py with errors that say what to do."""

import argparse
from collections.abc import Sequence

from mmseg_resample import launch

EXAMPLES = """\
examples:
  a config of this repository, results in ./work_dirs/<config name>
    mmseg-resample train configs/sfnet/<name>.py
  a config that ships with mmseg, on less memory
    mmseg-resample train mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py \\
        --cfg-options train_dataloader.batch_size=1 --amp
  go on after an interruption (or start, where there is nothing yet)
    mmseg-resample train <config> --resume
  four GPUs of one machine; a Slurm job with one task per GPU
    torchrun --nproc-per-node=4 -m mmseg_resample train <config> --launcher pytorch
    srun --gres=gpu:8 --ntasks=8 --ntasks-per-node=8 mmseg-resample train <config> --launcher slurm
exit status: 0 done, 2 the command line cannot work (one message says why), 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Train a model; see ``launch.run`` for what is returned."""
    args = parse(argv)
    return launch.run(lambda: _train(args))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; end the process with a message where it is wrong."""
    parser = launch.Parser(
        prog="mmseg-resample train",
        description=__doc__,
        epilog=EXAMPLES,
    )
    launch.add_arguments(parser)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the work directory")
    parser.add_argument("--amp", action="store_true", help="train in mixed precision, on a GPU")
    launch.add_check_argument(parser)
    return parser.parse_args(argv)


def _train(args: argparse.Namespace) -> None:
    cfg = launch.config_from_arguments(args)
    launch.prepare_training(cfg, amp=args.amp, resume=args.resume)
    loaders = "train_dataloader", "val_dataloader"
    launch.require_data(cfg, *loaders)
    launch.check_data([(cfg, loader) for loader in loaders], args.check_data)
    runner = launch.build_runner(cfg)
    launch.report(runner, launch.run_training(runner))
