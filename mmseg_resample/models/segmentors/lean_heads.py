"""Base classes inserted beneath mmseg's heads: their loss and their prediction without full-resolution logits.

They stand between a head's class and mmseg's base class: a head that overrides a method keeps its own, and ``super()``
there calls the methods here.
"""

import logging
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmseg.models.decode_heads import SegformerHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.models.utils import resize
from mmseg.structures import OHEMPixelSampler
from mmseg.utils import SampleList
from torch import Tensor, nn

from ...derive import recipe
from ...ops import PixelModel, _check, resize_cross_entropy
from ...policy import claim_bilinear_site, installed_on
from .logits import PendingLogits

if TYPE_CHECKING:
    from .lean import Lean


class DeferredMetas(list):
    """Metadata of images for a ``predict`` whose caller takes logits that are still to be resized."""


class LeanDecodeHead(BaseDecodeHead):
    """mmseg's base head, on the fused ops.

    Attributes:
        lean: the steps to do without full-resolution logits.
    """

    lean: "Lean"

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        if not self.lean.loss or not is_plain(seg_logits):
            return super().loss_by_feat(seg_logits, batch_data_samples)
        reader = self._needs_resized(seg_logits)
        if reader is not None:
            say_once(f"{type(self).__name__}: {reader} needs full-resolution logits; the loss is computed from them.")
            return super().loss_by_feat(seg_logits, batch_data_samples)
        target = self._stack_batch_gt(batch_data_samples).squeeze(1)
        pixel_model = claim_bilinear_site(self, self.align_corners, seg_logits.shape[2:], target.shape[1:])
        if pixel_model is None:
            return super().loss_by_feat(seg_logits, batch_data_samples)
        weight = None if self.sampler is None else self._hard_pixels(seg_logits, target, pixel_model)
        losses: dict[str, Tensor] = {}
        for criterion in self._criteria():
            # The pass of the first criterion computes the accuracy too.
            options = dict(pixel_weight=weight, return_accuracy=not losses)
            loss = self._cross_entropy(criterion, seg_logits, target, pixel_model, **options)
            if not losses:
                loss, accuracy = loss
            name, loss = criterion.loss_name, criterion.loss_weight * loss
            losses[name] = losses[name] + loss if name in losses else loss
        losses["acc_seg"] = accuracy.reshape(1)
        return losses

    def predict_by_feat(self, seg_logits: Tensor, batch_img_metas: list[dict]) -> Tensor | PendingLogits:
        if not isinstance(batch_img_metas, DeferredMetas) or not is_plain(seg_logits):
            return super().predict_by_feat(seg_logits, batch_img_metas)
        meta = batch_img_metas[0]
        size = meta["img_shape"]
        if not isinstance(size, torch.Size) and "pad_shape" in meta:
            size = meta["pad_shape"][:2]
        pixel_model = claim_bilinear_site(self, self.align_corners, seg_logits.shape[2:], size)
        if pixel_model is None:
            return super().predict_by_feat(seg_logits, batch_img_metas)
        return PendingLogits(seg_logits, tuple(size), pixel_model)

    def _criteria(self) -> list[Any]:
        return list(self.loss_decode) if isinstance(self.loss_decode, nn.ModuleList) else [self.loss_decode]

    def _needs_resized(self, seg_logits: Tensor) -> str | None:
        """Name the part of this head's loss that the fused op does not compute, if there is one."""
        if self.sampler is not None and recipe(type(self.sampler))[0] is not OHEMPixelSampler:
            return type(self.sampler).__name__
        classes = seg_logits.shape[1]
        if classes == 1 or self.ignore_index is None:
            return f"a loss with {classes} output channels and ignore_index={self.ignore_index}"
        for criterion in self._criteria():
            if recipe(type(criterion))[0] is not CrossEntropyLoss:  # modules under a policy have derived classes
                return type(criterion).__name__
            if criterion.use_sigmoid or criterion.use_mask:
                return "CrossEntropyLoss of sigmoids or masks"
            counts_ignored = criterion.class_weight is not None and not criterion.avg_non_ignore
            if counts_ignored and -classes <= self.ignore_index < classes:
                return f"CrossEntropyLoss whose mean counts the weight of class {self.ignore_index}, which is ignored,"
        return None

    def _cross_entropy(
        self, criterion: Any, seg_logits: Tensor, target: Tensor, pixel_model: PixelModel, **options: Any
    ) -> Any:
        own = dict(
            weight=criterion.class_weight, reduction=criterion.reduction, avg_non_ignore=criterion.avg_non_ignore
        )
        return resize_cross_entropy(
            seg_logits, target, coordinates=pixel_model, ignore_index=self.ignore_index, **(own | options)
        )

    @torch.no_grad()
    def _hard_pixels(self, seg_logits: Tensor, target: Tensor, pixel_model: PixelModel) -> Tensor:
        """Compute what ``OHEMPixelSampler.sample`` returns, (N, H, W), from losses instead of logits."""
        counted = target != self.ignore_index
        kept = self.sampler.min_kept * target.shape[0]
        if self.sampler.thresh is None:
            losses = sum(
                criterion.loss_weight
                * self._cross_entropy(criterion, seg_logits, target, pixel_model, reduction="none")
                for criterion in self._criteria()
            )
            hardest = losses[counted].sort(descending=True).indices[:kept]
            chosen = torch.zeros_like(losses[counted])
            chosen[hardest] = 1
            return torch.zeros_like(losses).masked_scatter_(counted, chosen)
        losses = resize_cross_entropy(
            seg_logits, target, coordinates=pixel_model, ignore_index=self.ignore_index, reduction="none"
        )
        probability = losses.neg_().exp_()
        ranked = probability[counted]
        threshold = probability.new_tensor(self.sampler.thresh)
        if ranked.numel():
            threshold = torch.maximum(threshold, ranked.kthvalue(min(kept, ranked.numel() - 1) + 1).values)
        return ((probability < threshold) & counted).to(probability.dtype)


