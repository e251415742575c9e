from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.compat.canary import Canary, Recorder
from tfdist._compat import hooks

pytestmark = pytest.mark.unit
canary = Canary("keras_split_classes")
BACKEND = "keras.src.backend.tensorflow"
PLACES = {"argmax": "numpy", "in_top_k": "math", "sparse_categorical_crossentropy": "nn"}
KEPT = {"argmax": "_argmax", "in_top_k": "_in_top_k", "sparse_categorical_crossentropy": "_cross_entropy"}
NAN, INF = float("nan"), float("inf")
#: Two largest, a zero with a minus before one without, nothing but zeros with a minus, infinities, no numbers.
ROWS = np.array(
    [
        *([1, 5, 5, -2], [-1, -0.0, 0.0, -3], [-0.0, -0.0, -1, -0.0], [-INF, 3, INF, 0], [-INF] * 4, [NAN] * 4),
        *([2, -INF, 1, 0], [-1e-3, -2e-3, -4, -1e-3]),
    ],
    "float32",
)
LABELS = np.array([1, 2, 3, 2, 0, 1, 0, 3])


@pytest.fixture
def splitting(monkeypatch):
    canary.find(BACKEND)
    strategy = hooks.KerasHooks()
    strategy.splits_operations = True
    monkeypatch.setattr("tfdist._compat.keras_operations.hooks.active_strategy", lambda: strategy)


def both(name, *args, **kwargs):
    """What upstream's function and the shim's give, in a graph."""
    shim = canary.module()
    functions = getattr(shim, KEPT[name]), getattr(shim, name)
    return [tf.function(lambda one=one: one(*args, **kwargs), autograph=False)().numpy() for one in functions]


@pytest.mark.parametrize("name", PLACES)
def test_the_replaced_functions_have_the_same_parameters(name):
    canary.find(f"{BACKEND}:{PLACES[name]}.{name}")
    shim = canary.module()
    canary.same_parameters(getattr(shim, KEPT[name]), getattr(shim, name))


@pytest.mark.parametrize("name", PLACES)
def test_keras_calls_the_replaced_functions(monkeypatch, name):
    function = Recorder(tf.zeros([2], tf.int32))
    monkeypatch.setattr(canary.find(f"{BACKEND}:{PLACES[name]}"), name, function)
    x, y = tf.ones([2, 3]), tf.ones([2], tf.int32)
    getattr(keras.ops, name)(*{"argmax": (x, -1), "in_top_k": (y, x, 1)}.get(name, (y, x)))
    canary.check(function.was_called, f"keras.ops.{name} is another function than the backend's")


def test_upstreams_logits_of_a_softmax_are_found():
    canary.takes(canary.find(f"{BACKEND}:nn._get_logits"), tf.ones([2, 3]), False, "Softmax", "name")


@pytest.mark.parametrize(("axis", "keepdims"), [(-1, False), (1, True), (0, False)])
def test_argmax_is_upstreams(splitting, axis, keepdims):
    rows = ROWS[:-3] if axis == 0 else ROWS  # without NaN beside numbers, of which the largest is not defined
    upstream, own = both("argmax", rows, axis=axis, keepdims=keepdims)
    np.testing.assert_array_equal(own, upstream)
    assert own.dtype == upstream.dtype


@pytest.mark.parametrize("k", [1, 2, 3])
def test_in_top_k_is_upstreams(splitting, k):
    labels = np.concatenate([LABELS, [7, -1]]).astype("int32")
    upstream, own = both("in_top_k", labels, np.concatenate([ROWS, np.ones((2, 4), "float32")]), k)
    np.testing.assert_array_equal(own, upstream)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-6), ("bfloat16", 1e-2)])
@pytest.mark.parametrize("from_logits", [True, False])
def test_the_cross_entropy_and_its_gradient_are_upstreams(splitting, dtype, tolerance, from_logits):
    logits = tf.random.stateless_normal([5, 7, 11], [1, 2]) * 10
    logits = tf.cast(logits if from_logits else tf.nn.softmax(logits / 10), dtype)
    labels, weights = np.arange(35).reshape(5, 7, 1) % 11, tf.cast(tf.range(7), dtype)

    def value_and_gradient(loss):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(labels, logits, from_logits=from_logits)
        return value, tape.gradient(value, logits, weights * tf.ones_like(value))

    shim = canary.module()
    expected, received = (
        tf.function(value_and_gradient, autograph=False)(one)
        for one in (shim._cross_entropy, shim.sparse_categorical_crossentropy)
    )
    for one, other in zip(received, expected, strict=True):
        assert one.dtype == other.dtype
        largest = np.abs(np.asarray(other, "float64")).max()
        difference = np.abs(np.asarray(one, "float64") - np.asarray(other, "float64")).max()
        assert difference <= tolerance * max(1.0, largest)


def test_the_logits_behind_a_softmax_are_taken(splitting):
    logits = tf.constant([[200.0, 0.0, -200.0]])

    @tf.function(autograph=False)
    def loss():
        return canary.module().sparse_categorical_crossentropy(tf.constant([2]), tf.nn.softmax(logits))

    np.testing.assert_allclose(loss(), [400.0])


def test_masked_classes_have_no_part(splitting):
    upstream, own = both("sparse_categorical_crossentropy", LABELS[[6]], ROWS[[6]], from_logits=True)
    np.testing.assert_allclose(own, upstream, rtol=1e-6)


def test_a_label_that_is_no_class_is_not_a_number(splitting):
    """As on GPUs; upstream's function for CPUs raises an error, which DTensor's doesn't."""
    shim = canary.module()
    loss = tf.function(lambda: shim.sparse_categorical_crossentropy([-1, 4, 1], ROWS[:3], from_logits=True))()
    np.testing.assert_array_equal(np.isnan(loss), [True, True, False])
