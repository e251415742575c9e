"""Which metrics a worker may sum up on its own, and that those which may not are updated by the chief as on one device.

A metric is a sum if a batch adds to its variables what it adds to zeros, whatever they hold. That is tried out with
each of Keras' metrics, so a new one that isn't a sum makes a test fail, and one that nobody has described here too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdist.coordination.metrics import Updates, is_sum, metrics_of

pytestmark = pytest.mark.unit
ROWS = 16


def rows(name: str) -> tuple[Any, ...]:
    """What `update_state` is called with; drawn anew each time from the same seed."""
    random = np.random.RandomState(0)
    chances = random.uniform(0.05, 0.95, [ROWS, 1]).astype("float32")
    many = random.uniform(0.05, 0.95, [ROWS, 3]).astype("float32")
    classes = random.randint(0, 3, [ROWS])
    real = random.uniform(0.5, 2.0, [2, ROWS, 3]).astype("float32")
    return {
        "binary": (random.randint(0, 2, [ROWS, 1]), chances),
        "one hot": (np.eye(3, dtype="float32")[classes], many / many.sum(-1, keepdims=True)),
        "sparse": (classes, many / many.sum(-1, keepdims=True)),
        "labels": (classes, random.randint(0, 3, [ROWS])),
        "several labels": (random.randint(0, 2, [ROWS, 3]), many),
        "signs": (random.randint(0, 2, [ROWS, 3]) * 2 - 1, real[0]),
        "real": (real[0], real[1]),
        "one hot labels": (np.eye(3)[classes], np.eye(3)[random.randint(0, 3, [ROWS])]),
        "values": (real[0],),
    }[name]


class Described:
    """A way to make a metric, and what to update it with."""

    def __init__(self, inputs: str, *args: Any, **kwargs: Any) -> None:
        self.inputs, self.args, self.kwargs = inputs, args, kwargs


#: All of keras.metrics; several ways for those whose options change how they count.
KINDS: dict[str, list[Described]] = {
    "Accuracy": [Described("labels")],
    "AUC": [
        Described("binary"),
        Described("binary", curve="PR", num_thresholds=7),
        Described("several labels", multi_label=True, num_labels=3, from_logits=True),
    ],
    "BinaryAccuracy": [Described("binary")],
    "BinaryCrossentropy": [Described("binary", label_smoothing=0.1)],
    "BinaryIoU": [Described("binary")],
    "CategoricalAccuracy": [Described("one hot")],
    "CategoricalCrossentropy": [Described("one hot")],
    "CategoricalHinge": [Described("one hot")],
    "ConcordanceCorrelation": [Described("real", axis=-1)],
    "CosineSimilarity": [Described("real")],
    "F1Score": [Described("one hot"), Described("several labels", threshold=0.5, average="micro")],
    "FalseNegatives": [Described("binary", thresholds=0.9), Described("binary", thresholds=[0.2, 0.7])],
    "FalsePositives": [Described("binary")],
    "FBetaScore": [Described("one hot", beta=2.0, average="weighted")],
    "Hinge": [Described("signs")],
    "IoU": [
        Described("labels", 3, [0, 2]),
        Described("labels", 3, [0], ignore_class=1),
        Described("sparse", 3, [0], sparse_y_pred=False),
    ],
    "KLDivergence": [Described("one hot")],
    "LogCoshError": [Described("real")],
    "Mean": [Described("values")],
    "MeanAbsoluteError": [Described("real")],
    "MeanAbsolutePercentageError": [Described("real")],
    "MeanIoU": [Described("labels", 3)],
    "MeanMetricWrapper": [Described("real", keras.losses.huber, delta=0.3)],
    "MeanSquaredError": [Described("real")],
    "MeanSquaredLogarithmicError": [Described("real")],
    "OneHotIoU": [Described("one hot", 3, [0, 1])],
    "OneHotMeanIoU": [Described("one hot labels", 3, sparse_y_pred=False)],
    "PearsonCorrelation": [Described("real")],
    "Poisson": [Described("real")],
    "Precision": [
        Described("binary"),
        Described("several labels", top_k=2),
        Described("several labels", class_id=1, thresholds=[0.3, 0.6]),
    ],
    "PrecisionAtRecall": [Described("binary", 0.5)],
    "R2Score": [Described("real"), Described("real", class_aggregation=None, num_regressors=2)],
    "Recall": [Described("binary"), Described("several labels", top_k=1, class_id=2)],
    "RecallAtPrecision": [Described("binary", 0.5)],
    "RootMeanSquaredError": [Described("real")],
    "SensitivityAtSpecificity": [Described("binary", 0.5)],
    "SparseCategoricalAccuracy": [Described("sparse")],
    "SparseCategoricalCrossentropy": [Described("sparse"), Described("sparse", ignore_class=1)],
    "SparseTopKCategoricalAccuracy": [Described("sparse", k=2)],
    "SpecificityAtSensitivity": [Described("binary", 0.5)],
    "SquaredHinge": [Described("signs")],
    "Sum": [Described("values")],
    "TopKCategoricalAccuracy": [Described("one hot", k=2)],
    "TrueNegatives": [Described("binary")],
    "TruePositives": [Described("binary")],
}
#: These count nothing.
ABSTRACT = {"Metric"}
WAYS = [(name, way) for name, ways in KINDS.items() for way in ways]


class Largest(keras.metrics.Metric):
    """A user's metric that is no sum."""

    def __init__(self, name: str = "largest") -> None:
        super().__init__(name=name)
        self.largest = self.add_weight(shape=(), initializer="zeros", name="largest")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        weighted = y_pred if sample_weight is None else y_pred * sample_weight
        self.largest.assign(tf.maximum(self.largest.value, tf.cast(tf.reduce_max(weighted), tf.float32)))

    def result(self) -> Any:
        return self.largest.value


