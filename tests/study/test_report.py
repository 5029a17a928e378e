"""Reports from directories with known numbers, and from synthetic predictions whose displacement is known."""

import html
import itertools
import json
import math
import re
import shutil

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from mmseg_resample.study import records, report
from mmseg_resample.study.plan import StudyError
from mmseg_resample.study.report import figures, panels
from mmseg_resample.study.report.document import Document, Picture, Section

from . import synthetic
from .synthetic import ENVIRONMENT, describe, write_scores

STUDY = {
    "name": "known",
    "base": "base.py",
    "axes": {"flag": ["false", "true"], "size": ["s32", "s33", "s64"]},
    "train": {"flag": ["false", "true"], "size": ["s32", "s33"]},
    "seeds": [0, 1, 2],
    "evaluations": {"own": {}, "double": {"size": {"s32": "s64", "s33": "s64"}}},
    "evaluators": {},
    "compare": "flag",
    "metric": "mIoU",
}


def files(root, flag, size, seed):
    return records.RunFiles(root / f"flag={flag},size={size}" / f"seed-{seed}")


def add_run(root, flag, size, seed, own, double=None, environment=ENVIRONMENT):
    evaluations = {"own": {"mIoU": own}, "double": {"mIoU": own if double is None else double}}
    write_scores(root, {"flag": flag, "size": size}, seed, evaluations, environment)


def known(root, declared=None, **changes):
    """true - false is 1, 2, 3 ... on s32 and minus that on s33; tested at double size everything gains 10."""
    study = {**STUDY, **changes}
    records.open_study(root, describe(study, declared))
    for seed in study["seeds"]:
        for size, sign in (("s32", 1), ("s33", -1)):
            true = 50.0 + seed + sign * (seed + 1)
            add_run(root, "false", size, seed, 50.0 + seed, 60.0 + seed)
            add_run(root, "true", size, seed, true, true + 10)
    return root


