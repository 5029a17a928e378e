"""The check of label maps before a training, as the commands make it."""

from collections.abc import Iterable

from mmengine.config import Config
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..datasets.check import check_labels
from .messages import UsageError, is_first, say

_MANY = 5000  # label maps whose headers take more than a few seconds
_SHOWN = 5


def check_data(loaders: Iterable[tuple[Config, str]], mode: str) -> None:
    """Refuse data sets with label maps that cannot be used; see ``datasets.check.check_labels``.

    Args:
        loaders: configs and the keys of their data loaders.
        mode: of ``--check-data``.

    Raises:
        UsageError: names the first label maps, what is wrong with them and how to mend it.
    """
    if not is_first():
        return
    console = Console(stderr=True)
    columns = (TextColumn("checking labels of {task.description}"), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks = {}

        def show(key: str, done: int, total: int) -> None:
            if key not in tasks:
                tasks[key] = progress.add_task(key, total=total)
                if total > _MANY and not console.is_terminal:
                    say(f"checking {total} label maps of {key}; --check-data none leaves that out")
            progress.update(tasks[key], completed=done, total=total)

        try:
            found = check_labels(loaders, mode, show)
        except FileNotFoundError as error:  # of a data set that looks for its files
            raise UsageError(str(error)) from error
    if found:
        lines = [str(finding) for finding in found[:_SHOWN]]
        more = [f"and {len(found) - _SHOWN} more"] * (len(found) > _SHOWN)
        raise UsageError(
            "\n  ".join([f"{len(found)} label map{'s' * (len(found) > 1)} cannot be used:", *lines, *more])
            + "\n--check-data none starts all the same; --check-data all reads every label map whole."
        )
