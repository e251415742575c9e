"""Taking elements of a dataset in a way that another thread can end.

Upstream: whoever waits for an element can't be woken; a tf.data service client that waits for a dead worker waits on.
`CancellationManagerContext` is the whole process's, not a thread's.
Here: the operation that takes an element runs with a cancellation manager of its own. Seen in TensorFlow 2.21. Can go
when iterators can be closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import cancellation, context, execute


class Elements:
    """The elements of a dataset of tensors, until `cancel`."""

    def __init__(self, dataset: tf.data.Dataset) -> None:
        self._iterator = iter(dataset)
        self._manager = cancellation.CancellationManager()
        leaves = tf.nest.flatten(dataset.element_spec)
        self._types = [leaf.dtype.as_datatype_enum for leaf in leaves]
        self._shapes = [leaf.shape.as_list() if leaf.shape.rank is not None else None for leaf in leaves]

    def __iter__(self) -> Iterator[Any]:
        """Flat elements; raises CancelledError after `cancel`."""
        while True:
            try:
                element = self._next()
            except tf.errors.OutOfRangeError:
                return
            yield element

    def _next(self) -> Any:
        return execute.execute_with_cancellation(
            "IteratorGetNext",
            len(self._types),
            [self._iterator._iterator_resource],
            ("output_types", self._types, "output_shapes", self._shapes),
            context.context(),
            self._manager,
        )

    def cancel(self) -> None:
        """Ends whoever waits for an element."""
        self._manager.start_cancel()
