"""What a study costs next to mmseg's own tools, for the same trainings and tests: ``python benchmarks/study.py``.

Per seed and in turn: ``tools/study.py``; mmseg's ``tools/train.py`` once per run and ``tools/test.py`` once per
evaluation, one process after the other with the threads that torch takes by default; the same with as many at a time as
there are cores, one thread each. All measure the confusion matrix alone and none validates while training. The results
of the study and of the second kind of stock must agree, or there is no table.

Wall time is what a user waits, on a quiet machine. CPU time (user + sys of all processes) also holds on a busy one;
compare it with stock at one thread, since waiting threads of the other burn it too.
"""

import argparse
import contextlib
import json
import os
import platform
import queue
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import mmengine
import mmseg
import torch
from mmengine.config import Config, DictAction
from rich.console import Console
from rich.table import Table

from mmseg_resample.study import loading, plan

ROOT = Path(__file__).parents[1]
STOCK_TOOLS = Path(mmseg.__file__).parent / ".mim" / "tools"
DEFAULT_STUDY = ROOT / "configs" / "studies" / "align_corners_shapes.py"
RESULTS = Path(__file__).parent / "results" / "study.json"
CORES = len(os.sched_getaffinity(0))
OURS, STOCK, STOCK_PARALLEL = "tools/study.py", "mmseg, one at a time", f"mmseg, {CORES} at a time"

