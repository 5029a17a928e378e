"""Build a network from the name of what makes it: ``module:callable`` and its arguments."""

import ast
import importlib
import pkgutil
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from torch import nn

from ..suggest import did_you_mean
from .fake import fake_tensors


def build(spec: str, arguments: Sequence[str] = (), values: bool = False) -> nn.Module:
    """Build the network that ``spec`` names, without memory where its constructor allows that.

    Args:
        spec: ``"torchvision.models.segmentation:fcn_resnet50"``: a module, and a callable in it that returns a network.
        arguments: ``"name=value"`` or ``"value"``; values are Python literals, anything else is a string.
        values: its weights are wanted, and the memory that they take.

    Raises:
        ValueError: ``spec`` is not of that form, there is no such module or callable, or it cannot be called so.
        TypeError: it makes something else than an ``nn.Module``.
    """
    make = _find(spec)
    positional, named = _parse(arguments)
    try:
        try:
            with nullcontext() if values else fake_tensors():
                model = make(*positional, **named)
        except Exception:  # a constructor that reads values, or loads weights
            model = make(*positional, **named)
    except Exception as error:  # whatever a constructor raises
        raise ValueError(
            f"audit: {spec}({', '.join(arguments)}) cannot be built ({type(error).__name__}: {error})."
        ) from error
    if not isinstance(model, nn.Module):
        raise TypeError(f"audit: expected {spec} to make an nn.Module, got {type(model).__name__}.")
    return model


def _find(spec: str) -> Any:
    module_name, _, path = spec.partition(":")
    if not module_name or not path:
        raise ValueError(f"audit: expected 'module:callable', got {spec!r}.")
    try:
        found = importlib.import_module(module_name)
    except ImportError as error:
        hint = did_you_mean(module_name, _beside(module_name))
        raise ValueError(f"audit: {module_name} cannot be imported ({error}). Is it installed?{hint}") from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise ValueError(f"audit: {spec}: {error}.{did_you_mean(part, dir(found))}") from error
    return found


def _beside(module_name: str) -> list[str]:
    """List the modules of the package that ``module_name`` would be in; all that can be imported if in none."""
    package, _, _ = module_name.rpartition(".")
    try:
        folders = importlib.import_module(package).__path__ if package else None
    except (ImportError, AttributeError):
        return []
    return [f"{package}.{found.name}".lstrip(".") for found in pkgutil.iter_modules(folders)]


def _parse(arguments: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and name.isidentifier():
            named[name] = _literal(value)
        else:
            positional.append(_literal(argument))
    return positional, named


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
