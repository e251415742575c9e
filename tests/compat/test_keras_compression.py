from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.compat.canary import Canary
from tfdist._compat.keras_saveable_state import SaveableState

pytestmark = pytest.mark.unit
canary = Canary("keras_compression")


class Kept(SaveableState):
    """A variable beside the optimizer's."""

    def __init__(self):
        self.variable = tf.Variable([3.0])

    def save_own_variables(self, store):
        store["kept"] = self.variable.numpy()

    def load_own_variables(self, store):
        self.variable.assign(np.asarray(store["kept"]))


class Compression:
    def __init__(self):
        self.state = Kept()


class Plain(tf.train.experimental.PythonState):
    def serialize(self):
        return b"kept"

    def deserialize(self, string_value):
        self.read = string_value


def with_compression(model):
    compression, plain = Compression(), Plain()
    canary.module().attach_compression(model.optimizer, compression, plain)
    return compression, plain


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def test_it_is_none_of_the_optimizers_own(model):
    before = len(model.optimizer.variables), model.optimizer.get_config()
    compression, _ = with_compression(model)
    canary.check(canary.module().compression_of(model.optimizer) is compression, "it isn't found again")
    after = len(model.optimizer.variables), model.optimizer.get_config()
    canary.check(after == before, "an optimizer's variables or configuration have what is attached")


def test_files_of_keras_and_of_tensorflow_hold_it(model, tmp_path):
    compression, plain = with_compression(model)
    model.save_weights(tmp_path / "of.weights.h5")
    path = tf.train.Checkpoint(optimizer=model.optimizer).write(str(tmp_path / "of"))
    compression.state.variable.assign([0.0])
    model.load_weights(tmp_path / "of.weights.h5")
    canary.check(float(compression.state.variable[0]) == 3.0, "Keras' file doesn't give the state back")
    tf.train.Checkpoint(optimizer=model.optimizer).read(path)
    canary.check(getattr(plain, "read", None) == b"kept", "TensorFlow's file doesn't give the state back")
