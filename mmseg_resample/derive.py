"""Classes made at run time for modules that exist already.

They have the name of the original class. Their instances are copied and pickled by the recipe of the class: the
original and the steps from there.
"""

from collections.abc import Callable
from typing import Any

Step = tuple[Callable[..., type], tuple[Any, ...]]
"""A function at the top level of a module that makes a class of a class, and its other arguments."""
Recipe = tuple[type, tuple[Step, ...]]


def derived(cls: type, bases: tuple[type, ...], body: dict[str, Any], step: Step) -> type:
    """Make a class of ``bases`` and ``body`` to replace ``cls``; ``step`` is the call that derived it from ``cls``."""
    original, steps = recipe(cls)
    made = (original, (*steps, step))

    def reduce(self: Any, protocol: Any) -> Any:
        get_state = getattr(cls, "__getstate__", None)
        own = get_state is not getattr(object, "__getstate__", None)  # which Python has from 3.11 on
        return _rebuild, made, self.__getstate__() if own else self.__dict__.copy()

    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls.__name__, bases, body | names | {"_resample_recipe": made, "__reduce_ex__": reduce})


def recipe(cls: type) -> Recipe:
    """Return the original class, and the steps that derived ``cls`` from it."""
    return getattr(cls, "_resample_recipe", (cls, ()))


def make(original: type, steps: tuple[Step, ...]) -> Any:
    """Make a class by its ``recipe``."""
    cls = original
    for function, arguments in steps:
        cls = function(cls, *arguments)
    return cls


def _rebuild(original: type, steps: tuple[Step, ...]) -> Any:
    cls = make(original, steps)
    return cls.__new__(cls)
