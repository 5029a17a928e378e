"""What a study expands into, and the errors that a wrong one gets."""

import re
from pathlib import Path

import pytest
from mmengine.config import Config

from mmseg_resample.study import loading, plan
from mmseg_resample.study.throughput import OPTIONS

ROOT = Path(__file__).parents[2]
SIZES = {
    "s32": {"train_dataloader.dataset.size": (32, 32), "test_dataloader.dataset.size": (32, 32)},
    "s33": {"train_dataloader.dataset.size": (33, 33), "test_dataloader.dataset.size": (33, 33)},
}
FLAG = {
    "false": {"model.decode_head.align_corners": False},
    "true": {"model.decode_head.align_corners": True},
}


class TestRuns:
    def test_one_seed_after_the_other(self, write_study):
        study = loading.load(write_study(train={"size": ["s33", "s32"]}))
        assert [run.directory for run in study.runs()] == [
            f"align_corners={flag},size={size}/seed-{seed}"
            for seed in (0, 1)
            for flag in ("false", "true")
            for size in ("s33", "s32")
        ]
        assert study.runs()[0].label == "align_corners=false size=s33 seed 0"

    def test_policies_and_entries_by_type_on_any_base(self, write_study):
        by_weights = {"policy": {"exact": True, "level_shifts": [(1, 2)]}}
        axes = {"align_corners": FLAG | {"exact": {"policy": "exact+pad"}, "by_weights": by_weights}, "step": {
            "rare": {"train_dataloader.dataset.pipeline.RandomFlip.prob": 0.25},
            "often": {"train_dataloader.dataset.pipeline.RandomFlip.prob": 0.75},
        }}  # fmt: skip
        study = loading.load(write_study(axes=axes, train={}, evaluations={"own": {}}, family=None))
        configs = {tuple(run.variants.values()): run.config for run in study.runs()}
        policy = configs["exact", "often"].model.resize_policy
        assert policy["exact"] and policy["pad"] == "replicate"
        assert configs["by_weights", "rare"].model.resize_policy == by_weights["policy"]
        steps = [configs["true", step].train_dataloader.dataset.pipeline[1] for step in ("rare", "often")]
        assert [step.prob for step in steps] == [0.25, 0.75]

    def test_variants_and_seed_are_in_the_config(self, write_study):
        study = loading.load(write_study(config={"randomness.deterministic": True}))
        run = study.runs()[-1]
        assert (run.variants, run.seed) == ({"align_corners": "true", "size": "s32"}, 1)
        assert run.config.model.decode_head.align_corners is True
        assert run.config.train_dataloader.dataset.size == (32, 32)
        assert run.config.randomness == {"deterministic": True, "seed": 1}

    def test_evaluations_map_trained_variants_to_tested_ones(self, write_study):
        flip = {"align_corners": {"false": "true", "true": "false"}}
        evaluations = {"own": {}, "flipped": flip, "both": {**flip, "size": {"s32": "s48", "s33": "s33"}}}
        own, flipped, both = loading.load(write_study(evaluations=evaluations)).runs()[0].evaluations
        assert [evaluation.variants for evaluation in (own, flipped, both)] == [
            {"align_corners": "false", "size": "s32"},
            {"align_corners": "true", "size": "s32"},
            {"align_corners": "true", "size": "s48"},
        ]
        assert both.config.model.decode_head.align_corners is True
        assert both.config.test_dataloader.dataset.size == (48, 48)
        assert both.overrides == {"model.decode_head.align_corners": True, "test_dataloader.dataset.size": (48, 48)}
        assert own.config.test_dataloader.dataset.size == (32, 32)

    def test_without_evaluations_the_model_is_tested_as_trained(self, write_study):
        study = loading.load(write_study(without=["evaluations", "metric", "train"]))
        assert list(study.evaluations) == ["own"]
        assert study.metric == "mIoU"
        assert study.train["size"] == ["s32", "s33", "s48"]

    def test_named_combinations(self, write_study):
        """One after the other; an axis that is left out has all its variants."""
        study = loading.load(write_study(train=[{"size": ["s33"]}, {"align_corners": "true", "size": "s32"}]))
        expected = [("false", "s33"), ("true", "s33"), ("true", "s32")]
        assert [tuple(run.variants.values()) for run in study.runs()] == expected * 2
        assert study.train == {"align_corners": ["false", "true"], "size": ["s33", "s32"]}
        assert study.describe()["combinations"][2] == {"align_corners": "true", "size": "s32"}

    def test_the_family_is_what_runs_allow_under_the_first_evaluation(self, write_study):
        train = [{"size": ["s33"]}, {"align_corners": "true", "size": "s32"}]
        assert loading.load(write_study(train=train)).describe()["family"] == [
            {"combination": {"size": "s33"}, "evaluation": "own", "variant": "true"}
        ]

    def test_a_declared_family(self, write_study):
        family = [{"evaluation": "larger", "size": "s33"}, {"size": ["s33"]}]
        study = loading.load(write_study(train={"size": ["s32", "s33"]}, family=family))
        assert [(c.combination, c.evaluation, c.variant) for c in study.family] == [
            ((("size", "s33"),), "own", "true"),
            ((("size", "s33"),), "larger", "true"),
        ]

    def test_declared_interactions(self, write_study):
        family = [{"interaction": {"size": ["s32", "s33"]}, "evaluation": "own"}, {"evaluation": "own", "size": "s32"}]
        study = loading.load(write_study(train={"size": ["s32", "s33"]}, family=family))
        assert [(c.combination, c.evaluation, c.variant, c.along) for c in study.family] == [
            ((("size", "s32"),), "own", "true", ()),
            ((), "own", "true", (("size", ("s32", "s33")),)),
        ]
        assert study.describe()["family"][1] == {
            "combination": {}, "evaluation": "own", "variant": "true", "interaction": {"size": ["s32", "s33"]},
        }  # fmt: skip

    def test_the_reference_is_the_first_variant_of_the_axis_whatever_is_trained_first(self, write_study):
        study = loading.load(write_study(train={"align_corners": ["true", "false"], "size": ["s32"]}))
        assert [comparison.variant for comparison in study.family] == ["true"]

    def test_margin(self, write_study):
        assert loading.load(write_study()).describe()["margin"] == 0.5
        assert loading.load(write_study(margin=2)).describe()["margin"] == 2

    def test_speed_is_the_same_for_all(self, write_study):
        study = loading.load(write_study(speed={"channels_last": True}))
        assert study.describe()["speed"] == {**OPTIONS, "channels_last": True}
        configs = [config for run in study.runs() for config in (run.config, *(e.config for e in run.evaluations))]
        assert all({"type": "ChannelsLastHook"} in config.custom_hooks for config in configs)

    def test_the_rule_to_stop_is_the_same_for_all(self, write_study):
        rule = {"iteration": 4, "loss_above": 9.0}
        study = loading.load(write_study(stop_if=rule))
        assert [run.config.stop_if for run in study.runs()] == [rule] * 4
        assert "stop_if" not in loading.load(write_study()).runs()[0].config

    @pytest.mark.parametrize("metric", ["mAcc", "dx_left", "mBIoU_5px", "mIoU_trimap_32px"])
    def test_any_scalar_of_the_evaluators_can_be_compared(self, write_study, metric):
        assert loading.load(write_study(metric=metric)).metric == metric

    def test_evaluators(self, write_study):
        assert list(loading.load(write_study()).describe()["evaluators"]) == ["displacement", "boundary", "trimap"]
        evaluators = {"wide": {"type": "BoundaryIoUMetric", "widths": [0.02], "prefix": "wide"}}
        study = loading.load(write_study(evaluators=evaluators, metric="wide/mBIoU_2pct"))
        assert study.describe()["evaluators"] == evaluators
        assert study.runs()[0].evaluations[1].evaluators == evaluators

    def test_what_only_an_evaluation_can_tell_is_not_refused(self, write_study):
        """mmseg's own metrics name what they return when they return it."""
        path = write_study(evaluators={"stock": {"type": "IoUMetric", "prefix": "stock"}}, metric="stock/mIoU")
        assert loading.load(path).metric == "stock/mIoU"

    def test_seeds_and_options_from_the_command_line(self, write_study):
        study = loading.load(write_study(), seeds=[7], options={"train_cfg.max_iters": 4})
        assert study.seeds == [7]
        assert study.runs()[0].config.train_cfg.max_iters == 4
        assert study.runs()[0].evaluations[0].config.train_cfg.max_iters == 4

    def test_runs_do_not_share_state(self, write_study):
        first, second, *_ = loading.load(write_study()).runs()
        first.config.model.decode_head.align_corners = "changed"
        first.config.test_dataloader.dataset.pipeline.clear()
        assert second.config.model.decode_head.align_corners is True
        assert second.config.test_dataloader.dataset.pipeline

    def test_a_base_that_mmseg_ships(self, write_study):
        path = write_study(
            base="mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py",
            axes={"flag": FLAG},
            train={},
            evaluations={"own": {}},
            compare="flag",
        )
        assert loading.load(path).runs()[0].config.model.backbone.depth == 50

    def test_no_validation_while_training(self, write_study):
        config = loading.load(write_study(config={"val_cfg": {"type": "ValLoop"}})).runs()[0].config
        assert config.val_cfg is config.val_dataloader is config.val_evaluator is None


