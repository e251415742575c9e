"""A layer that takes its time, on some workers more than on others, without keeping a core busy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfdist._compat import hooks


class Slow(keras.layers.Layer):
    """Passes on what it gets after a while, in training under ParameterServerStrategy, and counts each worker's steps.

    Args:
        seconds: Of each worker, of whom each has one replica.
    """

    def __init__(self, seconds: Sequence[float]) -> None:
        super().__init__()
        self._seconds = list(seconds)
        self.steps = self.add_weight(shape=(len(self._seconds),), initializer="zeros", trainable=False)

    def call(self, inputs: Any, training: bool = False) -> Any:
        step = hooks.current_step()
        if not training or step is None:
            return inputs
        self.steps.assign_add(tf.one_hot(step.seed_offset, len(self._seconds)))
        with tf.control_dependencies(sleep(tf.gather(self._seconds, step.seed_offset))):
            return tf.identity(inputs)


def sleep(seconds: tf.Tensor) -> list[tf.Tensor]:
    """Operations that take so long."""
    kind = {"output_types": [tf.int32], "output_shapes": [[]]}
    # Sleeps before the element and again before the end, which is looked for too.
    microseconds = tf.cast(seconds * 1e6 / 2, tf.int64)
    one = tf.raw_ops.TensorDataset(components=[tf.constant(0)], output_shapes=kind["output_shapes"])
    slow = tf.raw_ops.SleepDataset(input_dataset=one, sleep_microseconds=microseconds, **kind)
    slept: list[tf.Tensor] = tf.raw_ops.DatasetToSingleElement(dataset=slow, **kind)
    return slept
