"""Says which Keras variable TensorFlow is just making, or makes none.

Upstream: Keras gives TensorFlow the variable's name and a function that makes the value, so the one who makes it knows
neither Keras' path, by which layouts are chosen, nor the initializer.
Here: both can be asked for while the variable is made; and a model can be built of which there are only the shapes, to
plan where its variables go. Seen in Keras 3.15.1. Can go when Keras passes them on.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
from keras.src.backend import Variable
from keras.src.backend.common import global_state

_upstream = {name: getattr(Variable, name) for name in ("_initialize", "_initialize_with_initializer")}
_local = threading.local()


class Creation(NamedTuple):
    """What is being made: the Keras variable, and its initializer, or None where it is given a value; and by whom."""

    variable: Any
    initializer: Any
    by_optimizer: bool


def install() -> None:
    """Replace the two methods of Keras' variables, around what other shims have put in their place."""
    for replacement in (initialize, initialize_with_initializer):
        name = f"_{replacement.__name__}"
        _upstream[name] = getattr(Variable, name)
        setattr(Variable, name, replacement)


def current_creation() -> Creation | None:
    """The Keras variable that is being made in this thread, or None."""
    return getattr(_local, "creation", None)


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Keras variables that are made in here have no value, and names are given as if they had never been made."""
    names = copy.copy(global_state.get_global_attribute("object_name_uids"))
    outer, _local.shapes_only = getattr(_local, "shapes_only", False), True
    try:
        yield
    finally:
        _local.shapes_only = outer
        global_state.set_global_attribute("object_name_uids", names)


def initialize(self: Any, value: Any) -> None:
    """Upstream's."""
    outer = current_creation()
    if outer is None or outer.variable is not self:
        _local.creation = Creation(self, None, _by_optimizer())
    try:
        _upstream["_initialize"](self, value)
    finally:
        _local.creation = outer


def initialize_with_initializer(self: Any, initializer: Any) -> None:
    """Upstream's; or what upstream does while it can't make variables: it remembers the initializer."""
    if getattr(_local, "shapes_only", False):
        self._initializer = initializer
        return
    outer = current_creation()
    known = initializer if isinstance(initializer, keras.initializers.Initializer) else None
    _local.creation = Creation(self, known, _by_optimizer())
    try:
        _upstream["_initialize_with_initializer"](self, initializer)
    finally:
        _local.creation = outer


def _by_optimizer() -> bool:
    scopes = global_state.get_global_attribute("name_scope_stack") or [None]
    return isinstance(getattr(scopes[-1], "caller", None), keras.optimizers.Optimizer)
