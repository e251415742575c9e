from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("keras_saveable_state")


def test_an_optimizers_attribute_is_saved_and_loaded(tmp_path):
    canary.find("keras.src.saving.keras_saveable:KerasSaveable")
    base = canary.module().SaveableState

    class State(base):
        value = 0.0

        def save_own_variables(self, store):
            store["value"] = np.asarray(self.value)

        def load_own_variables(self, store):
            self.value = float(store["value"][()])

    def model_with(value):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.optimizer.build(model.trainable_variables)
        object.__setattr__(model.optimizer, "_state", State())
        model.optimizer._state.value = value
        return model

    path = tmp_path / "model.weights.h5"
    model_with(3.0).save_weights(path)
    loaded = model_with(0.0)
    loaded.load_weights(path)
    canary.check(loaded.optimizer._state.value == 3.0, "attributes of optimizers are not saved with them")
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    plain.compile("sgd", "mse")
    plain.load_weights(path)
