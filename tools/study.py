#!/usr/bin/env python
"""Runs a study: trains the variants of a model under paired seeds, tests them, and reports what changed."""

import argparse
import sys
from contextlib import closing
from pathlib import Path

from mmengine.config import DictAction
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmseg_resample.study import plan, report
from mmseg_resample.study.display import Display
from mmseg_resample.study.execution import WorkerError, execute, prepare
from mmseg_resample.study.messages import Done

EXAMPLES = """\
examples:
  the default study, results in ./work_dirs/align_corners_shapes; the same command goes on after an interruption
    python tools/study.py configs/studies/align_corners_shapes.py
  what it would do, and what it has done
    python tools/study.py configs/studies/align_corners_shapes.py --dry-run
  more seeds in the same directory: only what is new is run
    python tools/study.py configs/studies/align_corners_shapes.py --seeds 0 1 2 3 4 5
exit status: 0 done, 1 a run failed, 2 the study or the command line cannot work (one message says why), 130 interrupted
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="a study config, such as those in configs/studies")
    parser.add_argument("--work-dir", type=Path, help="where the runs are kept (default: ./work_dirs/<study name>)")
    parser.add_argument("--workers", type=int, help="runs at a time (default: one per GPU, or per core up to 4)")
    parser.add_argument("--seeds", type=int, nargs="+", help="in place of the seeds of the study")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, help="key=value pairs set in the base config")
    parser.add_argument("--overwrite", action="store_true", help="repeat runs that were made from another config")
    parser.add_argument("--dry-run", action="store_true", help="show the runs and what is left to do, and stop")
    args = parser.parse_args()

    console = Console()
    root = args.work_dir or Path("work_dirs") / args.config.stem
    try:
        study = plan.load(args.config, seeds=args.seeds, options=args.cfg_options)
        pending = prepare(study, root, overwrite=args.overwrite)
        if args.dry_run:
            _print_plan(console, study, pending)
            return 0
        console.print(escape(f"{root}: {len(study.runs())} runs, {len(pending)} to do"), soft_wrap=True)
        failed = _run(console, study, root, len(pending), args)
        result = report.build(root)
        paths = report.write(result, root)
    except plan.StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except WorkerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; finished work is kept in {root}, the same command goes on", file=sys.stderr)
        return 130
    for table in report.tables(result):
        console.print(table)
    for sentence in result.caveats:
        console.print(f"[yellow]note[/] {escape(sentence)}")
    for path in paths:
        console.print(escape(str(path)), soft_wrap=True)
    return 1 if failed else 0


def _run(console: Console, study: plan.Study, root: Path, total: int, args: argparse.Namespace) -> bool:
    failed = False
    events = execute(study, root, workers=args.workers, overwrite=args.overwrite)
    with Display(console, root, total, study.metric) as display, closing(events):
        for event in events:
            display.show(event)
            failed |= isinstance(event.what, Done) and event.what.error is not None
    return failed


def _print_plan(console: Console, study: plan.Study, pending: list[plan.Run]) -> None:
    runs = study.runs()
    directories = {run.directory for run in pending}
    table = Table(title=f"{study.file.stem}: {len(runs)} runs, {len(pending)} to do", title_justify="left")
    for header in (*study.axes, "seed", "tested as", "state"):
        table.add_column(header)
    for run in runs:
        tested = ", ".join(evaluation.name for evaluation in run.evaluations)
        state = "to do" if run.directory in directories else "finished"
        table.add_row(*run.variants.values(), str(run.seed), tested, state)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
