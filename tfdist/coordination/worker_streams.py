"""Data that has a stream for each worker, as `distribute_datasets_from_function` returns it and Keras takes it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from tfdist._compat.tensorflow_datasets import DistributedDatasetsFromFunction


class DistributedStreams(DistributedDatasetsFromFunction):
    """Streams that are distributed already.

    Args:
        streams: A dataset for each worker.
        distribute: Gives what reads them.
    """

    def __init__(self, streams: list[tf.data.Dataset], distribute: Callable[[list[tf.data.Dataset]], Any]) -> None:
        self._streams, self._distribute = streams, distribute

    @functools.cached_property
    def _distributed(self) -> Any:
        return self._distribute(self._streams)

    def map(self, function: Callable[..., Any], **options: Any) -> DistributedStreams:
        """As `tf.data.Dataset.map`, for each stream; Keras weighs classes so."""
        return DistributedStreams([stream.map(function, **options) for stream in self._streams], self._distribute)

    def prefetch(self, buffer_size: int) -> DistributedStreams:
        """Itself: workers read ahead in any case."""
        return self

    @property
    def element_spec(self) -> Any:
        """Of a batch."""
        return self._streams[0].element_spec

    @property
    def cardinality(self) -> int:
        """Batches of all streams, or TensorFlow's constants for unknown and infinite."""
        counts = [int(stream.cardinality()) for stream in self._streams]
        return sum(counts) if min(counts) >= 0 else min(counts)

    @property
    def steps_per_epoch(self) -> int | None:
        """As the user told Keras."""
        steps: int | None = self._distributed.steps_per_epoch
        return steps

    @steps_per_epoch.setter
    def steps_per_epoch(self, steps: int | None) -> None:
        self._distributed.steps_per_epoch = steps

    def __iter__(self) -> Iterator[Any]:
        return iter(self._distributed)


def check_streams(streams: Sequence[Any]) -> None:
    """Refuse what is no data, or differs from worker to worker.

    Raises:
        TypeError: a stream is no dataset.
        ValueError: streams have elements of different types or shapes.
    """
    for worker, stream in enumerate(streams):
        if not isinstance(stream, tf.data.Dataset):
            raise TypeError(
                f"dataset_fn returns a tf.data.Dataset for each worker. Received: {stream!r} for worker {worker}."
            )
        if stream.element_spec != streams[0].element_spec:
            raise ValueError(
                "All workers' batches have the same types and shapes. Received: "
                f"{streams[0].element_spec} for worker 0, {stream.element_spec} for worker {worker}. Pad or cast them "
                "in dataset_fn."
            )
