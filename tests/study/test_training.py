"""One run in this process: exact resuming, what it leaves on disk, and isolation from the run before."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer
from mmseg.evaluation.metrics import IoUMetric

from mmseg_resample.evaluation import area_iou, scores
from mmseg_resample.study import audit, evaluators, loading, records, training
from mmseg_resample.study.hooks import DivergedError, DivergenceHook, _random_state, _set_random_state
from mmseg_resample.unpickle import load

from .tiny import STUDY

FAULT = {"custom_hooks.0.iteration": 7}  # after the checkpoints at 2, 4 and 6 of 8 iterations


def only_run(path, **kwargs):
    return loading.load(path, seeds=[3], **kwargs).runs()[0]


def perform(run, root, report=lambda progress: None):
    training.perform(run, root, report)
    return records.RunFiles(root / run.directory)


def interrupted(run, root):
    with pytest.raises(RuntimeError, match="a fault after iteration"):
        perform(run, root)
    return records.RunFiles(root / run.directory)


def results(files):
    """Everything that a training ends with and that must not depend on how often it was interrupted."""
    (checkpoint,) = files.work_dir.glob("*.pth")
    state = load(checkpoint)
    tensors = {**state["state_dict"], **{f"momentum {i}": s["momentum_buffer"] for i, s in momenta(state)}}
    for path in sorted(files.counts("own").glob("*.npz")):
        with np.load(path) as stored:
            counts = {f"{path.name} {name}": stored[name] for name in stored if stored[name].dtype.kind != "U"}
            tensors |= {name: torch.from_numpy(array) for name, array in counts.items()}
    return tensors, state["random_states"][0]


def momenta(state):
    return state["optimizer"]["state"].items()


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name in expected:
        assert torch.equal(actual[name], expected[name]), name


@pytest.fixture
def fast_write(write_study):
    """One evaluation is enough here."""
    return lambda config=None: write_study(config, evaluations={"own": {}})


EPOCHS = {
    "train_cfg": {"_delete_": True, "by_epoch": True, "max_epochs": 4},
    "train_dataloader.sampler": {"type": "DefaultSampler", "shuffle": True},
    "train_dataloader.dataset.length": 4,
}


class TestResume:
    @pytest.mark.parametrize(
        "config",
        [
            pytest.param({}, id="iterations"),
            pytest.param({"train_dataloader.num_workers": 2}, id="data loader workers"),
            pytest.param(EPOCHS, id="epochs"),
        ],
    )
    def test_is_exact(self, fast_write, tmp_path, config):
        expected, expected_state = results(perform(only_run(fast_write(config)), tmp_path / "undisturbed"))
        run = only_run(fast_write({**config, **FAULT}))
        files = interrupted(run, tmp_path / "disturbed")
        assert not files.metrics.exists()
        actual, state = results(perform(run, tmp_path / "disturbed"))
        assert "resumed epoch:" in "".join(path.read_text() for path in files.work_dir.glob("*/*.log"))
        assert_same(actual, expected)
        assert torch.equal(state["torch"], expected_state["torch"])
        assert state["python"] == expected_state["python"]

    def test_would_differ_without_the_random_states(self, fast_write, tmp_path, monkeypatch):
        """Else the test above would pass whatever ``RandomStateHook`` does."""
        expected, _ = results(perform(only_run(fast_write()), tmp_path / "undisturbed"))
        monkeypatch.setattr(training, "RandomStateHook", Hook)
        run = only_run(fast_write(FAULT))
        files = interrupted(run, tmp_path / "disturbed")
        perform(run, tmp_path / "disturbed")
        (checkpoint,) = files.work_dir.glob("*.pth")
        actual = load(checkpoint)["state_dict"]
        assert any(not torch.equal(actual[name], expected[name]) for name in actual)

    def test_from_the_newest_complete_checkpoint(self, fast_write, tmp_path):
        """Go on from what a kill leaves while mmengine writes ``iter_6.pth``, having removed ``iter_2.pth``."""
        expected, _ = results(perform(only_run(fast_write()), tmp_path / "undisturbed"))
        run = only_run(fast_write(FAULT))
        files = interrupted(run, tmp_path / "disturbed")
        assert sorted(path.name for path in files.work_dir.glob("*.pth")) == ["iter_4.pth", "iter_6.pth"]
        newest = files.work_dir / "iter_6.pth"
        newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
        actual, _ = results(perform(run, tmp_path / "disturbed"))
        assert "resumed epoch: 0, iter: 4" in "".join(path.read_text() for path in files.work_dir.glob("*/*.log"))
        assert_same(actual, expected)

    def test_starts_over_without_a_checkpoint(self, fast_write, tmp_path):
        expected, _ = results(perform(only_run(fast_write()), tmp_path / "undisturbed"))
        run = only_run(fast_write({"custom_hooks.0.iteration": 1}))
        interrupted(run, tmp_path / "disturbed")
        assert_same(results(perform(run, tmp_path / "disturbed"))[0], expected)

    def test_after_the_training_only_evaluates(self, write_study, tmp_path, monkeypatch):
        run = only_run(write_study())
        files = records.RunFiles(tmp_path / run.directory)
        with monkeypatch.context() as patch:
            patch.setattr(training.records, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                perform(run, tmp_path)
        files.evaluation("larger").unlink()
        (checkpoint,) = [path for path in files.work_dir.glob("*.pth") if path.stem == "iter_8"]
        before = [path.stat().st_mtime_ns for path in (checkpoint, files.training, files.matrices("own"))]
        phases = []
        perform(run, tmp_path, lambda progress: phases.append(progress.phase))
        assert set(phases) == {"larger"}
        assert before == [path.stat().st_mtime_ns for path in (checkpoint, files.training, files.matrices("own"))]
        assert records.is_finished(run, tmp_path)

    def test_from_the_last_checkpoint_only_finishes(self, fast_write, tmp_path):
        """Killed after the last checkpoint, before the training was recorded as complete."""
        run = only_run(fast_write())
        files = perform(run, tmp_path)
        expected, _ = results(files)
        seconds = records.read_json(files.training)["seconds"]
        for path in (files.training, files.metrics, files.evaluation("own")):
            path.unlink()
        assert_same(results(perform(run, tmp_path))[0], expected)
        assert records.read_json(files.training)["iterations"] == 8
        assert records.read_json(files.training)["seconds"] == pytest.approx(seconds, abs=0.5)

    def test_random_states_survive_a_checkpoint(self, tmp_path):
        torch.save(_random_state(), tmp_path / "state.pth")
        expected = random.random(), np.random.rand(), np.random.randn(), torch.rand(1)
        _set_random_state(torch.load(tmp_path / "state.pth", weights_only=True))
        assert expected == (random.random(), np.random.rand(), np.random.randn(), torch.rand(1))


class TestCheckpoints:
    @pytest.mark.parametrize("size", [0, 3, 100, -1])
    def test_incomplete_ones_are_removed(self, tmp_path, size):
        for iteration in (9, 10):
            torch.save({"weight": torch.rand(1000)}, tmp_path / f"iter_{iteration}.pth")
        newest = tmp_path / "iter_10.pth"
        newest.write_bytes(newest.read_bytes()[:size])
        assert training.newest_checkpoint(tmp_path) == tmp_path / "iter_9.pth"
        assert not newest.exists()

    def test_damaged_ones_are_removed(self, tmp_path):
        torch.save({"weight": torch.ones(1000)}, tmp_path / "iter_1.pth")
        content = bytearray((tmp_path / "iter_1.pth").read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "iter_1.pth").write_bytes(content)
        assert training.newest_checkpoint(tmp_path) is None

    def test_one_that_may_not_be_loaded_is_complete_and_stays(self, tmp_path):
        """It is the training that must say so, not a checkpoint that silently disappears."""
        torch.save({"metric": IoUMetric()}, tmp_path / "iter_1.pth")
        assert training.newest_checkpoint(tmp_path) == tmp_path / "iter_1.pth"

    def test_others_beside_them_are_left_alone(self, tmp_path):
        for name in ("iter_9.pth", "iter_10.pth", "iter_best.pth", "epoch_swa_3.pth", "iter_11.pth.txt"):
            torch.save({"weight": torch.ones(3)}, tmp_path / name)
        assert training.newest_checkpoint(tmp_path) == tmp_path / "iter_10.pth"
        assert [path.name for path in training._checkpoints(tmp_path)] == ["iter_10.pth", "iter_9.pth"]

    def test_none(self, tmp_path):
        assert training.newest_checkpoint(tmp_path / "nothing") is None


class TestFinishedRun:
    @pytest.fixture(scope="class")
    def root(self, tmp_path_factory):
        return tmp_path_factory.mktemp("finished")

    @pytest.fixture
    def run(self, write_study):
        return only_run(write_study())

    @pytest.fixture
    def files(self, run, root):
        return records.RunFiles(root / run.directory) if records.is_finished(run, root) else perform(run, root)

    def test_directory(self, files, run):
        assert files.config.exists()
        assert files.log.parent == files.config.parent
        assert [path.name for path in files.work_dir.glob("*.pth")] == ["iter_8.pth"]
        assert list(files.work_dir.glob("*/vis_data/scalars.json"))  # mmengine's, as they are
        assert list(files.path.glob("**/.*.json*")) == []  # no half-written file

    def test_metrics_follow_from_the_matrices(self, files):
        metrics = records.read_json(files.metrics)
        assert metrics["variants"] == {"align_corners": "false", "size": "s32"}
        assert metrics["seed"] == 3
        assert metrics["training"]["iterations"] == 8
        assert metrics["training"]["seconds"] > 0
        assert metrics["training"]["peak_memory_bytes"] > 2**20
        for name, size in {"own": 32, "larger": 48}.items():
            with np.load(files.matrices(name)) as stored:
                assert stored["confusion"].shape == (3, 6, 6)
                assert (stored["confusion"].sum((1, 2)) == size * size).all()
                expected = scores(stored["confusion"].sum(0))
                assert list(metrics["evaluations"][name]["IoU"]) == stored["classes"].tolist()
            assert metrics["evaluations"][name]["images"] == 3
            for key in ("mIoU", "mAcc", "aAcc"):
                assert metrics["evaluations"][name][key] == expected[key]
            actual = [np.nan if value is None else value for value in metrics["evaluations"][name]["IoU"].values()]
            np.testing.assert_equal(actual, expected["IoU"])

    def test_every_evaluator_leaves_its_counts_and_scalars(self, files):
        names = {path.name for path in files.counts("own").iterdir()}
        assert names == {"confusion.npz", "displacement.npz", "boundary.npz", "trimap.npz"}
        with np.load(files.counts("own") / "boundary.npz") as stored:
            assert stored["areas"].shape == (3, 4, 3, 6)
            expected = {
                f"mBIoU_{name}": round(100 * float(np.nanmean(values)), 2)
                for name, values in zip(stored["bins"], area_iou(stored["areas"].sum(0)), strict=True)
            }
        record = records.read_json(files.evaluation("own"))
        assert {name: record["metrics"][name] for name in expected} == expected
        assert {"mIoU", "mAcc", "aAcc", "dx", "dy_drift", "edges_found", "mIoU_trimap_1px"} <= record["metrics"].keys()
        assert record["metrics"]["mIoU"] == record["mIoU"]
        assert record["evaluators"] == evaluators.DEFAULT_EVALUATORS

    def test_what_the_audit_predicts_is_beside_what_was_measured(self, files):
        """Features of stride 8 and odd kernels: False reads 3.5 px up and left, at every size."""
        for name, size in {"own": 32, "larger": 48}.items():
            assert records.read_json(files.evaluation(name))["audit"] == {
                "size": [size, size],
                "x": [-3.5, -3.5, -3.5],
                "y": [-3.5, -3.5, -3.5],
            }

    def test_environment_names_no_place(self, files, root):
        text = files.environment.read_text() + files.metrics.read_text() + files.training.read_text()
        (attempt,) = json.loads(files.environment.read_text())["attempts"]
        assert {"python", "torch", "mmengine", "mmcv", "mmseg", "mmseg_resample", "device", "threads"} <= attempt.keys()
        assert str(root) not in text
        assert "/home" not in text

    def test_another_evaluation_does_not_train_again(self, files, root, write_study):
        run = only_run(write_study(evaluations={"own": {}, "larger": {"size": {"s32": "s48"}}, "more": {}}))
        assert records.conflict(run, root) is None
        assert not records.is_finished(run, root)
        kept = [files.training, files.matrices("own"), *files.work_dir.glob("*.pth")]
        before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in kept]
        perform(run, root)
        assert before == [(path.stat().st_ino, path.stat().st_mtime_ns) for path in kept]
        assert list(records.read_json(files.metrics)["evaluations"]) == ["own", "larger", "more"]

    def test_other_evaluators_are_measured_without_training(self, files, root, write_study):
        evaluators = {"frame": {"type": "FrameDistanceIoUMetric", "distances": [8]}}
        run = only_run(write_study(evaluators=evaluators, metric="mIoU_frame_0-8px"))
        assert records.conflict(run, root) is None
        assert not records.is_finished(run, root)
        before = files.training.stat().st_mtime_ns
        confusion = np.load(files.matrices("own"))["confusion"]
        perform(run, root)
        assert files.training.stat().st_mtime_ns == before
        assert {path.name for path in files.counts("own").iterdir()} == {"confusion.npz", "frame.npz"}
        assert np.array_equal(np.load(files.matrices("own"))["confusion"], confusion)
        record = records.read_json(files.metrics)["evaluations"]["own"]
        assert record["evaluators"] == evaluators
        assert records.is_finished(run, root)
        evaluators["frame"]["distances"] = [4]
        assert not records.is_finished(only_run(write_study(evaluators=evaluators, metric="mIoU_frame_0-4px")), root)
        assert records.is_finished(only_run(write_study(evaluators={})), root)  # more than it asks for

    def test_another_config_is_a_conflict(self, files, root, write_study):
        changes = {"optim_wrapper.optimizer.lr": 0.1, "train_cfg.max_iters": 9}
        assert records.conflict(only_run(write_study(), options=changes), root) == (
            "config.py: default_hooks.checkpoint.interval was 2, is now 3; "
            "optim_wrapper.optimizer.lr was 0.05, is now 0.1; train_cfg.max_iters was 8, is now 9"
        )

    def test_another_meaning_of_an_evaluation_is_a_conflict(self, files, root, write_study):
        run = only_run(write_study(evaluations={"own": {}, "larger": {"size": {"s32": "s33"}}}))
        assert "evaluation 'larger': test_dataloader.dataset.size.0 was 48, is now 33" in records.conflict(run, root)


def test_a_metric_that_no_evaluator_returns(write_study, tmp_path):
    """Says what to write, and only afterwards: what mmseg's own metrics return is not known before."""
    evaluators = {"stock": {"type": "IoUMetric", "iou_metrics": ["mDice"], "prefix": "stock"}}
    with pytest.raises(ValueError, match=r"metric: 'stock/mdice' is no scalar .* stock/mDice.* Name one of these"):
        perform(only_run(write_study(evaluators=evaluators, metric="stock/mdice")), tmp_path)
    run = only_run(write_study(evaluators=evaluators, metric="stock/mDice"))
    assert not records.is_finished(run, tmp_path)
    files = perform(run, tmp_path)
    assert records.is_finished(run, tmp_path)
    assert len(records.read_json(files.environment)["attempts"]) == 2
    assert records.read_json(files.evaluation("larger"))["metrics"]["stock/mDice"] >= 0


