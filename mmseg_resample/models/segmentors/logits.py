"""Logits on their way to labels, with the steps that are still to come: taken for labels at once, or on request."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmengine.structures import PixelData
from torch import Tensor

from ...ops import PixelModel, resize, resize_argmax

Size = tuple[int, int]


@dataclass(frozen=True)
class PendingLogits:
    """Logits (N, C, h, w), and the steps of mmseg's inference that are still to come.

    Args:
        logits: what the head returned.
        input_size: (h, w) of the network's input, which they are to be resized to first; None if they have it.
        input_pixel_model: pixel model of that resize.
        crop: padding to cut off then (left, right, top, bottom).
        flip: flip of the input to undo then.
        size: (h, w) of the image, which they are to be resized to last; None for no second resize.
        pixel_model: pixel model of that resize.
    """

    logits: Tensor
    input_size: Size | None = None
    input_pixel_model: PixelModel = "half_pixel"
    crop: tuple[int, int, int, int] = (0, 0, 0, 0)
    flip: str | None = None
    size: Size | None = None
    pixel_model: PixelModel = "half_pixel"

    def __len__(self) -> int:
        return self.logits.shape[0]

    def cropped_size(self) -> Size:
        left, right, top, bottom = self.crop
        height, width = self.input_size or tuple(self.logits.shape[2:])
        return height - top - bottom, width - left - right

    def image(self, i: int, **steps: Any) -> "PendingLogits":
        """Return those of image ``i``, with more steps."""
        return replace(self, logits=self.logits[i : i + 1], **steps)

    def labels(self, threshold: float | None) -> Tensor:
        """Compute labels (N, H, W), int64; with one channel as mmseg has it, of the logits' dtype."""
        steps: dict[str, Any] = dict(dtype=torch.int64, coordinates=self.pixel_model, crop=self.crop, flip=self.flip)
        if self.input_size is not None:
            steps.update(first_size=self.input_size, first_coordinates=self.input_pixel_model)
        if threshold is not None:
            steps.update(threshold=threshold)
        labels = resize_argmax(self.logits, self.size or self.cropped_size(), **steps)
        return labels.to(self.logits.dtype) if self.logits.shape[1] == 1 else labels

    def resized(self) -> Tensor:
        """Resize to (N, C, H, W), in float32 or better; with one channel the probability, as mmseg has it."""
        x = self.logits.to(torch.promote_types(self.logits.dtype, torch.float32))
        if self.input_size is not None:
            x = _resize(x, self.input_size, self.input_pixel_model)
        left, right, top, bottom = self.crop
        x = x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]
        if self.flip is not None:
            x = x.flip(3 if self.flip == "horizontal" else 2)
        if self.size is not None:
            x = _resize(x, self.size, self.pixel_model)
        return x.sigmoid() if x.shape[1] == 1 else x


def _resize(x: Tensor, size: Sequence[int], pixel_model: PixelModel) -> Tensor:
    if tuple(x.shape[2:]) == tuple(size) and isinstance(pixel_model, str):
        return x
    return resize(x, size, mode="bilinear", coordinates=pixel_model, warning=False)


class LogitsOnRequest(PixelData):
    """The ``seg_logits`` of a data sample: holds the small logits of the head and resizes them when ``data`` is read.

    ``data`` is (C, H, W), computed at every reading: keep what you read, and assign what you change. Whatever copies,
    moves or prints a whole data sample reads it; ``to_dict``, through which mmengine hands samples to metrics, does
    not.

    Args:
        pending: logits of one image.
    """

    def __init__(self, pending: PendingLogits | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.__dict__["_pending"] = pending
        if pending is not None:
            self._data_fields.add("data")

    @property
    def data(self) -> Tensor:
        if "_assigned" in self.__dict__:
            return self.__dict__["_assigned"]
        return self._pending.resized()[0]

    @data.setter
    def data(self, value: Tensor) -> None:
        self.__dict__["_assigned"] = value

    @data.deleter
    def data(self) -> None:
        self.__dict__.pop("_assigned", None)
        self.__dict__["_pending"] = None

    def pop(self, key: str, *default: Any) -> Any:
        if key != "data" or key not in self:
            return super().pop(key, *default)
        value = self.data
        del self.data
        return value

    @property
    def shape(self) -> Size | None:
        """(H, W)."""
        if self._pending is None or "_assigned" in self.__dict__:
            return super().shape
        return self._pending.size or self._pending.cropped_size()

    def to_dict(self) -> Any:
        return _Fields(self)


class _Fields(Mapping[str, Any], dict):  # type: ignore[misc, metaclass]  # what asks for a dict gets one
    """A dict whose values are read when they are asked for. Copies and pickles are plain."""

    def __init__(self, element: PixelData) -> None:
        self._element = element

    def __getitem__(self, key: str) -> Any:
        if key not in self._element:
            raise KeyError(key)
        return getattr(self._element, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._element.all_keys())

    def __len__(self) -> int:
        return len(self._element.all_keys())

    def __repr__(self) -> str:
        return repr({key: self[key] for key in self})

    def __reduce_ex__(self, protocol: Any) -> Any:
        return dict, ({key: self[key] for key in self},)
