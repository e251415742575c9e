"""Random layers draw other numbers on every replica, the same ones for the same seed; and without state in a data set.

Upstream: every replica holds the same seed state, so Dropout masks the same units everywhere. In a data set's graph the
state is a variable that parallel calls change in any order, and that knows nothing of epochs and steps.
Here: in replica context the replica's index is mixed into the seed that is drawn; the state itself stays equal. Where
`drawing_from` says so, seeds are functions of a given one. Seen in Keras 3.15.1. Can go when Keras mixes the replica
in, and when its preprocessing layers take a seed as they are called.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from tfdist._compat import hooks

#: An odd constant far from the counters that SeedGenerator adds, so that replicas' seeds don't meet.
REPLICA_STRIDE = 0x9E37

_next = keras.random.SeedGenerator.next
_local = threading.local()


def install() -> None:
    """Replace `keras.random.SeedGenerator.next`."""
    keras.random.SeedGenerator.next = next_seed


@contextlib.contextmanager
def drawing_from(seed: tf.Tensor) -> Iterator[None]:
    """While a graph is traced in this thread, the k-th seed that is drawn is a function of `seed` and k.

    Args:
        seed: int64 [2], such as `tf.random.fold_in` returns.
    """
    outer = getattr(_local, "draws", None)
    _local.draws = [seed, 0]
    try:
        yield
    finally:
        _local.draws = outer


def _next_draw(draws: list[Any]) -> tf.Tensor:
    seed, count = draws
    draws[1] += 1
    return tf.random.fold_in(seed, tf.constant(count, tf.int64), alg="philox")


def next_seed(self: Any, ordered: bool = True) -> Any:
    """Upstream's next seed, a pair of integers, with the replica's index mixed into the first."""
    draws = getattr(_local, "draws", None)
    if draws is not None:
        return _next_draw(draws)
    step = hooks.current_step()
    if step is not None and step.seed_offset is not None:
        return _next_of_worker(self, ordered, step.seed_offset)
    seed = _next(self, ordered)
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1 or hooks.active_strategy() is None:
        return seed
    return _offset(seed, context.replica_id_in_sync_group)


def _next_of_worker(generator: Any, ordered: bool, worker: tf.Tensor) -> Any:
    """Upstream's next seed, where workers count at the same time."""
    if not ordered:
        return _offset(_next(generator, ordered), worker)
    state = generator.state
    seed = tf.identity(state.value)
    state.assign_add([0, 1])
    return _offset(seed, worker)


def _offset(seed: Any, index: Any) -> Any:
    replica = tf.cast(index, seed.dtype)
    return seed + tf.stack([replica * tf.constant(REPLICA_STRIDE, seed.dtype), tf.zeros_like(replica)])
