"""How a network is run for an audit: what goes in, what comes out, and which of its methods call resizes."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn

from ..ops import PixelGrid, PixelModel
from .sites import Site, Size

_FEATURE_EXTRACTORS = ("backbone", "encoder")


class Network:
    """Any module that maps images (N, C, H, W) to features or predictions. Subclasses know a framework better.

    Attributes:
        entrances: methods of the model that begin a forward pass.
        prediction: path of the output that is compared with the labels; None for the first of the image's size.
        sees_image: the method that takes the image, or a padded one where features are to reach the border.
        crops: what that method returns has to be cropped to the image then; else its callers resize to the image.
    """

    entrances: tuple[str, ...] = ("forward",)
    prediction: str | None = None
    sees_image: str = "forward"
    crops: bool = True

    def paths(self, name: str, module: nn.Module) -> dict[str, str]:
        """Return the methods of ``module`` that own resizes, each with the path that its sites go by.

        Args:
            name: of the module in the model, as in ``named_modules``.
            module: the module.
        """
        return {"forward": name}

    def all_paths(self, model: nn.Module) -> frozenset[str]:
        """Return the paths that sites of ``model`` can go by."""
        return frozenset(path for name, module in model.named_modules() for path in self.paths(name, module).values())

    def unaudited(self, model: nn.Module) -> frozenset[str]:
        """Return the paths at which something is resized that no audit sees, such as losses on inner levels."""
        return frozenset()

    def levels(self, model: nn.Module) -> str | None:
        """Return the name of the module that returns the levels of features; None if the model itself does."""
        inside = "module." if isinstance(getattr(model, "module", None), nn.Module) else ""  # of DataParallel, say
        part = model.get_submodule(inside.removesuffix("."))
        found = (name for name in _FEATURE_EXTRACTORS if isinstance(getattr(part, name, None), nn.Module))
        return next((inside + name for name in found), None)

    def size(self, model: nn.Module) -> Size | None:
        """Return the size (h, w) of images that ``model`` names as its own; None if it names none.

        That is the size on its card (timm's ``pretrained_cfg``), else the only one that a part of it takes.
        """
        own = _card(model)
        if own is not None:
            return _pair(own["input_size"])
        return next((size for part in model.modules() if (size := _only_size(part)) is not None), None)

    def made_for(self, model: nn.Module) -> Size | None:
        """Return the size (h, w) of images that ``model`` is trained on, where it is known, and may be the only one."""
        return self.size(model)

    def image(self, model: nn.Module, size: Size) -> Tensor:
        """Return an image (1, C, H, W) that the model takes, without values."""
        channels = self._channels(model)
        like = next((p for p in model.parameters() if p.is_floating_point()), None)
        if like is None:
            return torch.empty(1, channels, *size)
        return torch.empty(1, channels, *size, dtype=like.dtype, device=like.device)

    def _channels(self, model: nn.Module) -> int:
        card = _card(model)
        if card is not None:
            return int(card["input_size"][0])
        extractor = model.get_submodule(self.levels(model) or "")
        first = next((m for part in (extractor, model) for m in part.modules() if isinstance(m, nn.Conv2d)), None)
        return first.in_channels if first is not None else 3

    def run(self, model: nn.Module, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Run ``model`` on ``image``, and yield its outputs with their names."""
        yield from named_tensors(model(image))

    def refuses_padding(self, model: nn.Module) -> str | None:
        """Say why the image of ``model`` cannot be padded while its labels are not; None where it can."""
        return None

    def pixel_model(self, site: Site, source_size: Size, size: Size, levels: Sequence[PixelGrid]) -> PixelModel | None:
        """Return the exact pixel model of a resize that no audit saw, where it is known; None elsewhere.

        Args:
            site: where it is called.
            source_size: spatial size of what is resized.
            size: spatial size that it is resized to, and as much as the image is padded by.
            levels: grids of the levels of features.
        """
        return None


@contextmanager
def modes_restored(model: nn.Module) -> Iterator[list[nn.Module]]:
    """Give every module of ``model``, which are yielded, the mode back that it had, training or evaluation."""
    before = {module: module.training for module in model.modules()}
    try:
        yield list(before)
    finally:
        for module, mode in before.items():
            module.training = mode


@contextmanager
def methods_replaced(replaced: Sequence[tuple[nn.Module, str, Callable[..., Any]]]) -> Iterator[None]:
    """Put functions, (module, method, function), in place of methods of instances, and take them away again."""
    before = [(module, method, module.__dict__.get(method)) for module, method, _ in replaced]
    try:
        for module, method, function in replaced:
            object.__setattr__(module, method, function)  # past nn.Module's own: a scripted module takes no new methods
        yield
    finally:
        for module, method, own in before:
            if own is not None:
                object.__setattr__(module, method, own)
            elif method in module.__dict__:
                object.__delattr__(module, method)


def _card(module: nn.Module) -> Mapping[str, Any] | None:
    """Return what timm's models carry about their weights, if it names the input, (C, H, W)."""
    card = getattr(module, "pretrained_cfg", None)
    return card if isinstance(card, Mapping) and len(card.get("input_size") or ()) == 3 else None


def _only_size(module: nn.Module) -> Size | None:
    """Return the one size of images that ``module``, a part of a model, says it takes."""
    card = _card(module)
    if card is not None and card.get("fixed_input_size"):
        return _pair(card["input_size"])
    if getattr(module, "strict_img_size", False) and getattr(module, "img_size", None) is not None:
        return _pair(module.img_size)  # a patch embedding
    return None


def _pair(size: Any) -> Size:
    height, width = tuple(size)[-2:]
    return int(height), int(width)


@singledispatch
def network_of(model: nn.Module) -> Network:
    """Return what is known about networks of the type of ``model``.

    ``network_of.register(Type)`` tells of another framework; see ``models.segmentors`` for mmseg's.
    """
    return Network()


def named_tensors(output: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of an output, a tensor, list, tuple, dict or dataclass, each with its key or index."""
    if isinstance(output, Tensor):
        yield name, output
        return
    for key, value in _entries(output):
        yield from named_tensors(value, _inside(name, key))


def replace_tensors(output: Any, function: Callable[[str, Tensor], Tensor], name: str = "") -> Any:
    """Copy an output with ``function(name, tensor)`` in place of every tensor that ``named_tensors`` yields."""
    if isinstance(output, Tensor):
        return function(name, output)
    new = {key: replace_tensors(value, function, _inside(name, key)) for key, value in _entries(output)}
    if isinstance(output, Mapping):
        copied = dict(output) if type(output) is dict else copy.copy(output)  # compilers know the former
        for key, value in new.items():
            copied[key] = value  # type: ignore[index]  # of outputs, all are mutable
        return copied
    if isinstance(output, (list, tuple)):
        return type(output)(*new.values()) if hasattr(output, "_fields") else type(output)(new.values())
    return replace(output, **new) if new else output


def _entries(output: Any) -> list[tuple[Any, Any]]:
    """List what an output holds, by key, index or field; nothing of what holds no outputs."""
    if isinstance(output, Mapping):
        return list(output.items())
    if isinstance(output, (list, tuple)):
        return list(enumerate(output))
    if is_dataclass(output) and not isinstance(output, type):
        return [(f.name, getattr(output, f.name)) for f in fields(output)]
    return []


def _inside(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)