def test_a_network_that_the_audit_cannot_follow_is_measured(fast_write, tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "_audits", {})
    monkeypatch.setattr(audit, "build_segmentor", lambda config: config.model.no_such_key)
    files = perform(only_run(fast_write()), tmp_path)
    record = records.read_json(files.evaluation("own"))
    assert record["audit"].keys() == {"error"}
    assert "no_such_key" in record["audit"]["error"]
    assert record["mIoU"] is not None


@pytest.mark.parametrize(
    ("test_cfg", "preprocessor", "size"),
    [
        pytest.param({"mode": "whole"}, {"test_cfg": None}, [48, 48], id="whole"),
        pytest.param({"mode": "whole"}, {"test_cfg": {"size_divisor": 32}}, [64, 64], id="padded"),
        pytest.param({"mode": "slide", "crop_size": (32, 99), "stride": (16, 16)}, {}, [32, 48], id="window"),
    ],
)
def test_the_audit_is_of_the_size_that_the_network_gets(write_study, tmp_path, test_cfg, preprocessor, size):
    config = {
        "model.test_cfg": test_cfg,
        "test_dataloader.dataset.size": (48, 48),
        **{f"model.data_preprocessor.{key}": value for key, value in preprocessor.items()},
    }
    axes = {key: value for key, value in STUDY["axes"].items() if key != "size"}
    path = write_study(config, axes=axes, train={}, evaluations={"own": {}}, evaluators={})
    files = perform(only_run(path, options={"train_cfg.max_iters": 1}), tmp_path)
    assert records.read_json(files.evaluation("own"))["audit"]["size"] == size


