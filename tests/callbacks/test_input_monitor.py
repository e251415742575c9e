"""Input that is slow is found and said, in the terms of what was measured beside; fast input is left in peace."""

from __future__ import annotations

import logging
import re
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfdist
from tfdist.data import ShardOptions, read_tfrecords
from tfdist.data.reading.record_reader import RecordReader

pytestmark = pytest.mark.unit

ROWS, BATCH = 400, 10
STEPS = ROWS // BATCH
SLOW_SECONDS = 0.02


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    folder = tmp_path_factory.mktemp("monitor")
    for k in range(2):
        with tf.io.TFRecordWriter(str(folder / f"part-{k}")) as writer:
            for i in range(ROWS // 2):
                x = tf.train.Feature(float_list=tf.train.FloatList(value=np.full(8, i, np.float32)))
                y = tf.train.Feature(float_list=tf.train.FloatList(value=[i % 2]))
                writer.write(tf.train.Example(features=tf.train.Features(feature={"x": x, "y": y})).SerializeToString())
    return str(folder / "part-*")


def read(pattern, **kwargs):
    features = {"x": tf.io.FixedLenFeature([8], tf.float32), "y": tf.io.FixedLenFeature([1], tf.float32)}
    data = read_tfrecords(pattern, features, batch_size=BATCH, label="y", shard=ShardOptions(), **kwargs)
    return data.map(lambda x, y: (x["x"], y))


def slowed(data, seconds=SLOW_SECONDS):
    def sleep(x):
        time.sleep(seconds)
        return x

    def slow(x, y):
        x = tf.ensure_shape(tf.numpy_function(sleep, [x], tf.float32), [None, 8])
        return x, y

    return data.map(slow)


class SlowStep(keras.callbacks.Callback):
    """A train step that takes its time, so that input which takes none is ready."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(self._seconds)


class Clock(keras.callbacks.Callback):
    """Seconds from the beginning of the epoch's first step to the end of its last."""

    def on_train_batch_begin(self, batch, logs=None):
        if not batch:
            self.begun = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds = time.perf_counter() - self.begun


STRATEGIES = {
    "no strategy": tf.distribute.get_strategy,
    "one device": tfdist.OneDeviceStrategy,
    "mirrored": lambda: tfdist.MirroredStrategy(["CPU:0"]),
}


def make_model(strategy, **options):
    with strategy.scope():
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", **options)
    return model


def fit(model, data, *callbacks, epochs=2, monitor=None, **kwargs):
    monitor = monitor or tfdist.callbacks.InputMonitor()
    return model.fit(data, epochs=epochs, verbose=0, callbacks=[monitor, *callbacks], **kwargs).history


def warnings_in(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if "waited for input" in r.getMessage()]


@pytest.mark.parametrize("strategy", ["one device", "mirrored"])
def test_slow_input_is_measured_and_said_once_an_epoch(pattern, caplog, strategy):
    clock = Clock()
    history = fit(make_model(STRATEGIES[strategy]()), slowed(read(pattern)), clock)
    # Each batch sleeps, and little else happens.
    assert 0.7 < history["input_wait"][1] <= 1
    rate = ROWS / clock.seconds
    assert history["input_records_per_second"][1] == pytest.approx(rate, rel=0.1)
    assert rate < BATCH / SLOW_SECONDS
    first, second = warnings_in(caplog)
    assert "in epoch 1 " in first and "in epoch 2 " in second
    assert "num_parallel_calls" in second and "larger batch_size" in second


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_fast_input_is_not_warned_of(pattern, caplog, strategy):
    clock = Clock()
    history = fit(make_model(STRATEGIES[strategy]()), read(pattern), SlowStep(0.02), clock)
    assert history["input_records_per_second"][1] == pytest.approx(ROWS / clock.seconds, rel=0.15)
    assert warnings_in(caplog) == []
    if strategy == "no strategy":  # where nothing measures it
        assert "input_wait" not in history
    else:  # What is left is the first batch.
        assert 0 <= history["input_wait"][1] < 0.4


def test_the_wait_is_the_part_of_the_time_that_input_takes_longer_than_the_step(pattern):
    """Input of 30 ms beside a step of 15: steps wait half of the time, although input never rests."""
    step = SlowStep(0.015)
    history = fit(make_model(tfdist.MirroredStrategy(["CPU:0"])), slowed(read(pattern), 0.03), step)
    assert history["input_wait"][1] == pytest.approx(0.5, abs=0.25)  # a busy machine adds to either


def test_executions_of_several_steps(pattern):
    model = make_model(tfdist.OneDeviceStrategy(), steps_per_execution=8)
    history = fit(model, slowed(read(pattern)))
    assert 0.7 < history["input_wait"][1] <= 1


def test_validation_is_not_counted(pattern, caplog):
    """Nor does what it reads count as records of training."""
    clock = Clock()
    model = make_model(tfdist.OneDeviceStrategy())
    history = fit(model, read(pattern), SlowStep(0.02), clock, validation_data=slowed(read(pattern)))
    assert history["input_wait"][1] < 0.4
    assert history["input_records_per_second"][1] == pytest.approx(ROWS / clock.seconds, rel=0.15)
    assert warnings_in(caplog) == []


def test_a_long_epoch_is_looked_at_before_its_end(pattern, caplog):
    caplog.set_level(logging.INFO, "tfdist")
    monitor = tfdist.callbacks.InputMonitor(every_steps=10)
    fit(make_model(tfdist.OneDeviceStrategy()), slowed(read(pattern)), epochs=1, monitor=monitor)
    looks = [r.getMessage() for r in caplog.records if "steps 10 to 19" in r.getMessage()]
    assert len(looks) == 1
    assert float(re.search(r"input_wait ([0-9.]*[0-9])", looks[0])[1]) > 0.6
    assert len(warnings_in(caplog)) == 1


def test_input_of_another_kind_is_measured_too(caplog):
    data = slowed(tf.data.Dataset.from_tensor_slices((np.zeros((40, 8), "float32"), np.zeros((40, 1)))).batch(4))
    history = fit(make_model(tfdist.OneDeviceStrategy()), data, epochs=1)
    assert history["input_wait"][0] > 0.2
    assert "input_records_per_second" not in history
    assert "read_tfrecords" in warnings_in(caplog)[0]


def test_the_advice_depends_on_what_is_read(pattern, tmp_path):
    from tfdist.callbacks.input_advice import advice
    from tfdist.data import TFRecordWriter

    features = {"image": tfdist.data.Image((8, 8, 3))}
    with TFRecordWriter(str(tmp_path / "images"), features, num_shards=1, compression="GZIP") as writer:
        for _ in range(4):
            writer.write(image=np.zeros((8, 8, 3), "uint8"))
    data = read_tfrecords(str(tmp_path / "images*"), batch_size=2, shard=ShardOptions())
    (reader,) = tfdist.data.reading.reader_calls.readers_of(data)
    assert isinstance(reader, RecordReader)
    said = advice([reader])
    assert said.index("cache=DIRECTORY") < said.index("images are decoded") < said.index("larger batch_size")
    plain = read(pattern)
    assert "cache=" not in advice(tfdist.data.reading.reader_calls.readers_of(plain))


@pytest.mark.parametrize("wrong", [{"warn_above": 2}, {"every_steps": 0}])
def test_wrong_options_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"Received: {name}="):
        tfdist.callbacks.InputMonitor(**wrong)
