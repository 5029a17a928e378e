"""Shows a study on a terminal while it runs."""

import time
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from . import records
from .execution import Event
from .messages import Done
from .messages import Progress as RunProgress
from .plan import Run

_TRAINING_SHARE = 0.9  # of a run, for the estimate of what is left; the evaluations share the rest


class Display:
    """A bar over the runs with the time left, a line per worker, and a line for every run that ends.

    Args:
        console: to draw on; without a terminal only the lines of ended runs are printed.
        root: directory of the study.
        total: number of runs to perform.
        metric: shown for a finished run.
    """

    def __init__(self, console: Console, root: Path, total: int, metric: str = "mIoU") -> None:
        self._console = console
        self._root = root
        self._total = total
        self._metric = metric
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
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, event: Event) -> None:
        """Show what happened."""
        if isinstance(event.what, Done):
            self._end(event.run, event.worker, event.what)
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
        self._fractions.pop(worker, None)
        if worker in self._lines:
            self._workers.remove_task(self._lines.pop(worker))
        files = records.RunFiles(self._root / run.directory)
        if done.error is not None:
            self._console.print(f"[bold red]failed[/]    {escape(run.label)}: {escape(done.error)}", soft_wrap=True)
            self._console.print(f"          {escape(str(files.log))}", soft_wrap=True)
            return
        metrics = records.read_json(files.metrics) or {"evaluations": {}}
        scores = "  ".join(
            f"{name} {result[self._metric]:.2f}"
            for name, result in metrics["evaluations"].items()
            if result[self._metric] is not None
        )
        line = f"[green]finished[/]  {escape(run.label)}  {self._metric} {escape(scores)}"
        self._console.print(line, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
