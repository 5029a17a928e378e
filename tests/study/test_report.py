"""Reports from run directories with known numbers."""

import json
import math

import pytest
from rich.console import Console

from mmseg_resample.study import records, report
from mmseg_resample.study.plan import StudyError

STUDY = {
    "name": "known",
    "base": "base.py",
    "axes": {"flag": ["false", "true"], "size": ["s32", "s33", "s64"]},
    "train": {"flag": ["false", "true"], "size": ["s32", "s33"]},
    "seeds": [0, 1, 2],
    "evaluations": {"own": {}, "double": {"size": {"s32": "s64", "s33": "s64"}}},
    "compare": "flag",
    "metric": "mIoU",
}
ENVIRONMENT = {"python": "3.11", "torch": "2.13", "device": "a processor", "threads": 1, "git": None}
TRAINING = {"iterations": 8, "seconds": 12.0, "peak_memory_bytes": 3 * 2**20, "memory": "allocated on the GPU"}


def files(root, flag, size, seed):
    return records.RunFiles(root / f"flag={flag},size={size}" / f"seed-{seed}")


def add_run(root, flag, size, seed, own, double=None, environment=ENVIRONMENT):
    evaluations = {"own": own, "double": own if double is None else double}
    records.write_json(
        files(root, flag, size, seed).metrics,
        {
            "variants": {"flag": flag, "size": size},
            "seed": seed,
            "training": TRAINING,
            "evaluations": {name: {"mIoU": value, "aAcc": 1.0, "mAcc": 2.0} for name, value in evaluations.items()},
        },
    )
    attempts = [{"started": f"some time {seed}", **environment}]
    records.write_json(files(root, flag, size, seed).environment, {"seed": seed, "attempts": attempts})


@pytest.fixture
def root(tmp_path):
    """true - false is 1, 2, 3 on s32 and minus that on s33; tested at double size everything gains 10."""
    records.open_study(tmp_path, STUDY)
    for seed in STUDY["seeds"]:
        for size, sign in (("s32", 1), ("s33", -1)):
            add_run(tmp_path, "false", size, seed, 50.0 + seed, 60.0 + seed)
            add_run(tmp_path, "true", size, seed, 50.0 + seed + sign * (seed + 1), 60.0 + seed + sign * (seed + 1))
    return tmp_path


def text(result, width=100):
    console = Console(width=width, record=True)
    for table in report.tables(result):
        console.print(table)
    return console.export_text()


def test_compares_within_every_combination_and_evaluation(root):
    result = report.build(root)
    assert [(c.combination, c.evaluation) for c in result.comparisons] == [
        ({"size": "s32"}, "own"),
        ({"size": "s32"}, "double"),
        ({"size": "s33"}, "own"),
        ({"size": "s33"}, "double"),
    ]
    s32, _, s33, _ = result.comparisons
    assert s32.scores == {"false": {0: 50, 1: 51, 2: 52}, "true": {0: 51, 1: 53, 2: 55}}
    assert s32.differences["true"].values == (1, 2, 3)
    assert s33.differences["true"].values == (-1, -2, -3)


def test_transfers_compare_the_same_weights(root):
    result = report.build(root)
    assert [transfer.evaluation for transfer in result.transfers] == ["double"] * 4
    assert {transfer.difference.mean for transfer in result.transfers} == {10}
    assert result.transfers[0].difference.sd == 0


def test_tables(root):
    shown = text(report.build(root))
    assert "51.00 ± 1.00" in shown
    assert "+2.00 [-0.48, +4.48]" in shown
    assert "+1.00 +2.00 +3.00" in shown
    assert "+10.00 [+10.00, +10.00]" in shown


def test_fits_a_narrow_terminal(root):
    assert "+2.00 [-0.48, +4.48]" in text(report.build(root), width=80)


def test_markdown(root):
    content = report.to_markdown(report.build(root))
    assert "| s32 | own | 3 | 51.00 ± 1.00 | 53.00 ± 2.00 | +2.00 [-0.48, +4.48]<br>+1.00 +2.00 +3.00 |" in content
    assert "](report.png)" in content
    assert "smallest p that a sign-flip test of 3 pairs can give is 0.25" in content
    assert "| false | s32 | 3 | 8 | 12 s | 3 MiB (allocated on the GPU) |" in content
    assert "| 3.11 | 2.13 | a processor | 1 | 12 | none |" in content
    assert "Failed" not in content


def test_json(root):
    paths = report.write(report.build(root), root)
    content = json.loads((root / "report.json").read_text())
    assert [path.name for path in paths] == ["report.md", "report.json", "report.png"]
    assert content["schema"] == records.SCHEMA
    assert content["study"]["compare"] == "flag"
    first = content["comparisons"][0]
    assert first["variants"]["true"] == {"seeds": {"0": 51.0, "1": 53.0, "2": 55.0}, "mean": 53.0, "sd": 2.0}
    (difference,) = first["differences"]
    assert (difference["variant"], difference["reference"]) == ("true", "false")
    assert (difference["n"], difference["mean"], difference["smallest_p"]) == (3, 2, 0.25)
    assert len(content["runs"]) == 12
    assert str(root) not in (root / "report.json").read_text() + (root / "report.md").read_text()


def test_is_a_function_of_the_directories(root):
    def content():
        return [path.read_bytes() for path in report.write(report.build(root), root)]

    assert content() == content()


