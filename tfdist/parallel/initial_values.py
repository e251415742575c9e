"""Initial values by the part, the same numbers as on one device."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdist.parallel.transfer import Part, fetched

_CONSTANT = {keras.initializers.Zeros: 0, keras.initializers.Ones: 1}


class InitialValue:
    """What a variable is to hold at first; the whole is made only where parts can't be.

    Args:
        given: a value, or a function without arguments that makes it.
        initializer: Keras' initializer behind `given`, or None.
        variable: the Keras variable that it's for, or None.
        dtype: of the variable; None for that of the value.
    """

    def __init__(self, given: Any, initializer: Any, variable: Any, dtype: Any) -> None:
        self._constant = _CONSTANT.get(type(initializer))
        self._whole: tf.Tensor | None = None
        if self._constant is None:
            # Outside of the mesh, on which random numbers would be others.
            with tf.device("CPU:0"):
                self._whole = tf.convert_to_tensor(fetched(given() if callable(given) else given), dtype)
        known = variable if self._whole is None else self._whole
        self.shape: list[int] = list(known.shape)
        self.dtype: tf.DType = tf.as_dtype(known.dtype)

    def part(self, part: Part) -> tf.Tensor:
        """What a device is to hold."""
        if self._whole is not None:
            return self._whole[part] if part else self._whole
        return tf.fill([one.stop - one.start for one in part], tf.cast(self._constant, self.dtype))
