"""The command ``study``: run a study, or write its report again.

Nothing heavy is imported before the arguments are parsed, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmseg_resample import register
from mmseg_resample.launch import KeyValues, Parser, UsageError, add_check_argument, require_folder
from mmseg_resample.launch.command_line import full_disk, interruption, raised_signals

from .executors import NAMES
from .words import counted, too_few_seeds

if TYPE_CHECKING:
    from rich.console import Console

    from . import plan, report

PROGRAM = "mmseg-resample study"
DESCRIPTION = """\
Runs a study: trains the variants of a model under paired seeds, tests them, and reports what changed.

``CONFIG`` runs what is not finished and writes the report; ``report DIR...`` writes it again; ``--new CONFIG`` writes
a study of your own model, to be read and changed.
"""
EXAMPLES = """\
examples:
  the first study, results in ./work_dirs/flag_and_size_shapes; the same command goes on after an interruption
    mmseg-resample study configs/studies/flag_and_size_shapes.py
  a study of your own model: the flag at the sizes that fit it, and what it would cost
    mmseg-resample study --new my_config.py
  what it would do, what it has done, and how long the rest takes; --estimate times some iterations for that
    mmseg-resample study configs/studies/flag_and_size_shapes.py --dry-run --estimate
  more seeds in the same directory: only what is new is run
    mmseg-resample study configs/studies/align_corners_shapes.py --seeds 0 1 2 3 4 5 6 7
  small models: three runs on each of two GPUs; large ones: four GPUs for each run
    mmseg-resample study <config> --gpus 0 1 --runs-per-gpu 3
    mmseg-resample study <config> --procs-per-run 4
  stop at a breakpoint() in a model or a hook
    mmseg-resample study <config> --executor inline
  on a Ray cluster, on a Slurm cluster (the same --work-dir must be visible on all machines)
    mmseg-resample study <config> --executor ray --ray-address auto
    mmseg-resample study <config> --executor slurm --slurm partition=gpu time=4:00:00 gpus_per_node=1 cpus_per_task=8
  the report again; of several studies, each of theirs and one across them
    mmseg-resample study report work_dirs/flag_and_size_shapes
    mmseg-resample study report work_dirs/first work_dirs/second --out work_dirs/both
