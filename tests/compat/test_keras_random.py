from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.compat.canary import Canary, Recorder
from tfdist._compat import hooks

pytestmark = pytest.mark.unit
canary = Canary("keras_random")
MODULE = "keras.src.backend.tensorflow:random"


class Splitting(hooks.KerasHooks):
    """A strategy that takes what was drawn as it is."""

    splits_operations = True

    def whole(self, value):
        return value


@pytest.fixture
def splitting(monkeypatch):
    canary.find(MODULE)
    monkeypatch.setattr(canary.module().hooks, "active_strategy", Splitting)


def test_the_replaced_functions_are_there():
    for name in ("normal", "uniform", "randint", "truncated_normal", "gamma", "binomial", "beta", "dropout"):
        canary.find(f"{MODULE}.{name}")
    for name in ("_cast_seed", "draw_seed", "_get_concrete_noise_shape"):
        canary.find(f"{MODULE}.{name}")
    shim = canary.module()
    canary.same_parameters(shim._upstream["dropout"], shim.dropout)


def test_layers_draw_through_the_replaced_functions(monkeypatch):
    draw = Recorder(tf.ones([2, 2]))
    monkeypatch.setattr(canary.find(MODULE), "normal", draw)
    keras.layers.GaussianNoise(0.5)(tf.ones([2, 2]), training=True)
    canary.check(draw.was_called, "GaussianNoise draws by another way than the backend's normal()")


@pytest.mark.parametrize("options", [{}, {"noise_shape": (None, 1)}], ids=["each", "by row"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_masks_are_upstreams(splitting, dtype, options):
    """The same numbers are dropped, and the others scaled alike, to the bit."""
    shim, x = canary.module(), tf.cast(tf.random.stateless_normal([64, 8], [1, 2]), dtype)
    expected, received = (
        np.asarray(tf.cast(one(x, 0.3, seed=7, **options), "float32"))
        for one in (shim._upstream["dropout"], shim.dropout)
    )
    canary.check((expected == received).all(), "TensorFlow's stateless_dropout draws or scales otherwise")
    assert 0 < (received == 0).mean() < 1


@pytest.mark.parametrize(
    "initializer",
    ["RandomUniform", "RandomNormal", "TruncatedNormal", "GlorotUniform", "GlorotNormal", "HeUniform", "HeNormal"],
)
@pytest.mark.parametrize("seed", [7, None, "generator"])
def test_rows_are_those_of_the_whole(initializer, seed):
    """Bit by bit, whatever the length of a row is; a generator's seed is drawn once."""
    shim = canary.module()
    shim.install()
    shape = (10, 3, 5)
    made = [
        getattr(keras.initializers, initializer)(seed=keras.random.SeedGenerator(3) if seed == "generator" else seed)
        for _ in range(2)
    ]
    if seed is None:
        made[1] = made[0]  # Keras draws its seed when it is made
    whole, rows = made[0](shape, dtype="float32").numpy(), shim.Rows(shape)
    parts = []
    for rows.first, rows.count in ((0, 4), (4, 4), (8, 2)):
        with tf.device("CPU:0"), shim.drawing(rows):
            parts.append(made[1](shape, dtype="float32").numpy())
    same = (np.concatenate(parts) == whole).all()
    canary.check(same, f"{initializer} draws other numbers, or Philox counts otherwise, than by 4 and by 1,024")
