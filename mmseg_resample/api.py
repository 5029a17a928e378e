"""What everybody calls: ``audit`` and ``exact``, for networks of any framework."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from . import grids
from .grids import Audit
from .grids.evidence import as_shifts
from .policy import ResizePolicy


def audit(what: Any, size: int | Sequence[int] | None = None, *, weights: bool = False) -> Audit:
    """Say which features of a network are misregistered, and by how many input pixels, without weights or data.

    Args:
        what: a network (any ``nn.Module`` that takes images (N, C, H, W)), or a config of mmsegmentation: a path, a
            name such as ``"mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py"``, or an mmengine ``Config``;
            or the path of an ``.onnx`` file, wherever it came from.
        size: input size, one number or (h, w). None: the config's crop; for a network the size that it names as
            its own (timm's do), for an ONNX file the one that it takes, else 512x512.
        weights: measure where the weights look, those of a network or those that a config begins with, and judge that
            instead of where layers put features; a minute.

    Returns:
        An ``Audit``: ``print`` shows its tables; ``worst``, ``final``, ``meetings``, ``resizes``, ``levels``,
        ``uncovered`` and ``unreachable`` are its findings.

    Raises:
        TypeError: ``what`` is none of these.
        ValueError: the network cannot be built, or cannot take an image of this size; the file is no ONNX file.
        ImportError: a config without mmsegmentation, an ONNX file without onnx.
    """
    if isinstance(what, nn.Module):
        return grids.audit(what, size, weights=grids.level_shifts(what) if weights else ())
    if isinstance(what, (str, Path)) and str(what).endswith(".onnx"):
        if weights:
            raise ValueError(f"audit: {what}: weights are not looked at in ONNX files. Audit the network itself.")
        from .deploy.onnx_audit import audit_onnx

        return audit_onnx(what, size)
    if isinstance(what, (str, Path)):
        from .launch import load_config

        return _audit_config(load_config(str(what)), str(what), size, weights)
    if hasattr(what, "filename") and "model" in what:  # mmengine's Config, which need not be installed
        return _audit_config(what, what.filename or "config", size, weights)
    raise TypeError(
        f"audit: expected an nn.Module, an .onnx file or a config (a path, 'mmseg::...' or mmengine's Config), "
        f"got {type(what).__name__}."
    )


def _audit_config(cfg: Any, name: str, size: int | Sequence[int] | None, weights: bool) -> Audit:
    from .launch.auditing import audit_config, input_size, measure_weights

    sizes = [input_size(cfg) if size is None else grids.image_size(size)]
    return audit_config(cfg, name, sizes, weights=measure_weights(cfg, None) if weights else ())


def exact(
    model: nn.Module,
    *,
    sizes: Sequence[Sequence[int]] | None = None,
    pad: str | None = None,
    weights: bool = False,
) -> nn.Module:
    """Make every resize of ``model`` register its output with what it meets, in place, and return the model.

    Parameters, state dict and class names stay. ``model.resize_policy.report()`` says what was changed;
    ``ResizePolicy(exact=True).applied(model)`` is the same for a ``with`` block.

    Args:
        model: any ``nn.Module`` that takes images (N, C, H, W).
        sizes: two or more input sizes (h, w) at which the model is audited. None: the one that the model names as its
            own, else 512x512, and 523x677 or, where the model cannot take that, 736x608. Give sizes that the model can
            take if it cannot take these.
        pad: pad each image by the fewest rows and columns with which the features reach all of it, and crop what the
            model returns: ``"replicate"`` the outermost pixels, ``"reflect"`` the image in them, or ``"constant"``, 0.
        weights: measure where the weights of ``model`` look, and register features there, not where layers put them.

    Raises:
        ValueError: the model cannot be audited at these sizes, or no padding makes its features reach the border.
    """
    shifts = as_shifts(grids.level_shifts(model)) if weights else ()
    ResizePolicy(exact=True, sizes=sizes, pad=pad, level_shifts=shifts).install(model)
    return model
