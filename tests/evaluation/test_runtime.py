"""``RuntimeHook``: logits of a runtime in a test, from a file that is exported when an image comes."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from mmseg_resample import launch
from mmseg_resample.evaluation import RuntimeHook

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("policy", [None, "exact+pad"])
def test_the_runtime_computes_the_logits(policy):
    cfg = launch.load_config("mmseg_resample::lean/fcn_r18-d8-tiny-lean_1xb8-400_shapes-128x128.py")
    if policy:
        launch.set_policy(cfg, policy)
    init_default_scope("mmseg")
    model = MODELS.build(cfg.model).eval()
    images = torch.randn(3, 3, 40, 56)
    metas = [dict(img_shape=(40, 56), ori_shape=(40, 56), pad_shape=(40, 56))] * 3
    runner = SimpleNamespace(model=model)
    with torch.no_grad():
        expected = model.encode_decode(images, metas)
        hook = RuntimeHook("onnxruntime")
        hook.before_test(runner)
        for _ in range(2):  # exported once, then kept
            found = model.encode_decode(images, metas)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        assert not torch.equal(found, expected)  # rounded otherwise: it was not PyTorch
        hook.after_test(runner)
        assert torch.equal(model.encode_decode(images, metas), expected)


def test_an_unknown_runtime_is_refused():
    with pytest.raises(ValueError, match="expected runtime to be one of 'onnxruntime'"):
        RuntimeHook("onnx")
