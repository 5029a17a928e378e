"""The display of a running study on a terminal."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from . import records
from .messages import Done, Event, Lost
from .messages import Progress as RunProgress
from .plan import Run, Study

_TRAINING_SHARE = 0.9  # of a run, for the estimate of what is left; the evaluations share the rest


class Display:
    """Progress bar over the runs with the time left, a line per worker, and a line for every run that ends.

    Args:
        console: to draw on; without a terminal only the lines of ended runs are printed.
        study: its metric is shown for a finished run, and how far it is from the reference variant of the same seed.
        root: directory of the study.
        total: number of runs to perform.
        live: draw the bars; without, only the lines of ended runs are printed, as without a terminal.
    """

    def __init__(self, console: Console, study: Study, root: Path, total: int, *, live: bool = True) -> None:
        self._console = console
        self._study = study
        self._root = root
        self._total = total
        self._draws = live and console.is_terminal
        self._started = time.monotonic()
        self._ended = 0
        self._fractions: dict[int, float] = {}
        self._overall = Progress(
            TextColumn("[bold]runs"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            expand=True,
        )
        self._bar = self._overall.add_task("", total=total, count=f"0/{total}", left="starting")
        self._workers = Progress(
            TextColumn("{task.description}"),
            TextColumn("{task.fields[phase]}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            console=console,
        )
        self._lines: dict[int, TaskID] = {}
        self._live = Live(Group(self._overall, self._workers), console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Display":
        if self._draws:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event.what, Done):
            self._end(event.run, event.worker, event.what)
        elif isinstance(event.what, Lost):
            self._free(event.worker)
            self._console.print(
                f"[yellow]lost[/]      {escape(event.run.label)}: {escape(event.what.cause)}; tried again",
                soft_wrap=True,
            )
        else:
            self._progress(event.run, event.worker, event.what)
        done = self._ended + sum(self._fractions.values())
        elapsed = time.monotonic() - self._started
        left = f"{_clock(elapsed / done * (self._total - done))} left" if done > 0.02 else ""
        self._overall.update(self._bar, completed=done, count=f"{self._ended}/{self._total}", left=left)

    def _progress(self, run: Run, worker: int, progress: RunProgress) -> None:
        part = progress.iteration / max(progress.iterations, 1)
        names = [evaluation.name for evaluation in run.evaluations]
        if progress.phase in names:
            share = (1 - _TRAINING_SHARE) / len(names)
            self._fractions[worker] = _TRAINING_SHARE + share * (names.index(progress.phase) + part)
        else:
            self._fractions[worker] = _TRAINING_SHARE * part
        if worker not in self._lines:
            self._lines[worker] = self._workers.add_task("", phase="", loss="")
        self._workers.update(
            self._lines[worker],
            description=escape(run.label),
            phase=escape(progress.phase),
            completed=progress.iteration,
            total=progress.iterations,
            loss="" if progress.loss is None else f"loss {progress.loss:.4f}",
        )

    def _end(self, run: Run, worker: int, done: Done) -> None:
        self._ended += 1
        self._free(worker)
        files = records.RunFiles(self._root / run.directory)
        if done.error is not None:
            self._console.print(f"[bold red]failed[/]    {escape(run.label)}: {escape(done.error)}", soft_wrap=True)
            self._console.print(f"          {escape(str(files.log))}", soft_wrap=True)
            return
        values = self._values(run)
        scores = "  ".join(f"{name} {value:.2f}" for name, value in values.items())
        line = f"[green]finished[/]  {escape(run.label)}  {escape(self._study.metric)} {escape(scores)}"
        self._console.print(line, soft_wrap=True)
        for difference in self._differences(run):
            self._console.print(f"          {escape(difference)}", soft_wrap=True)

    def _differences(self, run: Run) -> Iterator[str]:
        """Subtract the reference variant of the same seed, in every pair that ``run`` completes."""
        axis = self._study.compare
        runs = self._study.runs()
        reference = runs[0].variants[axis]
        others = {key: value for key, value in run.variants.items() if key != axis}
        twins = {
            twin.variants[axis]: self._values(twin)
            for twin in runs
            if twin.seed == run.seed and others.items() <= twin.variants.items()
        }
        for variant in twins if run.variants[axis] == reference else [run.variants[axis]]:
            names = [name for name in twins[variant] if name in twins.get(reference, {})]
            if variant != reference and names:
                changes = "  ".join(f"{name} {twins[variant][name] - twins[reference][name]:+.2f}" for name in names)
                yield f"{axis} {variant} - {reference}: {changes}"

    def _values(self, run: Run) -> dict[str, float]:
        """Return evaluation -> metric, for the evaluations that are finished and have it."""
        metrics = records.read_usable(records.RunFiles(self._root / run.directory).metrics) or {"evaluations": {}}
        values = {name: result["metrics"].get(self._study.metric) for name, result in metrics["evaluations"].items()}
        return {name: value for name, value in values.items() if value is not None}

    def _free(self, worker: int) -> None:
        self._fractions.pop(worker, None)
        if worker in self._lines:
            self._workers.remove_task(self._lines.pop(worker))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