class LeanSegformerHead(SegformerHead, LeanDecodeHead):
    """SegFormer's head, whose resizes come behind the 1x1 convolution that fuses the levels.

    A 1x1 convolution of resized levels is a sum of resized 1x1 convolutions, each of a level at its own size.
    """

    def forward(self, inputs: Any) -> Tensor:
        fuse = self.fusion_conv
        if not self.lean.fusion or not is_plain(inputs[0]) or not _is_one_by_one(fuse):
            return super().forward(inputs)
        levels = self._transform_inputs(inputs)
        size = levels[0].shape[2:]
        total: Tensor | None = None
        for level, conv, weight in zip(levels, self.convs, fuse.conv.weight.split(self.channels, 1), strict=True):
            x = F.conv2d(conv(level), weight)
            # A policy counts resizes between equal sizes too.
            if x.shape[2:] != size or installed_on(self) is not None:
                x = resize(x, size, mode=self.interpolate_mode, align_corners=self.align_corners)
            total = x if total is None else total + x
        if fuse.conv.bias is not None:
            total = total + fuse.conv.bias[:, None, None]
        if fuse.with_norm:
            total = fuse.norm(total)
        return self.cls_seg(fuse.activate(total) if fuse.with_activation else total)


def _is_one_by_one(module: Any) -> bool:
    """Tell whether a ``ConvModule`` is a plain 1x1 convolution, normalisation and activation that nothing observes."""
    conv = module.conv
    return (
        type(conv) is nn.Conv2d
        and (conv.kernel_size, conv.stride, conv.padding, conv.groups) == ((1, 1), (1, 1), (0, 0), 1)
        and module.order == ("conv", "norm", "act")
        and not module.with_spectral_norm
        and not module.with_explicit_padding
        and getattr(module, "efficient_conv_bn_eval_forward", None) is None
        and not any((m._forward_hooks or m._forward_pre_hooks) for m in (module, conv))
    )


def is_plain(x: Any) -> bool:
    """Tell whether a tensor has values: neither fake nor being traced."""
    return type(x) is Tensor and not torch.jit.is_tracing()


@_check.opaque  # a compiled call would be traced past the cache
def say_once(message: str) -> None:
    _say(message)


@cache
def _say(message: str) -> None:
    print_log(f"LeanSegmentor: {message}", "current", logging.WARNING)
