from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("keras_activity_regularizers")


def activity_loss(rows: int) -> float:
    """What a layer adds for `rows` rows that are all alike, 0.5 * (1 + 1) each."""
    layer = keras.layers.Dense(2, kernel_initializer="ones", activity_regularizer=keras.regularizers.L2(0.5))
    layer(np.ones((rows, 1), "float32"))
    return float(layer.losses[0])


def test_keras_averages_over_the_rows_from_the_version_on_that_the_shim_says():
    averages = activity_loss(3) == pytest.approx(activity_loss(1))
    is_new = tuple(map(int, keras.__version__.split(".")[:2])) >= (3, 13)
    canary.check(averages == is_new, "activity regularizers are averaged in other versions than it says")
