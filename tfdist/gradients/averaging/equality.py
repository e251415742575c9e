"""Replicas show each other a fingerprint of every variable after an averaging, and stop at the first that differs.

A fingerprint is the sum, modulo 2^64, of a variable's bits as integers, each times an odd number that depends on its
place: 8 bytes a variable cross the wire. A variable that differs in one element always differs in it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from tfdist.errors import WorkersDisagreeError

_SAYS = "tfdist: replicas differ after averaging"
_INTEGERS = {1: tf.int8, 2: tf.int16, 4: tf.int32, 8: tf.int64}


def fingerprint(value: tf.Tensor) -> tf.Tensor:
    """An int64 scalar; equal for equal bits."""
    if value.dtype == tf.bool:
        value = tf.cast(value, tf.int8)
    bits = value if value.dtype == tf.int64 else tf.bitcast(value, _INTEGERS[value.dtype.size])
    bits = tf.reshape(tf.cast(bits, tf.int64), [-1])
    places = 2 * tf.range(tf.size(bits, out_type=tf.int64)) + 1
    return tf.reduce_sum(bits * places)


def check_equal(variables: Sequence[Any]) -> None:
    """Compare Keras variables with those of all replicas; in replica context, in a function or eagerly.

    The replicas all gather the same fingerprints, so all of them stop, or none.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1 or not variables:
        return
    own = tf.stack([fingerprint(tf.convert_to_tensor(variable.value)) for variable in variables])
    prints = context.all_gather(own[tf.newaxis], axis=0)
    differs = tf.reduce_any(tf.not_equal(prints, prints[:1]), 0)
    names = tf.constant([variable.path for variable in variables])
    first = names[tf.argmax(tf.cast(differs, tf.int32))]
    tf.debugging.Assert(tf.logical_not(tf.reduce_any(differs)), [_SAYS, first])


@contextlib.contextmanager
def explained_difference() -> Iterator[None]:
    """In place of TensorFlow's error, one that names the variable.

    Raises:
        WorkersDisagreeError: replicas differed after an averaging inside.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(_SAYS + r"\W+([^\]'\"]+)", str(error))
        if found is None:
            raise
        raise WorkersDisagreeError(
            f"Expected: equal variables on all replicas after an averaging. Received: variable {found[1]!r}, which "
            "differs. Something changes it on some replicas only, such as an outer optimizer or a callback that "
            "depends on the worker, or a device computes wrongly."
        ) from None
