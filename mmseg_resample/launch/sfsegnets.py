"""Checkpoints of SFSegNets, the released code of SFNet and SFNet-Lite, as weights of the models here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

Convention = Literal["sfsegnets", "sfsegnets-2020"]


@dataclass(frozen=True)
class Conversion:
    """A converted checkpoint, every key of the source accounted for.

    Attributes:
        state_dict: weights for a segmentor with the backbone and decode head of ``config``.
        model: ``"SFNet"``, ``"SFNet-Lite"`` or ``"FPN"``, the baseline whose top-down steps interpolate.
        deep_supervision: whether the classifiers of the intermediate losses are in it.
        renamed: key of the source -> key here.
        dropped: key of the source -> why nothing here uses it.
    """

    state_dict: "dict[str, Tensor]"
    model: str
    deep_supervision: bool
    renamed: dict[str, str]
    dropped: dict[str, str]

    def config(self, convention: Convention = "sfsegnets") -> dict[str, Any]:
        """Return ``dict(backbone=..., decode_head=...)`` of the model of these weights, read off their shapes.

        Args:
            convention: how the flows are sampled, see ``FlowAlign``; nothing in a checkpoint tells. The FPN has none.

        Raises:
            ValueError: weights that tell what the model is are missing, or the backbone is of no known depth; an
                unknown convention.
        """
        if convention not in get_args(Convention):
            known = " or ".join(map(repr, get_args(Convention)))
            raise ValueError(f"sfsegnets.config: expected convention {known}, got {convention!r}.")
        norm_cfg = dict(type="SyncBN", requires_grad=True)
        classes, channels = self._shape("decode_head.conv_seg.weight")[:2]
        laterals = sum(bool(re.fullmatch(r"decode_head\.laterals\.\d\.conv\.weight", key)) for key in self.state_dict)
        names = [f"laterals.{i}" for i in range(laterals)] + ["pool.branches.0"]
        in_channels = [self._shape(f"decode_head.{name}.conv.weight")[1] for name in names]
        head: dict[str, Any] = dict(type="SFNetHead", in_channels=in_channels, in_index=[0, 1, 2, 3])
        resampler = dict(type="FlowAlign", convention=convention)
        if self.model == "SFNet-Lite":
            gate = "spatial_atten" if self._shape("decode_head.align.gate.weight")[1] == 4 else "spatial"
            head.update(type="SFNetLiteHead", in_index=[0, 2, 3])
            resampler = dict(type="GatedFlowAlign", gate=gate, convention=convention)
        elif self.deep_supervision:
            head.update(deep_supervision_weight=1.0)
        if self.model == "FPN":
            resampler = dict(type="Interpolate", mode="bilinear")
        head.update(channels=channels, num_classes=classes, resampler=resampler, norm_cfg=norm_cfg, align_corners=True)
        return dict(backbone=dict(self._backbone(), norm_cfg=norm_cfg), decode_head=head)

    def _shape(self, key: str) -> tuple[int, ...]:
        if key not in self.state_dict:
            raise ValueError(f"sfsegnets.config: expected a whole model, but the weight behind {key} is missing.")
        return tuple(self.state_dict[key].shape)

    def _backbone(self) -> dict[str, Any]:
        found = {match.groups() for key in self.state_dict if (match := re.match(_BLOCK, key))}
        blocks = tuple(sum(stage == name for stage, _ in found) for name in sorted({stage for stage, _ in found}))
        bottleneck = "backbone.layer1.0.conv3.weight" in self.state_dict
        if (blocks, bottleneck) in _RESNETS:
            return dict(type="SFNetResNet", depth=_RESNETS[blocks, bottleneck])
        if blocks in _STDCS:
            return dict(type="STDCPyramid", stdc_type=_STDCS[blocks])
        raise ValueError(
            f"sfsegnets.config: expected the blocks per stage of a ResNet {[b for b, _ in _RESNETS]} or of STDC "
            f"{list(_STDCS)}, got {blocks}."
        )


_BLOCK = r"backbone\.(layer\d|stages\.[2-4])\.(\d+)\."
_RESNETS = {  # blocks per stage, with bottlenecks -> depth
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}
_STDCS = {(2, 2, 2): "STDCNet1", (4, 5, 3): "STDCNet2"}


_CONV_NORM = {"0": "conv", "1": "bn"}
_FLOW = {"down_h": "reduce_x", "down_l": "reduce_like", "flow_make": "flow", "flow_gate.0": "gate"}

_UNUSED = (
    (r"backbone\.(x2|x4|x8|x16|x32)\.", "the same weights as backbone.features"),
    (r"backbone\.(conv_last|fc|bn|linear)\.", "the ImageNet classifier"),
)
_REFUSED = (
    (r"backbone\.stage\d(_\d)?\.", "a DF backbone (sfnet_dfnet.py)"),
    (r"head\.ppm\.down\.", "a head whose pooling adds its branches (global_context='sppm')"),
)
_UNUSED_LITE = (
    (r"head\.fpn_in\.2\.", "a lateral that the released forward pass never calls"),
    (r"head\.dsn\.", "a classifier that the released forward pass never calls"),
)


def convert(source: "Mapping[str, Tensor]") -> Conversion:
    """Rename and reorder the weights of SFNet, SFNet-Lite or the FPN baseline with ResNet, STDC1 or STDC2.

    Args:
        source: the state dict, with or without the ``module.`` of data parallel training.

    Which of two conventions of ``grid_sample`` the weights were trained with, a state dict does not say: see
    ``FlowAlign``.

    Raises:
        ValueError: keys that no model known here has, those of DF backbones and of ``sppm`` heads among them.
    """
    source = {key.removeprefix("module."): value for key, value in source.items()}
    for pattern, what in _REFUSED:
        refused = [key for key in source if re.match(pattern, key)]
        if refused:
            raise ValueError(
                f"sfsegnets.convert: {len(refused)} keys, such as {refused[:2]}, are those of {what}, which has no "
                f"counterpart here. Give a checkpoint with ResNet or STDC, its pooling 'ppm'."
            )
    lite = any(key.startswith("head.flow_align_module.") for key in source)
    blocks = _stdc_blocks(source)
    state, renamed, dropped, unknown = {}, {}, {}, []
    for key, value in source.items():
        reason = next(
            (why for pattern, why in (*_UNUSED, *(_UNUSED_LITE if lite else ())) if re.match(pattern, key)), None
        )
        if reason is not None:
            dropped[key] = reason
            continue
        name = _backbone(key, blocks) or (_lite_head(key) if lite else None) or _head(key)
        if name is None:
            unknown.append(key)
            continue
        state[name] = _pooled_last(value) if key == "head.ppm.bottleneck.0.weight" else value
        renamed[key] = name
    if unknown:
        raise ValueError(
            f"sfsegnets.convert: {len(unknown)} keys belong to no SFNet, SFNet-Lite or FPN with ResNet or STDC, "
            f"such as {unknown[:3]}. Give a checkpoint of SFSegNets' sfnet_resnet.py or sfnet_stdcnet.py; DF backbones "
            f"and heads with global_context='sppm' are not supported."
        )
    deep_supervision = any(name.startswith("decode_head.supervision.") for name in state)
    aligned = any(name.startswith("decode_head.top_down.") for name in state)
    model = "SFNet-Lite" if lite else "SFNet" if aligned else "FPN"
    return Conversion(state, model, deep_supervision, renamed, dropped)


def _pooled_last(weight: "Tensor") -> "Tensor":
    """Reorder the input channels of the bottleneck: there pooled branches, then features; here features come first."""
    import torch

    out = weight.shape[0]
    pooled = 4 * out
    return torch.cat([weight[:, pooled:], weight[:, :pooled]], dim=1)


def _backbone(key: str, blocks: Mapping[int, str]) -> str | None:
    if match := re.fullmatch(r"layer0\.0\.([0-6])\.(\w+)", key):
        return f"backbone.stem.{match[1]}.{match[2]}"
    if match := re.fullmatch(r"layer0\.1\.(\w+)", key):
        return f"backbone.stem.7.{match[1]}"
    if re.match(r"layer[1-4]\.\d+\.", key):
        return f"backbone.{key}"
    if match := re.fullmatch(r"backbone\.features\.(\d+)\.(.+)", key):
        rest = re.sub(r"^avd_layer\.([01])", lambda m: f"downsample.{_CONV_NORM[m[1]]}", match[2])
        rest = rest.replace("conv_list.", "layers.")
        return f"backbone.stages.{blocks[int(match[1])]}.{rest}"
    return None


def _stdc_blocks(source: "Mapping[str, Tensor]") -> dict[int, str]:
    """Map positions in the flat list of STDC blocks to stage and position in it; a stride begins a stage."""
    found = {int(match[1]) for key in source if (match := re.match(r"backbone\.features\.(\d+)\.", key))}
    blocks, stage, position = {}, -1, 0
    for index in sorted(found):
        if index < 2:
            stage, blocks[index] = index, str(index)
            continue
        if any(key.startswith(f"backbone.features.{index}.avd_layer.") for key in source):
            stage, position = stage + 1, 0
        blocks[index] = f"{stage}.{position}"
        position += 1
    return blocks


def _head(key: str) -> str | None:
    rules = (
        (r"head\.ppm\.stages\.(\d)\.([12])\.(\w+)", lambda m: f"pool.branches.{m[1]}.{_conv_norm(m[2], 1)}.{m[3]}"),
        (r"head\.ppm\.bottleneck\.([01])\.(\w+)", lambda m: f"pool.bottleneck.{_conv_norm(m[1])}.{m[2]}"),
        (r"head\.fpn_in\.(\d)\.([01])\.(\w+)", lambda m: f"laterals.{m[1]}.{_conv_norm(m[2])}.{m[3]}"),
        (r"head\.fpn_out\.(\d)\.0\.([01])\.(\w+)", lambda m: f"outputs.{m[1]}.{_conv_norm(m[2])}.{m[3]}"),
        (r"head\.fpn_out_align\.(\d)\.(\w+)\.weight", lambda m: f"top_down.{m[1]}.{_FLOW[m[2]]}.weight"),
        (r"head\.dsn\.(\d)\.([01])\.(\w+)", lambda m: f"supervision.{m[1]}.0.{_conv_norm(m[2])}.{m[3]}"),
        (r"head\.dsn\.(\d)\.4\.(\w+)", lambda m: f"supervision.{m[1]}.2.{m[2]}"),
        (r"head\.conv_last\.0\.([01])\.(\w+)", lambda m: f"fusion.{_conv_norm(m[1])}.{m[2]}"),
        (r"head\.conv_last\.1\.(\w+)", lambda m: f"conv_seg.{m[1]}"),
    )
    for pattern, name in rules:
        if match := re.fullmatch(pattern, key):
            return f"decode_head.{name(match)}"
    return None


def _lite_head(key: str) -> str | None:
    if match := re.fullmatch(r"head\.flow_align_module\.(down_h|down_l|flow_make|flow_gate\.0)\.weight", key):
        return f"decode_head.align.{_FLOW[match[1]]}.weight"
    return None


def _conv_norm(index: str, first: int = 0) -> str:
    return _CONV_NORM[str(int(index) - first)]