Command = list[str]
Scores = dict[tuple[str, str], float]
"""(directory of the run, evaluation) -> mIoU in percent, to two digits as mmseg rounds it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=DEFAULT_STUDY)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="each is a repetition of everything")
    parser.add_argument("--ways", nargs="+", default=[OURS, STOCK, STOCK_PARALLEL], help="which to run, by name")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={}, help="set in the base config")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()

    rows, scores, load = [], {}, os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        for round_, seed in enumerate(args.seeds):
            study = write_study(args.study, args.cfg_options, seed, Path(folder, f"seed-{seed}"))
            ways = {OURS: run_study, STOCK: run_stock, STOCK_PARALLEL: run_stock_parallel}
            for name in args.ways[:: 1 if round_ % 2 == 0 else -1]:  # in turn, so that no way always comes first
                root = study.file.parent / f"way-{list(ways).index(name)}"
                wall, cpu, scores[name] = measured(ways[name], study, root)
                rows.append({"way": name, "seed": seed, "wall_s": round(wall, 1), "cpu_s": round(cpu, 1)})
                print(json.dumps(rows[-1]), flush=True)
            check_agreement(scores)
    runs = study.runs()
    result = {
        "environment": {**environment(), "load_before": load},
        "study": args.study.stem,
        "cfg_options": {key: str(value) for key, value in args.cfg_options.items()},
        "per_seed": {"trainings": len(runs), "tests": sum(len(run.evaluations) for run in runs)},
        "rows": rows,
        "ratios": ratios(rows),
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    Console().print(table(result))


def write_study(source: Path, options: dict, seed: int, folder: Path) -> plan.Study:
    """The study as a user has it, but with one seed and no metrics that stock does not measure."""
    content = Config.fromfile(source).to_dict()
    if "::" not in content["base"]:
        content["base"] = str((source.parent / content["base"]).resolve())
    content |= {"seeds": [seed], "evaluators": {}, "metric": "mIoU"}
    base = loading.load(source, seeds=[seed], options=options).base_config
    folder.mkdir()
    base.dump(folder / "base.py")
    file = folder / "study.py"
    Config({**content, "base": "base.py"}).dump(file)
    return loading.load(file)


# --------------------------------------------------------------------------------------------------------------------
# The ways


def run_study(study: plan.Study, root: Path) -> Scores:
    execute([sys.executable, str(ROOT / "tools" / "study.py"), str(study.file), "--work-dir", str(root)])
    return {
        (run.directory, evaluation.name): round(record["mIoU"], 2)
        for run in study.runs()
        for evaluation in run.evaluations
        for record in [json.loads((root / run.directory / "evaluations" / f"{evaluation.name}.json").read_text())]
    }


def run_stock(study: plan.Study, root: Path) -> Scores:
    for commands in stock_commands(study, root):
        for command in commands:
            execute(command)
    return stock_scores(study, root)


def run_stock_parallel(study: plan.Study, root: Path) -> Scores:
    pending: queue.SimpleQueue[Sequence[Command]] = queue.SimpleQueue()
    for commands in stock_commands(study, root):
        pending.put(commands)
    errors: list[Exception] = []

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while not errors:
                for command in pending.get_nowait():
                    try:
                        execute(command, threads=1)
                    except Exception as error:
                        errors.append(error)
                        return

    threads = [threading.Thread(target=work) for _ in range(CORES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return stock_scores(study, root)


def stock_commands(study: plan.Study, root: Path) -> Iterator[Sequence[Command]]:
    """For every run: its training, then its tests."""
    for run in study.runs():
        folder = root / run.directory
        write_stock_config(study, run.variants, run.seed, folder / "train.py")
        work_dir = folder / "train"
        commands = [[str(STOCK_TOOLS / "train.py"), str(folder / "train.py"), "--work-dir", str(work_dir)]]
        checkpoint = work_dir / f"iter_{study.base_config.train_cfg.max_iters}.pth"
        for evaluation in run.evaluations:
            config = folder / f"{evaluation.name}.py"
            write_stock_config(study, evaluation.variants, run.seed, config)
            work_dir = folder / evaluation.name
            commands.append([str(STOCK_TOOLS / "test.py"), str(config), str(checkpoint), "--work-dir", str(work_dir)])
        yield [[sys.executable, *command] for command in commands]


def write_stock_config(study: plan.Study, variants: plan.Variants, seed: int, file: Path) -> None:
    config = Config(study.base_config.to_dict())
    for axis, name in variants.items():
        config.merge_from_dict(dict(study.axes[axis][name]))
    config.randomness = {**config.get("randomness", {}), "seed": seed}
    config.val_dataloader = config.val_cfg = config.val_evaluator = None
    file.parent.mkdir(parents=True, exist_ok=True)
    config.dump(file)


def stock_scores(study: plan.Study, root: Path) -> Scores:
    scores = {}
    for run in study.runs():
        for evaluation in run.evaluations:
            (file,) = (root / run.directory / evaluation.name).glob("*/[0-9]*.json")
            scores[run.directory, evaluation.name] = round(json.loads(file.read_text())["mIoU"], 2)
    return scores


# --------------------------------------------------------------------------------------------------------------------
# Measuring


def execute(command: Command, threads: int | None = None) -> None:
    """Run to the end in a process of its own, from the root of the repository, where data/ is."""
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    if threads is not None:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )


def measured(way: Callable[[plan.Study, Path], Scores], study: plan.Study, root: Path) -> tuple[float, float, Scores]:
    """Wall seconds, CPU seconds of the processes, and what they scored."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    scores = way(study, root)
    return time.perf_counter() - wall, cpu_seconds() - cpu, scores


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def check_agreement(scores: dict[str, Scores]) -> None:
    """The work must be the same. With more threads, stock adds in another order."""
    if OURS in scores and STOCK_PARALLEL in scores and not torch.cuda.is_available():
        different = {key for key, value in scores[OURS].items() if scores[STOCK_PARALLEL].get(key) != value}
        if different:
            raise RuntimeError(f"the study and stock disagree in {sorted(different)}: {scores}")


def ratios(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Stock divided by the study, over all seeds."""
    total = {
        way: {key: sum(row[key] for row in rows if row["way"] == way) for key in ("wall_s", "cpu_s")}
        for way in dict.fromkeys(row["way"] for row in rows)
    }
    return {
        way: {key: round(value / total[OURS][key], 2) for key, value in times.items()}
        for way, times in total.items()
        if OURS in total and way != OURS
    }


def environment() -> dict:
    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "cores": CORES,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mmengine": mmengine.__version__,
        "mmseg": mmseg.__version__,
    }


def table(result: dict) -> Table:
    work = result["per_seed"]
    out = Table(title=f"{result['study']}: {work['trainings']} trainings, {work['tests']} tests per seed")
    for column in ("", "seed", "wall s", "CPU s", "of the study, wall", "CPU"):
        out.add_column(column)
    for row in result["rows"]:
        ratio = result["ratios"].get(row["way"], {})
        times = (f"{ratio[key]:.2f}x" if ratio else "" for key in ("wall_s", "cpu_s"))
        out.add_row(row["way"], str(row["seed"]), f"{row['wall_s']:.0f}", f"{row['cpu_s']:.0f}", *times)
    return out


if __name__ == "__main__":
    main()
