"""Initial values by the part, the same numbers as on one device.

Keras' own random initializers draw block by block, and of each block the parts keep what is theirs: the whole is never
there, only what this process' devices hold, and a block. A user's own initializers, and those that need all numbers to
make one of them (orthogonal, identity), are called for the whole.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdist._compat.keras_random import Rows, drawing
from tfdist.parallel.transfer import Part, fetched

_CONSTANT = {keras.initializers.Zeros: 0, keras.initializers.Ones: 1}
_RANDOM = {
    getattr(keras.initializers, name)
    for name in (
        *("RandomUniform", "RandomNormal", "TruncatedNormal", "VarianceScaling", "GlorotUniform", "GlorotNormal"),
        *("HeUniform", "HeNormal", "LecunUniform", "LecunNormal"),
    )
}
# Of a block and of what an initializer makes of it: little beside a process with TensorFlow.
_BLOCK_BYTES = 32 << 20
_ROWS_TOGETHER = 4  # begin where Philox counts on, whatever a row's length is


class InitialValue:
    """What a variable is to hold at first.

    Args:
        given: a value, or a function without arguments that makes it.
        initializer: Keras' initializer behind `given`, or None.
        variable: the variable that it's for, or one of its shape; None where that isn't known.
        dtype: of the variable; None for that of the value.
    """

    def __init__(self, given: Any, initializer: Any, variable: Any, dtype: Any) -> None:
        self._initializer, self._kind = initializer, type(initializer)
        self._whole: tf.Tensor | None = None
        if not (self._kind in _CONSTANT or (self._kind in _RANDOM and _is_large(variable))):
            # Outside of the mesh, on which random numbers would be others.
            with tf.device("CPU:0"):
                self._whole = tf.convert_to_tensor(fetched(given() if callable(given) else given), dtype)
        known = variable if self._whole is None else self._whole
        self.shape: list[int] = list(known.shape)
        self.dtype: tf.DType = tf.as_dtype(dtype or known.dtype)

    def parts(self, parts: list[Part]) -> list[Any]:
        """What each of these is to hold."""
        if self._whole is not None:
            whole = self._whole
            return [whole[part] if part else whole for part in parts]
        if self._kind in _CONSTANT:
            constant = tf.cast(_CONSTANT[self._kind], self.dtype)
            return [tf.fill([one.stop - one.start for one in part], constant) for part in parts]
        return self._drawn(parts)

    def _drawn(self, parts: list[Part]) -> list[np.ndarray]:
        found = [np.empty([one.stop - one.start for one in part], np.float32) for part in parts]
        rows, length = Rows(tuple(self.shape)), self.shape[0]
        step = _BLOCK_BYTES // (4 * math.prod(self.shape[1:])) // _ROWS_TOGETHER * _ROWS_TOGETHER
        step = max(_ROWS_TOGETHER, step)
        for first in range(0, length, step):
            rows.first, rows.count = first, min(step, length - first)
            with drawing(rows):
                block = self._initializer(rows.shape, dtype="float32").numpy()
            for part, value in zip(parts, found, strict=True):
                begin, end = max(first, part[0].start), min(first + rows.count, part[0].stop)
                if begin < end:
                    own = (slice(begin - first, end - first), *part[1:])
                    value[begin - part[0].start : end - part[0].start] = block[own]
        return found


def _is_large(variable: Any) -> bool:
    shape = tuple(variable.shape)
    return variable.dtype == "float32" and len(shape) > 0 and math.prod(shape) * 4 > _BLOCK_BYTES
