from __future__ import annotations

import gc
import inspect
from types import SimpleNamespace

import keras
import pytest
import tensorflow as tf

from tests.compat.canary import Canary, Recorder

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_parameter_server")
EXTENDED = "tensorflow.python.distribute.parameter_server_strategy_v2:ParameterServerStrategyV2Extended"
COORDINATOR = "tensorflow.python.distribute.coordinator.cluster_coordinator"
METRIC = "keras:metrics.Metric"
VARIABLE = "keras.src.backend:Variable"


@pytest.fixture
def extended():
    """Upstream's for two ps, without a cluster."""
    cls = canary.find(EXTENDED)
    instance = cls.__new__(cls)
    instance._num_ps, instance._variable_count, instance._variable_partitioner = 2, 0, None
    return instance


def test_add_variable_has_the_same_parameters():
    canary.find(f"{METRIC}.add_variable")
    shim = canary.module()
    canary.takes(shim._add_variable, object(), shape=(), initializer="zeros", dtype=None, aggregation="sum", name="x")
    canary.takes(shim.add_metric_variable, object(), (), "zeros")


@pytest.mark.parametrize(
    "make",
    [
        *(keras.metrics.Mean, keras.metrics.AUC, keras.metrics.Precision, keras.metrics.F1Score),
        *(lambda: keras.metrics.MeanIoU(3), keras.metrics.R2Score, keras.metrics.PearsonCorrelation),
        *(keras.metrics.RootMeanSquaredError, keras.metrics.BinaryAccuracy, keras.metrics.Sum),
    ],
)
def test_metrics_make_their_variables_by_add_variable(monkeypatch, make):
    cls, upstream, made = canary.find(METRIC), canary.module()._add_variable, []

    def add_variable(self, *args, **kwargs):
        made.append(upstream(self, *args, **kwargs))
        return made[-1]

    monkeypatch.setattr(cls, "add_variable", add_variable)
    metric = make()
    metric.update_state(*([tf.ones([4, 3])] * (1 if type(metric) in (keras.metrics.Mean, keras.metrics.Sum) else 2)))
    paths = {variable.path for variable in metric.variables}
    others = paths - {variable.path for variable in made}
    canary.check(paths and not others, f"{metric.name} makes {others or 'no variables'} without Metric.add_variable()")


def test_users_metrics_do_too(monkeypatch):
    monkeypatch.setattr(canary.find(METRIC), "add_variable", add_variable := Recorder())
    metric = keras.metrics.Metric()
    canary.has(metric, "add_weight")
    metric.add_weight(shape=(), initializer="zeros", name="x")
    canary.check(add_variable.was_called, "Metric.add_weight() doesn't call add_variable()")


def test_initialize_with_initializer_has_the_same_parameters():
    canary.find(f"{VARIABLE}._initialize_with_initializer")
    shim = canary.module()
    canary.same_parameters(shim._initialize_with_initializer, shim.initialize_with_initializer)


def test_variables_with_an_initializer_are_made_by_it(monkeypatch):
    """Its shape and dtype are known then; the initializer is called as the variable is made."""
    upstream, seen = canary.module()._initialize_with_initializer, []

    def initialize(self, initializer):
        seen.append((tuple(self._shape), self._dtype, getattr(self, "_value", None)))
        upstream(self, initializer)

    monkeypatch.setattr(canary.find(VARIABLE), "_initialize_with_initializer", initialize)
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    expected = [((3, 2), "float32", None), ((2,), "float32", None)]
    canary.check(seen == expected, f"Variable._initialize_with_initializer() makes {seen}, not {expected}")
    canary.check(isinstance(layer.kernel._value, tf.Variable), "it doesn't set Variable._value")


