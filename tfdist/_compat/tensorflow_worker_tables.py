"""Lookup tables in functions that run on workers, also inside loops, conditions and functions of theirs.

Upstream: a function for workers captures the table of the worker on which it's called, at the time of the call; in a
graph inside the function's own that never happens ("must feed a value for placeholder").
Here: the function's own graph captures it, and graphs inside take it from there.
Seen in TensorFlow 2.21. Can go when call-time captures work in inner graphs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute import ps_values
from tensorflow.python.framework import ops

_resource_handle = ps_values.DistributedTable.resource_handle

#: Of the function that is traced. Replicas are threads, so this is no thread's own.
_graphs: list[Any] = []


def install() -> None:
    """Replace the table's handle."""
    ps_values.DistributedTable.resource_handle = property(resource_handle)


@contextlib.contextmanager
def function_of_worker() -> Iterator[None]:
    """The graph that is traced is that of a function for workers, and no other function's inside it."""
    _graphs.append(ops.get_default_graph())
    try:
        yield
    finally:
        _graphs.pop()


def graph_of_worker() -> Any:
    """The outermost graph of the function that is traced for workers."""
    return _graphs[-1] if _graphs else ops.get_default_graph()


def resource_handle(self: Any) -> Any:
    """Upstream's, taken in the graph of the worker's function."""
    if not _graphs or tf.executing_eagerly():
        return _resource_handle.fget(self)
    with _graphs[-1].as_default():
        return _resource_handle.fget(self)
