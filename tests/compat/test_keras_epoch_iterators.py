from __future__ import annotations

import keras
import pytest
import tensorflow as tf
from keras.src.backend.tensorflow.trainer import TFEpochIterator

from tests.compat.canary import Canary
from tests.helpers.setups import features, labels

pytestmark = pytest.mark.unit
canary = Canary("keras_epoch_iterators")


def data(kind: str = "dataset") -> tf.data.Dataset:
    numbers = tf.data.Dataset.range(10).shuffle(10, seed=1)
    if kind == "unknown":
        numbers = numbers.filter(lambda one: one >= 0)
    return numbers.repeat() if kind == "repeat" else numbers


def make(kind: str = "dataset") -> TFEpochIterator:
    steps = 7 if kind == "repeat" else None
    return TFEpochIterator(tf.distribute.get_strategy(), data(kind), steps_per_epoch=steps)


def epoch(iterator, log, watched=None, stop=None) -> list:
    """As `fit` goes through it: (step, number)."""
    found = []
    with iterator.catch_stop_iteration():
        for begin, end, batches in iterator:
            number = int(next(batches))
            found.append((begin, number))
            if watched is not None:
                watched.note_batch()
            if end + 1 == stop:
                log["place"] = watched.place
    return found


def test_keras_epoch_iterator_has_what_the_shim_uses():
    iterator = make()
    canary.has(iterator, "_get_iterator", "_current_iterator", "_steps_seen", "_num_batches", "steps_per_epoch")
    canary.has(iterator, "_enumerate_iterator", "data_adapter", "steps_per_execution", "num_batches")
    canary.find("keras.src.trainers.data_adapters.array_data_adapter:ArrayDataAdapter")
    canary.find("keras:Model._get_metrics_result_or_logs")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    canary.has(model, "_initial_epoch")


@pytest.mark.filterwarnings("ignore:.*ran out of data")
@pytest.mark.parametrize("kind", ["dataset", "unknown", "repeat"])
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_an_epoch_goes_on_in_the_middle(kind, stop):
    """In the second of three epochs, with the same numbers in the same steps."""
    first, log = make(kind), {}
    watched = canary.module().EpochIterators(first)
    epochs = [epoch(first, log, watched, stop if number == 1 else None) for number in range(3)]
    assert epochs[0] != epochs[1]
    second = make(kind)
    canary.module().EpochIterators(second).go_on(log["place"], stop, knows_place=False)
    assert epoch(second, log) == epochs[1][stop:]
    assert epoch(second, log) == epochs[2]


@pytest.mark.filterwarnings("ignore:.*ran out of data")
@pytest.mark.parametrize("kind", ["dataset", "unknown", "repeat"])
def test_or_between_two_epochs(kind):
    first = make(kind)
    watched = canary.module().EpochIterators(first)
    epochs, places = [], []
    for _ in range(3):
        epochs.append(epoch(first, {}, watched))
        places.append(watched.place)
    second = make(kind)
    canary.module().EpochIterators(second).go_on(places[1], 0, knows_place=False)
    assert epoch(second, {}) == epochs[2]


def test_the_logs_of_an_epoch_without_a_step_are_those_that_were_saved():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(features(8), labels(8), verbose=0)
    shim = canary.module()
    shim.use_logs_if_no_step(model, {"own": 3.0})
    assert model._get_metrics_result_or_logs({}) == {"own": 3.0}
    assert model._get_metrics_result_or_logs({}) == {}
    shim.use_logs_if_no_step(model, {"own": 3.0})
    shim.forget_logs(model)
    assert model._get_metrics_result_or_logs({}) == {}
