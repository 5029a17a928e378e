"""The tracker against the oracle of moments: random networks, and every family of mmseg."""

import copy
import random
import time
import warnings
from contextlib import suppress

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch.overrides import TorchFunctionMode

from mmseg_resample import exact
from mmseg_resample.grids import Tracker, network_of
from mmseg_resample.grids.layout import Layout

from ..families import FAMILIES, representative
from .moments import Findings, Moments, Silent
from .random_networks import RandomNetwork

HEAVY = {"san"}
# In swin the head is that of upernet and samples lie as in beit; mae has the neck and the head of beit.
EXACT = {"beit", "bisenetv2", "ddrnet", "pidnet", "pspnet", "segformer", "sem_fpn", "stdc", "unet", "upernet"}
ODD = (557, 565, 977, 1177, 1940, 1965)  # seeds of samples that are repeated unevenly, cut, unfolded and put together
SIZES = [32, 32, 32, 32, 33, 33, 40, 40, 48, 48, 64, 65, 128]


def compare(seed, findings, registered=False):
    """Draw a network, send an image through it, and note where tracker and oracle differ without a word."""
    r = random.Random(seed + 10**6)
    size = [r.choice(SIZES) for _ in range(2)]
    torch.manual_seed(seed)
    network = RandomNetwork(seed)
    if registered:
        network = exact(network, sizes=[size])
    findings.networks += 1
    image = torch.rand(1, 3, *size, dtype=torch.float64)
    with torch.no_grad(), Tracker() as tracker, Moments(tracker, findings, f"{seed} {network.drawn}") as moments:
        moments.start(image)
        try:
            out = network(image)
        except Silent:
            return network
        findings.finals += tracker.grid(out) is not None
    findings.said.update({what.split(":")[0] for _, what in tracker.trace.notes + tracker.trace.unknown})
    return network


def test_random_networks():
    findings, start = Findings(), time.process_time()
    drawn = set()
    for seed in (*range(300), *ODD):
        drawn.update(compare(seed, findings).drawn)
    print(f"\n{findings}; {len(drawn)} idioms; {time.process_time() - start:.0f} s")
    assert findings.errors == []
    assert findings.tensors > 4800 and findings.meetings > 300 and findings.finals > 150
    assert len(drawn) >= 70


def test_random_networks_with_exact_resizes():
    findings, start = Findings(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what no policy reaches is warned of
        for seed in range(1000, 1012):
            compare(seed, findings, registered=True)
    print(f"\n{findings}; {time.process_time() - start:.0f} s")
    assert findings.errors == []
    assert findings.meetings > 5


@pytest.mark.parametrize("rule", ["window", "resample", "mix", "slice"])
def test_the_oracle_notices_rules_that_are_wrong(monkeypatch, rule):
    right = getattr(Layout, rule)

    def wrong(self, index, *args):
        layout = right(self, index, *args)
        moved = [dim.moved((0.05, 0.0)) if dim.moves_along(0) else dim for dim in layout.dims]
        return layout.with_dims(moved)

    monkeypatch.setattr(Layout, rule, wrong)
    findings = Findings()
    for seed in range(30):
        compare(seed, findings)
    assert len(findings.errors) > 3


class Unweighted(TorchFunctionMode):
    """Draws no random weights, which take a tenth of the time and move nothing."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.Tensor.uniform_, torch.Tensor.normal_):
            return args[0].fill_(0.01)
        return func(*args, **(kwargs or {}))


def family(folder, size=(96, 128)):
    """Build the plainest config of a family, at a size that the config's fixed embeddings are made for."""
    cfg = Config.fromfile(representative(folder))
    init_default_scope("mmseg")
    model = copy.deepcopy(cfg.model)
    model.pop("pretrained", None)
    model.pop("auxiliary_head", None)
    backbone = model.get("backbone") or {}
    backbone.pop("init_cfg", None)
    if backbone.get("type") in ("BEiT", "MAE"):
        backbone["img_size"] = size
    with Unweighted():
        return MODELS.build(model).eval()


@pytest.mark.slow
@pytest.mark.parametrize("folder", FAMILIES, ids=lambda folder: folder.name)
def test_families(folder):
    size = (392, 400) if folder.name == "mobilenet_v3" else (96, 128)  # pools of 49 x 49
    if folder.name in HEAVY:
        pytest.skip("runs longer than all others together")
    torch.manual_seed(0)
    try:
        model = family(folder, size)
    except (AssertionError, ImportError, TypeError, KeyError) as error:  # packages that are not here
        pytest.skip(f"{type(error).__name__}: {error}")
    compare_family(folder.name, model, size)
    if folder.name in EXACT:
        compare_family(f"{folder.name}, exact", exact(model, sizes=[size]), size)


def compare_family(name, model, size):
    network, findings = network_of(model), Findings(networks=1)
    tracker = Tracker()
    moments = Moments(tracker, findings, name)
    with torch.no_grad(), tracker, tracker.modules(model, network), moments, suppress(Silent):
        channels = next(m.in_channels for m in model.modules() if isinstance(m, torch.nn.Conv2d))
        image = torch.rand(1, channels, *size)
        moments.start(image)
        list(network.run(model, image))
    print(f"\n{name}: {findings}")
    assert findings.errors == []
    assert findings.tensors > 50
