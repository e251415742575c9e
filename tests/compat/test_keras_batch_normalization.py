from __future__ import annotations

import keras
import pytest
import tensorflow as tf

from tests.compat.canary import Canary, Recorder

pytestmark = pytest.mark.unit
canary = Canary("keras_batch_normalization")
MOMENTS = "keras.src.backend.tensorflow.nn:_compute_moments_sync"


def test_the_replaced_function_has_the_same_parameters():
    canary.find(MOMENTS)
    shim = canary.module()
    canary.same_parameters(shim._compute_moments_sync, shim.compute_moments_sync)


def test_the_layers_moments_have_the_same_parameters():
    canary.find("keras:layers.BatchNormalization._moments")
    shim = canary.module()
    canary.same_parameters(shim._moments, shim.moments)


def test_masked_layers_ask_for_the_replaced_moments(monkeypatch):
    moments = Recorder((tf.zeros([1]), tf.ones([1])))
    monkeypatch.setattr(keras.layers.BatchNormalization, "_moments", moments)
    layer = keras.layers.BatchNormalization(synchronized=True)
    layer(tf.ones([2, 3, 1]), training=True, mask=tf.ones([2, 3], tf.bool))
    canary.check(moments.was_called, "BatchNormalization doesn't call _moments() for masked inputs")


def test_synchronized_layers_call_the_replaced_function(monkeypatch):
    canary.find(MOMENTS)
    moments = Recorder((tf.zeros([1]), tf.ones([1])))
    monkeypatch.setattr(MOMENTS.replace(":", "."), moments)
    layer = keras.layers.BatchNormalization(synchronized=True)
    layer(tf.ones([2, 1]), training=True)
    canary.check(moments.was_called, "synchronized BatchNormalization doesn't call nn._compute_moments_sync")


def test_other_layers_do_not(monkeypatch):
    canary.find(MOMENTS)
    moments = Recorder((tf.zeros([1]), tf.ones([1])))
    monkeypatch.setattr(MOMENTS.replace(":", "."), moments)
    keras.layers.BatchNormalization()(tf.ones([2, 1]), training=True)
    canary.check(not moments.was_called, "BatchNormalization calls nn._compute_moments_sync when not synchronized")


@pytest.mark.parametrize("keepdims, shape", [(True, (1, 3)), (False, (3,))])
def test_moments_have_the_shapes_that_the_shim_returns(keepdims, shape):
    canary.find(MOMENTS)
    mean, variance = canary.module()._compute_moments_sync(tf.ones([2, 3]), [0], keepdims)
    found = tuple(mean.shape), tuple(variance.shape)
    canary.check(found == (shape, shape), f"moments of 2 rows of 3 with keepdims={keepdims} have the shapes {found}")


def test_half_floats_arrive_as_floats(monkeypatch):
    """The shim computes in the type that it is given."""
    canary.find(MOMENTS)
    moments = Recorder((tf.zeros([1]), tf.ones([1])))
    monkeypatch.setattr(MOMENTS.replace(":", "."), moments)
    keras.ops.moments(tf.ones([2, 1], "float16"), axes=[0], synchronized=True)
    received = moments.calls[0][0][0].dtype
    canary.check(received == tf.float32, f"moments of float16 are computed in {received.name}, not in float32")


def test_the_fault_is_still_there(stock_faults):
    canary.still(stock_faults, "synchronized_variance_loses_digits")
