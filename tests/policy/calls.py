"""Networks that call resizes in every way that Python allows, and know themselves what they called and where.

Nothing here is ours but ``ops.resize`` and ``flow_warp`` where they are what is called: what a network did is logged by
the network, and positions come out of it as ``moment / mass``.
"""

import contextlib
import functools
import random
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.functional import interpolate
from torch.utils.checkpoint import checkpoint

from mmseg_resample.ops import AxisMap, flow_warp, resize

aten = torch.ops.aten


@dataclass
class Log:
    """Record of what networks called since it was last cleared: reachable resizes, and operands of meetings."""

    calls: list = field(default_factory=list)
    unreachable: list = field(default_factory=list)
    operands: list = field(default_factory=list)
    measuring: bool = False


LOG = Log()


def factors(x, size):
    """Return factors of which these sizes follow, and no ratio of sizes."""
    return tuple((out + 0.4) / n for n, out in zip(x.shape[2:], size, strict=True))


def helper(x, size):
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def by_default_argument(x, size, function=F.interpolate):
    return function(x, size=size, mode="bilinear")


def closure(mode):
    function = F.interpolate
    return lambda x, size: function(x, size, mode=mode)


class Holder:
    function = staticmethod(F.interpolate)

    @staticmethod
    def static(x, size):
        return interpolate(input=x, size=size, mode="bilinear", align_corners=False)


def generated(x, size):
    yield from (F.interpolate(part, size, mode="bilinear") for part in (x,))


def by_planes(x, size):
    return F.interpolate(x[:, :, None], (1, *size), mode="trilinear", align_corners=False)[:, :, 0]


def raised_in_the_middle(x, size):
    with contextlib.suppress(TypeError, ValueError, RuntimeError):
        F.interpolate(x, size, mode="bilinear", align_corners="what", antialias=1, recompute_scale_factor=3)
    return F.interpolate(x, size, mode="bilinear")


def beside_what_is_no_site(x, size):
    """Averages of bins are no resizes that a pixel model could change."""
    F.interpolate(x, size, mode="area")
    F.adaptive_avg_pool2d(x, 2)
    with contextlib.suppress(ValueError):
        F.interpolate(x, (1, 2, 3), mode="bilinear")
    return F.interpolate(x, size, mode="bilinear")


