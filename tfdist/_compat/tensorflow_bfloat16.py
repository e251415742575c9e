"""bfloat16 variables under MultiWorkerMirroredStrategy.

Upstream: the chief's initial values are broadcast by `CollectiveBcastSend`, which has no bfloat16 kernel, so no model
with bfloat16 variables can be made on several workers.
Here: bfloat16 values travel as float32, which holds them exactly. Nothing else is changed.
Seen in TensorFlow 2.21. Can go when the broadcast takes bfloat16.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf
from tensorflow.python.ops import collective_ops

_send, _receive = collective_ops.broadcast_send, collective_ops.broadcast_recv


def install() -> None:
    """Replace the two functions in their module, where strategies look them up."""
    collective_ops.broadcast_send = broadcast_send
    collective_ops.broadcast_recv = broadcast_recv


@functools.wraps(_send)
def broadcast_send(t: Any, shape: Any, dtype: Any, *args: Any, **kwargs: Any) -> Any:
    """Upstream's; bfloat16 as float32."""
    if dtype != tf.bfloat16:
        return _send(t, shape, dtype, *args, **kwargs)
    return tf.cast(_send(tf.cast(t, tf.float32), shape, tf.float32, *args, **kwargs), dtype)


@functools.wraps(_receive)
def broadcast_recv(shape: Any, dtype: Any, *args: Any, **kwargs: Any) -> Any:
    """Upstream's; bfloat16 as float32."""
    if dtype != tf.bfloat16:
        return _receive(shape, dtype, *args, **kwargs)
    return tf.cast(_receive(shape, tf.float32, *args, **kwargs), dtype)