class TestCheckpoints:
    def checkpoint(self, write_study, **config):
        return loading.load(write_study(config=config)).runs()[0].config.default_hooks.checkpoint

    def test_four_per_training_and_two_kept(self, write_study):
        checkpoint = self.checkpoint(write_study, **{"train_cfg.max_iters": 10})
        assert (checkpoint.by_epoch, checkpoint.interval, checkpoint.max_keep_ckpts) == (False, 3, 2)

    def test_the_base_config_decides(self, write_study):
        hook = {"type": "CheckpointHook", "by_epoch": False, "interval": 5, "max_keep_ckpts": 3, "save_best": "mIoU"}
        checkpoint = self.checkpoint(write_study, **{"default_hooks.checkpoint": hook})
        assert (checkpoint.interval, checkpoint.max_keep_ckpts, "save_best" in checkpoint) == (5, 3, False)

    def test_an_interval_that_is_never_reached_is_no_decision(self, write_study):
        hook = {"type": "CheckpointHook", "by_epoch": False, "interval": 2000}
        assert self.checkpoint(write_study, **{"default_hooks.checkpoint": hook}).interval == 2

    def test_epochs(self, write_study):
        train_cfg = {"_delete_": True, "by_epoch": True, "max_epochs": 12}
        hook = {"type": "CheckpointHook", "by_epoch": False, "interval": 2}
        checkpoint = self.checkpoint(write_study, **{"train_cfg": train_cfg, "default_hooks.checkpoint": hook})
        assert (checkpoint.by_epoch, checkpoint.interval) == (True, 3)

    def test_a_training_needs_a_length(self, write_study):
        with pytest.raises(plan.StudyError, match=r"neither max_iters nor max_epochs .* Change the base config"):
            loading.load(write_study(config={"train_cfg": {"_delete_": True, "type": "IterBasedTrainLoop"}}))