partial = functools.partial(F.interpolate, mode="bilinear", align_corners=False)
WAYS = {
    "F.interpolate": lambda x, s: F.interpolate(x, s, mode="bilinear", align_corners=False),
    "imported": lambda x, s: interpolate(x, s, None, "bilinear", True),
    "tensors": lambda x, s: aten.upsample_bilinear2d(x, [torch.tensor(n) for n in s], False, None),
    "bicubic": lambda x, s: interpolate(x, s, mode="bicubic"),
    "nearest": lambda x, s: interpolate(x, s),
    "nearest-exact": lambda x, s: interpolate(x, s, mode="nearest-exact"),
    "partial": lambda x, s: partial(x, s),
    "default argument": by_default_argument,
    "class attribute": lambda x, s: Holder.function(x, s, mode="bilinear"),
    "closure": closure("bilinear"),
    "helper": helper,
    "static method": Holder.static,
    "generator": lambda x, s: next(generated(x, s)),
    "packet": lambda x, s: aten.upsample_bilinear2d(x, list(s), True, None, None),
    "default": lambda x, s: aten.upsample_bilinear2d.default(x, list(s), False),
    "default named": lambda x, s: aten.upsample_bilinear2d.default(self=x, output_size=list(s), align_corners=False),
    "default by one factor": lambda x, s: aten.upsample_bilinear2d.default(x, [*s], False, scales_w=factors(x, s)[1]),
    "vec": lambda x, s: aten.upsample_bicubic2d.vec(x, list(s), False, None),
    "vec by factors": lambda x, s: aten.upsample_bilinear2d.vec(x, None, False, list(factors(x, s))),
    "nearest packet": lambda x, s: aten.upsample_nearest2d(x, list(s), None, None),
    "nearest vec": lambda x, s: aten._upsample_nearest_exact2d.vec(x, None, list(factors(x, s))),
    "_C._nn": lambda x, s: torch._C._nn.upsample_bilinear2d(x, s, False, None),
    "_C._nn by size": lambda x, s: torch._C._nn.upsample_bicubic2d(x, s, True),
    "F.upsample": lambda x, s: F.upsample(x, s, mode="bilinear"),
    "F.upsample_bilinear": lambda x, s: F.upsample_bilinear(x, s),
    "F.upsample_nearest": lambda x, s: F.upsample_nearest(x, s),
    "ops.resize": lambda x, s: resize(x, s, mode="bilinear", align_corners=False),
    "ops.resize by map": lambda x, s: resize(x, s, mode="bilinear", coordinates=AxisMap(0.5, 0.25)),
    "ops.resize by name": lambda x, s: resize(x, s, mode="bicubic", coordinates="asymmetric"),
    "ops.resize by factors": lambda x, s: resize(x, None, factors(x, s), "bilinear", coordinates="half_pixel"),
    "ops.resize nearest": lambda x, s: resize(x, s, mode="nearest", align_corners=False),
    "factors": lambda x, s: F.interpolate(x, scale_factor=factors(x, s), mode="bilinear"),
    "recomputed": lambda x, s: F.interpolate(x, None, factors(x, s), "bilinear", recompute_scale_factor=True),
    "list": lambda x, s: F.interpolate(x, list(s), mode="bilinear"),
    "numpy": lambda x, s: F.interpolate(x, tuple(np.int64(n) for n in s), mode="bilinear"),
    "volumes": by_planes,
    "raised": raised_in_the_middle,
    "beside": beside_what_is_no_site,
    "checkpointed": lambda x, s: checkpoint(helper, x, s, use_reentrant=False),
    "checkpointed, reentrant": lambda x, s: checkpoint(helper, x, s, use_reentrant=True),
}  # fmt: skip


@torch.jit.script
def scripted(x: torch.Tensor, size: list[int]) -> torch.Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def written(x, size):
    out = x.new_empty(*x.shape[:2], *size)
    with torch.no_grad():
        return aten.upsample_bilinear2d.out(x.detach(), list(size), False, out=out)


UNREACHABLE = {
    "scripted": lambda x, s: scripted(x, list(s)),
    "antialiased": lambda x, s: F.interpolate(x, s, mode="bilinear", antialias=True),
    "out": written,
    "dispatched": lambda x, s: torch.overrides.wrap_torch_function(lambda x: (x,))(lambda x: F.interpolate(x, s))(x),
}


def warp(x):
    """Move nothing, by coordinates that are data."""
    ys, xs = (torch.linspace(-1, 1, n, dtype=x.dtype, device=x.device) for n in x.shape[2:])
    F.grid_sample(x[:1], torch.stack(torch.broadcast_tensors(xs[None], ys[:, None]), -1)[None], align_corners=True)
    return flow_warp(x[:1], x.new_zeros(1, 2, *x.shape[2:]), align_corners=False)


class Own(nn.Module):
    """A resize in a module of its own; every call of it goes by its path."""

    def __init__(self, way):
        super().__init__()
        self.way = way

    def forward(self, x, size):
        return self.way(x, size)


class Scripted(nn.Module):
    def forward(self, x: torch.Tensor, size: list[int]) -> torch.Tensor:
        return F.interpolate(x, size, mode="bilinear", align_corners=True)


