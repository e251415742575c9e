from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.compat.canary import Canary, Recorder
from tfdist._compat import hooks
from tfdist._compat.keras_packed_variables import Fetch
from tfdist.coordination.worker_step import WorkerStep

pytestmark = pytest.mark.unit
canary = Canary("keras_worker_variables")
VARIABLE = "keras.src.backend.common:KerasVariable"
METHODS = ["assign_add", "assign_sub"]


@pytest.fixture
def step():
    """A worker's step that is under way."""
    with hooks.step_scope(WorkerStep(None, tf.constant(0), Fetch([], []))) as step:
        yield step


@pytest.mark.parametrize("method", METHODS)
def test_the_replaced_methods_have_the_same_parameters(method):
    canary.find(f"{VARIABLE}.{method}")
    shim = canary.module()
    canary.same_parameters(shim._in_place[method], getattr(shim, method))


@pytest.mark.parametrize("method", METHODS)
def test_the_backends_variables_inherit_them(method):
    cls = canary.find(VARIABLE)
    canary.check(getattr(keras.Variable, method) is getattr(cls, method), f"keras.Variable has a {method}() of its own")


@pytest.mark.parametrize("method", METHODS)
def test_upstreams_read_and_write(monkeypatch, method):
    """Which loses what another writes in between: the reason for the shim."""
    canary.find(f"{VARIABLE}.assign")
    monkeypatch.setattr(canary.find(VARIABLE), "assign", assign := Recorder())
    canary.module()._in_place[method](keras.Variable(1.0), 2.0)
    canary.check(assign.was_called, f"{method}() doesn't go through assign(): that part of the shim can go")


def test_a_variable_holds_what_the_shim_takes():
    variable = keras.Variable(1.0)
    canary.has(variable, "_value", "_convert_to_tensor")
    canary.check(isinstance(variable._value, tf.Variable), "Variable._value is no tf.Variable")
    canary.takes(variable._convert_to_tensor, 1.0, dtype="float32")


@pytest.mark.parametrize("method, total", [("assign_add", 3.0), ("assign_sub", -1.0)])
def test_a_workers_step_adds_in_place(step, monkeypatch, method, total):
    """Upstream's is not called; a number is added to each element."""
    shim = canary.module()
    variable, scalar = keras.Variable([1.0, 1.0]), keras.Variable(1.0)
    monkeypatch.setitem(shim._in_place, method, upstream := Recorder())
    for one, value in ((variable, 2), (scalar, 2.0)):
        assert getattr(shim, method)(one, value) is one
        np.testing.assert_array_equal(one.numpy(), np.full(one.shape, total))
    assert not upstream.was_called


@pytest.mark.parametrize("method", METHODS)
def test_outside_of_a_workers_step_they_are_upstreams(monkeypatch, method):
    shim = canary.module()
    monkeypatch.setitem(shim._in_place, method, upstream := Recorder("result"))
    variable = keras.Variable(1.0)
    assert getattr(shim, method)(variable, 2.0) == "result"
    assert upstream.calls == [((variable, 2.0), {})]


def test_what_stands_for_a_variable_is_read_and_assigned_in_its_place():
    variable, other = keras.Variable(1.0), tf.Variable(5.0)
    with canary.module().standing_for([variable], [other]):
        read = float(keras.ops.add(variable, 0.0))
        variable.assign(7.0)
    canary.check(read == 5, "a variable's value isn't read from Variable._value")
    canary.check(float(other) == 7, "assign() doesn't go through Variable._value")
    assert float(variable.value) == 1


def test_variables_are_themselves_again_after_an_error():
    variable, other = keras.Variable(1.0), tf.Variable(5.0)
    with pytest.raises(KeyError), canary.module().standing_for([variable], [other]):
        raise KeyError
    assert float(variable.value) == 1


def batch_normalization() -> keras.layers.Layer:
    layer = keras.layers.BatchNormalization(momentum=0.75)
    layer.build((None, 1))
    return layer


def test_moving_averages_change_by_what_they_would_on_one_device():
    """To rounding: a + (b - a) in place of b."""
    plain, shared = batch_normalization(), batch_normalization()
    data = tf.constant([[1.0], [3.0]])
    for _ in range(3):
        plain(data, training=True)
        with Fetch([], [shared.moving_mean, shared.moving_variance]).used():
            shared(data, training=True)
    for name in ("moving_mean", "moving_variance"):
        found, expected = (float(getattr(layer, name).numpy()[0]) for layer in (shared, plain))
        canary.check(abs(found - expected) <= 1e-6, f"BatchNormalization gets {name}={found}, not {expected}")


def test_a_change_of_a_moving_average_is_added_to_what_others_have_made_of_it():
    layer = batch_normalization()
    variable = layer.moving_mean._value
    with Fetch([], [layer.moving_mean, layer.moving_variance]).used():
        variable.assign([10.0])  # another worker's, after this step has read 0
        layer(tf.constant([[1.0], [3.0]]), training=True)
    assert float(variable[0]) == 10.5, "a quarter of 2 - 0 is added"


def test_a_metrics_variables_are_the_workers_own():
    """They begin at zero in each execution, and the metric's do not change."""
    shim, metric = canary.module(), keras.metrics.Mean()
    metric.update_state([100.0])

    @tf.function
    @tf.autograph.experimental.do_not_convert
    def execution(values):
        with shim.on_worker(metric.variables, "test_keras_worker_variables/mean", 1) as totals:
            metric.update_state(values)
            metric.update_state(values)
            return [total.total() for total in totals]

    for _ in range(2):
        assert [float(total) for total in execution(tf.constant([1.0, 2.0]))] == [6.0, 4.0]
    assert float(metric.result()) == 100


def test_a_variable_can_be_made_from_a_handle_with_a_name():
    cls = canary.find("tensorflow.python.ops.resource_variable_ops:BaseResourceVariable")
    canary.takes(
        cls.__init__, *[None], trainable=False, shape=[], dtype=tf.int64, handle=1, handle_name="", in_graph_mode=False
    )

    @tf.function
    def count():
        variable = canary.module().named_variable([], tf.int64, "test_keras_worker_variables/count")
        known = tf.raw_ops.VarIsInitializedOp(resource=variable.handle)
        before = tf.cond(known, variable.read_value, lambda: tf.constant(0, tf.int64))
        variable.assign(before + 1, read_value=False)
        return variable.read_value()

    found = [int(count()) for _ in range(3)]
    canary.check(found == [1, 2, 3], f"a variable of a name that is kept counts {found}")
