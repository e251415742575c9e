"""Random layers draw other numbers on every replica, the same ones for the same seed.

Upstream: every replica holds the same seed state, so Dropout masks the same units everywhere.
Here: in replica context the replica's index is mixed into the seed that is drawn; the state itself stays equal.
Seen in Keras 3.15.1. Can go when Keras mixes the replica in.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdist._compat import hooks

#: An odd constant far from the counters that SeedGenerator adds, so that replicas' seeds don't meet.
REPLICA_STRIDE = 0x9E37

_next = keras.random.SeedGenerator.next


def install() -> None:
    """Replace `keras.random.SeedGenerator.next`."""
    keras.random.SeedGenerator.next = next_seed


def next_seed(self: Any, ordered: bool = True) -> Any:
    """Upstream's next seed, a pair of integers, with the replica's index mixed into the first."""
    seed = _next(self, ordered)
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1 or hooks.active_strategy() is None:
        return seed
    replica = tf.cast(context.replica_id_in_sync_group, seed.dtype)
    return seed + tf.stack([replica * tf.constant(REPLICA_STRIDE, seed.dtype), tf.zeros_like(replica)])
