"""``LeanSegmentor``: any segmentor of mmseg without full-resolution logits, from the config, with the same results."""

from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from mmengine.structures import PixelData
from mmseg.models.decode_heads import SegformerHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import BaseSegmentor, CascadeEncoderDecoder, EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import OptSampleList, SampleList
from torch import Tensor, nn

from ...derive import derived, make, recipe
from ...ops import _check
from ...policy import ResizePolicy, claim_bilinear_site, installed_on
from .lean_heads import DeferredMetas, LeanDecodeHead, LeanSegformerHead, is_plain, say_once
from .logits import LogitsOnRequest, PendingLogits

_FLOW = ("predict", "inference", "whole_inference", "postprocess_result")


@dataclass(frozen=True)
class Lean:
    """The steps to do without full-resolution logits. Each switch is independent of the others.

    Args:
        loss: cross entropies, also under ``OHEMPixelSampler``, and their accuracy, by ``resize_cross_entropy``.
        labels: predictions by ``resize_argmax``.
        slide: sliding windows are added up in place.
        fusion: SegFormer's 1x1 convolution before the resizes.
        seg_logits: leave ``seg_logits`` in the data samples, computed whenever they are read. Without them a data
            sample holds labels alone, and keeps no logits alive.
    """

    loss: bool = True
    labels: bool = True
    slide: bool = True
    fusion: bool = True
    seg_logits: bool = True


class LeanEncoderDecoder(EncoderDecoder):
    """mmseg's ``EncoderDecoder``, inserted beneath its subclasses, which keep what they override.

    Attributes:
        lean: the steps to do without full-resolution logits.
    """

    lean: Lean

    def predict(self, inputs: Tensor, data_samples: OptSampleList = None) -> SampleList:
        if not self._defers():
            return super().predict(inputs, data_samples)
        size = inputs.shape[2:]
        if data_samples is None:
            whole = dict(ori_shape=size, img_shape=size, pad_shape=size, padding_size=[0, 0, 0, 0])
            metas = DeferredMetas(dict(whole) for _ in range(inputs.shape[0]))
        else:
            metas = DeferredMetas(sample.metainfo for sample in data_samples)
        return self.postprocess_result(self.inference(inputs, metas), data_samples)

    def _defers(self) -> bool:
        """Tell whether the head may leave the resize of its logits to ``postprocess_result``."""
        policy = installed_on(_last_head(self))
        bilinear = policy is None or all(rule.set_mode in (None, "bilinear") for rule in policy.rules)
        return self.lean.labels and bilinear and self.test_cfg.get("mode", "whole") == "whole"

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        if not self.lean.slide:
            return super().slide_inference(inputs, batch_img_metas)
        batch, _, height, width = inputs.shape
        (crop_height, crop_width), (y_stride, x_stride) = self.test_cfg.crop_size, self.test_cfg.stride
        rows, row_count = _windows(height, crop_height, y_stride, inputs)
        columns, column_count = _windows(width, crop_width, x_stride, inputs)
        if not (row_count.all() and column_count.all()):
            raise ValueError(
                f"slide_inference: expected windows that cover the image, got test_cfg.stride={(y_stride, x_stride)} "
                f"with crop_size={(crop_height, crop_width)}. Lower the stride."
            )
        total = inputs.new_zeros(batch, self.out_channels, height, width)
        for y in rows:
            for x in columns:
                crop = inputs[:, :, y, x]
                batch_img_metas[0]["img_shape"] = crop.shape[2:]
                total[:, :, y, x] += self.encode_decode(crop, batch_img_metas)
        total /= row_count[:, None] * column_count
        return total

    def postprocess_result(self, seg_logits: Tensor | PendingLogits, data_samples: OptSampleList = None) -> SampleList:
        if isinstance(seg_logits, PendingLogits):
            pending = seg_logits
        elif self.lean.labels and is_plain(seg_logits):
            pending = PendingLogits(seg_logits)
        else:
            return super().postprocess_result(seg_logits, data_samples)
        if data_samples is None:
            data_samples = [SegDataSample() for _ in range(len(pending))]
            images: list[PendingLogits | None] = [pending.image(i) for i in range(len(pending))]
        else:
            images = [self._to_image(pending.image(i), sample.metainfo) for i, sample in enumerate(data_samples)]
        for i, (image, sample) in enumerate(zip(images, data_samples, strict=True)):
            if image is None:  # of a tensor: _defers rules out the other
                super().postprocess_result(seg_logits[i : i + 1], [sample])  # type: ignore[index]
                continue
            threshold = self.decode_head.threshold if image.logits.shape[1] == 1 else None
            sample.pred_sem_seg = PixelData(data=image.labels(threshold))
            if self.lean.seg_logits:
                sample.seg_logits = LogitsOnRequest(image)
        return data_samples

    def _to_image(self, pending: PendingLogits, meta: dict[str, Any]) -> PendingLogits | None:
        """Add the steps from the network's input to the image; None if a policy wants the resize in another mode."""
        crop = meta["img_padding_size"] if "img_padding_size" in meta else meta.get("padding_size", [0] * 4)
        flip = meta["flip_direction"] if meta.get("flip") else None
        size = tuple(meta["ori_shape"][:2])
        pending = replace(pending, crop=tuple(crop), flip=flip, size=size)
        pixel_model = claim_bilinear_site(_last_head(self), self.align_corners, pending.cropped_size(), size)
        return None if pixel_model is None else replace(pending, pixel_model=pixel_model)


