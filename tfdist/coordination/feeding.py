"""Data that the chief feeds to the workers: its own dataset's batches, each sent to the worker that computes on it.

For what only the chief can read: arrays, generators, Python data sets. An epoch's batches are those of one device, each
given to one execution, so none is lost with a worker.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from tfdist.data.rows import without_optional


class FedData:
    """What Keras holds in place of a distributed dataset.

    Args:
        dataset: The chief's.
        on_pass: Called with each new pass.
    """

    def __init__(self, dataset: tf.data.Dataset, on_pass: Callable[[Feed], None]) -> None:
        self.dataset, self._on_pass = dataset, on_pass
        #: As the user told Keras.
        self.steps_per_epoch: int | None = None

    @property
    def element_spec(self) -> Any:
        """Of a batch."""
        return self.dataset.element_spec

    def read_here(self) -> tf.data.Dataset:
        """The batches in this process."""
        return self.dataset.map(lambda *batch: tf.nest.map_structure(without_optional, batch))

    def __iter__(self) -> Iterator[Any]:
        feed = Feed(self.dataset, self.steps_per_epoch)
        self._on_pass(feed)
        return feed


class Feed(Iterator[Any]):
    """One pass, or the endless one, over the chief's dataset.

    Args:
        dataset: The chief's.
        steps_per_epoch: As the user told Keras.
    """

    def __init__(self, dataset: tf.data.Dataset, steps_per_epoch: int | None = None) -> None:
        self.steps_per_epoch = steps_per_epoch
        self._batches = iter(dataset)
        self._ahead: collections.deque[Any] = collections.deque()
        self.spec = tf.nest.map_structure(without_optional, dataset.element_spec)
        #: What `next` returned last.
        self.last: Any = None

    def __next__(self) -> Any:
        self.last = self._ahead.popleft() if self._ahead else self._read()
        return self.last

    def _read(self) -> Any:
        # `next` of the iterator first waits until nothing that this thread has ever sent to a worker is pending; behind
        # a worker that is stopped, that is for ever.
        element = self._batches.get_next_as_optional()
        if not element.has_value():
            raise StopIteration
        return tf.nest.map_structure(without_optional, element.get_value())

    def take(self, count: int) -> list[Any]:
        """Up to `count` batches, fewer at the end.

        Raises:
            StopIteration: there is none.
        """
        batches = [next(self)]
        while len(batches) < count and self.look(1):
            batches.append(next(self))
        return batches

    def look(self, count: int) -> list[Any]:
        """Up to `count` batches that `next` is going to return."""
        while len(self._ahead) < count:
            try:
                self._ahead.append(self._read())
            except StopIteration:
                break
        return list(self._ahead)[:count]
