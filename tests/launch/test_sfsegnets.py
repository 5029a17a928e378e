"""Converted weights against a network of ours that has SFSegNets' attribute names: same logits, every key named."""

import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from mmseg_resample.launch.sfsegnets import convert
from tests.launch.sfsegnets_reference import Network

CASES = {
    "SFNet-R18": ("r18", dict(width=128)),
    "SFNet-R18-DSN": ("r18", dict(width=128, supervised=True)),
    "SFNet-R50": ("r50", dict(width=64, supervised=True)),
    "SFNet-STDC1": ("stdc1", dict(width=64)),
    "SFNet-STDC2": ("stdc2", dict(width=64)),
    "FPN-STDC1": ("stdc1", dict(width=64, aligned=False)),
    "Lite-R18": ("r18", dict(width=128, gate="spatial_atten")),
    "Lite-STDC1": ("stdc1", dict(width=128, gate="spatial")),
}


def build(settings):
    init_default_scope("mmseg")
    return MODELS.build(dict(type="EncoderDecoder", **settings, test_cfg=dict(mode="whole"))).double().eval()


@pytest.mark.parametrize(
    ("case", "convention"),
    [*((case, "sfsegnets") for case in CASES), ("SFNet-R18", "sfsegnets-2020"), ("Lite-STDC1", "sfsegnets-2020")],
)
def test_logits_are_those_of_the_reference(case, convention):
    backbone, kwargs = CASES[case]
    network = Network(backbone, **kwargs, corners=convention == "sfsegnets")
    source = {f"module.{key}": value for key, value in network.state_dict().items()}
    conversion = convert(source)
    assert conversion.model == {"Lite": "SFNet-Lite", "SFNe": "SFNet", "FPN-": "FPN"}[case[:4]]
    assert conversion.deep_supervision is ("supervised" in kwargs)
    model = build(conversion.config(convention))
    model.load_state_dict(conversion.state_dict, strict=True)
    x = torch.randn(2, 3, 65, 97, dtype=torch.float64)
    with torch.no_grad():
        expected, supervision = network(x)
        features = model.extract_feat(x)
        actual = model.decode_head(features)
        assert expected.std() > 0.1  # not a comparison of zeros
        torch.testing.assert_close(actual, expected, atol=1e-9, rtol=1e-9)
        if supervision:
            levels = model.decode_head._pyramid(features)
            for classify, level, logits in zip(model.decode_head.supervision, levels, supervision, strict=False):
                torch.testing.assert_close(classify(level), logits, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("case", ["SFNet-R18-DSN", "SFNet-STDC1", "Lite-R18"])
def test_every_key_is_renamed_or_dropped_with_a_reason(case):
    backbone, kwargs = CASES[case]
    source = Network(backbone, **kwargs).state_dict()
    conversion = convert(source)
    assert conversion.renamed.keys() | conversion.dropped.keys() == source.keys()
    assert not conversion.renamed.keys() & conversion.dropped.keys()
    assert sorted(conversion.renamed.values()) == sorted(conversion.state_dict)
    assert all(conversion.dropped.values())
    if case == "SFNet-R18-DSN":
        assert conversion.dropped == {}


def test_the_two_conventions_are_not_the_same_network():
    network = Network("r18", 128)
    conversion = convert(network.state_dict())
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    logits = []
    for convention in ("sfsegnets", "sfsegnets-2020"):
        model = build(conversion.config(convention))
        model.load_state_dict(conversion.state_dict)
        with torch.no_grad():
            logits.append(model.decode_head(model.extract_feat(x)))
    assert (logits[0] - logits[1]).abs().max() > 0.1 * logits[0].std()


@pytest.mark.parametrize(("supervised", "millions"), [(False, 12.870), (True, 13.321)])
def test_parameters_are_the_published_ones(supervised, millions):
    conversion = convert(Network("r18", 128, supervised=supervised).state_dict())
    model = build(conversion.config())
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=5e-4)


def test_the_config_says_what_the_weights_are():
    settings = convert(Network("stdc2", 128, classes=7, gate="spatial").state_dict()).config("sfsegnets-2020")
    norm_cfg = dict(type="SyncBN", requires_grad=True)
    assert settings["backbone"] == dict(type="STDCPyramid", stdc_type="STDCNet2", norm_cfg=norm_cfg)
    assert settings["decode_head"] == dict(
        type="SFNetLiteHead",
        in_channels=[64, 512, 1024],
        in_index=[0, 2, 3],
        channels=128,
        num_classes=7,
        resampler=dict(type="GatedFlowAlign", gate="spatial", convention="sfsegnets-2020"),
        norm_cfg=norm_cfg,
        align_corners=True,
    )


@pytest.mark.parametrize("backbone", ["r18", "stdc2"])
def test_the_baseline_without_flows_interpolates(backbone):
    settings = convert(Network(backbone, 64, aligned=False).state_dict()).config()
    assert settings["decode_head"]["type"] == "SFNetHead"
    assert settings["decode_head"]["resampler"] == dict(type="Interpolate", mode="bilinear")


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("backbone.stage3.0.conv1.weight", "a DF backbone"),
        ("backbone.stage3_1.0.conv1.weight", "a DF backbone"),
        ("head.ppm.down.0.weight", "global_context='sppm'"),
    ],
)
def test_says_what_it_does_not_convert(key, what):
    source = {**Network("r18", 64).state_dict(), f"module.{key}": torch.zeros(1)}
    with pytest.raises(ValueError, match=rf"1 keys, such as \['{key}'\], are those of .*{what}.*no counterpart here"):
        convert(source)


def test_errors():
    source = dict(Network("r18", 128).state_dict())
    with pytest.raises(
        ValueError, match=r"1 keys belong to no SFNet, SFNet-Lite or FPN .* such as \['head.other.weight'\]"
    ):
        convert({**source, "head.other.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="'sfsegnets' or 'sfsegnets-2020', got 'exact'"):
        convert(source).config("exact")
    with pytest.raises(ValueError, match=r"weight behind decode_head.conv_seg.weight is missing"):
        convert({k: v for k, v in source.items() if "conv_last" not in k}).config()
    with pytest.raises(ValueError, match=r"blocks per stage .* got \(2, 2, 1, 2\)"):
        convert({k: v for k, v in source.items() if not k.startswith("layer3.1")}).config()
