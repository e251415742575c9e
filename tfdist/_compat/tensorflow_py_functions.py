"""Python functions in graphs, under names that every process knows.

Upstream: `tf.numpy_function` registers a function under a number of this process, so a dataset that uses one can't be
run by another: a tf.data worker or a parameter-server worker fails with "Could not find callback".
Here: a function is registered under a name of its own when the module that defines it is imported.
Seen in TensorFlow 2.21. Can go when functions can be registered by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.ops import script_ops

_PREFIX = "tfdist:"
# Upstream keeps weak references only.
_registered: dict[str, Callable[..., Any]] = {}


def register(name: str, function: Callable[..., Any]) -> None:
    """Make a function of NumPy arrays known to this process.

    Args:
        name: the same in every process.
        function: takes arrays, returns a list of arrays.
    """
    _registered[name] = function
    script_ops._py_funcs._funcs[_PREFIX + name] = function


def call(name: str, inputs: Sequence[Any], types: Sequence[tf.DType], *, stateful: bool) -> list[tf.Tensor]:
    """An operation that calls the function of this name in the process in which it runs.

    Args:
        name: as it was registered.
        inputs: tensors.
        types: of what it returns.
        stateful: whether each call counts, even if nobody uses what it returns.
    """
    operation = tf.raw_ops.PyFunc if stateful else tf.raw_ops.PyFuncStateless
    return operation(input=list(inputs), token=_PREFIX + name, Tout=list(types))


def is_registered_token(token: bytes) -> bool:
    """Whether an operation with this token runs in any process."""
    return token.startswith(_PREFIX.encode())
