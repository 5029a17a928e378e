"""Configs as mmengine dumps them, read as data: what such a file says is never run."""

import ast
import math
from typing import Any


def read_dumped(text: str) -> dict[str, Any]:
    """Read a dumped config: assignments of literals and of ``dict(...)``.

    Raises:
        ValueError: the text is anything else.
    """
    settings = {}
    for node in _statements(text):
        name = _assigned(node)
        if name is None:
            raise ValueError(f"expected assignments alone, got {ast.unparse(node):.60}")
        settings[name] = _value(node.value)
    return settings


def read_setting(text: Any, name: str) -> Any:
    """Read one setting of a dumped config; None if it is absent, no literal, or ``text`` is no config."""
    try:
        nodes = [node for node in _statements(text) if _assigned(node) == name] if isinstance(text, str) else []
        return _value(nodes[-1].value) if nodes else None
    except ValueError:
        return None


def _statements(text: str) -> list[Any]:
    try:
        return ast.parse(text).body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"not a config: {error}") from error


def _assigned(node: Any) -> str | None:
    """Return the name that a statement assigns to; None if it does anything else."""
    target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
    return target.id if isinstance(target, ast.Name) else None


def _value(node: Any) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[ast.Dict() as items], keywords=[]):  # of keys that are no names
            return _value(items)
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords) if all(item.arg for item in keywords):
            return {item.arg: _value(item.value) for item in keywords}
        case ast.Dict(keys=keys, values=values):  # a key of None is **: literal_eval refuses it
            return {ast.literal_eval(key or node): _value(value) for key, value in zip(keys, values, strict=True)}
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.Name(id="inf" | "nan" as name):  # as repr writes them
            return getattr(math, name)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Name(id="inf")):
            return -math.inf
    return ast.literal_eval(node)  # raises ValueError
