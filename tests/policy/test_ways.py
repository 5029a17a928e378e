"""Kinds of calls and of modules by which a policy could lose count of resizes."""

import copy
import functools
import pickle
import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.functional import interpolate
from torch.utils.checkpoint import checkpoint

from mmseg_resample.grids import audit
from mmseg_resample.grids.sites import _here, current_pass
from mmseg_resample.policy import ResizePolicy
from tests.conftest import EXPORTS

from .calls import WAYS

SIZES = [(64, 64), (75, 91)]
EXACT = dict(exact=True, sizes=SIZES)


class Pyramid(nn.Module):
    """Levels of strides 2, 4 and 8 from odd kernels, and a subclass's ``fuse``."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(nn.Conv2d(1, 1, 3, 2, 1) for _ in range(3))
        for stage in self.stages:
            nn.init.constant_(stage.weight, 1 / 9)
            nn.init.zeros_(stage.bias)

    def forward(self, x):
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return self.fuse(*features)

    def fuse(self, a, b, c):
        return a + interpolate(b, a.shape[2:], mode="bilinear") + interpolate(c, a.shape[2:], mode="bilinear")


def right(a, b, c):
    """Compute what exact resizes give, by ``grid_sample`` alone."""

    def resized(x, size):
        step = 1 / round(size[0] / x.shape[2])
        ys, xs = (torch.arange(out) * step for out in size)
        ys, xs = (2 * v / max(n - 1, 1) - 1 for v, n in zip((ys, xs), x.shape[2:], strict=True))
        grid = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], -1)[None]
        return F.grid_sample(x, grid, padding_mode="border", align_corners=True)

    return a + resized(b, a.shape[2:]) + resized(c, a.shape[2:])


def expected(model, x):
    features = []
    for stage in model.stages:
        x = stage(x)
        features.append(x)
    return right(*features)


def exact(model):
    ResizePolicy(**EXACT).install(model)
    return model.eval()


def test_the_fused_levels_are_what_exact_says():
    x, model = torch.rand(1, 1, 64, 64), exact(Pyramid())
    torch.testing.assert_close(model(x), expected(model, x))
    assert audit(model, (64, 64)).worst < 1e-6


class ParallelFunction(Pyramid):
    """Checkpoints functions that no module owns, and calls each twice."""

    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant

    def fuse(self, a, b, c):
        def up(x):
            return (interpolate(x, a.shape[2:], mode="bilinear") ** 2).sqrt()

        if self.reentrant is None:
            return a + up(b) + up(c)
        return sum((checkpoint(up, x, use_reentrant=self.reentrant) for x in (b, c)), a)


class Up(nn.Module):
    def forward(self, x, size):
        return (interpolate(x, size, mode="bilinear") ** 2).sqrt()


class ParallelModule(ParallelFunction):
    """Checkpoints one module for two levels, whose maps differ."""

    def __init__(self, reentrant):
        super().__init__(reentrant)
        self.up = Up()

    def fuse(self, a, b, c):
        if self.reentrant is None:
            return a + self.up(b, a.shape[2:]) + self.up(c, a.shape[2:])
        return sum((checkpoint(self.up, x, a.shape[2:], use_reentrant=self.reentrant) for x in (b, c)), a)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", [ParallelFunction, ParallelModule])
def test_checkpointed_parts_are_recomputed_as_they_were(kind, reentrant):
    gradients = []
    for how in (None, reentrant):
        model = exact(kind(how))
        x = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
        out = model(x)
        (out**2).sum().backward(retain_graph=how is not True)
        if how is not True:  # again, of what was recomputed
            x.grad = None
            model.zero_grad()
            (out**2).sum().backward()
        gradients.append([x.grad, *(p.grad for p in model.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


class InTraining(Pyramid):
    """Resizes more in training, in a module that never does so in evaluation, and before the others."""

    def __init__(self):
        super().__init__()
        self.extra = Up()

    def fuse(self, a, b, c):
        if self.training:
            self.auxiliary = self.extra(c, a.shape[2:]) + a
            self.own = a + interpolate(c, a.shape[2:], mode="bilinear")
        return super().fuse(a, b, c)


def test_resizes_in_training_alone_shift_nothing(caplog):
    model, x = exact(InTraining()), torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        evaluated = model(x)
        torch.testing.assert_close(evaluated, expected(model, x))
        torch.testing.assert_close(model.train()(x), evaluated)
        c = model.stages[2](model.stages[1](model.stages[0](x)))
        a = model.stages[0](x)
        torch.testing.assert_close(model.own, right(a, torch.zeros_like(model.stages[1](a)), c))
        torch.testing.assert_close(model.auxiliary, model.own)
    assert not caplog.messages


def test_a_network_that_cannot_be_run_in_training_is_said(caplog):
    class Needy(Pyramid):
        def fuse(self, a, b, c):
            if self.training:
                raise RuntimeError("no targets")
            return super().fuse(a, b, c)

    exact(Needy())
    assert [m for m in caplog.messages if "in training mode (no targets)" in m] == caplog.messages != []


class Broken(Pyramid):
    def fuse(self, a, b, c):
        out = super().fuse(a, b, c)
        if getattr(self, "broken", False):
            interpolate(b, a.shape[2:], mode="bilinear")
            raise KeyboardInterrupt
        return out


def test_an_exception_leaves_nothing_behind():
    model, x = exact(Broken()), torch.rand(1, 1, 64, 64)
    before = model(x)
    model.broken = True
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            model(x)
        assert current_pass().handle is None and current_pass().path == "" and not current_pass().calls
        assert not _here.seen and _here.site is None and not torch._C._len_torch_function_stack()
    model.broken = False
    assert torch.equal(model(x), before)


class Own(Pyramid):
    """Forward is set on the instance, as activation checkpointing and wrappers do."""

    def __init__(self):
        super().__init__()
        self.up = Up()
        self.up.forward = functools.partial(checkpoint, self.up.forward, use_reentrant=False)
        self.forward = functools.partial(type(self).forward, self)

    def fuse(self, a, b, c):
        return a + self.up(b, a.shape[2:]) + self.up(c, a.shape[2:])


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_a_forward_of_the_instance_counts():
    model, x = Own(), torch.rand(1, 1, 64, 64)
    forwards = model.forward, model.up.forward
    policy = ResizePolicy(**EXACT)
    with policy.applied(model):
        assert {path for path, _ in policy.report()["exact"]} == {"up"}
        torch.testing.assert_close(model(x), expected(model, x))
    assert (model.forward, model.up.forward) == forwards
    assert not torch.allclose(model(x), expected(model, x))
    exact(model)
    for again in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(again(x), expected(model, x))
        assert again.up.forward.module is again.up


class Meta(type(nn.Module)):
    def __call__(cls, *args):
        made = super().__call__(*args)
        made.by_metaclass = True
        return made


class Slotted(Pyramid, metaclass=Meta):
    __slots__ = ("mark",)


class Reduced(Pyramid):
    def __init__(self, note="none"):
        super().__init__()
        self.note = note

    def __reduce__(self):
        return Reduced, (f"{self.note}+",), self.__dict__


class Stated(Pyramid):
    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "lock"}

    def __setstate__(self, state):
        super().__setstate__(state)
        self.lock = threading.Lock()


class Chain(nn.Sequential):
    pass


class Last(nn.Module):
    def forward(self, x):
        return F.interpolate(x, scale_factor=2, mode="bilinear")


@pytest.mark.parametrize("kind", [Pyramid, Slotted, Reduced, Stated])
def test_modules_of_any_class_are_copied(kind):
    model, x = kind(), torch.rand(1, 1, 64, 64)
    model.lock = threading.Lock() if kind is Stated else None
    model = exact(model)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.deepcopy(copy.deepcopy(model))):
        assert type(again).__name__ == kind.__name__ and isinstance(again, kind)
        torch.testing.assert_close(again(x), expected(model, x))
        assert hasattr(again, "lock")


def test_sequences_of_any_class():
    model, x = Chain(nn.Conv2d(1, 1, 3, 2, 1), nn.Sequential(Last())), torch.rand(1, 1, 64, 64)
    ResizePolicy(exact=True, sizes=[(64, 64), (96, 80)]).install(model)
    assert model.resize_policy.report()["exact"].keys() == {("1.0", 0)}
    assert len(model) == 2 and isinstance(model[:1], nn.Sequential)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), model(x))


def test_graphs_obey_and_their_copies_are_said_to_lose_it(caplog):
    plain, x = Pyramid().eval(), torch.rand(1, 1, 64, 64)
    graph = exact(torch.fx.symbolic_trace(plain))
    torch.testing.assert_close(graph(x), expected(plain, x))
    assert "copies and pickles of torch.fx graphs ('') lose the policy" in caplog.text
    assert "_resample_policy" not in copy.deepcopy(graph).__dict__  # else the warning is to go


def test_a_part_that_has_a_policy_goes_by_its_path_in_the_whole():
    part = exact(Pyramid())

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = part, Pyramid()

        def forward(self, x):
            return self.one(x) + self.other(x)

    model, x = Whole().eval(), torch.rand(1, 1, 64, 64)
    inner = part.__dict__.copy(), type(part)
    policy = ResizePolicy(**EXACT)
    with policy.applied(model):
        assert {path for path, _ in policy.report()["exact"]} == {"one", "other"}
        torch.testing.assert_close(model(x), expected(part, x) + expected(model.other, x))
    assert (part.__dict__, type(part)) == inner
    torch.testing.assert_close(part(x), expected(part, x))


def test_two_models_with_policies_call_each_other(caplog):
    inner, model = exact(Pyramid()), Pyramid()

    def fuse(a, b, c):
        first = interpolate(b, a.shape[2:], mode="bilinear")
        seen.append(inner(a))
        return a + first + interpolate(c, a.shape[2:], mode="bilinear")

    seen, model.fuse = [], fuse
    exact(model)
    assert "policy of its own" in caplog.text and set(model.resize_policy.unreachable) == {("", -1), ("", -2)}
    seen.clear()
    x = torch.rand(1, 1, 128, 128)
    torch.testing.assert_close(model(x), expected(model, x))
    torch.testing.assert_close(seen[0], expected(inner, model.stages[0](x)))


def test_threads_do_not_mix():
    models = [exact(Pyramid()) for _ in range(2)] + [Pyramid()]
    shared = models[0]
    xs = [torch.rand(1, 1, 64 + 16 * i, 64) for i in range(4)]
    wanted = [m(x).detach() for m, x in zip([*models, shared], xs, strict=True)]
    errors = []

    def work(model, x, value):
        try:
            for _ in range(20):
                with torch.no_grad():
                    torch.testing.assert_close(model(x), value)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=a) for a in zip([*models, shared], xs, wanted, strict=True)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert not errors


def test_replicas_in_threads():
    model, x = exact(Pyramid()), torch.rand(1, 1, 64, 64)
    replica = model._replicate_for_data_parallel()
    replica._modules = model._modules.copy()
    out = []
    thread = threading.Thread(target=lambda: out.append(replica(x)))
    thread.start(), thread.join()
    torch.testing.assert_close(out[0], expected(model, x))


class Uneven(Pyramid):
    """Its maps depend on the input size, so a policy audits in the middle of a forward pass."""

    def fuse(self, a, b, c):
        up = interpolate(interpolate(c, (7, 9), mode="bilinear"), a.shape[2:], mode="bilinear")
        return a + up + interpolate(b, a.shape[2:], mode="bilinear")


def test_an_audit_in_the_middle_of_a_forward_pass():
    model = exact(Uneven())
    assert model.resize_policy.size_dependent
    for size in [(64, 64), (96, 72), (101, 67), (96, 72)]:
        x = torch.rand(1, 1, *size)
        first = model(x)
        assert torch.equal(model(x), first)
        assert audit(model, size).worst < 1e-6 < audit(Uneven(), size).worst
    assert not torch._C._len_torch_function_stack()


def test_lines_of_planes_are_exact_too():
    """Resizes of one axis, on (N, C, L)."""

    class Separable(Pyramid):
        def fuse(self, a, b, c):
            return a + self.up(b, a.shape[2:]) + self.up(c, a.shape[2:])

        def up(self, x, size):
            n, _, h, w = x.shape
            x = interpolate(x.reshape(n * h, 1, w), size[1:], mode="linear").reshape(n, 1, h, size[1])
            x = x.transpose(2, 3).reshape(n * size[1], 1, h)
            return interpolate(x, size[:1], mode="linear").reshape(n, 1, size[1], size[0]).transpose(2, 3)

    model, x = Separable(), torch.rand(1, 1, 64, 48)
    policy = ResizePolicy(exact=True, sizes=[(64, 48), (75, 91)])
    policy.install(model)
    if audit(model, (64, 48)).worst < 1e-6:
        torch.testing.assert_close(model(x), expected(model, x))
    else:  # what is not exact is neither moved nor hidden
        assert audit(model, (64, 48)).meetings


@pytest.mark.skipif(torch.__version__ < "2.7", reason="older torch cannot compile a policy in one graph")
def test_compiled_in_one_graph():
    model = exact(Pyramid())
    for backend in ("eager", "aot_eager"):
        torch._dynamo.reset()
        compiled = torch.compile(copy.deepcopy(model), backend=backend, fullgraph=True)
        for size in [(64, 64), (96, 80), (75, 91)]:
            x = torch.rand(1, 1, *size)
            torch.testing.assert_close(compiled(x), expected(model, x))


def test_traced_and_exported():
    model, x = exact(Pyramid()), torch.rand(1, 1, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(torch.jit.trace(model, x)(x), expected(model, x))
        if EXPORTS:
            torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected(model, x))


def test_calls_that_are_refused_say_so_themselves():
    model = exact(Pyramid())
    x = torch.rand(1, 1, 8, 8)
    messages = []
    for under in (False, True):
        for call in (
            lambda: F.interpolate(x, (1, 2, 3), mode="bilinear"),
            lambda: F.interpolate(x, 3, 2.0, mode="bilinear"),
            lambda: F.interpolate(x, scale_factor=(2.0,), mode="bilinear"),
            lambda: F.interpolate(x, size="big"),
            lambda: F.interpolate(x, 3, mode="bilinaer"),
            lambda: F.interpolate(x, 3, sise=3),
            lambda: F.interpolate(7, 3),
        ):
            model.fuse = lambda *_, call=call: call()
            with pytest.raises(Exception) as caught:
                model(x) if under else call()
            messages.append(str(caught.value))
    assert messages[: len(messages) // 2] == messages[len(messages) // 2 :]


def test_factors_beside_another_size():
    """Operators take both; the size decides the shape, the factor the step."""
    x = torch.rand(1, 1, 8, 8)
    call = lambda x: torch.ops.aten.upsample_bilinear2d.default(x, [19, 21], False, 2.0, None)  # noqa: E731

    class One(nn.Module):
        def forward(self, x):
            return call(x)

    model = One()
    ResizePolicy(rules=[dict(path="", coordinates="half_pixel")], sizes=SIZES).install(model)
    assert model(x).shape == (1, 1, 19, 21)
    with ResizePolicy(rules=[dict(path="", set_mode="bicubic")], sizes=SIZES).applied(model):
        assert model(x).shape == (1, 1, 19, 21)
    with ResizePolicy(rules=[dict(path="", set_mode="bilinear")], sizes=SIZES).applied(model):
        torch.testing.assert_close(model(x), call(x))


@pytest.mark.parametrize("way", WAYS)
def test_a_policy_that_keeps_every_map_changes_nothing(way):
    """So what a call was read as is what it is."""

    class One(nn.Module):
        def forward(self, x):
            return WAYS[way](x, (19, 21))

    x, model = torch.rand(1, 1, 8, 9, dtype=torch.float64), One().double()
    mode = "bicubic" if "bicubic" in way or way in ("vec", "_C._nn by size", "ops.resize by name") else "bilinear"
    if "nearest" in way:
        mode = "nearest-exact" if way in ("nearest-exact", "nearest vec") else "nearest"
    mode = "trilinear" if way == "volumes" else mode
    try:
        stock = model(x)
    except TypeError as error:
        pytest.skip(f"torch {torch.__version__} refuses this call: {error}")
    asked = []

    class Same(ResizePolicy):
        def decide(self, site, call, input_size=None):
            asked.append(call)
            return {"mode": call.mode, "coordinates": call.maps()}

    with Same(rules=[dict(path="never", set_mode=mode)], sizes=SIZES).applied(model):
        asked.clear()
        torch.testing.assert_close(model(x), stock)
    assert [call.mode for call in asked] == [mode]
