"""What is on the terminal while a study runs."""

import io

import pytest
from rich.console import Console

from mmseg_resample.study import loading, records
from mmseg_resample.study.display import Display
from mmseg_resample.study.messages import Done, Event, Lost, Progress


@pytest.fixture
def study(write_study):
    return loading.load(write_study())


@pytest.fixture
def runs(study):
    return study.runs()


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)


def finish(run, root, **values):
    files = records.RunFiles(root / run.directory)
    evaluations = {name: {"metrics": {"mIoU": value}} for name, value in values.items()}
    record = {"variants": run.variants, "seed": run.seed, "training": None, "evaluations": evaluations}
    records.write_json(files.metrics, record)


def test_a_line_for_every_run_that_ends(study, runs, tmp_path):
    finish(runs[0], tmp_path, own=71.234, larger=None)
    on = console(terminal=False)
    with Display(on, study, tmp_path, total=2) as display:
        display.show(Event(runs[0], 0, Progress("train", 3, 8, 0.5)))
        display.show(Event(runs[0], 0, Done(None)))
        display.show(Event(runs[1], 0, Lost("the [worker] was lost")))
        display.show(Event(runs[1], 0, Done("ValueError: [wrong]")))
    assert on.file.getvalue().splitlines() == [
        "finished  align_corners=false size=s32 seed 0  mIoU own 71.23",
        "lost      align_corners=true size=s32 seed 0: the [worker] was lost; tried again",
        "failed    align_corners=true size=s32 seed 0: ValueError: [wrong]",
        f"          {tmp_path}/align_corners=true,size=s32/seed-0/log.txt",
    ]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_difference_to_the_reference_of_the_same_seed(study, runs, tmp_path, order):
    """Appears when the second one of a pair ends, whichever it is."""
    scores = [dict(own=71.0, larger=60.0), dict(own=68.5, larger=None)]
    finish(runs[2], tmp_path, own=10.0)  # another seed
    on = console(terminal=False)
    with Display(on, study, tmp_path, total=2) as display:
        for index in order:
            finish(runs[index], tmp_path, **scores[index])
            display.show(Event(runs[index], 0, Done(None)))
    lines = on.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["finished", "finished"]
    assert lines[2:] == ["          align_corners true - false: own -2.50"]


def test_a_bar_and_a_line_per_worker(study, runs, tmp_path):
    on = console(terminal=True)
    finish(runs[0], tmp_path, own=71.0)
    with Display(on, study, tmp_path, total=4) as display:
        display.show(Event(runs[0], 0, Done(None)))
        display.show(Event(runs[1], 0, Progress("train", 3, 8, 0.51234)))
        display.show(Event(runs[2], 1, Progress("own", 1, 3)))
    shown = on.file.getvalue()
    assert "1/4" in shown
    assert " left" in shown
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert any("align_corners=true size=s32 seed 0 train" in line and "3/8 loss 0.5123" in line for line in lines)
    assert any("align_corners=false size=s32 seed 1 own" in line and "1/3" in line for line in lines)


def test_progress_of_runs_under_way_counts(study, runs, tmp_path):
    """A run is worth 0.9 when it is trained, and the two evaluations share the rest."""
    display = Display(console(terminal=True), study, tmp_path, total=4)
    for progress, done in [
        (Progress("train", 4, 8, 1.0), 0.45),
        (Progress("train", 8, 8, 1.0), 0.9),
        (Progress("own", 3, 3), 0.95),
        (Progress("larger", 3, 3), 1.0),
    ]:
        display.show(Event(runs[0], 0, progress))
        assert display._overall.tasks[0].completed == pytest.approx(done)
