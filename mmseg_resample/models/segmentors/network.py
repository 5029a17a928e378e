"""How mmseg's segmentors are run for an audit: heads resize their logits to the labels outside of ``forward``."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import BaseSegmentor, EncoderDecoder
from torch import Tensor, nn

from ...grids import Network, network_of
from ...grids.network import named_tensors
from ...grids.sites import Site, Size
from ...ops import PixelGrid, PixelModel


class SegmentorNetwork(Network):
    """mmseg's segmentors: features by ``extract_feat``, logits at the size of the image by ``encode_decode``.

    A head's resize of its logits to the labels goes by the head's path and ``.logits``, the step to the original image
    by ``postprocess``. In training mode a head resizes all the logits that it returns then, as its loss does: branches
    of PIDNet, DDRNet and DANet, stages of K-Net.
    """

    entrances = ("forward", "loss", "predict", "extract_feat", "encode_decode")
    prediction = "decode_head"
    sees_image, crops = "extract_feat", False

    def paths(self, name: str, module: nn.Module) -> dict[str, str]:
        found = {"forward": name}  # heads are called by it, past any hook
        for method in ("predict_by_feat", "loss_by_feat"):
            if hasattr(module, method):
                found[method] = f"{name}.logits"
        if hasattr(module, "postprocess_result"):
            found["postprocess_result"] = "postprocess"
        return found

    def made_for(self, model: Any) -> Size | None:
        crop = getattr(model.data_preprocessor, "size", None) or (model.test_cfg or {}).get("crop_size")
        size = crop or getattr(getattr(model, "backbone", None), "img_size", None)
        if size is None:
            return None
        height, width = (size, size) if isinstance(size, int) else size
        return int(height), int(width)

    def unaudited(self, model: nn.Module) -> frozenset[str]:
        return frozenset(path for path in self.all_paths(model) if path == "postprocess" or path.endswith(".logits"))

    def refuses_padding(self, model: Any) -> str | None:
        for head in _listed(model.decode_head):
            if not isinstance(head, BaseDecodeHead) or hasattr(head, "get_points_train"):
                return (
                    f"{type(head).__name__} compares features and labels at points that it draws in fractions of their "
                    f"sizes, and labels are not padded"
                )
        return None

    def levels(self, model: nn.Module) -> str | None:
        return "backbone" if hasattr(model, "backbone") else None  # SAN has an image encoder

    def run(self, model: Any, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        size = tuple(image.shape[2:])
        meta = dict(img_shape=size, ori_shape=size, pad_shape=size, padding_size=[0, 0, 0, 0])
        if model.training and isinstance(model, EncoderDecoder) and _judges_what_it_returns(model.decode_head):
            yield from _run_in_training(model, image, meta)
            return
        features = model.extract_feat(image)
        model.extract_feat = lambda _: features
        try:
            logits = model.encode_decode(image, [meta])
        finally:
            del model.extract_feat
        yield "decode_head", logits
        for head in _auxiliary_heads(model):
            yield "auxiliary_head", head.predict(features, [meta], model.test_cfg)

    def pixel_model(self, site: Site, source_size: Size, size: Size, levels: Sequence[PixelGrid]) -> PixelModel | None:
        if site[0] == "postprocess":  # logits at the input's size to the original image: undo the pipeline's resize
            return "half_pixel"
        if not site[0].endswith(".logits"):
            return None
        stride = round(size[0] / source_size[0])  # a loss on an inner level
        for level in levels:
            if all(s == stride for s in level.stride):
                return level.map_to(PixelGrid.image(size))
        return None


@network_of.register
def _(model: BaseSegmentor) -> Network:
    return SegmentorNetwork()


def _auxiliary_heads(model: Any) -> list[Any]:
    if not getattr(model, "with_auxiliary_head", False):
        return []
    return _listed(model.auxiliary_head)


def _listed(heads: Any) -> list[Any]:
    return list(heads) if isinstance(heads, nn.ModuleList) else [heads]


def _judges_what_it_returns(head: nn.Module) -> bool:
    """Tell whether the head's loss takes whatever ``forward`` returns, several branches or stages too."""
    return isinstance(head, BaseDecodeHead) and type(head).loss is BaseDecodeHead.loss


def _run_in_training(model: Any, image: Tensor, meta: dict[str, Any]) -> list[tuple[str, Tensor]]:
    """Run ``model.loss`` without labels: heads resize all their logits to the image, and compare them with nothing."""
    outputs: list[tuple[str, Tensor]] = []

    def without_labels(name: str, head: Any) -> Callable[..., dict[str, Tensor]]:
        by = getattr(head, "kernel_generate_head", head)  # whose loss K-Net's is

        def loss(features: Any, *_: Any) -> dict[str, Tensor]:
            if _judges_what_it_returns(head):
                maps = [logits for _, logits in named_tensors(head.forward(features)) if logits.ndim == 4]
                outputs.extend((name, by.predict_by_feat(logits, [meta])) for logits in maps)
            else:
                outputs.append((name, head.predict(features, [meta], model.test_cfg)))
            return {}

        return loss

    heads = [model.decode_head, *_auxiliary_heads(model)]
    for i, head in enumerate(heads):
        head.loss = without_labels("auxiliary_head" if i else "decode_head", head)
    try:
        model.loss(image, [])
    finally:
        for head in heads:
            del head.loss
    return outputs
