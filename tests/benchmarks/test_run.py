"""The benchmark harness: every suite runs, and what it writes is what the tables and figures of the docs need."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
RUN = ROOT / "benchmarks" / "run.py"
# One small case of every suite, one of resize, one of a warp.
ONLY = ["loss 1x5x", "to 100x150", "along", "bicubic, step", "flow_warp 1x", "deform_conv2d 1x", "nearest", "SegFormer"]
QUARTILES = {"low", "median", "high"}


@pytest.fixture(scope="module", autouse=True)
def _scripts():
    """The harness is a folder of scripts that import each other."""
    sys.path.insert(0, str(RUN.parent))
    yield
    sys.path.remove(str(RUN.parent))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    command = [sys.executable, str(RUN), "--quick", "--rounds", "2", "--out", str(folder), "--only", *ONLY]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def results(measured):
    return {path.stem: json.loads(path.read_text()) for path in measured.glob("*.json")}


def test_every_suite_is_measured(results):
    from suites import SUITES

    assert set(results) == {f"{suite}-cpu-1" for suite in SUITES}
    for result in results.values():
        assert result["quick"]
        assert result["rows"]
        assert result["environment"]["rounds"] == 2
        assert result["environment"]["clock"] == "processor time"
        for row in result["rows"]:
            assert row["baseline"] == next(iter(row["ways"]))
            assert len(row["ways"]) > 1
            for way in row["ways"].values():
                assert set(way["ms"]) == set(way["ratio"]) == QUARTILES
                assert 0 < way["ms"]["low"] <= way["ms"]["median"] <= way["ms"]["high"]
            assert row["ways"][row["baseline"]]["ratio"] == dict.fromkeys(QUARTILES, 1.0)


@pytest.mark.parametrize(("suite", "op"), [("loss", "resize_cross_entropy"), ("predict", "resize_argmax")])
def test_every_installed_backend_is_measured_and_agrees(results, suite, op):
    from suites._common import backends

    (row,) = results[f"{suite}-cpu-1"]["rows"]
    assert list(row["ways"]) == ["mmseg", *backends(op, "cpu")]
    assert "torch" in row["ways"]
    assert row["floor_ms"] < row["ways"]["mmseg"]["ms"]["median"]
    for name, way in row["ways"].items():
        if name != "mmseg":
            tolerance = dict(labels=0, loss=1e-5, gradient=1e-5)
            assert way["differs"]
            assert all(value <= tolerance[what] for what, value in way["differs"].items()), (name, way["differs"])


def test_ops_agree_with_what_they_are_measured_beside(results):
    rows = results["ops-cpu-1"]["rows"]
    assert {row["baseline"] for row in rows} == {"F.interpolate", "SFNet's", "columns"}
    found = [(name, *item) for row in rows for name, way in row["ways"].items() for item in way["differs"].items()]
    assert {op for _, op, _ in found} == {"resize", "flow_warp", "deform_conv2d"}
    assert all(value <= (0 if name == "same call" else 1e-5) for name, _, value in found), found


def test_fast_resizes_change_results_by_rounding(results):
    for row in results["models-cpu-1"]["rows"]:
        assert row["ways"]["fast"]["differs"]["results"] < 1e-4


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from Linux's /proc")
def test_peak_is_that_of_the_call():
    """A resize has its output alone, 2x19x512x512 in float32."""
    from measure import Options, peak
    from suites import ops

    options = Options()
    (case,) = [case for case in ops.cases(options) if case.name == "bilinear 2x19x128x128 to 512x512"]
    assert peak("ops", case, "F.interpolate", options) == pytest.approx(2 * 19 * 512 * 512 * 4 / 2**20, abs=3)


def test_ratios_are_those_of_the_same_round(monkeypatch):
    """Slow a round down: that slows all ways of it, and is not seen in the ratio."""
    import measure

    calls = itertools.count()

    def seconds(call, number, options):
        return call() * (1 + next(calls) // 2 % 5)  # a machine that is slower for two calls in turn

    monkeypatch.setattr(measure, "seconds", seconds)
    build = {"slow": lambda: 2e-3, "fast": lambda: 1e-3}.get
    case = measure.Case("case", ["slow", "fast"], build, build)
    fast = measure.measure("", case, measure.Options(rounds=7), memory=False)["ways"]["fast"]
    assert fast["ratio"] == dict.fromkeys(QUARTILES, 2.0)
    assert fast["ms"]["low"] < fast["ms"]["high"]


def test_losses_stand_beside_wins(results):
    import render

    ratio = dict(low=0.4, median=0.5, high=0.6)
    assert render.faster(ratio) == "**0.50** [0.40, 0.60]"
    assert render.faster({**ratio, "high": 1.1}) == "0.50 [0.40, 1.10]"
    result = results["ops-cpu-1"]
    slower = [
        (row["case"], way)
        for row in result["rows"]
        for way, found in row["ways"].items()
        if way != row["baseline"] and found["ratio"]["high"] < 1
    ]
    cells = [cell for _, rows in render.tables(result) for row in rows for cell in row]
    assert sum(cell.startswith("**") for cell in cells) == len(slower)
    first = next(render.sentences(result))
    assert re.search(r": (none|\d+) of", first)[1] == (str(len(slower)) if slower else "none")


def test_docs_are_filled_and_the_rest_stays(measured, tmp_path):
    import render
    from suites import SUITES

    docs = tmp_path / "docs"
    docs.mkdir()
    sections = "\n".join(f"<!-- benchmark {suite} -->\nold\n<!-- end of benchmark -->\nprose" for suite in SUITES)
    page = docs / "performance.md"
    page.write_text(f"# Title\n{sections}\n")
    results = render.load(measured)
    without_models = [result for result in results if result["suite"] != "models"]
    assert render.write_docs(docs, without_models, None) == [page]
    text = page.read_text()
    assert text.startswith("# Title\n")
    assert text.count("prose") == len(SUITES)
    assert text.count("\nold\n") == 1  # of the suite that was not measured
    assert "| loss 1x5x32x32 to 128x128 |" in text
    for figure in re.findall(r"\]\((figures/[^)]+)\)", text):
        assert (docs / figure).read_text().lstrip().startswith("<?xml")
    figure = docs / "figures" / "performance-loss-cpu-1.svg"
    before = figure.read_bytes()
    assert render.write_docs(docs, [result for result in results if result["suite"] == "loss"], None) == []
    assert figure.read_bytes() == before


def test_every_section_of_the_docs_is_of_a_suite():
    from suites import SUITES

    pages = [page.read_text() for page in (ROOT / "docs").glob("*.md")]
    names = [name for page in pages for name in re.findall("<!-- benchmark (.*?) -->", page)]
    assert sorted(names) == sorted(SUITES)


@pytest.mark.parametrize("study", ["align_corners_shapes", "align_corners_pyramid_shapes"])
def test_resamplers_stand_beside_the_scores_of_a_study(results, study):
    import render

    report = json.loads((ROOT / "docs" / "results" / study / "report.json").read_text())
    header, rows, note = render.resampler_table(results["resamplers-cpu-1"], report)
    assert all(len(row) == len(header) for row in rows)
    table = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    scores = report["comparisons"][0]["variants"]
    seeds = list(scores["true"]["seeds"].values())
    assert table["true"]["mIoU"] == f"{np.mean(seeds):.2f} ± {np.std(seeds, ddof=1):.2f}"
    assert table["true"]["to false"].startswith(f"{np.mean(seeds) - scores['false']['mean']:+.2f} [")
    assert table["true"]["boundary IoU, 2 px"] != "-"
    assert table["true"]["time of a step"] == "-"  # not among the resamplers that were measured
    assert table["nearest"]["mIoU"] == "-"
    assert table["nearest"]["parameters"] == "+0"
    assert f"{len(seeds)} seeds" in note


def test_resamplers_without_a_study(results):
    import render

    header, rows, _ = render.resampler_table(results["resamplers-cpu-1"], None)
    assert header == ["resampler", "time of a step", "peak memory", "parameters"]
    assert rows[0][:2] == ["bilinear", "1"]
    way = results["resamplers-cpu-1"]["rows"][0]["ways"]["variant"]
    assert rows[1][1].startswith(f"{1 / way['ratio']['median']:.2f} [")


def test_results_of_another_schema_are_refused(measured, tmp_path):
    import render

    result = json.loads((measured / "loss-cpu-1.json").read_text())
    (tmp_path / "loss-cpu-1.json").write_text(json.dumps({**result, "schema": 0}))
    with pytest.raises(ValueError, match=r"expected schema 1, got 0. Measure again with .*--suite loss"):
        render.load(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite", "loss", "--", "--seeds", "0"], "Add `--suite study`"),
        (["--rounds", "0"], "--rounds are 1 or more"),
        (["--suite", "train"], "choose from"),
    ],
)
def test_mistakes_are_explained(words, message, capsys):
    import run

    with pytest.raises(SystemExit):
        run.arguments(words)
    assert message in capsys.readouterr().err


def test_arguments_of_the_study_are_handed_on():
    import run

    args = run.arguments(["--suite", "loss", "study", "--", "--seeds", "0", "1"])
    assert args.suite == ["loss", "study"]
    assert args.rest == ["--seeds", "0", "1"]