class Fuse(nn.Module):
    """Resizes the other levels onto one, in given ways, and meets them there."""

    def __init__(self, path, channels, base, steps):
        super().__init__()
        self.path, self.base, self.steps = path, base, steps
        self.mixes = nn.ModuleList(nn.Conv2d(2 * channels if s["meet"] == "cat" else channels, channels, s["kernel"],
                                             padding=s["kernel"] // 2, bias=False) for s in steps)  # fmt: skip
        self.owned = nn.ModuleDict()
        for i, step in enumerate(steps):
            if step["kind"] == "upsample":
                self.owned[str(i)] = nn.Upsample(mode="bilinear", align_corners=step["flag"])
            elif step["kind"] == "scripted module":
                self.owned[str(i)] = torch.jit.script(Scripted())
            elif step["kind"] != "here":
                self.owned[str(i)] = Own((WAYS | UNREACHABLE)[step["way"]])

    def forward(self, features):
        x = features[self.base]
        for i, (step, mix) in enumerate(zip(self.steps, self.mixes, strict=True)):
            if step["decoy"]:
                LOG.calls += [(self.path, tuple(x.shape[2:]), tuple(x.shape[2:]))] * 2
                warp(x)
            y = self.resized(i, step, features[step["level"]], x.shape[2:])
            LOG.operands.append((x, y))
            if LOG.measuring:  # what is misplaced here shall not move what comes behind
                y = torch.zeros_like(y)
            x = mix(torch.cat([x, y], 1) if step["meet"] == "cat" else x + y)
        return [*features[: self.base], x, *features[self.base + 1 :]]

    def resized(self, i, step, x, size):
        way, kind = step["way"], step["kind"]
        path = self.path if kind == "here" else f"{self.path}.owned.{i}"
        entry = (path, tuple(x.shape[2:]), tuple(size))
        if kind == "scripted module" or way in UNREACHABLE:
            LOG.unreachable.append(entry)
        else:
            LOG.calls += [entry] * (2 if kind == "twice" else 1)
        if kind == "here":
            return (WAYS | UNREACHABLE)[way](x, size)
        module = self.owned[str(i)]
        if kind == "upsample":
            module.size = tuple(size)
            return module(x)
        if kind == "scripted module":
            return module(x, list(size))
        if kind == "twice":
            first, second = module(x, size), module(x, size)
            LOG.operands.append((first, second))
            return (first + second) / 2
        if kind == "forward":
            return module.forward(x, size)
        if kind.startswith("checkpoint"):
            return checkpoint(module, x, size, use_reentrant=kind.endswith("reentrant"))
        return module(x, size)


class RandomNetwork(nn.Module):
    """A pyramid of convolutions whose levels meet, and predict at the size of the image."""

    def __init__(self, seed, only=None):
        super().__init__()
        rng, channels = random.Random(seed), 2
        self.stages = nn.ModuleList()
        for i in range(3):
            kernel, padding = rng.choice([(3, 1), (5, 2), (2, 0), (1, 0)])
            self.stages.append(nn.Conv2d(channels if i else 1, channels, kernel, 2, padding, bias=False))
        self.fuses = nn.ModuleList()
        names, lost = list(WAYS), list(UNREACHABLE)
        for i in range(rng.randint(1, 2)):
            base = rng.randint(0, 1)
            steps = []
            for _ in range(rng.randint(1, 3)):
                kinds = ["here"] * 5 + ["own", "twice", "forward", "checkpoint", "checkpoint reentrant", "upsample"]
                kind = rng.choice([*kinds, "scripted module"] if seed % 3 == 0 else kinds)
                reach = lost if seed % 3 == 0 and rng.random() < 0.3 and kind == "here" else names
                steps.append(dict(
                    way=rng.choice(reach), kind=kind, level=rng.randint(base + 1, 2), flag=rng.random() < 0.5,
                    meet=rng.choice(["add", "cat"]), kernel=rng.choice([1, 3]), decoy=rng.random() < 0.05))  # fmt: skip
            self.fuses.append(Fuse(f"fuses.{i}", channels, base, steps))
        self.last = nn.Conv2d(channels, 1, 1, bias=False)
        self.way, self.out = rng.choice(names), self.fuses[-1].base
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.constant_(conv.weight, 1 / conv.weight[0].numel())

    def forward(self, image):
        features, x = [], image
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        for fuse in self.fuses:
            features = fuse(features)
        x = self.last(features[self.out])
        LOG.calls.append(("", tuple(x.shape[2:]), tuple(image.shape[2:])))
        return WAYS[self.way](x, image.shape[2:])
