from __future__ import annotations

import keras
import pytest
import tensorflow as tf

from tests.compat.canary import Canary, Recorder

pytestmark = pytest.mark.unit
canary = Canary("keras_metrics")


def test_the_replaced_method_has_the_same_parameters():
    canary.find("keras:metrics.Mean.update_state")
    shim = canary.module()
    canary.same_parameters(shim._update_state, shim.update_state)


def test_metrics_of_functions_update_through_mean(monkeypatch):
    """Accuracy and the like pass values by row, which the shim must let through."""
    update = Recorder()
    monkeypatch.setattr(keras.metrics.Mean, "update_state", update)
    keras.metrics.BinaryAccuracy().update_state(tf.ones([3, 1]), tf.ones([3, 1]))
    canary.check(update.was_called, "metrics of functions do not update through Mean.update_state")
    values = update.calls[0][0][0]
    canary.check(values.shape[0] == 3, f"metrics of functions pass values of shape {values.shape}, not by row")


def test_a_weighted_scalar_counts_its_weight():
    metric = keras.metrics.Mean()
    canary.has(metric, "total", "count")
    metric.update_state(tf.constant(8.0), sample_weight=tf.constant(0.25))
    metric.update_state(tf.constant(4.0), sample_weight=tf.constant(0.75))
    counted = float(metric.count), float(metric.result())
    canary.check(counted == (1.0, 5.0), f"0.25 x 8 + 0.75 x 4 have weight and mean {counted}, not (1, 5)")


def test_the_trainer_weights_its_own_loss(monkeypatch):
    """The shim leaves weighted scalars alone, so the loss tracker's must stay weighted by rows."""
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    update = Recorder()
    canary.has(model, "_loss_tracker")
    monkeypatch.setattr(model._loss_tracker, "update_state", update)
    model.test_step((tf.ones([3, 1]), tf.ones([3, 1])))
    weight = update.calls[0][1].get("sample_weight")
    canary.check(weight is not None and int(weight) == 3, "the trainer doesn't weight its loss with the batch's rows")


def test_the_fault_is_still_there(stock_faults):
    canary.still(stock_faults, "scalars_count_once_a_replica")


def test_metrics_tell_what_they_are_made_of():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(metrics=["mae", keras.metrics.AUC()])
    model.compute_metrics(tf.ones([2, 1]), tf.ones([2, 1]), tf.ones([2, 1]))
    (compiled,) = [metric for metric in model.metrics if canary.module().inner_metrics(metric)]
    kinds = [type(one).__name__ for one in canary.module().inner_metrics(compiled)]
    canary.check("AUC" in kinds, "compiled metrics can't be found")

    class Two(keras.metrics.Metric):
        def __init__(self):
            super().__init__()
            self.inner = keras.metrics.Mean()

    canary.check(len(canary.module().inner_metrics(Two())) == 1, "Metric._metrics is gone")
