"""Resampling by learned flows: ``FlowAlign``, ``GatedFlowAlign`` and ``DualFlowAlign``."""

from typing import Any, Literal

import torch
from mmcv.cnn import ConvModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..ops import FlowUnit, PaddingMode, flow_warp, resize
from ._arguments import need_channels
from .base import Resampler

Convention = Literal["exact", "sfsegnets", "sfsegnets-2020", "alignseg"]
_CORNERS_READ_AS_HALF_PIXELS = ("sfsegnets-2020", "alignseg")  # code that leaves grid_sample at its default


class _FlowResampler(Resampler):
    """Base of the modules, with the conventions, the inner resize and the warp that they share."""

    guided = True
    conventions: tuple[Convention, ...] = ("exact", "sfsegnets", "sfsegnets-2020")

    def __init__(
        self,
        in_channels: int | None,
        guide_channels: int | None,
        align_corners: bool | None,
        convention: Convention,
    ) -> None:
        super().__init__(in_channels, guide_channels, align_corners)
        name = type(self).__name__
        need_channels(name, "in_channels", in_channels)
        need_channels(name, "guide_channels", guide_channels)
        if self.fuses and in_channels != guide_channels:
            raise ValueError(
                f"{name}: expected in_channels == guide_channels, because it adds x and like, "
                f"got {in_channels} and {guide_channels}."
            )
        if convention not in self.conventions:
            known = " or ".join(map(repr, self.conventions))
            raise ValueError(f"{name}: expected convention {known}, got {convention!r}.")
        if align_corners is None or (convention != "exact" and not align_corners):
            rule = "True or False"
            if convention != "exact":
                rule = f"True, which convention={convention!r} was published with"
            raise ValueError(f"{name}: expected align_corners={rule}, got {align_corners}.")
        self.convention = convention
        self.unit: FlowUnit = "pixel" if convention == "exact" else "sfnet"
        self.padding_mode: PaddingMode = "border" if convention == "exact" else "zeros"

    def _resize(self, x: Tensor, like: Tensor) -> Tensor:
        return resize(x, like.shape[2:], mode="bilinear", align_corners=self.align_corners, warning=False)

    def _warp(self, x: Tensor, flow: Tensor) -> Tensor:
        aligned = bool(self.align_corners)
        if self.convention in _CORNERS_READ_AS_HALF_PIXELS:
            flow, aligned = flow + _corner_grid(flow), False
        return flow_warp(x, flow, align_corners=aligned, unit=self.unit, padding_mode=self.padding_mode)

    def _in_pixels(self, flow: Tensor) -> Tensor:
        if self.convention == "exact":
            return flow
        if self.convention in _CORNERS_READ_AS_HALF_PIXELS:
            return (flow + _corner_grid(flow)) / 2
        size = flow.new_tensor(flow.shape[:1:-1], dtype=torch.float32)
        return flow * ((size - 1) / (2 * size)).view(1, 2, 1, 1)

    def extra_repr(self) -> str:
        return f"align_corners={self.align_corners}, convention={self.convention!r}"


def _corner_grid(flow: Tensor) -> Tensor:
    """Return the [-1, 1] grid of aligned corners, (1, 2, H, W).

    Also what leads from the half-pixel grid to it, in units of 1/size: ``2j/(W-1) - 1 = (2j+1)/W - 1 + grid(j)/W``.
    """
    dtype = torch.promote_types(flow.dtype, torch.float32)
    y, x = (
        2 * torch.arange(length, device=flow.device, dtype=dtype) / max(length - 1, 1) - 1 for length in flow.shape[2:]
    )
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))[None]