def added(metric: keras.metrics.Metric, state: list[np.ndarray], inputs: tuple[Any, ...], **more: Any) -> list[Any]:
    """What an update adds to a state."""
    for variable, value in zip(metric.variables, state, strict=True):
        variable.assign(value)
    metric.update_state(*inputs, **more)
    return [variable.numpy() - value for variable, value in zip(metric.variables, state, strict=True)]


def states(metric: keras.metrics.Metric) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Zeros, and quarters up to 16, which floats hold exactly and a sum of halves or counts with them too."""
    random = np.random.RandomState(1)
    shapes = [(tuple(variable.shape), np.dtype(variable.dtype)) for variable in metric.variables]
    quarters = [random.randint(4 if dtype.kind == "i" else 1, 64, shape) for shape, dtype in shapes]
    return (
        [np.zeros(shape, dtype) for shape, dtype in shapes],
        [(n if dtype.kind == "i" else n / 4).astype(dtype) for n, (_, dtype) in zip(quarters, shapes, strict=True)],
    )


def difference(metric: keras.metrics.Metric, inputs: tuple[Any, ...], **more: Any) -> float:
    """How far what is added depends on the state, at most, relative to 1 or to what is added if that is more."""
    metric.update_state(*inputs, **more)  # makes the variables of some
    zeros, others = states(metric)
    to_zeros, to_others = (added(metric, state, inputs, **more) for state in (zeros, others))
    assert any(np.any(values) for values in to_zeros), "the inputs don't change the metric"
    return max(
        float(np.max(np.abs(one - other) / np.maximum(1, np.abs(one))))
        for one, other in zip(to_zeros, to_others, strict=True)
    )


def classes() -> dict[str, type]:
    return {name: found for name, found in vars(keras.metrics).items() if inspect.isclass(found)}


def test_all_of_keras_metrics_are_described():
    assert set(classes()) - ABSTRACT == set(KINDS), "add the new ones to KINDS, with inputs that suit them"


@pytest.mark.filterwarnings("ignore:You are passing weight as `float`")  # IoU rounds them, sums they are still
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("name, way", WAYS, ids=[f"{name}-{way.inputs}-{way.kwargs}" for name, way in WAYS])
def test_what_is_said_to_be_a_sum_is_one(name, way, weighted):
    """To rounding of float32: 16 and more are added to, so up to 32 x 2^-24 an operation is lost, of a few dozen."""
    metric = classes()[name](*way.args, **way.kwargs)
    assert is_sum(metric)
    weights = np.random.RandomState(2).uniform(0.5, 1.5, [ROWS]).astype("float32")
    more = {"sample_weight": weights} if weighted and takes_weights(name) else {}
    assert difference(metric, rows(way.inputs), **more) <= 1e-4


def takes_weights(name: str) -> bool:
    """Correlations refuse or ignore them."""
    return name not in ("ConcordanceCorrelation", "PearsonCorrelation")


def test_the_trial_tells_what_is_no_sum():
    assert difference(Largest(), rows("real")) > 0.1


def test_a_users_metric_is_no_sum():
    class Mine(keras.metrics.Mean):
        def update_state(self, values: Any, sample_weight: Any = None) -> None:
            super().update_state(values, sample_weight)

    class Renamed(keras.metrics.Mean):
        def result(self) -> Any:
            return -super().result()

    assert not is_sum(Largest())
    assert not is_sum(Mine()), "it may do anything"
    assert is_sum(Renamed()), "its update is Keras' own"


@pytest.fixture
def model() -> keras.Model:
    """Has metrics of all kinds, after it was evaluated once."""
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae", Largest()], weighted_metrics=[keras.metrics.RootMeanSquaredError()])
    model.test_on_batch(np.ones([4, 3]), np.ones([4, 1]))
    return model


def test_a_models_metrics_are_found_once_each(model):
    metrics = metrics_of(model)
    names = [metric.name for metric in metrics.summed]
    assert sorted(names) == ["loss", "mae", "root_mean_squared_error"]
    assert [metric.name for metric in metrics.updated] == ["largest"]
    own = {variable.path for metric in metrics.updated for variable in metric.variables}
    everything = {variable.path for variable in model.metrics_variables}
    assert {variable.path for variable in metrics.summed_variables} == everything - own
    assert len(metrics.summed_variables) == len(everything - own)


def test_metrics_inside_a_users_metric_are_left_to_it():
    class Outer(Largest):
        def __init__(self) -> None:
            super().__init__()
            self.inner = keras.metrics.Mean()

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            self.inner.update_state(y_pred)

    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(1)])
    model.compile(loss="mse", metrics=[Outer()])
    model.test_on_batch(np.ones([4, 3]), np.ones([4, 1]))
    metrics = metrics_of(model)
    assert [type(metric).__name__ for metric in metrics.updated] == ["Outer"]
    assert {metric.name for metric in metrics.summed} <= {"loss"}


def record(metric: Any, update: Callable[..., None], *args: Any) -> tuple[Updates, list[tf.Tensor]]:
    """Trace and run `update(*args)` while the metric's updates are recorded."""
    updates = Updates()

    @tf.function
    @tf.autograph.experimental.do_not_convert
    def step(*args: Any) -> list[tf.Tensor]:
        with updates.recording([metric]):
            update(*args)
        return updates.tensors

    return updates, step(*args)


