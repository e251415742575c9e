"""Which examples a chief was told of, by a metric that it updates itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np
import tensorflow as tf

#: Which examples were reported, how often.
seen: Counter[int] = Counter()


class Ids(keras.metrics.Metric):
    """Notes the examples; no sum, so that the chief updates it with what workers send."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        if tf.executing_eagerly():  # not when Keras tries the model out
            seen.update(np.ravel(y_true).astype(int).tolist())

    def result(self) -> Any:
        return float(len(seen))

    def reset_state(self) -> None:
        seen.clear()