@MODELS.register_module()
class FlowAlign(_FlowResampler):
    """The flow alignment module (FAM) of SFNet: warp ``x`` onto ``like`` by a flow predicted from both.

    Both features are reduced by a 1x1 convolution, ``x`` is brought to the size of ``like``, and one 3x3 convolution
    predicts the flow, two channels (dx, dy). The unreduced ``x`` is then sampled at the resize grid plus the flow.

    Args:
        in_channels: channels of ``x``.
        guide_channels: channels of ``like``.
        align_corners: pixel model of the inner resize and of the warp.
        channels: width of the two reductions; half of ``in_channels`` as published.
        convention: ``"exact"``: flow in output pixels, edges repeated, zero flow is bilinear ``resize`` for either
            flag. ``"sfsegnets"``: as the released code since 2022-07 samples, that is ``align_corners=True``, flow in
            units of 1/size on the [-1, 1] grid, zeros outside. ``"sfsegnets-2020"``: as it samples before that on
            torch 1.3 and later, where the same grid of aligned corners is read as half-pixel coordinates: zero flow
            moves the map by up to half a source pixel and darkens the border, and ``explain`` gives the flow
            relative to the half-pixel resize. A checkpoint does not say which of the two it was trained with.

    Raises:
        ValueError: unknown convention; ``align_corners`` not given, or not the one of the convention; channels
            missing.

    Source: Li et al., "Semantic Flow for Fast and Accurate Scene Parsing", ECCV 2020, arXiv:2002.10120.
    """

    flows = 1

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        channels: int | None = None,
        convention: Convention = "exact",
    ) -> None:
        super().__init__(in_channels, guide_channels, align_corners, convention)
        assert in_channels is not None and guide_channels is not None  # checked above, for mypy
        channels = channels or max(1, in_channels // 2)
        self.reduce_x = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.reduce_like = nn.Conv2d(guide_channels, channels, 1, bias=False)
        self.flow = nn.Conv2d(2 * channels, 2 * self.flows, 3, padding=1, bias=False)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return self._warp(x, self.flow(self._reduced(x, like)))

    def explain(self, x: Tensor, like: Tensor) -> dict[str, Tensor]:
        return {"flow": self._in_pixels(self.flow(self._reduced(x, like)))}

    def _reduced(self, x: Tensor, like: Tensor) -> Tensor:
        """Return both features at reduced width and the size of ``like``, ``x`` first."""
        return torch.cat([self._resize(self.reduce_x(x), like), self.reduce_like(like)], dim=1)


@MODELS.register_module()
class GatedFlowAlign(FlowAlign):
    """The gated dual flow alignment (GD-FAM) of SFNet-Lite: warp ``x`` and ``like``, each by a flow, and blend them.

    The output is ``g * warp(x) + (1 - g) * warp(like)``: it contains ``like``, so a neck or head does not add it again.

    Args:
        in_channels: channels of ``x``.
        guide_channels: channels of ``like``, as many.
        align_corners: pixel model of the inner resize and of the warps.
        channels: width of the two reductions; half of ``in_channels`` as published.
        convention: as ``FlowAlign`` has it.
        gate: what the 3x3 convolution before the sigmoid reads. ``"spatial"``: both reduced features.
            ``"spatial_atten"``: the mean and maximum over channels of the reduced ``x`` and of the unreduced ``like``;
            the gate of the released SFNet-Lite models.

    Raises:
        ValueError: as ``FlowAlign``; the channels differ; unknown gate.

    Source: Li et al., "SFNet: Faster and Accurate Semantic Segmentation via Semantic Flow", IJCV 2023,
    arXiv:2207.04415.
    """

    fuses = True
    flows = 2

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        channels: int | None = None,
        convention: Convention = "exact",
        gate: Literal["spatial", "spatial_atten"] = "spatial_atten",
    ) -> None:
        super().__init__(in_channels, guide_channels, align_corners, channels, convention)
        if gate not in ("spatial", "spatial_atten"):
            raise ValueError(f"GatedFlowAlign: expected gate 'spatial' or 'spatial_atten', got {gate!r}.")
        self.gate_input = gate
        self.gate = nn.Conv2d(self.flow.in_channels if gate == "spatial" else 4, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        flow, flow_like, gate = self._predict(x, like)
        return gate * self._warp(x, flow) + (1 - gate) * self._warp(like, flow_like)

    def explain(self, x: Tensor, like: Tensor) -> dict[str, Tensor]:
        """Return ``flow`` of ``x`` and ``flow_like`` of ``like``, and ``gate``, the share of ``x``."""
        flow, flow_like, gate = self._predict(x, like)
        return {"flow": self._in_pixels(flow), "flow_like": self._in_pixels(flow_like), "gate": gate}

    def _predict(self, x: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        reduced = self._reduced(x, like)
        flow, flow_like = self.flow(reduced).chunk(2, dim=1)
        if self.gate_input == "spatial_atten":
            pair = reduced.chunk(2, dim=1)[0], like
            means = [t.mean(1, keepdim=True) for t in pair]
            reduced = torch.cat(means + [t.max(1, keepdim=True).values for t in pair], dim=1)
        return flow, flow_like, self.gate(reduced).sigmoid()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, gate={self.gate_input!r}"


@MODELS.register_module()
class DualFlowAlign(_FlowResampler):
    """The aligned feature aggregation (AlignFA) of AlignSeg: warp ``x`` and ``like``, each by a flow, and add them.

    ``x`` is resized to ``like``; from both, two branches (1x1 convolution, normalisation, activation, 3x3 convolution)
    predict one flow each, and the sum of the two warped features is the output. It contains ``like``, so a neck or
    head does not add it again. The flows start at zero: bilinear ``resize`` plus ``like``.

    Args:
        in_channels: channels of ``x``.
        guide_channels: channels of ``like``, as many.
        align_corners: pixel model of the resize and of the warps.
        channels: width of the branches; ``in_channels`` as published.
        convention: ``"exact"``: flow in output pixels, edges repeated. ``"alignseg"``: as the released code samples,
            that is a resize with ``align_corners=True`` and warps that read its [-1, 1] grid as half-pixel
            coordinates, flow in units of 1/size, zeros outside; zero flow darkens the border.
        norm_cfg: config of the normalisation in the branches.
        act_cfg: config of their activation.

    Raises:
        ValueError: unknown convention; ``align_corners`` not given, or not the one of the convention; channels missing
            or different.

    Source: Huang et al., "AlignSeg: Feature-Aligned Segmentation Networks", TPAMI 2021, arXiv:2003.00872.
    """

    fuses = True
    conventions = ("exact", "alignseg")

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        channels: int | None = None,
        convention: Convention = "exact",
        norm_cfg: dict[str, Any] | None = dict(type="BN"),  # noqa: B006  (mmcv's style; not modified)
        act_cfg: dict[str, Any] | None = dict(type="LeakyReLU", negative_slope=0.01),  # noqa: B006
    ) -> None:
        super().__init__(in_channels, guide_channels, align_corners, convention)
        assert in_channels is not None  # checked above, for mypy
        width = channels or in_channels

        def branch() -> nn.Sequential:
            return nn.Sequential(
                ConvModule(2 * in_channels, width, 1, bias=False, norm_cfg=norm_cfg, act_cfg=act_cfg),
                nn.Conv2d(width, 2, 3, padding=1, bias=False),
            )

        self.flow = branch()
        self.flow_like = branch()
        self.init_weights()

    def init_weights(self) -> None:
        """Start with zero flows, also after an owner's ``init_cfg`` went over its convolutions."""
        for branch in (self.flow, self.flow_like):
            nn.init.zeros_(branch.get_parameter("1.weight"))

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        resized = self._resize(x, like)
        flow, flow_like = self._flows(resized, like)
        return self._warp(resized, flow) + self._warp(like, flow_like)

    def explain(self, x: Tensor, like: Tensor) -> dict[str, Tensor]:
        """Return ``flow`` of ``x`` and ``flow_like`` of ``like``."""
        flow, flow_like = self._flows(self._resize(x, like), like)
        return {"flow": self._in_pixels(flow), "flow_like": self._in_pixels(flow_like)}

    def _flows(self, resized: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([like, resized], dim=1)
        return self.flow(both), self.flow_like(both)
