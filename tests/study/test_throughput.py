"""Faster trainings and tests: bit for bit those of the plain config by default, and what each option does."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from mmseg.models.decode_heads import decode_head
from mmseg.models.losses import accuracy
from mmseg.structures import SegDataSample

from mmseg_resample.datasets import cache
from mmseg_resample.study import throughput

from .tiny import BASE

LOGGER = {"type": "LoggerHook", "interval": 3, "log_metric_by_epoch": False}
EPOCHS = {
    "train_cfg": {"_delete_": True, "by_epoch": True, "max_epochs": 2},
    "train_dataloader.sampler": {"type": "DefaultSampler", "shuffle": True},
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / "cache"))


@pytest.fixture
def build(tmp_path):
    """A runner of the tiny config; ``options`` None leaves it as it is."""

    def build(name, options=None, **changes):
        config = Config(copy.deepcopy(BASE))
        config.merge_from_dict(
            {
                "default_hooks": {"logger": LOGGER, "checkpoint": {"type": "CheckpointHook", "by_epoch": False}},
                "randomness": {"seed": 0},
                "custom_hooks": [],
                **copy.deepcopy(changes),  # mmengine takes `_delete_` out of what it merges
            }
        )
        if options is not None:
            throughput.apply(config, options)
        config.work_dir = str(tmp_path / name)
        config.experiment_name = f"{tmp_path}{name}"  # mmengine keeps loggers and message hubs by name
        config.visualizer["name"] = config.experiment_name
        return Runner.from_cfg(config)

    return build


class Spy(Hook):
    """Hook that keeps what the log had to show, and how many losses had been read when."""

    priority = "LOWEST"

    def __init__(self):
        self.logged, self.read = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        scalars = runner.message_hub.log_scalars
        self.read.append(len(scalars["train/loss"].data[0]) if "train/loss" in scalars else 0)
        if (batch_idx + 1) % LOGGER["interval"] == 0:
            self.logged.append({key: scalars[key].current() for key in scalars if "time" not in key})
            self.logged[-1]["mean"] = scalars["train/loss"].mean(3)


def trained(runner):
    spy = Spy()
    runner.register_hook(spy)
    runner.train()
    return spy


def state(runner):
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


class TestDefaults:
    @pytest.mark.parametrize("changes", [{}, EPOCHS], ids=["iterations", "epochs"])
    def test_change_no_bit_of_weights_log_and_metrics(self, build, changes):
        plain = build("plain", **changes)  # which seeds the generators, so the other one is built later
        expected = trained(plain)
        lean = build("lean", {}, **changes)
        actual = trained(lean)
        assert actual.logged == expected.logged and len(expected.logged) >= 2
        assert "train/decode.acc_seg" in expected.logged[0]
        weights = state(lean)
        for name, value in state(plain).items():
            assert torch.equal(weights[name], value), name
        assert lean.test() == plain.test()

    def test_losses_are_read_when_they_are_logged(self, build):
        assert trained(build("plain")).read == [1, 2, 3, 4, 5, 6, 7, 8]
        assert trained(build("lean", {})).read == [0, 0, 3, 3, 3, 6, 6, 8]  # the last for the checkpoint

    def test_accuracy_is_computed_when_it_is_logged(self, build, monkeypatch):
        calls = []
        topk = torch.Tensor.topk
        monkeypatch.setattr(torch.Tensor, "topk", lambda *args, **kwargs: calls.append(1) or topk(*args, **kwargs))
        runner = build("lean", {})
        trained(runner)
        assert len(calls) == 2
        scalars = runner.message_hub.log_scalars
        assert len(scalars["train/decode.acc_seg"].data[0]) == 2
        assert len(scalars["train/loss"].data[0]) == 8  # nothing is lost at the end either
        assert decode_head.accuracy is accuracy

    def test_a_failed_training_leaves_mmseg_as_it_was(self, build, monkeypatch):
        runner = build("lean", {})
        monkeypatch.setattr(runner.model.backbone, "forward", lambda inputs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runner.train()
        assert decode_head.accuracy is accuracy

    def test_a_checkpoint_has_all_losses_so_far(self, build, tmp_path):
        checkpoint = {"default_hooks.checkpoint.interval": 4}
        histories = []
        for name, options in (("plain", None), ("lean", {})):
            runner = build(name, options, **checkpoint)
            trained(runner)
            stored = CheckpointLoader.load_checkpoint(str(tmp_path / name / "iter_4.pth"), map_location="cpu")
            histories.append(stored["message_hub"]["log_scalars"]["train/loss"].data[0].tolist())
        assert histories[1] == histories[0] and len(histories[0]) == 4

    def test_a_runtime_info_hook_of_the_config_stays(self):
        config = Config({"default_hooks": {"runtime_info": {"type": "Mine"}}})
        throughput.apply(config, {})
        assert config.default_hooks.runtime_info.type == "Mine"

    def test_twice_is_once(self):
        config = Config(copy.deepcopy(BASE))
        throughput.apply(config, {"channels_last": True})
        once = config.to_dict()
        throughput.apply(config, {"channels_last": True})
        assert config.to_dict() == once


class TestArgmax:
    def predictions(self, build, name, options, logits):
        runner = build(name, options)
        runner.call_hook("before_test")
        shapes = {"ori_shape": (16, 24), "img_shape": (16, 24)}
        samples = runner.model.postprocess_result(logits, [SegDataSample(metainfo=shapes) for _ in logits])
        return [sample.pred_sem_seg.data for sample in samples]

    def test_is_replaced_without_another_label(self, build, monkeypatch):
        logits = torch.randn(2, 6, 16, 24).mul(2).round()  # many ties
        logits[:, :, 0] = -torch.inf
        logits[:, 2, 1, :3] = torch.nan
        expected = self.predictions(build, "plain", None, logits)
        monkeypatch.setattr(torch.Tensor, "max", lambda *args, **kwargs: pytest.fail("the method is not used"))
        fast = self.predictions(build, "lean", {}, logits)
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(fast, expected, strict=True))

    def test_is_replaced_at_all(self, build, monkeypatch):
        calls = []
        original = torch.max
        monkeypatch.setattr(torch, "max", lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs))
        self.predictions(build, "lean", {}, torch.randn(2, 6, 16, 24))
        assert len(calls) == 2


class TestCache:
    def pipelines(self, dataloader, options=None):
        config = Config({"train_dataloader": {"dataset": dataloader}})
        throughput.apply(config, options or {})
        return config.train_dataloader.dataset

    def test_takes_what_begins_a_pipeline_up_to_what_is_random(self):
        resize = {"type": "Resize", "scale": (8, 8)}
        load = [{"type": "LoadImageFromFile"}, resize, {"type": "mmseg.LoadAnnotations"}]
        rest = [{"type": "RandomCrop", "crop_size": (4, 4)}, resize, {"type": "PackSegInputs"}]
        dataset = self.pipelines({"type": "X", "pipeline": [*load, *rest]})
        assert dataset.pipeline == [{"type": "CachedLoading", "transforms": load}, *rest]

    @pytest.mark.parametrize("first", ["RandomFlip", "mmdet.LoadAnnotations", "LoadMine"])
    def test_leaves_pipelines_that_begin_otherwise(self, first):
        pipeline = [{"type": first}, {"type": "LoadImageFromFile"}]
        assert self.pipelines({"type": "X", "pipeline": pipeline}).pipeline == pipeline

    def test_finds_wrapped_data_sets(self):
        part = {"type": "X", "pipeline": [{"type": "LoadShapes", "cache": True}]}
        cached = {"type": "X", "pipeline": [{"type": "CachedLoading", "transforms": [{"type": "LoadShapes"}]}]}
        wrapped = self.pipelines({"type": "RepeatDataset", "dataset": {"type": "C", "datasets": [part, part]}})
        assert wrapped.dataset.datasets == [cached, cached]

    def test_can_be_left_out(self):
        pipeline = [{"type": "LoadShapes", "cache": True}]
        assert self.pipelines({"type": "X", "pipeline": pipeline}, {"cache": False}).pipeline == pipeline


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"ampp": None}, "speed: 'ampp' is not an option. Known: amp, channels_last, compile, fold_norms, cache"),
            ({"amp": True}, "speed: amp: expected None, 'bfloat16' or 'float16', got True"),
            ({"cache": 1}, "speed: cache: expected True or False, got 1"),
            ({"compile": "max"}, "speed: compile: expected True or False, or a dict of arguments of torch.compile"),
        ],
    )
    def test_are_checked(self, options, message):
        with pytest.raises(ValueError, match=message):
            throughput.apply(Config(), options)

    def test_channels_last(self, build):
        losses = []
        # Of four channels, channels last, torch 2.13's convolutions corrupt the heap on some CPUs.
        wider = {"model.backbone.base_channels": 8, "model.decode_head.in_channels": 16}
        for name, options in (("plain", None), ("fast", {"channels_last": True})):
            runner = build(name, options, **wider)
            trained(runner)
            losses.append(runner.message_hub.log_scalars["train/loss"].data[0][0])
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)  # the same weights and images to begin with
        assert runner.model.backbone.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
        images = []
        runner.model.backbone.stem.register_forward_pre_hook(lambda module, inputs: images.append(inputs[0]))
        runner.test()
        assert all(image.is_contiguous(memory_format=torch.channels_last) for image in images) and images

    def test_norms_are_folded_where_that_changes_nothing(self, build):
        runner = build("folded", {"fold_norms": True})
        predicted = []
        for fold in (False, True):
            if fold:
                runner.call_hook("before_test")
            runner.model.eval()
            with torch.no_grad():
                predicted.append(runner.model(torch.ones(1, 3, 64, 64), mode="tensor"))
        torch.testing.assert_close(*predicted, rtol=1e-4, atol=1e-5)
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in runner.model.modules())

    def test_norms_are_folded_into_what_they_follow(self, build):
        runner = build("followed", {"fold_norms": True})
        images = torch.randn(2, 3, 32, 32)
        for forward, folded in (
            (lambda conv, norm, x: norm(conv(x)), True),
            (lambda conv, norm, x: conv(norm(x)), False),  # registered behind the convolution
            (lambda conv, norm, x: conv(x), False),
            (lambda conv, norm, x: norm(conv(x).relu()), False),
            (lambda conv, norm, x: norm(conv(x) + conv(x)), False),
            (lambda conv, norm, x: conv(x) + norm(conv(x)), False),
            (lambda conv, norm, x: norm(conv(x)) + norm(x)[..., ::4, ::4], False),
        ):
            stem = self.a_stem(runner, forward)
            expected = stem(images)
            runner.call_hook("before_test")
            assert isinstance(stem[1], torch.nn.Identity) == folded
            torch.testing.assert_close(stem(images), expected, rtol=1e-4, atol=1e-5)

    def test_norms_without_statistics_and_windows(self, build):
        """A network that slides takes no more than a window."""
        runner = build(
            "slides",
            {"fold_norms": True},
            **{"model.test_cfg": dict(mode="slide", crop_size=(32, 32), stride=(16, 16))},
        )
        stem = runner.model.backbone.stem
        stem[1] = torch.nn.BatchNorm2d(stem[1].num_features, track_running_stats=False)
        seen = []
        runner.model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[2:]))
        runner.call_hook("before_test")
        assert set(seen) == {(32, 32)} and isinstance(stem[1], torch.nn.BatchNorm2d)

    def test_convolutions_that_something_else_reads(self, build):
        runner = build("apart", {"fold_norms": True})

        def forward(conv, norm, x):
            y = conv(x)
            return norm(y) + y

        self.a_stem(runner, forward)
        with pytest.raises(ValueError, match="fold_norms: expected the same predictions with the norms of"):
            runner.call_hook("before_test")

    @staticmethod
    def a_stem(runner, forward):
        """Let the network begin with ``forward`` of a convolution and a norm."""
        runner.model.backbone.stem = stem = torch.nn.Sequential(
            torch.nn.Conv2d(3, 3, 3, 4, 1), torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 4, 1)
        ).eval()
        torch.nn.init.constant_(stem[1].running_mean, 2.0)
        stem.forward = lambda x: stem[2](forward(stem[0], stem[1], x))
        return stem

    @pytest.mark.slow
    @torch._dynamo.config.patch(cache_size_limit=1)  # the name that every torch knows
    def test_compile_reaches_every_model(self, build):
        """More models than the compiler keeps: without a reset it would leave the last ones as they are."""
        counters = torch._dynamo.utils.counters
        for index in range(3):
            counters.clear()
            runner = build(f"model{index}", {"compile": {"backend": "eager"}}, **{"train_cfg.max_iters": 2})
            runner.train()
            assert counters["frames"]["ok"] > 0, index

    def test_amp_scales_float16_alone(self):
        for dtype, scale in (("float16", "dynamic"), ("bfloat16", {"enabled": False})):
            config = Config({"optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "SGD"}}})
            throughput.apply(config, {"amp": dtype})
            wrapper = {"type": "AmpOptimWrapper", "optimizer": {"type": "SGD"}, "dtype": dtype, "loss_scale": scale}
            assert config.optim_wrapper == wrapper

    def test_amp_needs_a_plain_wrapper(self):
        with pytest.raises(ValueError, match=r"amp='float16' needs an optim_wrapper of type OptimWrapper, got Mine"):
            throughput.apply(Config({"optim_wrapper": {"type": "Mine"}}), {"amp": "float16"})

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="mmengine has mixed precision on accelerators alone")
    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_amp_trains(self, build, dtype):
        runner = build("amp", {"amp": dtype})
        seen = []
        runner.model.decode_head.conv_seg.register_forward_hook(
            lambda module, inputs, output: seen.append(output.dtype)
        )
        trained(runner)
        assert set(seen) == {getattr(torch, dtype)}
        assert all(torch.isfinite(value).all() for value in state(runner).values())


@pytest.fixture(autouse=True)
def _forget():
    yield
    MessageHub._instance_dict.clear()