def test_variables_that_wait_for_the_end_of_a_scope_are_made_by_it_too(monkeypatch):
    """As those of a model's metrics are, which is built from symbols."""
    upstream, seen = canary.module()._initialize_with_initializer, []
    monkeypatch.setattr(
        canary.find(VARIABLE),
        "_initialize_with_initializer",
        lambda self, initializer: (seen.append(self.path), upstream(self, initializer)),
    )
    with keras.StatelessScope():
        metric = keras.metrics.Mean(name="waiting")
        canary.check(not seen, "variables are made in a stateless scope")
    made = sorted(path.split("/")[-1] for path in seen)
    canary.check(made == ["count", "total"], f"after a stateless scope {made} were initialized")
    assert float(metric.count.numpy()) == 0


@pytest.mark.parametrize("name", ["_create_variable", "_create_variable_round_robin", "_update"])
def test_the_overridden_methods_have_the_same_parameters(name):
    cls = canary.find(EXTENDED)
    canary.find(f"{EXTENDED}.{name}")
    own = vars(canary.module()._Placing).get(name)
    if own is not None:
        canary.same_parameters(getattr(cls, name), own)


@pytest.mark.parametrize("count, task", [(0, 0), (1, 1), (2, 0)])
def test_a_variable_lies_on_the_task_of_its_number(extended, count, task):
    """The number of variables so far, modulo the tasks, which the shim sets to the task it wants."""
    extended._variable_count = count
    with tf.Graph().as_default():
        made = extended._create_variable_round_robin(lambda **kwargs: tf.identity(kwargs["value"]), value=1.0)
    spec = tf.DeviceSpec.from_string(made.device)
    canary.check((spec.job, spec.task) == ("ps", task), f"variable {count} of two ps lies on {made.device}")
    canary.check(extended._variable_count == count + 1, "_create_variable_round_robin() doesn't count _variable_count")


def test_upstream_counts_variables_and_ps():
    source = inspect.getsource(canary.find(EXTENDED).__init__)
    for name in ("_num_ps", "_variable_count", "_being_scheduled"):
        canary.check(f"self.{name} = " in source, f"ParameterServerStrategyV2Extended.{name} is gone")


def test_variables_are_dealt_by_the_method_that_the_shim_overrides(extended, monkeypatch):
    monkeypatch.setattr(extended, "_create_variable_round_robin", deal := Recorder())
    monkeypatch.setattr(extended, "_create_var_creator", Recorder())
    extended._create_variable(Recorder(), name="x", initial_value=1.0)
    canary.check(deal.was_called, "_create_variable() doesn't call _create_variable_round_robin()")


class Made:
    """Where a variable of so many numbers would be."""

    def __init__(self, size: int) -> None:
        tensor = tf.zeros([size])
        self.name, self.device, self.shape, self.dtype = "made", tensor.device, tensor.shape, tensor.dtype


def test_the_lightest_task_is_next(extended):
    shim = canary.module()
    strategy = SimpleNamespace(extended=extended)
    shim.place_variables(strategy)
    held, variables = [], []
    with tf.Graph().as_default():
        for size in (100, 10, 10, 10, 200):
            variables.append(extended._create_variable_round_robin(Made, size=size))
            held.append(shim.bytes_by_ps(strategy))
    assert held == [[400, 0], [400, 40], [400, 80], [400, 120], [400, 920]]
    del variables[0]
    gc.collect()
    assert shim.bytes_by_ps(strategy) == [0, 920], "a variable that is gone leaves room"


def test_calls_outside_of_a_schedule_are_noted(extended, caplog):
    """As `_being_scheduled` says, which the shim sets while functions for workers are traced."""
    canary.find(f"{EXTENDED}._assert_being_scheduled_by_cluster_coordinator")
    extended._allow_run_without_coordinator = extended._being_scheduled = False
    strategy = SimpleNamespace(extended=extended)
    with caplog.at_level("WARNING", "tensorflow"), canary.module().tracing_for_workers(strategy):
        extended._assert_being_scheduled_by_cluster_coordinator()
    assert not caplog.records
    assert extended._being_scheduled is False
