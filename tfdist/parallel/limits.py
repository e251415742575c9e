"""What DTensor can't compute in any layout, said with a remedy before or instead of its own messages.

Loops crash the process, and devices that write to one variable at the same time lose what others wrote, so these are
looked for in the graph before it runs; of an operation without a rule for its layout DTensor says so when it compiles
the graph.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.experimental import dtensor

_LOOPS = ("While", "StatelessWhile")
_WRITES = ("Assign", "ResourceScatter", "ResourceApply", "Rng", "If", "StatelessIf")
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


def check_graph(graph: Any) -> None:
    """Raises ValueError if a function's graph has a loop, or writes to a variable that isn't on the mesh."""
    loops = [operation.name for operation in graph.get_operations() if operation.type in _LOOPS]
    if loops:
        raise ValueError(
            "DTensor can't split a loop. Expected: a model without tf.while_loop, tf.map_fn, tf.scan and the like. "
            f"Received: {', '.join(map(repr, loops[:3]))}. Recurrent layers take unroll=True where the number of time "
            "steps is known; others compute on all rows at once."
        )
    elsewhere = {id(inner): outer for outer, inner in graph.captures if _is_off_mesh(outer)}
    writes = (operation for operation in graph.get_operations() if operation.type.startswith(_WRITES))
    written = [elsewhere[id(one)] for operation in writes for one in operation.inputs if id(one) in elsewhere]
    if written:
        raise ValueError(
            "A step on a mesh writes to variables of the mesh only: devices would write over what others wrote. "
            "Expected: metrics, layers and variables that are made in strategy.scope(). Received: "
            f"{_name_of(written[0], graph)!r}, made outside of it. Make it in the scope."
        )


def _is_off_mesh(tensor: Any) -> bool:
    return tensor.dtype == tf.resource and not dtensor.is_dtensor(tensor)


def _name_of(handle: Any, graph: Any) -> str:
    return next((one.name for one in graph.variables if one.handle is handle), "a variable")


@contextlib.contextmanager
def explained(graph: tf.Graph | None) -> Iterator[None]:
    """In place of DTensor's error, one that says where the operation comes from and what to do.

    Args:
        graph: of the step; None where it runs eagerly.

    Raises:
        ValueError: the graph has an operation that DTensor doesn't know, or can't lay out as it is used; or a step that
            runs eagerly mixes the mesh's tensors with others.
    """
    try:
        yield
    except tf.errors.UnimplementedError as error:
        if "expecting a DTensor" in str(error):
            raise ValueError(
                "Eagerly, DTensor takes no tensors that a layer makes for itself, such as attention's causal mask. "
                "Expected: run_eagerly=False in model.compile(), where it does. Received: run_eagerly=True, and "
                f"{_said(error).partition('. Currently')[0]}."
            ) from error
        raise
    except tf.errors.UnknownError as error:
        unknown = _NO_RULE.search(str(error))
        if unknown is not None:
            raise ValueError(_message(unknown[1], graph)) from error
        if "tensorflow/dtensor" in str(error):
            raise ValueError(f"DTensor can't lay out the step: {_said(error)}. {_ANYWAY}") from error
        raise


def _said(error: Exception) -> str:
    """What DTensor's compiler said, without places in its source and the code of the operation."""
    text = str(error).partition("error: ")[2] or str(error).partition("The op/function ")[2] or str(error)
    return text.partition("\n")[0].strip().removesuffix(".")


def _message(kind: str, graph: tf.Graph | None) -> str:
    operations: list[Any] = [] if graph is None else graph.get_operations()
    names = [operation.name for operation in operations if operation.type == kind]
    remedy = next((text for name, text in _REMEDIES.items() if kind.startswith(name)), _ANYWAY)
    return (
        f"DTensor has no rule by which devices share the operation {kind!r}. Received: a step with "
        f"{', '.join(map(repr, names[:3])) or kind!r}. {remedy}"
    )
