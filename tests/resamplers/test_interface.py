"""What every learned resampler promises: any size, either flag, any dtype and memory format, gradients, one graph."""

import inspect

import pytest
import torch

from mmseg_resample import resamplers
from mmseg_resample.models import ResampleFPN
from mmseg_resample.resamplers import Resampler, build_resampler
from tests.conftest import EXPORTS, HALVES, ONE_GRAPH, assert_close

CONFIGS = [
    dict(type="CARAFE", up_group=2, compressed_channels=4),
    dict(type="DySample"),
    dict(type="DySample", style="pl", groups=4, dyscope=True),
    dict(type="FADE", compressed_channels=4),
    dict(type="FADE", compressed_channels=4, gate=False),
    dict(type="FADELite"),
    dict(type="SAPA", embedding_channels=4),
    dict(type="FreqFusion", compressed_channels=4),
    dict(type="FreqFusion", compressed_channels=4, offsets=False, hamming=True),
    dict(type="JAFAR", qk_channels=16, chunk_size=81),
    dict(type="AnyUp", qk_channels=16, chunk_size=81, window_share=0.3),
    dict(type="JointBilateral", up_kernel=3, steps=1, key_channels=4),
    dict(type="JointBilateral", learned=False, up_kernel=3, steps=1),
    dict(type="LoftUp", frequencies=2, num_layers=1),
    dict(type="NAF", qk_channels=16, up_kernel=3),
]
each_config = pytest.mark.parametrize("config", CONFIGS, ids=str)
each_flag = pytest.mark.parametrize("flag", [False, True])


def build(config, flag=False):
    """Build it with weights that make the module do something."""
    module = build_resampler(config, in_channels=16, guide_channels=16, align_corners=flag)
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return module


def features(size=(9, 11), batch=2, dtype=torch.float32):
    return torch.randn(batch, 16, 5, 6, dtype=dtype), torch.randn(batch, 16, *size, dtype=dtype)


def test_arguments_begin_alike():
    classes = [each for each in vars(resamplers).values() if inspect.isclass(each) and issubclass(each, Resampler)]
    assert len(classes) > 10
    for each in classes:
        assert list(inspect.signature(each).parameters)[:3] == ["in_channels", "guide_channels", "align_corners"], each


@each_config
def test_channels_are_integers(config):
    with pytest.raises(TypeError, match=r"expected in_channels to be an integer, got '16'\."):
        build_resampler(config, in_channels="16", guide_channels=16, align_corners=False)


@each_config
@each_flag
@pytest.mark.parametrize("size", [(10, 12), (9, 11), (5, 6), (3, 4), (1, 1), (1, 13), (23, 2)])
def test_any_size(config, flag, size):
    x, like = features(size)
    module = build(config, flag)
    assert module.align_corners is flag
    for source in (x, x[:, :, :1, :1], x[:, :, :1]):
        out = module(source, like)
        assert out.shape == (2, 16, *size)
        assert out.isfinite().all()


@each_config
def test_the_flag_matters(config):
    x, like = features((20, 24))
    other = build(config, True)
    module = build(config, False)
    other.load_state_dict(module.state_dict())
    assert (module(x, like) - other(x, like)).abs().max() > 1e-2


@each_config
@each_flag
def test_gradients(config, flag):
    module = build(config, flag).double()
    x, like = features((3, 4), batch=1, dtype=torch.float64)
    x = x[:, :, :2, :3].contiguous().requires_grad_()
    like.requires_grad_(module.guided)
    inputs = (x, like) if module.guided else (x,)
    parameters = tuple(module.parameters())

    def run(*tensors):
        return module(x, like)

    assert torch.autograd.gradcheck(run, (*inputs, *parameters), fast_mode=True)


@each_config
def test_memory_format_is_kept(config):
    x, like = features()
    module = build(config)
    expected = module(x, like)
    assert expected.is_contiguous()
    out = module.to(memory_format=torch.channels_last)(
        x.to(memory_format=torch.channels_last), like.to(memory_format=torch.channels_last)
    )
    assert_close(out, expected)
    if config["type"] != "DySample":  # grid_sample returns rows
        assert out.is_contiguous(memory_format=torch.channels_last)


