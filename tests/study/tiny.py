"""A study small enough to run in seconds: 32 x 32 scenes, a network of a few hundred weights, 8 iterations."""

import copy
import pprint

from mmengine.config import Config

SHAPES = {"type": "ShapesDataset", "length": 8, "size": (32, 32), "seed": 0}
BASE = {
    "custom_imports": {"imports": ["mmseg_resample", "tests.study.faults"]},
    "default_scope": "mmseg",
    "custom_hooks": [{"type": "Fault"}],
    "log_processor": {"by_epoch": False},
    "visualizer": {"type": "SegLocalVisualizer", "vis_backends": [{"type": "LocalVisBackend"}], "name": "visualizer"},
    "model": {
        "type": "EncoderDecoder",
        "data_preprocessor": {
            "type": "SegDataPreProcessor",
            "mean": [127.5] * 3,
            "std": [64.0] * 3,
            "size_divisor": 1,
            "test_cfg": {"size_divisor": 1},
        },
        "backbone": {
            "type": "ResNetV1c",
            "depth": 18,
            "num_stages": 2,
            "strides": (1, 2),
            "dilations": (1, 1),
            "out_indices": (1,),
            "stem_channels": 4,
            "base_channels": 4,
        },
        "decode_head": {
            "type": "FCNHead",
            "in_channels": 8,
            "channels": 8,
            "num_convs": 1,
            "num_classes": 6,
            "concat_input": False,
            "dropout_ratio": 0.5,
            "align_corners": False,
        },
        "test_cfg": {"mode": "whole"},
    },
    "train_dataloader": {
        "batch_size": 2,
        "num_workers": 0,
        "sampler": {"type": "InfiniteSampler", "shuffle": True},
        "dataset": {
            **SHAPES,
            "pipeline": [
                {"type": "LoadShapes"},
                {"type": "RandomFlip", "prob": 0.5},
                {"type": "PhotoMetricDistortion"},
                {"type": "PackSegInputs"},
            ],
        },
    },
    "test_dataloader": {
        "batch_size": 1,
        "num_workers": 0,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "dataset": {**SHAPES, "length": 3, "seed": 1, "pipeline": [{"type": "LoadShapes"}, {"type": "PackSegInputs"}]},
    },
    "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.05, "momentum": 0.9}},
    "param_scheduler": [{"type": "PolyLR", "eta_min": 1e-4, "power": 0.9, "begin": 0, "end": 8, "by_epoch": False}],
    "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 8, "val_interval": 4},
    "test_cfg": {"type": "TestLoop"},
    "test_evaluator": {"type": "IoUMetric"},
}
STUDY = {
    "base": "base.py",
    "axes": {
        "align_corners": {
            "false": {"model.decode_head.align_corners": False},
            "true": {"model.decode_head.align_corners": True},
        },
        "size": {
            "s32": {"train_dataloader.dataset.size": (32, 32), "test_dataloader.dataset.size": (32, 32)},
            "s33": {"train_dataloader.dataset.size": (33, 33), "test_dataloader.dataset.size": (33, 33)},
            "s48": {"test_dataloader.dataset.size": (48, 48)},
        },
    },
    "train": {"size": ["s32"]},
    "seeds": [0, 1],
    "evaluations": {"own": {}, "larger": {"size": {"s32": "s48", "s33": "s48"}}},
    "compare": "align_corners",
    "metric": "mIoU",
}


def write_study(directory, config=None, without=(), **changes):
    """Write the study with changes; ``config`` changes the base config, by dotted keys; returns its path."""
    base = Config(copy.deepcopy(BASE))
    base.merge_from_dict(copy.deepcopy(config or {}))  # mmengine takes `_delete_` out of what it merges
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "base.py").write_text(base.dump())
    study = {key: value for key, value in {**STUDY, **changes}.items() if key not in without}
    path = directory / "tiny.py"
    path.write_text("\n".join(f"{key} = {pprint.pformat(value, sort_dicts=False)}" for key, value in study.items()))
    return path
