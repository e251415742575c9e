"""Instance keys that an all-reduce keeps from one execution of its function to the next.

Upstream: every execution has a key of its own. For each the workers ask the first one, which costs a third of a small
all-reduce, and the runtime remembers it, 860 bytes each, as long as the process lives. Keys that are fixed in the trace
were given up, because they were counted: workers that trace a function at another time, or once more, count otherwise,
and a key that had another shape before is refused ("Shape mismatch in the collective instance").
Here: a key says dtype, number of elements, and which of those it is in the outermost function. That is the same on all
workers whenever they trace, and never of two shapes. All-reduces of one process wait for each other by the ordering
token, so no key is in use twice at a time; in while loops, whose iterations may overlap, keys stay fresh.
Seen in TensorFlow 2.21. Can go when the runtime forgets keys, and completes them without a call.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import func_graph
from tensorflow.python.ops import control_flow_v2_func_graphs

_LOOPS = (control_flow_v2_func_graphs.WhileBodyFuncGraph, control_flow_v2_func_graphs.WhileCondFuncGraph)
_DTYPES = (tf.float32, tf.float64, tf.float16, tf.bfloat16)
#: Above the keys that TensorFlow and tfdist count: 2 bits of dtype, 20 of elements, 8 of a number.
_BASE = 1 << 30
_ELEMENTS, _NUMBERS = 1 << 20, 1 << 8

_local = threading.local()
#: How many all-reduces of a kind a function has, by launcher, dtype and elements.
_counts: weakref.WeakKeyDictionary[Any, collections.Counter[Any]] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def repeated_keys(value: tf.Tensor) -> Iterator[None]:
    """All-reduces of this thread in here are of a tensor like this one, and may keep their keys."""
    before, _local.value = getattr(_local, "value", None), value
    try:
        yield
    finally:
        _local.value = before


def repeated_key(launcher: Any) -> int | None:
    """The key of an all-reduce that is being traced; None for a fresh one."""
    value: Any = getattr(_local, "value", None)
    function = None if value is None else _outermost_function()
    if function is None or value.dtype not in _DTYPES:
        return None
    elements = value.shape.num_elements()
    if not elements or elements > _ELEMENTS:
        return None
    kind = (_DTYPES.index(value.dtype), elements)
    counter = _counts.setdefault(function, collections.Counter())
    number = counter[launcher._group_key, launcher._device, kind]
    counter[launcher._group_key, launcher._device, kind] += 1
    return None if number >= _NUMBERS else _BASE + (kind[0] * _ELEMENTS + elements - 1) * _NUMBERS + number


def _outermost_function() -> Any:
    """The function that is being traced; None in loops, and where there is none."""
    graph, outermost = tf.compat.v1.get_default_graph(), None
    while isinstance(graph, func_graph.FuncGraph):
        if isinstance(graph, _LOOPS):
            return None
        graph, outermost = graph.outer_graph, graph
    return outermost
