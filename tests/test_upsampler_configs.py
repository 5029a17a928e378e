"""What configs/upsamplers and configs/sfnet promise: as they stand the stock models, and one line to change them."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from mmseg_resample import launch

CONFIGS = Path(__file__).parent.parent / "configs"
# Config -> the same in mmseg. Only the base of a family is stock; the others inherit it and change the resampler.
STOCK = {
    name: f"mmseg::{folder}/{name}.py"
    for folder, name in [
        ("segformer", "segformer_mit-b0_8xb2-160k_ade20k-512x512"),
        ("segformer", "segformer_mit-b1_8xb2-160k_ade20k-512x512"),
        ("upernet", "upernet_r50_4xb4-80k_ade20k-512x512"),
        ("swin", "swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512"),
        ("sem_fpn", "fpn_r50_4xb4-160k_ade20k-512x512"),
        ("deeplabv3plus", "deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512"),
    ]
}


def build(cfg):
    init_default_scope("mmseg")
    cfg.model.pretrained = None
    return MODELS.build(cfg.model).eval()


@pytest.mark.parametrize("name", STOCK)
def test_a_stock_checkpoint_loads_and_gives_the_same_logits(name):
    stock = build(launch.load_config(STOCK[name]))
    ours = build(launch.load_config(str(CONFIGS / "upsamplers" / f"{name}.py")))
    ours.load_state_dict(stock.state_dict(), strict=True)
    x = torch.randn(1, 3, 73, 91)
    with torch.no_grad():
        assert torch.equal(ours(x), stock(x))


@pytest.mark.parametrize("name", [name for name in STOCK if not name.startswith("fpn")])
def test_the_resampler_is_one_option_on_the_command_line(name):
    options = {"model.decode_head.resampler.type": "DySample"}
    if name.startswith("segformer"):
        options["model.decode_head.stepwise"] = True
    model = build(launch.load_config(str(CONFIGS / "upsamplers" / f"{name}.py"), options=options))
    found = [m for m in model.decode_head.modules() if type(m).__name__ == "DySample"]
    assert len(found) == {"segf": 6, "uper": 3, "swin": 3, "deep": 1}[name[:4]]
    with torch.no_grad():
        assert model(torch.randn(1, 3, 73, 91)).shape[:2] == (1, 150)


@pytest.mark.parametrize("name", ["sfnet_r18-sfsegnets_4xb4-56k", "sfnet-lite_stdc1-sfsegnets_4xb4-186k"])
def test_both_conventions_of_the_released_code_are_one_option(name):
    x, logits = torch.randn(1, 3, 73, 91), []
    for convention in ("sfsegnets", "sfsegnets-2020"):
        option = {"model.decode_head.resampler.convention": convention}
        cfg = launch.load_config(str(CONFIGS / "sfnet" / f"{name}_cityscapes-1024x1024.py"), options=option)
        torch.manual_seed(0)
        model = build(cfg)
        assert {m.convention for m in model.modules() if hasattr(m, "convention")} == {convention}
        with torch.no_grad():
            logits.append(model(x))
    assert not torch.allclose(*logits)


@pytest.mark.parametrize(
    ("op", "thousands"),
    [("dysample", 49.2), ("dysample-plus", 98.3), ("dysample-s", 6.1), ("dysample-s-plus", 12.3), ("carafe", 440)],
)
def test_additional_parameters_on_segformer_are_the_published_ones(op, thousands):
    counts = []
    for name in (f"segformer_mit-b1-{op}", "segformer_mit-b1"):
        cfg = Config.fromfile(CONFIGS / "upsamplers" / f"{name}_8xb2-160k_ade20k-512x512.py")
        init_default_scope("mmseg")
        counts.append(sum(p.numel() for p in MODELS.build(cfg.model.decode_head).parameters()))
    assert (counts[0] - counts[1]) / 1000 == pytest.approx(thousands, rel=0.03)  # published without the biases


def test_the_table_of_models_has_them():
    table = (CONFIGS.parent / "docs" / "models.md").read_text()
    listed = {line.split("]")[0][3:] for line in table.splitlines() if line.startswith("| [")}
    upsamplers, sfnet = ({p.stem for p in (CONFIGS / folder).glob("*.py")} for folder in ("upsamplers", "sfnet"))
    assert upsamplers <= listed <= upsamplers | sfnet, "run python docs/models.py"
