from __future__ import annotations

import ast
import re

import keras
import pytest
import tensorflow as tf

from tests.compat.canary import Canary, Recorder

pytestmark = pytest.mark.unit
canary = Canary("keras_losses")
LOSS = "keras.src.losses.loss"


@pytest.mark.parametrize(
    "name, kept",
    [
        ("reduce_values", "_reduce_values"),
        ("reduce_weighted_values", "_reduce_weighted_values"),
        ("scale_loss_for_distribution", "_scale"),
        ("unscale_loss_for_distribution", "_unscale"),
    ],
)
def test_the_replaced_functions_have_the_same_parameters(name, kept):
    canary.find(f"{LOSS}:{name}")
    shim = canary.module()
    canary.same_parameters(getattr(shim, kept), getattr(shim, name))


def test_losses_look_the_reduction_up_in_their_module(monkeypatch):
    reduce = Recorder(tf.constant(0.0))
    canary.find(f"{LOSS}:reduce_weighted_values")
    monkeypatch.setattr(f"{LOSS}.reduce_weighted_values", reduce)
    keras.losses.MeanSquaredError()(tf.ones([2, 1]), tf.zeros([2, 1]))
    canary.check(reduce.was_called, "Loss.__call__ doesn't look reduce_weighted_values up in its module")
    canary.check(
        set(reduce.calls[0][1]) == {"sample_weight", "mask", "reduction", "dtype"},
        f"Loss.__call__ passes {sorted(reduce.calls[0][1])} to reduce_weighted_values",
    )


def test_the_weighted_reduction_calls_the_unweighted_one(monkeypatch):
    reduce = Recorder(tf.constant(0.0))
    canary.find(f"{LOSS}:reduce_values")
    monkeypatch.setattr(f"{LOSS}.reduce_values", reduce)
    canary.module()._reduce_weighted_values(tf.ones([2]))
    canary.check(reduce.was_called, "reduce_weighted_values doesn't look reduce_values up in its module")


def test_a_mean_is_scaled_last_by_the_function_that_the_shim_switches_off(monkeypatch):
    scale = Recorder(tf.constant(7.0))
    canary.find(f"{LOSS}:scale_loss_for_distribution")
    monkeypatch.setattr(f"{LOSS}.scale_loss_for_distribution", scale)
    loss = canary.module()._reduce_values(tf.constant([1.0, 3.0]))
    canary.check(float(loss) == 7.0, "reduce_values doesn't end with scale_loss_for_distribution")
    canary.check(float(scale.calls[0][0][0]) == 2.0, "reduce_values doesn't pass the mean of 1 and 3 to it")


def test_a_sum_and_a_scalar_are_not_scaled(monkeypatch):
    scale = Recorder()
    monkeypatch.setattr(f"{LOSS}.scale_loss_for_distribution", scale)
    canary.module()._reduce_values(tf.constant([1.0, 3.0]), reduction="sum")
    canary.module()._reduce_values(tf.constant(1.0))
    canary.check(not scale.was_called, "reduce_values scales sums and scalars too, which the shim does not expect")


def test_a_masked_mean_is_over_the_unmasked(monkeypatch):
    """What the shim multiplies: the replica's own mean over its valid elements."""
    monkeypatch.setattr(f"{LOSS}.scale_loss_for_distribution", lambda value: value)
    mask = tf.constant([True, False, False])
    loss = canary.module()._reduce_weighted_values(tf.constant([6.0, 1.0, 1.0]), mask=mask)
    canary.check(float(loss) == pytest.approx(6.0), f"the masked mean of 6 (and two that are masked) is {float(loss)}")


def test_there_are_no_other_reductions():
    """The shim takes one that it does not know for a sum."""
    standardize = canary.find(f"{LOSS}:standardize_reduction")
    with pytest.raises(ValueError, match="Expected one of") as refused:
        standardize("harmonic")
    allowed = ast.literal_eval(re.search(r"\{.*?\}", str(refused.value))[0])
    known = {*canary.module().MEAN_REDUCTIONS, "sum", "none", None}
    canary.check(allowed <= known, f"there are new reductions: {allowed - known}")


@pytest.mark.parametrize("name", ["scale_loss_for_distribution", "unscale_loss_for_distribution"])
def test_the_trainer_looks_the_scaling_up_in_the_losses_module(monkeypatch, name):
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1, kernel_regularizer="l2")])
    model.compile("sgd", keras.losses.MeanSquaredError(reduction="sum"))
    scaling = Recorder(tf.constant(0.0))
    canary.find(f"{LOSS}:{name}")
    monkeypatch.setattr(f"{LOSS}.{name}", scaling)
    model.test_step((tf.ones([2, 1]), tf.ones([2, 1])))
    canary.check(scaling.was_called, f"the trainer doesn't look {name} up in the losses' module")


@pytest.mark.parametrize("fault", ["losses_divide_by_replicas", "scalar_losses_are_not_divided"])
def test_the_fault_is_still_there(stock_faults, fault):
    canary.still(stock_faults, fault)