class TestEarlyFailure:
    NAN = {"optim_wrapper.optimizer.lr": 1e30}

    def test_a_loss_that_is_not_finite_ends_the_training_at_once(self, fast_write, tmp_path):
        run = only_run(fast_write({**self.NAN, "default_hooks.checkpoint": {"type": "CheckpointHook", "interval": 1}}))
        with pytest.raises(DivergedError, match=r"the loss of iteration 2 is nan: the training diverged"):
            perform(run, tmp_path)
        files = records.RunFiles(tmp_path / run.directory)
        assert [path.name for path in files.work_dir.glob("*.pth")] == []
        assert not files.training.exists()

    def test_every_run_is_judged_by_the_same_rule(self, write_study, tmp_path):
        path = write_study(evaluations={"own": {}}, stop_if={"iteration": 3, "loss_above": 0.001})
        for run in loading.load(path, seeds=[0]).runs():
            with pytest.raises(DivergedError, match=r"stop_if: the mean loss of the 3 iterations up to 3 is 1\.\d+"):
                perform(run, tmp_path)
        run = only_run(write_study(evaluations={"own": {}}, stop_if={"iteration": 3, "loss_above": 100.0}))
        assert perform(run, tmp_path).metrics.exists()

    def test_a_resumed_training_is_judged_like_an_undisturbed_one(self, write_study, tmp_path):
        """The mean is over iterations before the checkpoint as well."""
        rule = {"iteration": 8, "loss_above": 0.001}
        undisturbed = only_run(write_study(evaluations={"own": {}}, stop_if=rule))
        with pytest.raises(DivergedError) as expected:
            perform(undisturbed, tmp_path / "undisturbed")
        run = only_run(write_study(FAULT, evaluations={"own": {}}, stop_if=rule))
        interrupted(run, tmp_path / "disturbed")
        with pytest.raises(DivergedError, match=r"of the 8 iterations up to 8") as actual:
            perform(run, tmp_path / "disturbed")
        assert str(actual.value) == str(expected.value)

    def test_on_a_gpu_losses_wait_until_a_checkpoint_follows(self):
        """Looking at every loss would wait for the queue in every iteration."""
        hook, reads = DivergenceHook(iteration=7, loss_above=1.0, interval=4), []
        hook._read = reads.append
        runner = SimpleNamespace(hooks=[CheckpointHook(interval=5, by_epoch=False, save_last=False)])
        for runner.iter in range(12):
            hook.after_train_iter(runner, runner.iter, outputs={"loss": torch.empty((), device="meta")})
        assert reads == [4, 5, 7, 8, 10, 12]

    def test_losses_that_waited_are_told_apart(self):
        hook = DivergenceHook()
        hook._unread = [torch.tensor(1.0), torch.tensor(float("inf")), torch.tensor(2.0)]
        with pytest.raises(DivergedError, match="the loss of iteration 19 is inf"):
            hook.after_train_epoch(SimpleNamespace(iter=20))