def _last_head(segmentor: Any) -> nn.Module:
    head = segmentor.decode_head
    return head[-1] if isinstance(head, nn.ModuleList) else head


def _windows(size: int, crop: int, stride: int, like: Tensor) -> tuple[list[slice], Tensor]:
    """Return where mmseg's sliding window stops along one axis, and how often that covers each pixel."""
    count = like.new_zeros(size)
    windows = []
    for i in range(max(size - crop + stride - 1, 0) // stride + 1):
        stop = min(i * stride + crop, size)
        windows.append(slice(max(stop - crop, 0), stop))
        count[windows[-1]] += 1
    return windows, count


@cache
def _lean(cls: type[nn.Module], base: type[nn.Module]) -> type[nn.Module]:
    """Derive a class from ``cls`` with ``base`` behind all that overrides it and before the parents of ``base``."""
    return derived(cls, (base,) if issubclass(base, cls) else (cls, base), {}, (_lean, (base,)))


@MODELS.register_module()
def LeanSegmentor(
    lean: dict[str, bool] | None = None,
    segmentor: str | dict[str, Any] | None = None,
    fast_resize: bool = False,
    **kwargs: Any,
) -> nn.Module:
    """Build a segmentor of mmseg without full-resolution logits; parameters, checkpoints and results stay the same.

    In a config, behind any stock base: ``model = dict(type='LeanSegmentor')``. What the fused ops do not compute stays
    as mmseg has it, and the log says so once.

    Args:
        lean: switches of ``Lean``; all are on by default.
        segmentor: the type that the config had before, or its config where that has more to say than its type, such as
            ``dict(type='ResampledSegmentor', segmentor='DepthEstimator')``. None: ``ResampledSegmentor`` where there is
            a ``resize_policy``, else ``CascadeEncoderDecoder`` or ``EncoderDecoder`` by whether there are stages.
        fast_resize: ``fast_resize`` of ``ResizePolicy``, for the resizes that remain.
        **kwargs: the arguments of that type.

    Raises:
        ValueError: ``lean`` has a key that is no switch.
    """
    switches = tuple(field.name for field in fields(Lean))
    for key in lean or {}:
        _check.one_of("LeanSegmentor", "keys of lean", key, switches)
    options = Lean(**(lean or {}))
    if segmentor is None:
        stock = "mmseg.CascadeEncoderDecoder" if "num_stages" in kwargs else "mmseg.EncoderDecoder"
        segmentor = "ResampledSegmentor" if "resize_policy" in kwargs else stock
    model = MODELS.build(kwargs | (segmentor if isinstance(segmentor, dict) else dict(type=segmentor)))
    if fast_resize:
        policy = installed_on(model)
        if policy is None:
            ResizePolicy(fast_resize=True).install(model)
        else:
            policy.fast_resize = True
    for name, module in model.named_modules():
        if isinstance(module, SegformerHead):
            _install(module, LeanSegformerHead, options)
        elif isinstance(module, BaseDecodeHead):
            _install(module, LeanDecodeHead, options)
        elif isinstance(module, EncoderDecoder):
            _install(module, LeanEncoderDecoder, _for_flow(module, options))
        elif isinstance(module, BaseSegmentor):
            say_once(f"{type(module).__name__} is no EncoderDecoder; its predictions come from full-resolution logits.")
        elif name.split(".")[0] == "decode_head" and hasattr(module, "loss_by_feat"):
            say_once(f"{type(module).__name__} is no head of mmseg's kind; its loss and logits stay as they are.")
    return model


def _install(module: nn.Module, base: type[nn.Module], options: Lean) -> None:
    original: Any
    original, steps = recipe(type(module))
    module.__class__ = make(original, ((_lean, (base,)), *steps))
    module.lean = options  # type: ignore[assignment]
    if options.loss and issubclass(base, BaseDecodeHead) and original.loss_by_feat is not BaseDecodeHead.loss_by_feat:
        say_once(f"{original.__name__} has a loss of its own; only what that takes from mmseg's base head is fused.")


def _for_flow(segmentor: nn.Module, options: Lean) -> Lean:
    """Take labels from small logits where segmentor and head pass them on untouched, as mmseg's own do."""
    original: Any
    original, _ = recipe(type(segmentor))
    own = [method for method in _FLOW if getattr(original, method) is not getattr(EncoderDecoder, method)]
    if original.encode_decode not in (EncoderDecoder.encode_decode, CascadeEncoderDecoder.encode_decode):
        own.append("encode_decode")
    if not own:
        head = _last_head(segmentor)
        original, _ = recipe(type(head))
        own = _own_prediction(head, original)
    if options.labels and own:
        say_once(f"{original.__name__} has {', '.join(own)} of its own; its labels come from full-resolution logits.")
        return replace(options, labels=False)
    return options


def _own_prediction(head: nn.Module, original: Any) -> list[str]:
    """List the methods that may work on what mmseg's base head predicts."""
    if not isinstance(head, BaseDecodeHead):  # such as an average of several
        return ["predict"] if any(isinstance(module, BaseDecodeHead) for module in head.modules()) else []
    own = ["predict_by_feat"] if original.predict_by_feat is not BaseDecodeHead.predict_by_feat else []
    known = original.predict.__module__.split(".")[0] in ("mmseg", "mmseg_resample")
    return own if known else [*own, "predict"]
