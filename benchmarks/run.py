"""Measures what this package costs beside what it replaces.

Every way of doing a piece of work runs in turn on the same inputs; a table says how many times faster each is than the
named baseline (median and quartiles of the paired ratios), its peak memory, and a floor that no way could beat. Ways
that lose are printed in bold, not left out.

  suite        beside                                         measured
  ops          F.interpolate, SFNet's warp, sampled columns   resize, flow_warp, deform_conv2d
  loss         mmseg's loss_by_feat                           every backend of resize_cross_entropy
  predict      mmseg's predict_by_feat, postprocess_result    every backend of resize_argmax
  scaling      the same two                                   against the number of pixels and of classes
  resamplers   bilinear                                       a training step with every resampler of a study
  models       stock networks                                 policies, on the forward pass
  study        mmseg's tools/train.py and tools/test.py       benchmarks/study.py, a program of its own
  (none)       an older checkout                              benchmarks/startup.py, likewise: imports and commands

  python benchmarks/run.py --quick                    # everything on small inputs: does it run here? a minute
  python benchmarks/run.py --suite loss predict       # the published cases; writes benchmarks/results/*.json
  python benchmarks/run.py --suite ops --only bicubic --rounds 31
  python benchmarks/run.py --suite loss --threads 2   # wall time: wants a quiet machine
  python benchmarks/run.py --suite study -- --seeds 0 1 2
  python benchmarks/run.py --docs                     # measures nothing: results into the tables of docs/
"""

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import render
import torch
from measure import SCHEMA, Options, environment, measure
from rich.console import Console
from rich.table import Table
from suites import SUITES

HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results", HERE.parent / "docs"
REPORT = DOCS / "results" / "resamplers_shapes" / "report.json"


def main() -> None:
    args = arguments()
    warnings.simplefilter("ignore")
    if args.docs:
        for page in render.write_docs(DOCS, render.load(args.out or RESULTS), args.study_report):
            print(page)
        return
    if args.device == "cpu":
        torch.set_num_threads(args.threads)
    console = Console()
    rounds = args.rounds or (3 if args.quick else 15)
    options = Options(args.device, args.threads, rounds, args.quick, args.study)
    for suite in args.suite:
        if suite == "study":
            subprocess.run([sys.executable, str(HERE / "study.py"), *args.rest], check=True)
        else:
            run(suite, options, args.only, args.out, console)


def run(suite: str, options: Options, only: list[str], out: Path | None, console: Console) -> None:
    """Measure, print, and write to ``out``; complete results go to the published ones where it is None."""
    cases = [case for case in SUITES[suite].cases(options) if not only or any(part in case.name for part in only)]
    if not cases:
        console.print(f"{suite}: no case has any of {only} in its name")
        return
    result = {"schema": SCHEMA, "suite": suite, "device": options.device, "quick": options.quick}
    result |= {"environment": environment(options), "rows": []}
    with console.status(suite) as status:
        for i, case in enumerate(cases):
            status.update(f"{suite} {i + 1}/{len(cases)}: {case.name}")
            # Every peak takes a process of its own.
            result["rows"].append(measure(suite, case, options, memory=not options.quick))
    for header, rows in render.tables(result):
        table = Table(title=SUITES[suite].TITLE)
        for column in header:
            table.add_column(column, justify="left" if column == header[0] else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for sentence in (render.provenance(result), *render.sentences(result)):
        console.print(sentence, highlight=False, soft_wrap=True)
    if out is None and (only or options.quick):
        return
    folder = out or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{render.stem(result)}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    console.print(str(path), highlight=False)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", nargs="+", choices=[*SUITES, "study"], default=list(SUITES), metavar="SUITE")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU (default 1)")
    parser.add_argument("--rounds", type=int, help="samples per way (default 15; 3 with --quick)")
    parser.add_argument("--only", nargs="+", default=[], metavar="SUBSTRING", help="of names of cases; not saved")
    parser.add_argument("--quick", action="store_true", help="small inputs, few rounds, no memory; not saved")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for the results (default benchmarks/results)")
    parser.add_argument("--study", type=Path, default=Options.study, help="study config that names the resamplers")
    parser.add_argument("--docs", action="store_true", help="write the tables and figures of docs/, and stop")
    parser.add_argument("--study-report", type=Path, default=REPORT, help="report.json with the resamplers' accuracy")
    parser.add_argument("rest", nargs="*", metavar="-- ...", help="arguments of benchmarks/study.py")
    args = parser.parse_args(words)
    if args.rest and "study" not in args.suite:
        parser.error(f"{args.rest} are arguments of the suite `study`. Add `--suite study`, or leave them out.")
    if args.threads < 1 or (args.rounds is not None and args.rounds < 1):
        parser.error(f"--threads and --rounds are 1 or more, got {args.threads} and {args.rounds}.")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this torch sees no GPU. Use --device cpu, or install a torch with CUDA.")
    return args


if __name__ == "__main__":
    main()
