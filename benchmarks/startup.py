"""What a command costs before it works: ``python benchmarks/startup.py``, beside an older one ``--against CHECKOUT``.

Each command runs as a process of its own, in turn with the others and with those of the other checkout, after one run
that fills the caches. Time is that of the processor, user and system, of the whole process; medians and quartiles.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from statistics import quantiles
from typing import Any

from measure import Options, environment
from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "startup.json"
CONFIG = "mmseg::upernet/upernet_r50_4xb2-80k_cityscapes-512x1024.py"
STOCK = (
    "import sys, types; sys.modules['mmcv._ext'] = types.ModuleType('mmcv._ext'); "  # full mmcv has it, mmcv-lite not
    "import mmcv.utils.ext_loader as e; e.load_ext = lambda *_: None; import mmseg.models"
)
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "import mmseg.models": ["-c", STOCK],
    "import mmseg_resample": ["-c", "import mmseg_resample"],
    "mmseg-resample --help": ["-m", "mmseg_resample", "--help"],
    "mmseg-resample audit --help": ["-m", "mmseg_resample", "audit", "--help"],
    "mmseg-resample audit UPerNet-R50": ["-m", "mmseg_resample", "audit", CONFIG],
}
OLDER = {  # before the console command
    "mmseg-resample --help": ["tools/audit.py", "--help"],
    "mmseg-resample audit --help": ["tools/audit.py", "--help"],
    "mmseg-resample audit UPerNet-R50": ["tools/audit.py", CONFIG],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout of this project")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()

    options = Options("cpu", 1, args.rounds, False)
    found: dict[str, Any] = {"environment": environment(options), "seconds": {}}
    checkouts = {"now": ROOT} | ({"before": args.against} if args.against else {})
    for number in track(range(-1, args.rounds), "rounds"):
        for name in COMMANDS:
            for which, folder in checkouts.items():
                seconds = processor_seconds(command(name, folder), folder)
                if number >= 0:
                    found["seconds"].setdefault(name, {}).setdefault(which, []).append(round(seconds, 3))
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    table = Table(title="processor seconds")
    table.add_column("command")
    for which in reversed(checkouts):
        table.add_column(which, justify="right")
    for name, times in found["seconds"].items():
        table.add_row(name, *(summary(times[which]) for which in reversed(checkouts)))
    Console().print(table)


def command(name: str, folder: Path) -> list[str]:
    has_commands = (folder / "mmseg_resample" / "cli.py").is_file()
    words = COMMANDS[name] if has_commands else OLDER.get(name, COMMANDS[name])
    return [sys.executable, *words]


def processor_seconds(command: list[str], folder: Path) -> float:
    variables = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, env=variables, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def summary(seconds: list[float]) -> str:
    low, median, high = quantiles(seconds, n=4, method="inclusive")
    return f"{median:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
