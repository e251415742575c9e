"""Which layout each variable has: regular expressions on Keras' paths, as in `keras.distribution.LayoutMap`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfdist.layouts.mesh_axes import MeshAxes, Spec
from tfdist.layouts.ready_made import ReadyMade

#: What users may give: by regular expression, the axis of each dimension; or a `keras.distribution.LayoutMap`.
LayoutMap = Mapping[str, Any]


class LayoutRules:
    """Layouts by regular expressions, each of which must match a variable's whole path.

    As in Keras a path that is itself a key goes by that key, and else only one key may match.

    Args:
        layout_map: by key, tuples with an axis or None for each dimension, functions of the shape that give them, or
            `keras.distribution.TensorLayout`s; None for no rules.
        axes: of the mesh.

    Raises:
        ValueError: a key is no regular expression, a layout is no tuple, or names an axis that isn't there.
    """

    def __init__(self, layout_map: Any, axes: MeshAxes) -> None:
        self._axes = axes
        self._specs = {key: _rule(key, layout) for key, layout in _items(layout_map)}
        self._patterns = {key: _pattern(key) for key in self._specs}
        for key, spec in self._specs.items():
            if not callable(spec):
                axes.check(spec, len(spec), f"layout_map[{key!r}]")
        self._unused = set() if isinstance(layout_map, ReadyMade) else set(self._specs)

    def spec_for(self, path: str, shape: Sequence[int]) -> Spec:
        """How a variable is split; not at all if no rule is for it.

        Raises:
            ValueError: the rule is for another number of dimensions, or there are two rules.
        """
        keys = [path] if path in self._specs else [key for key, one in self._patterns.items() if one.fullmatch(path)]
        self._unused -= set(keys)
        if len(keys) > 1:
            raise ValueError(
                f"A variable has one layout. Expected: at most one key of layout_map that matches {path!r}. Received: "
                f"{keys}. Make them tell the variables apart."
            )
        if not keys:
            return (None,) * len(shape)
        rule = self._specs[keys[0]]
        spec = tuple(rule(tuple(shape))) if callable(rule) else rule
        self._axes.check(spec, len(shape), f"{path!r}, which layout_map[{keys[0]!r}] matches")
        return spec

    def __str__(self) -> str:
        """What workers can compare."""
        told = {key: getattr(rule, "__qualname__", rule) for key, rule in self._specs.items()}
        return ", ".join(f"{key!r}: {rule}" for key, rule in told.items()) or "none"

    def take_unused(self) -> list[str]:
        """Keys that have matched no variable yet, each once."""
        unused, self._unused = [key for key in self._specs if key in self._unused], set()
        return unused


def _items(layout_map: Any) -> list[tuple[str, Any]]:
    if layout_map is None:
        return []
    if not isinstance(layout_map, Mapping):
        raise ValueError(
            "Expected: layout_map={'.*up/kernel': (None, 'model')}, a keras.distribution.LayoutMap, a function of "
            f"tfdist.layouts, or 'auto'. Received: layout_map={layout_map!r}."
        )
    # Keras' own map looks its keys up as paths, which is what `items` would do too.
    return [(key, layout_map[key]) for key in layout_map]


def _rule(key: str, layout: Any) -> Spec | Callable[[Sequence[int]], Spec]:
    if callable(layout):
        return layout
    axes = getattr(layout, "axes", layout)
    if isinstance(axes, str) or not isinstance(axes, (tuple, list)):
        raise ValueError(
            "A layout is a tuple with the name of an axis or None for each dimension. Expected: such as "
            f"(None, 'model'). Received: layout_map[{key!r}]={layout!r}."
        )
    return tuple(axes)


def _pattern(key: str) -> re.Pattern[str]:
    try:
        return re.compile(key)
    except re.error as error:
        raise ValueError(
            f"Keys of layout_map are regular expressions. Received: {key!r}, of which Python says: {error}."
        ) from None