def test_recorded_updates_give_what_updates_give():
    """Batches that two workers had, in an order of their own: the largest is 9, whoever came first."""
    metric = Largest()
    batches = [tf.constant([[3.0], [9.0]]), tf.constant([[4.0], [1.0]])]
    for batch in reversed(batches):
        updates, tensors = record(metric, lambda y: metric.update_state(y, y), batch)
        before = float(metric.result())
        updates.replay(tensors)
        assert float(metric.result()) == max(before, float(tf.reduce_max(batch)))
    assert float(metric.result()) == 9


def test_recording_changes_nothing_and_leaves_nothing():
    metric = Largest()
    record(metric, lambda y: metric.update_state(y, y), tf.constant([[5.0]]))
    assert float(metric.result()) == 0
    assert "update_state" not in vars(metric)
    metric.update_state(None, tf.constant([[5.0]]))
    assert float(metric.result()) == 5


def test_recording_ends_with_an_error():
    metric = Largest()
    with pytest.raises(KeyError), Updates().recording([metric]):
        raise KeyError
    assert "update_state" not in vars(metric)


def test_arguments_that_are_no_tensors_are_kept():
    metric = Largest()
    weight = tf.constant([[3.0], [1.0]])
    updates, tensors = record(metric, lambda y: metric.update_state(None, y_pred=2.0, sample_weight=y), weight)
    assert [values.numpy().tolist() for values in tensors] == [True, [[3.0], [1.0]]], "has rows; the weight"
    updates.replay(tensors)
    assert float(metric.result()) == 6


def test_a_replica_without_rows_updates_nothing():
    metric = Largest()
    updates, (_, *tensors) = record(metric, lambda y: metric.update_state(y, y), tf.constant([[5.0]]))
    updates.replay([tf.constant(False), *tensors])
    assert float(metric.result()) == 0


def test_several_updates_in_a_step_are_all_made():
    class Last(Largest):
        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            self.largest.assign(self.largest.value * 10 + y_pred)

    metric = Last()

    def update(value: tf.Tensor) -> None:
        metric.update_state(None, value)
        metric.update_state(None, value + 1)

    updates, tensors = record(metric, update, tf.constant(1.0))
    updates.replay(tensors)
    updates.replay(tensors)
    assert float(metric.result()) == 1212, "1, then 2, of two executions"


def test_ragged_arguments_come_back_ragged():
    seen: list[Any] = []

    class Ragged(Largest):
        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            seen.append(y_true)

    metric = Ragged()
    rows = tf.ragged.constant([[1, 2], [3]])
    updates, tensors = record(metric, lambda ragged: metric.update_state(ragged, None), rows)
    assert not seen
    updates.replay(tensors)
    assert seen[0].to_list() == [[1, 2], [3]]