@pytest.fixture
def root(tmp_path):
    return known(tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A synthetic study of three seeds with every evaluator, and its report."""
    root = synthetic.write_study(tmp_path_factory.mktemp("synthetic"))
    result = report.build(root)
    report.write(result, root)
    return root, result


def text(result, width=100):
    console = Console(width=width, record=True)
    for table in report.tables(result):
        console.print(table)
    return console.export_text()


def section(content, title):
    """The part of a Markdown report under a heading."""
    return content.split(f"## {title}\n")[1].split("\n## ")[0]


class TestStatistics:
    def test_compares_within_every_combination_and_evaluation(self, root):
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

    def test_the_family_is_corrected_together(self, root):
        result = report.build(root)
        assert [(each.combination, each.evaluation, each.variant) for each in result.family] == [
            ((("size", "s32"),), "own", "true"),
            ((("size", "s33"),), "own", "true"),
        ]
        evidence = [comparison.tested["true"].evidence for comparison in result.comparisons]
        assert [each.declared for each in evidence] == [True, False, True, False]
        assert [each.p for each in evidence] == [0.25] * 4
        assert [each.p_holm for each in evidence if each.declared] == [0.5, 0.5]
        assert all(math.isnan(each.p_holm) for each in evidence if not each.declared)

    def test_a_declared_family(self, tmp_path):
        result = report.build(known(tmp_path, declared=["double"]))
        assert [each.evaluation for each in result.family] == ["double", "double"]
        evidence = [comparison.tested["true"].evidence for comparison in result.comparisons]
        assert [each.declared for each in evidence] == [False, True, False, True]

    def test_enough_seeds_make_findings(self, tmp_path):
        result = report.build(known(tmp_path, seeds=list(range(8))))
        statuses = [comparison.tested["true"].verdict.status for comparison in result.comparisons]
        assert statuses == ["significant", "exploratory"] * 2
        assert result.headline == "All 2 declared comparisons are significant."
        higher, _, lower, _ = (comparison.tested["true"].verdict.text for comparison in result.comparisons)
        assert higher.startswith("true is 4.50 points higher than false: 95 % interval [+2.45, +6.55]")
        assert lower.startswith("true is 4.50 points lower than false")

    def test_the_margin_decides_equivalence(self, tmp_path):
        result = report.build(known(tmp_path, seeds=list(range(8)), margin=20))
        assert result.comparisons[0].tested["true"].verdict.status == "negligible"
        assert result.comparisons[0].tested["true"].evidence.outlook.effect == 20

    def test_transfers_compare_the_same_weights(self, root):
        result = report.build(root)
        assert [transfer.evaluation for transfer in result.transfers] == ["double"] * 4
        assert {transfer.difference.mean for transfer in result.transfers} == {10}
        assert result.transfers[0].difference.sd == 0
        assert result.transfers[0].tested == {"flag": "false", "size": "s64"}

    def test_interactions_are_differences_of_differences(self, root):
        own, double = report.build(root).interactions
        assert (own.evaluation, own.along, own.combination) == ("own", {"size": ("s32", "s33")}, {})
        assert own.difference.values == double.difference.values == (-2, -4, -6)
        assert own.tested.evidence.p == 0.25 and own.tested.verdict.status == "exploratory"

    @pytest.mark.parametrize(("seeds", "status"), [(6, "significant"), (5, "too_few")])
    def test_a_declared_interaction_alone_is_decided_by_six_seeds(self, tmp_path, seeds, status):
        family = [{"combination": {}, "evaluation": "own", "variant": "true", "interaction": {"size": ["s32", "s33"]}}]
        study = describe({**STUDY, "seeds": list(range(seeds))}) | {"family": family}
        records.open_study(tmp_path, study)
        for seed in study["seeds"]:
            for size, sign in (("s32", 1), ("s33", -1)):
                add_run(tmp_path, "false", size, seed, 50.0)
                add_run(tmp_path, "true", size, seed, 50.0 + sign * (seed + 1))
        result = report.build(tmp_path)
        (own,) = (each for each in result.interactions if each.evaluation == "own")
        assert own.tested.verdict.status == status and own.tested.evidence.declared
        assert [each.subject for each in result.declared] == ["true - false, size s33 against s32, tested as own"]
        if status == "significant":
            assert result.headline == "The declared comparison is significant."
            assert own.tested.evidence.p_holm == 2 / 2**6
            text = own.tested.verdict.text
            assert text.startswith("true - false at size s33 is 7.00 points lower than at size s32: 95 % interval [")
        (found, _) = report.to_json(result)["interactions"]
        assert found["declared"] and found["status"] == status
        assert f"| {own.label} | own | {seeds} |" in report.to_markdown(report.document(result))

    def test_a_declared_interaction_without_runs_is_missing(self, tmp_path):
        family = [{"combination": {}, "evaluation": "own", "variant": "true", "interaction": {"size": ["s32", "s33"]}}]
        records.open_study(tmp_path, describe(STUDY) | {"family": family})
        add_run(tmp_path, "false", "s32", 0, 50.0)
        result = report.build(tmp_path)
        assert result.headline == "No finding: nothing is compared yet." and len(result.uncompared) == 1

    def test_interactions_of_three_axes(self, tmp_path):
        axes = {"flag": ["false", "true"], "size": ["a", "b"], "net": ["x", "y"]}
        study = {**STUDY, "axes": axes, "train": axes, "evaluations": {"own": {}}, "seeds": [0, 1]}
        records.open_study(tmp_path, describe(study))
        for seed in (0, 1):
            for flag, size, net in ((f, s, n) for f in axes["flag"] for s in axes["size"] for n in axes["net"]):
                effect = (flag == "true") * (
                    1 + 2 * (size == "b") + 4 * (net == "y") + 8 * (size == "b") * (net == "y")
                )
                variants = {"flag": flag, "size": size, "net": net}
                write_scores(tmp_path, variants, seed, {"own": {"mIoU": 50.0 + seed + effect}})
        found = {
            (tuple(i.along), *i.combination.values()): i.difference.mean for i in report.build(tmp_path).interactions
        }
        assert found == {
            (("size",), "x"): 2,
            (("size",), "y"): 10,
            (("net",), "a"): 4,
            (("net",), "b"): 12,
            (("size", "net"),): 8,
        }

    def test_named_combinations_leave_gaps(self, tmp_path):
        combinations = [{"flag": flag, "size": "s32"} for flag in ("false", "true")] + [{"flag": "true", "size": "s33"}]
        records.open_study(tmp_path, describe({**STUDY, "train": combinations, "seeds": [0]}))
        result = report.build(tmp_path)
        assert [each["variants"] for each in result.unfinished] == [
            {"flag": "false", "size": "s32"},
            {"flag": "true", "size": "s32"},
            {"flag": "true", "size": "s33"},
        ]
        assert [each.combination for each in result.family] == [(("size", "s32"),)]

    def test_a_score_that_is_not_a_number_is_left_out(self, root):
        add_run(root, "true", "s32", 0, None)
        assert report.build(root).comparisons[0].differences["true"].seeds == (1, 2)

    def test_more_seeds_and_variants_than_planned_count(self, root):
        add_run(root, "false", "s64", 7, 40.0)
        add_run(root, "true", "s64", 7, 44.0)
        assert report.build(root).comparisons[-1].differences["true"].seeds == (7,)

    def test_runs_of_another_study_do_not_count(self, root):
        before = report.to_json(report.build(root))
        run = records.read_json(files(root, "true", "s32", 0).metrics)
        for name, variants in (
            ("flag=maybe,size=s32", {"flag": "maybe", "size": "s32"}),
            ("flag=true", {"flag": "true"}),
        ):
            records.write_json(root / name / "seed-0" / "metrics.json", {**run, "variants": variants})
        assert report.to_json(report.build(root)) == before

    def test_three_variants_are_compared_with_the_first(self, tmp_path):
        axes = {"flag": ["false", "true", "exact"]}
        study = {**STUDY, "axes": axes, "train": axes, "evaluations": {"own": {}}, "seeds": [0, 1]}
        records.open_study(tmp_path, describe(study))
        for seed in (0, 1):
            for flag, value in (("false", 50.0), ("true", 51.0), ("exact", 53.0)):
                write_scores(tmp_path, {"flag": flag}, seed, {"own": {"mIoU": value + seed}})
        (comparison,) = report.build(tmp_path).comparisons
        assert {name: difference.mean for name, difference in comparison.differences.items()} == {"true": 1, "exact": 3}
        assert "exact - false" in text(report.build(tmp_path))

    def test_a_metric_in_pixels(self, tmp_path):
        study = {**STUDY, "metric": "dx_drift", "seeds": [0]}
        records.open_study(tmp_path, describe(study))
        for flag, value in (("false", 0.5), ("true", 3.0)):
            write_scores(tmp_path, {"flag": flag, "size": "s32"}, 0, {"own": {"dx_drift": value}})
        result = report.build(tmp_path)
        assert "+2.50 px between two single trainings" in result.comparisons[0].tested["true"].verdict.text
        assert "dx_drift (px)" in text(result)
        assert any("not for dx_drift" in sentence for sentence in result.missing)


class TestSynthetic:
    """true - false is negative by construction, and displacements are those of ``synthetic.OFFSETS``."""

    def test_the_image_bootstrap_has_the_mean_of_the_scores(self, written):
        _, result = written
        for comparison in result.comparisons:
            evidence = comparison.tested["true"].evidence
            assert evidence.images.mean == pytest.approx(evidence.difference.mean, abs=1e-9)
            assert evidence.images.student.low <= evidence.difference.low
            assert evidence.images.student.high >= evidence.difference.high

    @pytest.mark.parametrize(
        ("flag", "evaluation", "ends"),
        [
            ("false", "own", (0, 0)),
            ("true", "own", (-1, 1)),
            ("true", "larger", (-1, 1)),
            ("true", "other_flag", (0, 0)),
            ("false", "other_flag", (-1, 1)),
        ],
    )
    def test_displacement(self, written, flag, evaluation, ends):
        _, result = written
        (found,) = (d for d in result.displaced if (d.variant, d.evaluation) == (flag, evaluation))
        expected = np.interp([1 / 6, 1 / 2, 5 / 6], [0, 1], ends)
        for shift in (found.x, found.y):
            assert shift.profile.shape == (3, 6)
            assert [np.mean(third) for third in shift.thirds] == pytest.approx(expected, abs=0.2)
            # Here training absorbs the constant part alone.
            assert shift.shift_absorbed == pytest.approx(expected)
        assert found.found > 80

    def test_what_the_audit_predicts_if_all_is_absorbed(self, written):
        _, result = written
        found = {(d.variant, d.evaluation): d.x.absorbed for d in result.displaced}
        assert found["true", "own"] == (0, 0, 0)  # nothing is left of what it was trained with
        assert found["true", "other_flag"] == pytest.approx((2 / 3, 0, -2 / 3))
        assert found["false", "other_flag"] == pytest.approx((-2 / 3, 0, 2 / 3))

    def test_curves_are_the_scalars_of_the_evaluators(self, written):
        root, result = written
        record = records.read_json(files(root, "true", "s64", 1).evaluation("larger"))
        for curves, name, widths in (
            (result.trimap, "mIoU_trimap", [1, 2, 3, 5, 8, 12, 20, 32]),
            (result.boundary, "mBIoU", [1, 2, 3, 5]),
        ):
            (curve,) = (curve for curve in curves if curve.evaluation == "larger")
            assert list(curve.scores) == [f"{width}px" for width in widths]
            for width in curve.scores:
                assert curve.scores[width]["true"][1] == record["metrics"][f"{name}_{width}"]
                assert curve.differences[width]["true"].n == 3

    def test_classes(self, written):
        _, result = written
        (classes,) = result.classes
        assert tuple(classes.scores) == synthetic.CLASSES
        assert classes.evaluation == "own"
        assert classes.differences["disc"]["true"].mean < 0

    def test_nothing_is_missing(self, written):
        assert written[1].missing == []
        assert not any("labelled edges" in sentence for sentence in written[1].caveats)

    def test_predictions_without_edges_are_said(self, tmp_path):
        noise = {"false": 0.9, "true": 0.02}
        root = synthetic.write_study(tmp_path, noise, seeds=[0], evaluations={"own": {}})
        assert any("In 1 of 2 trained and tested variants" in sentence for sentence in report.build(root).caveats)

    def test_predictions_of_one_class_have_no_displacement(self, tmp_path, monkeypatch):
        scene = synthetic.scene
        monkeypatch.setattr(
            synthetic, "scene", lambda size, seed, *ends: 0 * scene(size, seed) if ends else scene(size, seed)
        )
        root = synthetic.write_study(tmp_path, {"false": 0, "true": 0}, seeds=[0], evaluations={"own": {}})
        result = report.build(root)
        assert any("In 2 of 2 trained and tested variants" in sentence for sentence in result.caveats)
        content = report.to_markdown(report.document(result))
        assert (
            "| s64 | own | true | dx | not measurable | not measurable | not measurable | not measurable |" in content
        )


class TestWhatIsMissing:
    """Sections whose data is absent are left out, and the report says which."""

    def test_missing_evaluators(self, root):
        result = report.build(root)
        assert result.missing == [
            "Intervals with other test images: per-image confusion matrices are absent, in s32, own; s32, double; "
            "s33, own; s33, double.",
            "Displacement profiles, audit: the study has no evaluator of type DisplacementMetric.",
            "Trimap curves: the study has no evaluator of type TrimapIoUMetric.",
            "Boundary IoU: the study has no evaluator of type BoundaryIoUMetric.",
        ]
        content = report.to_markdown(report.document(result))
        assert "Trimap curves: the study has no evaluator of type TrimapIoUMetric." in section(content, "Verdict")
        assert re.findall(r"^## (.*)", content, re.MULTILINE) == [
            "Verdict",
            "Every seed",
            "Paired differences",
            "Interactions",
            "Trained one way, tested another",
            "How many seeds",
            "Cost",
            "Provenance",
        ]

    def test_per_image_counts_that_were_removed(self, written, tmp_path):
        root = tmp_path / "copy"
        shutil.copytree(written[0], root)
        for path in root.glob("*/seed-1/evaluations/own/*.npz"):
            path.unlink()
        result = report.build(root)
        assert result.missing == [
            "Intervals with other test images: per-image confusion matrices are absent, in s64, own.",
            "Displacement profiles: per-image counts are absent, in 2 evaluations.",
        ]
        assert [tuple(d.seeds) for d in result.displaced if d.evaluation == "own"] == [(0, 2), (0, 2)]

    def test_frames_of_few_videos_are_not_redrawn(self, written, tmp_path):
        root = tmp_path / "copy"
        shutil.copytree(written[0], root)
        study = records.read_json(root / "study.json")
        records.write_json(root / "study.json", {**study, "sequences": "^."})
        (missing,) = report.build(root).missing
        assert missing.startswith(
            "Intervals with other test images: too few videos to redraw their frames (4; from 10 on)"
        )

    def test_a_description_of_an_older_version(self, written, tmp_path):
        study = records.read_json(written[0] / "study.json")
        del study["combinations"]
        records.write_json(tmp_path / "study.json", study)
        with pytest.raises(StudyError, match=r"written by an older version\. Run the study's command again"):
            report.build(tmp_path)

    def test_an_audit_that_failed(self, written, tmp_path):
        root = tmp_path / "copy"
        shutil.copytree(written[0], root)
        for path in root.glob("*/seed-*/metrics.json"):
            run = records.read_json(path)
            for record in run["evaluations"].values():
                record["audit"] = {"error": "ValueError: no"}
            records.write_json(path, run)
        result = report.build(root)
        assert result.missing == ["Prediction of the audit: it could not follow some networks (ValueError: no)."]
        assert "Predicted by the audit" not in report.to_markdown(report.document(result))

    def test_nothing_finished(self, tmp_path):
        records.open_study(tmp_path, describe(STUDY))
        result = report.build(tmp_path)
        assert len(result.unfinished) == 12
        assert result.headline == "No finding: nothing is compared yet."
        assert "nothing is compared yet" in result.caveats[0]
        content = report.to_markdown(report.document(result))
        assert content.count("**not compared yet**: size=") == 2
        assert "Planned and not finished, 12 runs" in content
        assert all(path.exists() for path in report.write(result, tmp_path))
        assert "No finding" in text(result)

    def test_too_few_seeds_are_said_once(self, root):
        result = report.build(root)
        content = report.to_markdown(report.document(result))
        verdict = section(content, "Verdict")
        assert verdict.count("too few") == verdict.count("significant") == 1
        assert verdict.split("\n\n")[:3] == [
            "\n**No finding: 3 seeds are too few for any of 2 declared comparisons to be significant, whatever the "
            "numbers: that takes 7.**",
            "Seen, in points, with 95 % intervals that take differences to be normally distributed:",
            "- size=s32, true - false, tested as own: +2.00 [-0.48, +4.48]\n"
            "- size=s33, true - false, tested as own: -2.00 [-4.48, +0.48]",
        ]
        assert "smallest p" not in verdict and any("smallest p" in sentence for sentence in result.caveats)
        assert "smallest p" not in report.to_markdown(report.document(report.build_many([root])))

    def test_what_differs_from_too_few_seeds_keeps_its_verdict(self, root):
        for seed in (0, 1, 2):
            add_run(root, "true", "s33", seed, 50.0 + seed)
        files(root, "true", "s32", 2).metrics.unlink()
        verdict = section(report.to_markdown(report.document(report.build(root))), "Verdict")
        assert "- size=s32, true - false, tested as own: +1.50 [-4.85, +7.85], 2 seeds\n" in verdict
        assert "- **identical**: size=s33, true - false, tested as own." in verdict

    def test_failed_and_unfinished_runs(self, root):
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
        content = report.to_markdown(report.document(result))
        assert "| true | s32 | 1 | ValueError: wrong | flag=true,size=s32/seed-1/log.txt |" in content

    def test_one_seed(self, tmp_path):
        result = report.build(known(tmp_path, seeds=[0]))
        assert "+1.00 (1 seed)" in text(result)
        assert "has no interval" in result.caveats[0]
        report.write(result, tmp_path)
        for content in [text(result), *(path.read_text() for path in tmp_path.glob("report.*"))]:
            assert not re.search(r"\b1 (seeds|runs|rows)\b", content)
        verdict = section((tmp_path / "report.md").read_text(), "Verdict")
        assert "Seen, in points, one training of each: mostly noise." in verdict
        assert "- size=s32, true - false, tested as own: +1.00 (1 seed)\n" in verdict
        (difference,) = json.loads((tmp_path / "report.json").read_text())["comparisons"][0]["differences"]
        assert difference["sd"] is difference["low"] is difference["high"] is None
        assert difference["status"] == "single"

    def test_mixed_environments_and_uncommitted_changes_are_said(self, root):
        dirty = {**ENVIRONMENT, "git": {"commit": "0123456789abc", "dirty": True}}
        add_run(root, "true", "s32", 0, 51.0, environment=dirty)
        result = report.build(root)
        assert sorted(environment["attempts"] for environment in result.environments) == [1, 11]
        assert any("2 different environments" in sentence for sentence in result.caveats)
        assert any("uncommitted changes" in sentence for sentence in result.caveats)
        assert "| 0123456789 with changes |" in report.to_markdown(report.document(result))

    def test_exploratory_differences_are_counted(self, root):
        assert any(sentence.startswith("2 further differences are shown") for sentence in report.build(root).caveats)

    def test_a_directory_without_a_study(self, tmp_path):
        with pytest.raises(StudyError, match=r"has no study.json. Run the study first"):
            report.build(tmp_path)

    def test_the_cost_is_that_of_the_runs_not_of_the_axes(self, tmp_path):
        """Six axes of 30 variants have 729 million combinations, of which two were trained."""
        axes = {f"a{axis}": [f"v{n}" for n in range(30)] for axis in range(6)}
        train = [{f"a{axis}": first if axis == 0 else "v29" for axis in range(6)} for first in ("v7", "v3")]
        study = {**STUDY, "axes": axes, "train": train, "compare": "a0", "evaluations": {"own": {}, "other": {}}}
        records.open_study(tmp_path, synthetic.describe(study))
        for seed, variants in itertools.product(study["seeds"], train):
            scores = {name: {"mIoU": 50.0 + seed + int(variants["a0"][1:])} for name in study["evaluations"]}
            synthetic.write_scores(tmp_path, variants, seed, scores)
        result = report.build(tmp_path)
        report.write(result, tmp_path)
        assert [list(comparison.scores) for comparison in result.comparisons] == [["v3", "v7"]] * 2
        assert result.comparisons[0].differences["v7"].mean == 4
        assert [row.variants["a0"] for row in result.transfers] == ["v3", "v7"]

    def test_files_of_another_version_are_refused(self, root):
        (root / "study.json").write_text(json.dumps({**STUDY, "schema": 99}))
        with pytest.raises(StudyError, match=rf"study.json: expected schema {records.SCHEMA}, got 99"):
            report.build(root)

    def test_nan_never_reaches_a_file(self, tmp_path):
        with pytest.raises(ValueError, match="not JSON compliant"):
            records.write_json(tmp_path / "x.json", {"value": math.nan})
        assert not list(tmp_path.iterdir())


class TestFiles:
    def test_tables_fit_a_terminal(self, root):
        shown = text(report.build(root), width=80)
        assert "51.00 ± 1.00" in shown
        assert "+2.00 [-0.48, +4.48]" in shown
        assert "+1.00 +2.00 +3.00" in shown
        assert "+10.00 (3 seeds alike)" in shown
        assert "No finding: 3 seeds are too few for any of 2 declared comparisons" in " ".join(shown.split())

    def test_markdown(self, root):
        content = report.to_markdown(report.document(report.build(root)))
        assert content.startswith("# known\n\n12 runs of base.py, paired by seed, 3 seeds each: mIoU (%) by flag.\n")
        assert content.index("No finding: 3 seeds") < content.index("51.00 ± 1.00")
        assert "| s32 | own | 50.00 ± 1.00" not in content
        assert "| s32 | own | 51.00 ± 1.00 | 53.00 ± 2.00 |" in content
        assert "| s32 | own | true - false | 3 | +2.00 [-0.48, +4.48] |  | +1.00 +2.00 +3.00 | 0.25 | 0.5 |" in content
        assert "](figures/seeds.png)" in content
        assert "| false | s32 | 3 | 8 | 12 s | 0 s | 3 MiB |" in content
        assert "Peak memory: allocated on the GPU." in content
        assert "| 3.11 | 2.13 | a processor | 1 | 12 | none |" in content
        assert "Failed" not in content

    def test_json(self, written):
        root, _ = written
        content = json.loads((root / "report.json").read_text())
        assert content["schema"] == records.SCHEMA
        assert content["study"]["compare"] == "flag"
        (difference,) = content["comparisons"][0]["differences"]
        assert (difference["variant"], difference["reference"], difference["n"]) == ("true", "false", 3)
        assert difference["smallest_p"] == difference["p"] == 0.25
        assert len(content["runs"]) == 6
        assert len(content["displacement"]) == 6
        for path in root.glob("report.*"):
            assert str(root) not in path.read_text()

    def test_page_markdown_and_json_agree(self, written):
        root, _ = written
        data = json.loads((root / "report.json").read_text())
        markdown = (root / "report.md").read_text()
        page = (root / "report.html").read_text()
        for comparison in data["comparisons"]:
            (difference,) = comparison["differences"]
            cell = f"{difference['mean']:+.2f} [{difference['low']:+.2f}, {difference['high']:+.2f}]"
            seeds = " ".join(f"{value:+.2f}" for value in difference["seeds"].values())
            low, high = difference["images"]["student"]
            cells = (comparison["evaluation"], "true - false", "3", cell, f"[{low:+.2f}, {high:+.2f}]", seeds)
            assert f"| s64 | {' | '.join(cells)} |" in markdown
            assert re.search("<td[^>]*>".join(["", *(f"{re.escape(each)}</td>" for each in cells)]), page)
            if difference["declared"]:
                shown = f"tested as {comparison['evaluation']}: {cell}"
                assert f"- size=s64, true - false, {shown}\n" in markdown and f"{shown}</li>" in page

    def test_every_table_of_the_page_is_in_the_markdown(self, written):
        root, _ = written
        page, markdown = ((root / f"report.{suffix}").read_text() for suffix in ("html", "md"))
        rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]
        plain = [[html.unescape(cell) for cell in row] for row in rows if row]
        assert len(plain) > 80
        escaped = markdown.replace("\\|", "|").replace("\\<", "<").replace("\\*", "*")
        for row in plain:
            assert f"| {' | '.join(row)} |" in escaped

    def test_the_page_stands_alone(self, written):
        page = (written[0] / "report.html").read_text()
        assert page.startswith("<!DOCTYPE html>")
        assert not re.search(r"<(script|link|iframe|img|object|embed)\b", page)
        loaded = re.findall(r"(?:src|href|url|@import)\s*[=(]?\s*[\"']?([^\"')\s>]+)", re.sub("xmlns[^ ]*", "", page))
        assert loaded
        # Anchors, and the cells of the matrices, which are pictures within the page.
        assert all(target.startswith(("#", "data:image/png;base64,")) for target in loaded)
        assert not re.search(r"https?://", re.sub(r'xmlns(:\w+)?="[^"]*"', "", page))

    def test_a_figure_links_to_the_table_of_its_section(self, written):
        page = (written[0] / "report.html").read_text()
        linked = folded = 0
        for part in re.findall(r'<section id="[^"]+">.*?</section>', page, re.DOTALL):
            for figure in re.findall(r"<figure .*?</figure>", part, re.DOTALL):
                (key,) = re.findall(r'<a href="#(table-[^"]+)">The numbers</a></figcaption>', figure)
                (before,) = re.findall(rf'(\S+)\n<div class="table" id="{key}"><table>', part)
                linked += 1
                # A browser opens what holds the target: the details must not be the target themselves.
                folded += before.endswith("rows</summary>")
        assert linked == 7 and folded >= 2

    def test_a_figure_without_a_table_has_no_link(self, written):
        plot = figures.displacement(written[1])
        content = Document("x", "y", [Section("s", "S", [Picture(plot)])])
        assert "The numbers" not in report.to_html(content)

    def test_ids_of_the_page_are_unique(self, written):
        page = (written[0] / "report.html").read_text()
        ids = re.findall(r'\bid="([^"]+)"', page)
        assert len(ids) == len(set(ids))
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(ids)

    def test_names_that_look_like_markup_stay_text(self, written):
        root, _ = written
        assert "a|b &lt;c&gt; *d*</td>" in (root / "report.html").read_text()
        assert "| a\\|b \\<c> \\*d\\* |" in (root / "report.md").read_text()

    def test_colours_of_figures_are_variables_of_the_page(self, written):
        page = (written[0] / "report.html").read_text()
        styles, _, body = page.partition("</style>")
        used = set(re.findall(r"var\(--([\w-]+)", body))
        assert {"ink", "grid", "series-0", "series-1"} <= used
        assert all(f"--{name}:" in styles for name in used)

    def test_is_a_function_of_the_directories(self, written, tmp_path):
        root, _ = written
        elsewhere = tmp_path / "moved"
        shutil.copytree(root, elsewhere)
        for path in [*elsewhere.glob("report.*"), *elsewhere.glob("figures/*")]:
            path.unlink()
        report.write(report.build(elsewhere), elsewhere)
        made = [path.relative_to(root) for path in [*root.glob("report.*"), *root.glob("figures/*")]]
        assert len(made) == 3 + 2 * 7
        for name in made:
            assert (elsewhere / name).read_bytes() == (root / name).read_bytes(), name

    def test_figures(self, written):
        root, _ = written
        names = ("seeds", "differences", "deployment", "displacement", "trimap", "boundary", "audit")
        for name in names:
            assert (root / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
            assert "<svg" in (root / "figures" / f"{name}.svg").read_text()[:400]
        assert not list(root.glob("**/.*.png"))
        assert set(names) <= set(figures.NAMES)

    def test_pictures_have_a_palette_of_their_own_colours(self, written, tmp_path):
        _, result = written
        plot = figures.displacement(result)
        path, _ = panels.save(plot, tmp_path)
        with Image.open(path) as image:
            assert image.mode == "P" and len(image.getcolors()) <= panels.PALETTE
            assert image.getpixel((0, 0)) == image.getpixel((image.width - 1, image.height - 1))
            colours = np.asarray(image.convert("RGB"))
        assert (colours[0, 0] == 255).all()  # paper stays white
        drawn = {tuple(colour) for colour in colours.reshape(-1, 3)}
        for name in (panels.INK, *panels.SERIES[:2]):
            wanted = np.array([int(name[i : i + 2], 16) for i in (1, 3, 5)])
            assert min(np.abs(wanted - colour).max() for colour in drawn) <= 8

    def test_the_json_has_a_line_per_run(self, written):
        lines = (written[0] / "report.json").read_text().splitlines()
        runs = lines[lines.index('"runs": [') + 1 :]
        assert [json.loads(line.rstrip(","))["seed"] for line in runs[:6]] == [0, 0, 1, 1, 2, 2]
        assert runs[6] == "],"

    def test_panels_that_are_said_to_span_one_range_do(self, tmp_path):
        result = report.build(known(tmp_path, seeds=[0, 1, 2]))

        def limits():
            plot = figures.seeds(result)
            for panel in plot.panels:
                axes = Figure().subplots()
                panel.draw(axes)
                yield plot.caption, axes.get_ylim()

        apart = list(limits())
        assert len({limit for _, limit in apart}) > 1
        assert len({round(float(high - low), 6) for _, (low, high) in apart}) == 1
        assert apart[0][0].endswith("Equal heights are equal differences in all panels.")
        for comparison in result.comparisons:
            low = min(value for of_variant in comparison.scores.values() for value in of_variant.values())
            for of_variant in comparison.scores.values():
                of_variant.update({seed: value - low for seed, value in of_variant.items()})
        near = list(limits())
        assert len(near) > 1 and len({limit for _, limit in near}) == 1
        assert near[0][0].endswith("All panels span the same range.")

    @pytest.mark.parametrize(
        ("seeds", "said"),
        [([0], "All rows: 1 seed."), ([0, 1, 2], "All rows: 3 seeds."), ([0, 1], "All rows: 2 seeds.")],
    )
    def test_what_all_rows_of_a_figure_share_is_said_once(self, tmp_path, seeds, said):
        plot = figures.differences(report.build(known(tmp_path, seeds=seeds)))
        assert plot.caption.endswith(f" {said} All panels span the same range.")
        axes = Figure().subplots()
        plot.panels[0].draw(axes)
        assert not any("seed" in each.get_text() for each in axes.texts)

    def test_what_rows_of_a_figure_do_not_share_stands_beside_them(self, root):
        files(root, "true", "s32", 0).metrics.unlink()
        plot = figures.differences(report.build(root))
        assert "All rows" not in plot.caption
        axes = Figure().subplots()
        plot.panels[0].draw(axes)
        assert [each.get_text().partition("(")[2] for each in axes.texts] == ["2 seeds)", "3 seeds)"]

    @pytest.mark.parametrize(("seeds", "filled"), [(3, False), (6, False), (8, True)])
    def test_only_findings_are_filled(self, tmp_path, seeds, filled):
        plot = figures.differences(report.build(known(tmp_path, seeds=list(range(seeds)))))
        for panel, declared in zip(plot.panels, (True, False), strict=True):
            axes = Figure().subplots()
            panel.draw(axes)
            means = [line for line in axes.lines if line.get_marker() == "D"]
            assert len(means) == 2
            assert all((line.get_markerfacecolor() != "none") is (filled and declared) for line in means)

    def test_figures_that_are_no_longer_made_are_removed(self, root):
        result = report.build(root)
        (root / "figures").mkdir()
        for name in ("trimap.png", "mine.png"):
            (root / "figures" / name).write_bytes(b"old")
        report.write(result, root)
        assert not (root / "figures" / "trimap.png").exists()
        assert (root / "figures" / "mine.png").exists()


class TestSeveral:
    @pytest.fixture
    def roots(self, tmp_path):
        return [known(tmp_path / "a"), known(tmp_path / "b", name="other", seeds=list(range(8)), base="other.py")]

    def test_every_study_has_its_verdict(self, roots):
        collection = report.build_many(roots)
        content = report.to_markdown(report.document(collection))
        assert list(collection.names) == ["known", "other"]
        assert "\n**known: No finding: 3 seeds are too few" in content
        assert "\n**other: All 2 declared comparisons are significant.**\n" in content
        assert content.count("\n- known, size=s3") == 2 and "too few seeds: no finding**: known" not in content
        assert content.count("**significant**: other, size=") == 2
        assert "No finding" in text(collection)
        assert any("nothing is corrected across studies" in sentence for sentence in collection.caveats)
        assert any("different base configs" in sentence for sentence in collection.caveats)

    def test_files(self, roots, tmp_path):
        collection = report.build_many(roots)
        paths = report.write(collection, tmp_path / "both")
        assert [path.name for path in paths] == ["report.html", "report.md", "report.json"]
        assert {path.name for path in (tmp_path / "both" / "figures").iterdir()} == {"studies.png", "studies.svg"}
        content = json.loads(paths[2].read_text())
        assert [study["name"] for study in content["studies"]] == ["known", "other"]
        assert "+2.00 [-0.48, +4.48]" in paths[0].read_text()

    def test_studies_of_one_name_are_told_apart(self, tmp_path):
        collection = report.build_many([known(tmp_path / "a"), known(tmp_path / "b")])
        assert list(collection.names) == ["known (a)", "known (b)"]

    def test_a_study_cannot_stand_beside_itself(self, root):
        with pytest.raises(StudyError, match="expected different directories of studies"):
            report.build_many([root, root / "."])
