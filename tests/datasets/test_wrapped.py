"""Data sets are found in whatever wraps them, with the keys that set something in them."""

from mmengine.config import Config

from mmseg_resample.datasets.wrapped import leaves, walk

A, B, C = ({"type": name, "pipeline": [name]} for name in "ABC")
REPEATED = {"type": "RepeatDataset", "times": 2, "dataset": A}
MIXED = {
    "type": "MultiImageMixDataset",
    "dataset": {"type": "ConcatDataset", "datasets": [REPEATED, B]},
    "pipeline": [],
}


def test_keys_of_wrapped_data_sets():
    cfg = Config({"train_dataloader": {"dataset": {"type": "ConcatDataset", "datasets": [MIXED, C]}}})
    root = "train_dataloader.dataset"
    found = dict(leaves(cfg.train_dataloader.dataset, root))
    assert {key: config["type"] for key, config in found.items()} == {
        f"{root}.datasets.0.dataset.datasets.0.dataset": "A",
        f"{root}.datasets.0.dataset.datasets.1": "B",
        f"{root}.datasets.1": "C",
    }
    cfg.merge_from_dict({f"{key}.lazy_init": True for key in found})  # as by --cfg-options: messages name the keys
    assert all(config["lazy_init"] for _, config in leaves(cfg.train_dataloader.dataset))


def test_inner_ones_come_first():
    assert [config["type"] for _, config in walk(MIXED)] == [
        *("A", "RepeatDataset", "B", "ConcatDataset", "MultiImageMixDataset"),
    ]


def test_one_that_wraps_none_is_itself():
    assert list(walk(A)) == list(leaves(A, "dataset")) == [("dataset", A)]


def test_what_was_built_has_no_config():
    assert list(walk(object())) == list(walk(None)) == []
    assert list(leaves({"dataset": object()})) == []