@each_config
def test_empty_batch(config):
    x, like = features(batch=0)
    assert build(config)(x.requires_grad_(), like).shape == (0, 16, 9, 11)


@each_config
def test_autocast(config):
    x, like = features()
    module = build(config)
    with torch.autocast("cpu", torch.bfloat16):
        actual = module(x, like)
    torch.testing.assert_close(actual.float(), module(x, like), atol=0.15, rtol=0)


@each_config
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision(config, dtype):
    x, like = features()
    module = build(config)
    expected = module.to(dtype).double()(x.to(dtype).double(), like.to(dtype).double())
    actual = module.to(dtype)(x.to(dtype), like.to(dtype))
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected, atol=0.15 if dtype == torch.bfloat16 else 0.02, rtol=0)


@each_config
def test_compiles_in_one_graph(config):
    if config["type"] == "NAF" and torch.__version__ < "2.2":
        pytest.skip("the compiler of torch 2.1 fails on its cells")
    x, like = features()
    arguments = inspect.signature(getattr(resamplers, config["type"])).parameters
    window = {name: 3 for name in ("up_kernel", "lowpass_kernel") if name in arguments}
    module = build({**config, **window}, True)
    compiled = torch.compile(module, fullgraph=ONE_GRAPH, backend="aot_eager")
    x.requires_grad_()
    expected, actual = module(x, like), compiled(x, like)
    assert_close(actual, expected)
    of_actual, of_expected = (torch.autograd.grad(out.square().sum(), x)[0] for out in (actual, expected))
    torch.testing.assert_close(of_actual, of_expected, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not EXPORTS, reason="older torch exports by its compiler, which takes no `zip(strict=True)`")
@pytest.mark.parametrize("config", CONFIGS[-4:], ids=str)
def test_exports(config):
    x, like = features((13, 9))
    module = build(config).eval()
    program = torch.export.export(module, (x, like))
    assert_close(program.module()(x, like), module(x, like))


@each_config
def test_explains_what_it_did(config):
    x, like = features()
    module = build(config)
    before = {name: id(value) for name, value in vars(module).items()}
    explained = module.explain(x, like)
    assert {name: id(value) for name, value in vars(module).items()} == before
    assert explained or config["type"] == "LoftUp"  # all features are in its windows
    assert set(explained) <= {"flow", "offset", "kernel", "kernel_like", "gate"}
    assert all(value.shape[-2:] == like.shape[-2:] for value in explained.values())
    if "kernel" in explained and not hasattr(module, "correct"):
        kernel = explained["kernel"]
        assert_close(kernel.sum(2), torch.ones_like(kernel.sum(2)))
    if "flow" in explained:
        assert explained["flow"].shape == (2, 2, 9, 11)


@each_config
@each_flag
def test_in_a_pyramid(config, flag):
    neck = ResampleFPN([3, 5, 7], 16, 3, resampler=config, align_corners=flag)
    neck.init_weights()
    sizes = [(17, 23), (9, 12), (5, 6)]
    image = (torch.randn(1, 3, 33, 45),) if neck.by_image else ()
    outs = neck((*image, *(torch.randn(1, c, *size) for c, size in zip((3, 5, 7), sizes, strict=True))))
    assert [tuple(out.shape[2:]) for out in outs] == sizes
    sum(out.square().mean() for out in outs).backward()
    assert all(p.grad is not None for p in neck.resamplers.parameters())


@pytest.mark.parametrize(
    ("kind", "layer"), [("CARAFE", "content_encoder"), ("DySample", "offset"), ("FreqFusion", "low_pass")]
)
def test_a_neck_leaves_their_initialisation_alone(kind, layer):
    """FPN initialises every convolution inside it; these start near a plain resize."""
    neck = ResampleFPN([3, 5], 16, 2, resampler=dict(type=kind))
    neck.init_weights()
    assert 0 < getattr(neck.resamplers[0], layer).weight.std() < 0.002