exit status: 0 done, 1 a run failed, 2 the study or the command line cannot work (one message says why), 130 interrupted
(143 by SIGTERM, 129 by SIGHUP)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv`` (default: the arguments of the process), and return its exit status."""
    args = parse(argv)

    register()  # before anything imports mmseg
    from rich.console import Console

    from .executors import WorkerError
    from .plan import StudyError

    try:
        with raised_signals():
            console = Console()
            if not console.is_terminal:
                console.width = max(console.width, 160)
            return args.run(args, console)
    except (StudyError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except WorkerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        message = full_disk(error)
        if message is None:
            raise
        print(f"{message} Finished work is kept, the same command goes on.", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        words, status = interruption(error)
        print(f"{words}; finished work is kept, the same command goes on", file=sys.stderr)
        return status


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ``run`` of what is returned is the function that it asks for."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(prog=PROGRAM, description=DESCRIPTION, epilog=EXAMPLES)
    if arguments[:1] == ["--new"]:
        run = _begin_study
        del arguments[0]
        parser = Parser(
            prog=f"{PROGRAM} --new",
            description="Writes a study of a model config: the flag at the sizes that fit it, and exact resizes.",
        )
        parser.add_argument("config", help="a config of mmseg, by path or name (mmseg::pspnet/...)")
        parser.add_argument("--out", type=Path, help="the file to write (default: ./<config>_study.py)")
    elif arguments[:1] == ["report"]:
        run = _rewrite_reports
        del arguments[0]
        parser = Parser(
            prog=f"{PROGRAM} report",
            description="Writes the reports of studies again, from their directories alone.",
        )
        add_report_arguments(parser)
    else:
        run = _run_study
        add_arguments(parser)
    parser.set_defaults(run=run)
    return parser.parse_args(arguments)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that run a study."""
    parser.add_argument("config", type=Path, help="a study config, such as those in configs/studies")
    parser.add_argument("--work-dir", type=Path, help="where the runs are kept (default: ./work_dirs/<study name>)")
    parser.add_argument("--seeds", type=int, nargs="+", help="in place of the seeds of the study")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=KeyValues,
        metavar="KEY=VALUE",
        help="set in the base config, for all variants",
    )
    add_check_argument(parser)
    parser.add_argument("--overwrite", action="store_true", help="repeat runs that were made from another config")
    parser.add_argument(
        "--dry-run", action="store_true", help="show the runs, what is left to do and how long, and stop"
    )
    parser.add_argument(
        "--estimate", action="store_true", help="with --dry-run: time some iterations if no run has finished yet"
    )
    where = parser.add_argument_group("where the runs are performed")
    where.add_argument(
        "--executor",
        choices=NAMES,
        default="local",
        help="processes of this machine (default), this process, a Ray cluster or Slurm; all give the same files",
    )
    where.add_argument(
        "--workers", type=int, help="runs at a time (default: what the GPUs hold, or one per core up to 4)"
    )
    where.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="threads of each process (local, inline; default: OMP_NUM_THREADS, else the cores shared out)",
    )
    where.add_argument(
        "--procs-per-run",
        type=int,
        metavar="N",
        help="distributed training, a GPU per process; every process has a batch of its own, so this changes the study",
    )
    where.add_argument("--runs-per-gpu", type=int, metavar="K", help="runs that share a GPU (local, ray; default: 1)")
    where.add_argument("--gpus", nargs="+", metavar="ID", help="GPUs to use (local; default: all that are visible)")
    where.add_argument("--ray-address", help="of a running cluster (default: RAY_ADDRESS, or one is started here)")
    where.add_argument(
        "--slurm",
        nargs="+",
        action=KeyValues,
        metavar="KEY=VALUE",
        help="options of the jobs: partition=gpu account=x time=4:00:00 gpus_per_node=1 cpus_per_task=8 mem_gb=32",
    )


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that write reports again."""
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR", help="directories of studies")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("work_dirs/report"),
        help="where the report across several studies is written (default: ./work_dirs/report)",
    )


def _run_study(args: argparse.Namespace, console: Console) -> int:
    from rich.markup import escape

    from . import execution, loading, report, twins
    from .plan import in_words

    root = args.work_dir or Path("work_dirs") / args.config.stem
    require_folder("--work-dir", root)
    study = loading.load(args.config, seeds=args.seeds, options=args.cfg_options)
    if args.procs_per_run is not None:
        study = execution.with_processes(study, args.procs_per_run)
    _executor_options(args)  # refused before anything is written
    study = twins.merged(study)
    for twin, same in study.twins:
        words = f"{in_words(twin)} is the same network as {in_words(same)}, and is not trained again."
        console.print(escape(words), soft_wrap=True)
    stored = execution.prepare(study, root, overwrite=args.overwrite)
    for path, reason in ((path, reason) for each in stored for path, reason in each.damaged.items()):
        console.print(f"[yellow]damaged[/]   {escape(f'{path}: {reason}')}; it is made again", soft_wrap=True)
    pending = [each.run for each in stored]
    if args.dry_run:
        _print_plan(console, study, pending)
    _warn_of_too_few_seeds(console, study)
    if args.executor in ("inline", "local"):  # other machines have files of their own
        _require_data(pending, "none" if args.dry_run else args.check_data)
    if args.dry_run:
        _print_estimate(console, study, root, pending, args)
        return 0
    console.print(escape(f"{root}: {counted(len(study.runs()), 'run')}, {len(pending)} to do"), soft_wrap=True)
    try:
        failed = _perform(console, study, root, pending, args)
    except KeyboardInterrupt as error:
        words, status = interruption(error)
        print(f"{words}; finished work is kept in {root}, the same command goes on", file=sys.stderr)
        return status
    console.print("Writing the report.")
    _write_report(console, report.build(root), root)
    return int(failed)


def _warn_of_too_few_seeds(console: Console, study: plan.Study) -> None:
    from .significance import seeds_for_significance

    declared, seeds = len(study.family), len(study.seeds)
    if declared and seeds < (needed := seeds_for_significance(family=declared)):
        console.print(
            f"{too_few_seeds(seeds, declared, needed)}. More can be added later with --seeds, or fewer comparisons "
            f"declared (family)."
        )


def _require_data(pending: list[plan.Run], mode: str) -> None:
    from mmengine.config import Config

    from mmseg_resample.launch import check_data, require_data

    for run in pending:
        for evaluation in run.evaluations:
            loaders = {"train_dataloader": run.config, "test_dataloader": evaluation.config}
            require_data(Config({key: config[key] for key, config in loaders.items()}), *loaders)
    tests = [(evaluation.config, "test_dataloader") for run in pending for evaluation in run.evaluations]
    check_data([*((run.config, "train_dataloader") for run in pending), *tests], mode)


def _perform(
    console: Console, study: plan.Study, root: Path, pending: list[plan.Run], args: argparse.Namespace
) -> bool:
    """Perform the runs that are left, and return whether one failed."""
    from . import execution, executors
    from .display import Display
    from .messages import Done

    failed, total = False, len(pending)
    name = args.executor if total else "inline"  # with nothing to do there is no need for a cluster
    workers, processes = (args.workers, execution.processes(study)) if total else (None, 1)
    with closing(
        executors.create(name, workers, processes=processes, **(_executor_options(args) if total else {}))
    ) as executor:
        events = execution.execute(study, root, executor=executor, overwrite=args.overwrite, runs=pending)
        with Display(console, study, root, total, live=name != "inline") as display, closing(events):
            for event in events:
                display.show(event)
                failed |= isinstance(event.what, Done) and event.what.error is not None
    return failed


def _begin_study(args: argparse.Namespace, console: Console) -> int:
    from rich.markup import escape

    from mmseg_resample.launch import require_data

    from . import estimate, loading, new
    from .executors import slots

    path = new.write(args.config, args.out or Path(f"{Path(args.config.rpartition('::')[2]).stem}_study.py"))
    study = loading.load(path)
    runs = study.runs()
    command = f"mmseg-resample study {path}"
    console.print(
        escape(
            f"{path}: {counted(len(runs), 'run')}, {counted(len(study.seeds), 'seed')} of each variant. "
            f"Read it, then: {command}"
        )
    )
    share = slots.slots(slots.visible_gpus(), slots.cores())
    try:
        require_data(runs[0].config, "train_dataloader", "test_dataloader")
    except UsageError as error:
        console.print(escape(f"What it costs is not known yet: {error} Then: {command} --dry-run --estimate"))
        return 0
    found = estimate.from_iterations(runs, len(share), share[0].threads)
    console.print(escape(f"About {_duration(found.seconds)}, {found.workers} at a time: {found.source}."))
    return 0


def _executor_options(args: argparse.Namespace) -> dict[str, Any]:
    """Collect the options of the executor, except the numbers of workers and processes."""
    from .plan import StudyError

    given = {
        "threads": ("--threads", args.threads, ("local", "inline")),
        "gpus": ("--gpus", args.gpus, ("local",)),
        "runs_per_gpu": ("--runs-per-gpu", args.runs_per_gpu, ("local", "ray")),
        "address": ("--ray-address", args.ray_address, ("ray",)),
        "options": ("--slurm", args.slurm, ("slurm",)),
    }
    for option, value, takers in given.values():
        if value is not None and args.executor not in takers:
            raise StudyError(
                f"{option}: the executor {args.executor} does not take it. Use --executor {' or '.join(takers)}."
            )
    return {name: value for name, (_, value, takers) in given.items() if value is not None}


def _write_report(console: Console, result: report.Report | report.Collection, root: Path) -> None:
    from rich.markup import escape

    from . import report

    paths = report.write(result, root)
    for table in report.tables(result):
        console.print(table)
    for sentence in result.caveats:
        console.print(f"[yellow]note[/] {escape(sentence)}")
    for path in paths:
        console.print(escape(str(path)), soft_wrap=True)


def _rewrite_reports(args: argparse.Namespace, console: Console) -> int:
    from . import report

    studies = {root: report.build(root) for root in args.directories}  # all can be read before anything is written
    for option, folder in [*(("DIR", root) for root in studies), *[("--out", args.out)] * (len(studies) > 1)]:
        require_folder(option, folder)
    for root, result in studies.items():
        _write_report(console, result, root)
    if len(studies) > 1:
        _write_report(console, report.build_many(list(studies)), args.out)
    return 0


def _print_plan(console: Console, study: plan.Study, pending: list[plan.Run]) -> None:
    from rich.table import Table

    runs = study.runs()
    directories = {run.directory for run in pending}
    table = Table(title=f"{study.file.stem}: {counted(len(runs), 'run')}, {len(pending)} to do", title_justify="left")
    for header in (*study.axes, "seed", "tested as", "state"):
        table.add_column(header)
    for run in runs:
        tested = ", ".join(evaluation.name for evaluation in run.evaluations)
        state = "to do" if run.directory in directories else "finished"
        table.add_row(*run.variants.values(), str(run.seed), tested, state)
    console.print(table)


def _print_estimate(
    console: Console, study: plan.Study, root: Path, pending: list[plan.Run], args: argparse.Namespace
) -> None:
    from rich.markup import escape

    from . import estimate, execution
    from .executors import slots

    if not pending:
        return
    share = slots.slots(
        slots.visible_gpus(args.gpus),
        slots.cores(),
        workers=1 if args.executor == "inline" else args.workers,
        runs_per_gpu=args.runs_per_gpu,
        processes=execution.processes(study),
        threads=args.threads,
    )
    found = estimate.from_finished(study, root, pending, len(share))
    if found is None and args.estimate:
        found = estimate.from_iterations(pending, len(share), share[0].threads)
    if found is None:
        console.print("No run has finished, so the time is not known; --estimate times some iterations.")
    else:
        at_a_time = f"{found.workers} at a time" if found.workers > 1 else "one after the other"
        console.print(
            escape(
                f"About {_duration(found.seconds)} for {counted(len(pending), 'run')}, {at_a_time}: {found.source}."
            ),
            soft_wrap=True,
        )


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
