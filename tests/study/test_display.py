"""What is on the terminal while a study runs."""

import io

import pytest
from rich.console import Console

from mmseg_resample.study import plan, records
from mmseg_resample.study.display import Display
from mmseg_resample.study.execution import Event
from mmseg_resample.study.messages import Done, Progress


@pytest.fixture
def runs(write_study):
    return plan.load(write_study()).runs()


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)


def finish(run, root):
    files = records.RunFiles(root / run.directory)
    evaluations = {"own": {"mIoU": 71.234}, "larger": {"mIoU": None}}
    records.write_json(files.metrics, {"evaluations": evaluations})


def test_a_line_for_every_run_that_ends(runs, tmp_path):
    finish(runs[0], tmp_path)
    on = console(terminal=False)
    with Display(on, tmp_path, total=2) as display:
        display.show(Event(runs[0], 0, Progress("train", 3, 8, 0.5)))
        display.show(Event(runs[0], 0, Done(None)))
        display.show(Event(runs[1], 0, Done("ValueError: [wrong]")))
    assert on.file.getvalue().splitlines() == [
        "finished  align_corners=false size=s32 seed 0  mIoU own 71.23",
        "failed    align_corners=true size=s32 seed 0: ValueError: [wrong]",
        f"          {tmp_path}/align_corners=true,size=s32/seed-0/log.txt",
    ]


def test_a_bar_and_a_line_per_worker(runs, tmp_path):
    on = console(terminal=True)
    finish(runs[0], tmp_path)
    with Display(on, tmp_path, total=4) as display:
        display.show(Event(runs[0], 0, Done(None)))
        display.show(Event(runs[1], 0, Progress("train", 3, 8, 0.51234)))
        display.show(Event(runs[2], 1, Progress("own", 1, 3)))
    shown = on.file.getvalue()
    assert "1/4" in shown
    assert " left" in shown
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert any("align_corners=true size=s32 seed 0 train" in line and "3/8 loss 0.5123" in line for line in lines)
    assert any("align_corners=false size=s32 seed 1 own" in line and "1/3" in line for line in lines)


def test_progress_of_runs_under_way_counts(runs, tmp_path):
    """A run is worth 0.9 when it is trained, and the two evaluations share the rest."""
    display = Display(console(terminal=True), tmp_path, total=4)
    for progress, done in [
        (Progress("train", 4, 8, 1.0), 0.45),
        (Progress("train", 8, 8, 1.0), 0.9),
        (Progress("own", 3, 3), 0.95),
        (Progress("larger", 3, 3), 1.0),
    ]:
        display.show(Event(runs[0], 0, progress))
        assert display._overall.tasks[0].completed == pytest.approx(done)
