"""What DTensor can't compute in any layout, said with a remedy before or instead of its own messages.

Loops crash the process, so they are looked for in the graph before it runs; of an operation without a rule for its
layout DTensor says so when it compiles the graph.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

_LOOPS = ("While", "StatelessWhile")
_NO_RULE = re.compile(r"'tf\.(\w+)' op does not implement layout propagation")

#: By the beginning of an operation's name.
_REMEDIES = {
    "AvgPool": "Use MaxPooling, GlobalAveragePooling or a convolution with strides.",
    "Depthwise": "Use a convolution with `groups=1`, such as Conv2D.",
    "StatelessRandomGamma": "Do it in the data set.",
    "DenseBincount": "Use keras.ops.one_hot, or do it in the data set.",
    "ImageProjectiveTransform": "Do it in the data set.",
    "Where": "Use tf.where(condition, x, y) or weights; shapes must not depend on values.",
}
_ANYWAY = "Do it in the data set with dataset.map(), or write it with other operations."


def check_graph(graph: tf.Graph) -> None:
    """Raises ValueError if the graph has a loop."""
    loops = [operation.name for operation in graph.get_operations() if operation.type in _LOOPS]
    if loops:
        raise ValueError(
            "DTensor can't split a loop. Expected: a model without tf.while_loop, tf.map_fn, tf.scan and the like. "
            f"Received: {', '.join(map(repr, loops[:3]))}. Recurrent layers take unroll=True where the number of time "
            "steps is known; others compute on all rows at once."
        )


@contextlib.contextmanager
def explained(graph: tf.Graph | None) -> Iterator[None]:
    """In place of DTensor's error, one that says where the operation comes from and what to do.

    Raises:
        ValueError: the graph has an operation that DTensor doesn't know, or can't lay out as it is used.
    """
    try:
        yield
    except tf.errors.UnknownError as error:
        unknown = _NO_RULE.search(str(error))
        if unknown is not None:
            raise ValueError(_message(unknown[1], graph)) from error
        if "tensorflow/dtensor" in str(error):
            raise ValueError(f"DTensor can't lay out the step: {_said(error)}. {_ANYWAY}") from error
        raise


def _said(error: Exception) -> str:
    """What DTensor's compiler said, without places in its source and the code of the operation."""
    text = str(error).partition("error: ")[2] or str(error)
    return text.partition("\n")[0].strip().removesuffix(".")


def _message(kind: str, graph: tf.Graph | None) -> str:
    operations: list[Any] = [] if graph is None else graph.get_operations()
    names = [operation.name for operation in operations if operation.type == kind]
    remedy = next((text for name, text in _REMEDIES.items() if kind.startswith(name)), _ANYWAY)
    return (
        f"DTensor has no rule by which devices share the operation {kind!r}. Received: a step with "
        f"{', '.join(map(repr, names[:3])) or kind!r}. {remedy}"
    )