def axes(**changes):
    return {"align_corners": FLAG, "size": SIZES, **changes}


LARGE = {"test_dataloader.dataset.size": (64, 64)}
MANY = {f"a{axis}": {f"v{n}": {key: n} for n in range(1, 31)} for axis, key in enumerate(
    ("train_dataloader.batch_size", "test_dataloader.batch_size", "train_cfg.val_interval",
     "model.decode_head.channels", "model.decode_head.num_convs", "optim_wrapper.optimizer.lr"))}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation": {}}, r"tiny.py: evaluation: is not a key of a study. Did you mean 'evaluations'\?"),
        ({"base": 3}, r"base: expected the path of a config, got 3"),
        ({"base": "bass.py"}, r"base '.*bass.py' does not exist"),
        ({"base": "mmseg::fcn/none.py"}, r"base 'mmseg::fcn/none.py' "),
        ({"axes": {}}, r"axes: expected a dict from axis names to variants, got {}. It needs an entry"),
        ({"axes": axes(size={})}, r"axes.size: expected a dict from variant names"),
        ({"axes": axes(**{"a/b": SIZES})}, r"axes.a/b: 'a/b' cannot be part of a path"),
        ({"axes": axes(size={"..": {}})}, r"axes.size...: '..' cannot be part of a path"),
        (
            {"axes": axes(size={**SIZES, "s64": {"test_dataloader.dataset.sizes": 64}})},
            r"axes.size.s64: 'test_dataloader.dataset.sizes' is not in the base config, and .* read by nothing. "
            r"Did you mean 'test_dataloader.dataset.size'\? If it is meant, set it in the base config too",
        ),
        ({"axes": axes(size={**SIZES, "x": {"zzz": 1}})}, r"'zzz' is not in the base config.* If it is meant, set it"),
        (
            {"axes": axes(size={**SIZES, "copy": SIZES["s33"]})},
            r"axes.size: 's33' and 'copy' give the same config. Change or remove one of them",
        ),
        (
            {"axes": {"align_corners": {"false": {}, "false_too": FLAG["false"]}}, "train": {}, "evaluations": None},
            r"'false' and 'false_too' give the same config",
        ),
        (
            {"axes": axes(head={"a": {"model.decode_head": {"channels": 4}}, "b": {"model.decode_head.channels": 8}})},
            r"axes.head: sets 'model.decode_head', but axes.align_corners sets 'model.decode_head.align_corners'",
        ),
        (
            {"axes": axes(size={**SIZES, "s64": {"train_cfg.max_iters": {"begin": 0}}})},
            r"axes.size.s64: cannot be merged into the base config",
        ),
        (
            {"axes": {"align_corners": FLAG, "size_of_images": {**SIZES, "s" * 225: LARGE}}, "train": {}},
            r"axes: the runs of .*s{9}.* has 260 characters, and a file name can have 255. Shorten the names of axes",
        ),
        ({"evaluations": {"e" * 240: {}}}, r"evaluations.e+\.\.\.: has 240 characters, .* Shorten it to 230 or fewer"),
        (
            {"axes": MANY, "compare": "a0", "train": {}},
            r"train: 3(0 x 3){5}0 variants are 729000000 combinations, and at",
        ),
        ({"train": {"sizes": ["s32"]}}, r"train: 'sizes' is not a known axis. Did you mean 'size'\?"),
        ({"train": {"size": ["s34"]}}, r"train.size: 's34' is not a known variant. Did you mean"),
        ({"train": {"size": 32}}, r"train.size: expected a variant or a list of variants, got 32"),
        ({"train": []}, r"train: is an empty list, so nothing is trained"),
        ({"train": ["s32"]}, r"train.0: expected a dict from axis names to variants, got 's32'"),
        ({"train": [{}, {"sizes": "s32"}]}, r"train.1: 'sizes' is not a known axis. Did you mean 'size'\?"),
        ({"train": [{"size": "s34"}]}, r"train.0.size: 's34' is not a known variant"),
        ({"train": [{"size": "s32"}, {"align_corners": "true"}]}, r"train: .*'true'.*'s32'.* is listed twice"),
        (
            {
                "train": [
                    {"align_corners": "false", "size": "s32"},
                    {"align_corners": "true", "size": "s33"},
                ]
            },
            r"compare: no two variants of axis 'align_corners' are trained with the same variants of the other axes",
        ),
        ({"margin": 0}, r"margin: expected a number > 0 in the unit of the metric, got 0"),
        ({"margin": "0.5"}, r"margin: expected a number > 0"),
        ({"sequences": "["}, r"sequences: expected a regular expression, got '\['"),
        ({"sequences": 3}, r"sequences: expected a regular expression, got 3"),
        ({"axes": axes(evaluation=SIZES)}, r"axes.evaluation: is a word of family. Name the axis otherwise"),
        ({"family": "own"}, r"family: expected a list of dicts, got 'own'"),
        ({"family": ["own"]}, r"family.0: expected a dict from 'evaluation', 'interaction' and axis names"),
        ({"axes": axes(interaction=SIZES)}, r"axes.interaction: is a word of family"),
        ({"family": [{"interaction": {"flag": ["s32", "s33"]}}]}, r"family.0.interaction: 'flag' is not a known axis"),
        (
            {"family": [{"interaction": {"align_corners": ["false", "true"]}}]},
            r"family.0.interaction: 'align_corners' is not a known axis beside the compared one",
        ),
        (
            {"train": {}, "family": [{"interaction": {"size": ["s33", "s32"]}}]},
            r"expected the first trained variant and another, got \['s33', 's32'\]. Write size=\['s32', 's33'\]",
        ),
        (
            {"family": [{"interaction": {"size": ["s32", "s33"]}, "size": "s32"}]},
            r"family.0.interaction: runs along 'size', which the entry fixes too",
        ),
        ({"family": [{"flag": "true"}]}, r"family.0: 'flag' is not a known axis, nor 'evaluation'"),
        ({"family": [{"evaluation": "double"}]}, r"family.0.evaluation: 'double' is not a known"),
        ({"family": [{"size": "s48"}]}, r"family.0.size: 's48' is not a known variant. Known: s32"),
        ({"family": [{}, {"align_corners": "false"}]}, r"family.1: selects no comparison .* with the first one"),
        ({"speed": {"amp": "int8"}}, r"speed: amp: expected None, 'bfloat16' or 'float16', got 'int8'"),
        ({"speed": {"turbo": True}}, r"speed: 'turbo' is not an option"),
        ({"speed": "bfloat16"}, r"speed: expected a dict from options to values, got 'bfloat16'. Write {'...': ...}"),
        ({"stop_if": {"iteration": 4}}, r"stop_if: expected both iteration and loss_above.* Write dict\(iteration"),
        ({"stop_if": {"iteration": 0, "loss_above": 1.0}}, r"stop_if: expected iteration to be an integer >= 1, got 0"),
        ({"stop_if": {"iteration": 4, "loss_above": "1"}}, r"stop_if: expected loss_above to be a number, got '1'"),
        ({"stop_if": {"iteration": 9, "loss_above": 1.0}}, r"stop_if: .*9.* 8 iterations"),
        ({"stop_if": {"after": 4}}, r"stop_if: .*unexpected keyword argument 'after'"),
        ({"train": {"size": ["s32", "s32"]}}, r"train.size: 's32' is listed twice"),
        ({"seeds": []}, r"seeds: expected a list of seeds, got \[\]"),
        ({"seeds": [0, 1, 0]}, r"seeds: 0 is listed twice"),
        ({"seeds": [0, -1]}, r"seeds: expected integers in \[0, 2\*\*32\), got -1"),
        ({"seeds": [True]}, r"got True"),
        ({"evaluations": {}}, r"evaluations: expected a dict"),
        ({"evaluations": {"a/b": {}}}, r"evaluations.a/b: 'a/b' cannot be part of a path"),
        (
            {"evaluations": {"x": {"scale": {}}}},
            r"evaluations.x: 'scale' is not a known axis. Known: align_corners, size",
        ),
        ({"evaluations": {"x": {"size": {"s32": "s99"}}}}, r"evaluations.x.size: 's99' is not a known variant"),
        (
            {"evaluations": {"x": {"size": {"s33": "s48"}}}},
            r"evaluations.x.size: does not say what the trained variant 's32' is tested as. Add s32='...'",
        ),
        ({"compare": "flag"}, r"compare: 'flag' is not a known axis. Known: align_corners, size"),
        ({"compare": "size"}, r"compare: only \['s32'\] of axis 'size' is trained. Train two or more"),
        ({"metric": "MIoU"}, r"metric: 'MIoU' is not a known scalar of the evaluators. Did you mean 'mIoU'\?"),
        ({"metric": 3}, r"metric: 3 is not a known scalar of the evaluators"),
        ({"evaluators": ["DisplacementMetric"]}, r"evaluators: expected a dict from names to configs of metrics"),
        ({"evaluators": {"confusion": {"type": "DisplacementMetric"}}}, r"evaluators.confusion: is the name of the"),
        ({"evaluators": {"x": {"widths": [1]}}}, r"evaluators.x: cannot be built: KeyError"),
        ({"evaluators": {"x": {"type": "TrimapMetric"}}}, r"evaluators.x: cannot be built: KeyError.*TrimapMetric"),
        ({"evaluators": {"x": {"type": "TrimapIoUMetric", "widths": [1.5]}}}, r"evaluators.x: .*expected an integer"),
        ({"evaluators": {"x": {"type": "TrimapIoUMetric", "out_file": "x.npz"}}}, r"x: sets out_file.* Remove it"),
        (
            {"evaluators": {"x": {"type": "BoundaryIoUMetric"}, "y": {"type": "BoundaryIoUMetric", "widths": [3]}}},
            r"evaluators.y: returns 'mBIoU_3px', as 'x' does. Give it a prefix",
        ),
    ],
)
def test_errors(write_study, changes, message):
    with pytest.raises(plan.StudyError, match=message) as error:
        loading.load(write_study(**{**changes, "evaluations": changes.get("evaluations", {"own": {}})}))
    assert "tiny.py" in str(error.value)