def test_figure_is_a_picture(root):
    report.draw(report.build(root), root / "figure.png")
    assert (root / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in root.glob(".*")] == []


def test_one_seed_has_no_interval(tmp_path):
    records.open_study(tmp_path, {**STUDY, "seeds": [0]})
    for flag, value in (("false", 50.0), ("true", 51.0)):
        add_run(tmp_path, flag, "s32", 0, value)
        add_run(tmp_path, flag, "s33", 0, value)
    result = report.build(tmp_path)
    assert "+1.00 (one seed)" in text(result)
    assert "has no interval" in result.caveats[0]
    report.write(result, tmp_path)
    (difference,) = json.loads((tmp_path / "report.json").read_text())["comparisons"][0]["differences"]
    assert difference["sd"] is difference["low"] is difference["high"] is None


def test_failed_and_unfinished_runs(root):
    for flag, seed in (("true", 1), ("false", 2)):
        files(root, flag, "s32", seed).metrics.unlink()
    failure = {"variants": {"flag": "true", "size": "s32"}, "seed": 1, "error": "ValueError: wrong", "time": "now"}
    records.write_json(files(root, "true", "s32", 1).failure, failure)
    result = report.build(root)
    assert result.failures == [
        {
            "variants": {"flag": "true", "size": "s32"},
            "seed": 1,
            "error": "ValueError: wrong",
            "log": "flag=true,size=s32/seed-1/log.txt",
        }
    ]
    assert result.unfinished == [{"variants": {"flag": "false", "size": "s32"}, "seed": 2}]
    assert result.comparisons[0].differences["true"].seeds == (0,)
    assert any("2 planned runs are missing (1 failed, 1 not finished)" in sentence for sentence in result.caveats)
    assert "| true | s32 | 1 | ValueError: wrong | flag=true,size=s32/seed-1/log.txt |" in report.to_markdown(result)


def test_nothing_finished(tmp_path):
    records.open_study(tmp_path, STUDY)
    result = report.build(tmp_path)
    assert len(result.unfinished) == 12
    assert "nothing is compared yet" in result.caveats[0]
    assert "Nothing is finished yet." in report.to_markdown(result)
    assert report.write(result, tmp_path)


def test_a_score_that_is_not_a_number_is_left_out(root):
    add_run(root, "true", "s32", 0, None)
    assert report.build(root).comparisons[0].differences["true"].seeds == (1, 2)


def test_more_seeds_and_variants_than_planned_count(root):
    add_run(root, "false", "s64", 7, 40.0)
    add_run(root, "true", "s64", 7, 44.0)
    assert report.build(root).comparisons[-1].differences["true"].seeds == (7,)


def test_runs_of_another_study_do_not_count(root):
    before = report.to_json(report.build(root))
    other = {"variants": {"flag": "maybe", "size": "s32"}, "seed": 0, "training": TRAINING, "evaluations": {}}
    records.write_json(root / "flag=maybe,size=s32" / "seed-0" / "metrics.json", other)
    records.write_json(root / "flag=true" / "seed-0" / "metrics.json", {**other, "variants": {"flag": "true"}})
    assert report.to_json(report.build(root)) == before


def test_mixed_environments_and_uncommitted_changes_are_said(root):
    add_run(
        root, "true", "s32", 0, 51.0, environment={**ENVIRONMENT, "git": {"commit": "0123456789abc", "dirty": True}}
    )
    result = report.build(root)
    assert [environment["attempts"] for environment in result.environments] == [11, 1]
    assert any("2 different environments" in sentence for sentence in result.caveats)
    assert any("uncommitted changes" in sentence for sentence in result.caveats)
    assert "| 0123456789 with changes |" in report.to_markdown(result)


def test_every_interval_is_counted(root):
    assert any(sentence.startswith("4 intervals are shown") for sentence in report.build(root).caveats)


def test_three_variants_are_compared_with_the_first(tmp_path):
    axes = {"flag": ["false", "true", "exact"]}
    study = {**STUDY, "axes": axes, "train": axes, "evaluations": {"own": {}}, "seeds": [0, 1]}
    records.open_study(tmp_path, study)
    for seed in (0, 1):
        for flag, value in (("false", 50.0), ("true", 51.0), ("exact", 53.0)):
            path = tmp_path / f"flag={flag}" / f"seed-{seed}" / "metrics.json"
            scores = {"own": {"mIoU": value + seed}}
            records.write_json(
                path, {"variants": {"flag": flag}, "seed": seed, "training": TRAINING, "evaluations": scores}
            )
    (comparison,) = report.build(tmp_path).comparisons
    assert {name: difference.mean for name, difference in comparison.differences.items()} == {"true": 1, "exact": 3}
    assert "exact - false" in text(report.build(tmp_path))


def test_a_directory_without_a_study(tmp_path):
    with pytest.raises(StudyError, match=r"has no study.json. Run the study first"):
        report.build(tmp_path)


def test_files_of_another_version_are_refused(root):
    (root / "study.json").write_text(json.dumps({**STUDY, "schema": 99}))
    with pytest.raises(StudyError, match=r"study.json: expected schema 1, got 99"):
        report.build(root)


def test_nan_never_reaches_a_file(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.write_json(tmp_path / "x.json", {"value": math.nan})
    assert not list(tmp_path.iterdir())