def test_a_model_with_other_weights_is_not_tested(write_study, tmp_path):
    width = {"narrow": {"model.decode_head.channels": 8}, "wide": {"model.decode_head.channels": 12}}
    evaluations = {"widened": {"width": {"narrow": "wide", "wide": "wide"}}}
    path = write_study(axes={"width": width}, train={}, evaluations=evaluations, compare="width")
    run = only_run(path)
    with pytest.raises(ValueError, match=r"is not the trained one.* such as decode_head.*, trained .* tested "):
        perform(run, tmp_path)
    assert not records.is_finished(run, tmp_path)


def test_variants_of_a_seed_start_alike(fast_write, tmp_path, monkeypatch):
    """Paired: the same initialisation, the same images in the same order, augmented alike; other seeds differ."""
    starts = {}

    class Spy(Hook):
        def before_train(self, runner):
            weights = {name: value.clone() for name, value in runner.model.state_dict().items()}
            starts[runner.work_dir] = (weights, [])

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            starts[runner.work_dir][1].extend(data_batch["inputs"])

    original = training._runner
    monkeypatch.setattr(training, "_runner", lambda *args: original(*args, Spy()))
    false0, true0, false1, _ = loading.load(fast_write()).runs()
    for run in (false0, true0, false1):
        perform(run, tmp_path)
    (weights, inputs), paired, other = starts.values()
    assert_same(paired[0], weights)
    assert len(inputs) == 16
    assert all(torch.equal(a, b) for a, b in zip(paired[1], inputs, strict=True))
    assert not torch.equal(other[0]["decode_head.conv_seg.weight"], weights["decode_head.conv_seg.weight"])
    assert not all(torch.equal(a, b) for a, b in zip(other[1], inputs, strict=True))


def test_one_run_does_not_leak_into_the_next(fast_write, tmp_path):
    loggers = []

    class Spy(Hook):
        def before_train(self, runner):
            loggers.append(runner.logger)

    config = {"env_cfg": {"cudnn_benchmark": True}, "randomness": {"deterministic": True}}
    runs = loading.load(fast_write(config)).runs()[:2]
    original = training._runner
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_runner", lambda *args: original(*args, Spy()))
        files = [perform(run, tmp_path) for run in runs]
    for each in files:
        (scalars,) = each.work_dir.glob("*/vis_data/scalars.json")
        steps = [json.loads(line)["step"] for line in scalars.read_text().splitlines()]
        assert steps == sorted(set(steps))  # a shared visualizer would write both trainings into the first file
    assert all(handler.stream is None for logger in loggers for handler in logger.handlers if hasattr(handler, "mode"))
    assert not MMLogger._instance_dict
    assert not MessageHub._instance_dict
    assert not Visualizer._instance_dict
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