@pytest.mark.parametrize("key", ["base", "axes", "seeds", "compare"])
def test_missing_keys(write_study, key):
    with pytest.raises(plan.StudyError, match=f"{key}: is missing. Add {key} = "):
        loading.load(write_study(without=[key]))


def test_a_base_without_a_test(write_study):
    with pytest.raises(plan.StudyError, match=r"base: 'base.py' does not set test_dataloader, which a study needs"):
        loading.load(write_study(config={"test_dataloader": None}))


def test_options_are_checked_like_overrides(write_study):
    with pytest.raises(plan.StudyError, match=r"--cfg-options: 'train_cfg.max_iter' .* mean 'train_cfg.max_iters'\?"):
        loading.load(write_study(), options={"train_cfg.max_iter": 4})
    with pytest.raises(plan.StudyError, match=r"axes.size: sets 'test_dataloader.dataset.size', but --cfg-options"):
        loading.load(write_study(), options={"test_dataloader.dataset.size": (8, 8)})


def test_a_study_that_does_not_exist_or_is_no_python(tmp_path):
    with pytest.raises(plan.StudyError, match=r"study config '.*none.py' does not exist"):
        loading.load(tmp_path / "none.py")
    (tmp_path / "broken.py").write_text("seeds = [")
    with pytest.raises(plan.StudyError, match=r"study config '.*broken.py' cannot be read: SyntaxError"):
        loading.load(tmp_path / "broken.py")


def test_the_stored_config_reads_back_equal(write_study, tmp_path):
    """A run is refused when its stored config differs from the plan, so writing must lose nothing."""
    config = loading.load(write_study()).runs()[0].config
    (tmp_path / "stored.py").write_text(config.pretty_text)
    assert Config.fromfile(tmp_path / "stored.py").to_dict() == config.to_dict()


def test_the_documentation_has_every_key_and_its_example_is_a_study(tmp_path):
    page = (ROOT / "docs" / "studies.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(loading._KEYS)
    example = page.split("## An example with every key")[1].split("```python\n")[1].split("```")[0]
    assert all(re.search(rf"^{key} = ", example, re.MULTILINE) for key in loading._KEYS)
    path = tmp_path / "example.py"
    path.write_text(example.replace("'../shapes/", f"'{ROOT}/configs/shapes/"))
    study = loading.load(path)
    assert len(study.runs()) == 7 * 5 and [bool(each.along) for each in study.family] == [False, True]
