"""The tracker against the oracle of moments: random networks, and every family of mmseg."""

import random
import time
import warnings

import pytest
import torch

from mmseg_resample import exact
from mmseg_resample.grids import Tracker
from mmseg_resample.grids.layout import Layout

from .moments import Findings, Moments, Silent
from .random_networks import RandomNetwork

SIZES = [32, 32, 33, 40, 48, 48, 64, 65, 96, 128]


def compare(seed, findings, registered=False):
    """Draw a network, send an image through it, and note where tracker and oracle differ without a word."""
    r = random.Random(seed + 10**6)
    size = [r.choice(SIZES) for _ in range(2)]
    torch.manual_seed(seed)
    network = RandomNetwork(seed)
    if registered:
        network = exact(network)
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
    for seed in range(500):
        drawn.update(compare(seed, findings).drawn)
    print(f"\n{findings}; {len(drawn)} idioms; {time.process_time() - start:.0f} s")
    assert findings.errors == []
    assert findings.tensors > 8000 and findings.meetings > 500 and findings.finals > 250
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
