"""Data workers make the batches that reading without them makes, one by one, whatever dies meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfdist
from tfdist.cluster.ports import HeldPorts
from tfdist.data import ShardOptions, TFRecordWriter, read_tfrecords
from tfdist.data.service import served_batches, served_pass
from tfdist.errors import DataError

pytestmark = pytest.mark.unit

ROWS, BATCH = 2003, 8
STEPS = -(-ROWS // BATCH)


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("service") / "part")
    features = {"y": tfdist.data.Tensor((), "int64"), "words": tfdist.data.Ragged("string")}
    with TFRecordWriter(path, features, num_shards=3) as writer:
        for y in range(ROWS):
            writer.write(y=y, words=[f"{y}"] * (y % 3))
    return path + "*"


class Service:
    """A dispatcher and data workers, each a process that can be killed and started again."""

    def __init__(self, folder, data_workers: int) -> None:
        self._held = HeldPorts(data_workers + 1)
        port, *self._ports = self._held.ports
        self.address = f"grpc://127.0.0.1:{port}"
        self.processes = {"dispatcher": self._start("dispatcher", f"--port={port}", f"--work_dir={folder}/state")}
        for index in range(data_workers):
            self.start_worker(index)

    def start_worker(self, index: int) -> None:
        dispatcher = self.address.removeprefix("grpc://")
        self.processes[index] = self._start("worker", f"--dispatcher={dispatcher}", f"--port={self._ports[index]}")

    def wait(self) -> None:
        """Until all answer."""
        deadline = time.monotonic() + 60
        for port in self._held.ports:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                assert time.monotonic() < deadline, f"nobody answers on {port}"
                time.sleep(0.05)

    def kill(self, name) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self._held.close()

    def _start(self, *args: str) -> subprocess.Popen:
        env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
        return subprocess.Popen([sys.executable, "-m", "tfdist.data.service.process", *args], env=env)


@pytest.fixture
def started(tmp_path):
    one = Service(tmp_path, data_workers=2)
    one.wait()
    yield one
    one.close()


def read(pattern, address=False, **kwargs):
    return read_tfrecords(
        pattern, batch_size=BATCH, data_service=address, **{"shard": ShardOptions(), "shuffle": True, **kwargs}
    )


def contents(dataset) -> list:
    return [(batch["y"].numpy().tolist(), batch["words"].to_list()) for batch in dataset]


def test_batches_and_their_order_are_those_of_reading_without_it(pattern, started, caplog):
    for kwargs in ({}, {"shuffle": False}, {"shard": ShardOptions(2, 1), "shuffle": "local"}):
        here, served = read(pattern, **kwargs), read(pattern, started.address, **kwargs)
        for _ in range(2):  # epochs
            assert contents(served) == contents(here)
    tfdist.data.position(served).move_to(3, 7)
    tfdist.data.position(here).move_to(3, 7)
    assert contents(served) == contents(here)
    assert "read here" not in caplog.text, "all of it was made by the data workers"


@pytest.mark.parametrize("comes_back", [False, True], ids=["stays dead", "comes back"])
def test_a_data_worker_killed_within_an_epoch_costs_no_record(pattern, started, comes_back):
    expected = contents(read(pattern))
    got = []
    for batch in read(pattern, started.address):
        got.append((batch["y"].numpy().tolist(), batch["words"].to_list()))
        if len(got) == 3:
            started.kill(0)
            if comes_back:
                started.start_worker(0)
    assert got == expected
    assert contents(read(pattern, started.address)) == expected


def test_fit_goes_on_when_a_data_worker_is_killed(tmp_path, started):
    """Each record changes a weight of its own once an epoch, by the plain sum of gradients."""
    path = str(tmp_path / "part")
    with TFRecordWriter(path, {"x": tfdist.data.Tensor((), "int64")}, num_shards=2) as writer:
        for x in range(ROWS):
            writer.write(x=x)

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 20:
                started.kill(1)

    class Count(keras.Model):
        def __init__(self):
            super().__init__()
            self.seen = self.add_weight(shape=(ROWS,), initializer="zeros", trainable=False)

        def train_step(self, data):
            self.seen.assign(
                self.seen + tf.math.bincount(tf.cast(data["x"], tf.int32), minlength=ROWS, dtype=tf.float32)
            )
            return {"rows": tf.reduce_sum(self.seen)}

    with tfdist.OneDeviceStrategy().scope():
        model = Count()
        model.compile()
    data = read_tfrecords(path + "*", batch_size=BATCH, shuffle=True, data_service=started.address)
    model.fit(data, epochs=2, verbose=0, callbacks=[Kill()])
    np.testing.assert_array_equal(model.seen, np.full(ROWS, 2.0))


def test_augmentation_is_done_by_the_data_workers(tmp_path, started):
    path = str(tmp_path / "part")
    with TFRecordWriter(path, {"image": tfdist.data.Image((4, 4, 3))}, num_shards=1) as writer:
        for _ in range(20):
            writer.write(image=np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    layers = [keras.layers.RandomFlip(), keras.layers.RandomBrightness(0.2)]
    here, served = (
        [one["image"].numpy() for one in read(path + "*", address, augment={"image": layers}, drop_remainder=True)]
        for address in (False, started.address)
    )
    np.testing.assert_array_equal(served, here)


def test_a_pass_ends_with_an_error_when_the_dispatcher_is_gone(pattern, started, monkeypatch, capfd):
    """A pass of more steps than can be on the way; and TensorFlow doesn't call the dispatcher for ever."""
    monkeypatch.setattr(served_pass, "DEADLINE_SECONDS", 3.0)
    monkeypatch.setattr(served_pass, "_WINDOW_STEPS", 16)
    dataset = read_tfrecords(pattern, batch_size=1, data_service=started.address, shard=ShardOptions())
    batches = iter(dataset)
    next(batches)
    for name in ("dispatcher", 0, 1):
        started.kill(name)
    begun = time.monotonic()
    with pytest.raises(tf.errors.OpError, match=r"must answer within 3 s.* Received: nothing from grpc://127"):
        for _ in range(ROWS):
            next(batches)
    with pytest.raises(tf.errors.OpError, match="data_service=False"):
        next(iter(dataset))
    assert time.monotonic() - begun < 25
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") > "1":
        return  # TensorFlow's client doesn't say when it calls
    assert "Failed to heartbeat" in capfd.readouterr().err
    time.sleep(2)
    capfd.readouterr()
    time.sleep(3)
    assert "Failed to heartbeat" not in capfd.readouterr().err


def test_a_dispatcher_that_is_not_there_is_said_at_once(pattern, monkeypatch):
    monkeypatch.setattr(served_pass, "DEADLINE_SECONDS", 1.0)
    with HeldPorts(1) as held, pytest.raises(DataError, match="data_service=False"):
        read(pattern, f"grpc://127.0.0.1:{held.ports[0]}")


def test_the_environment_says_which_service(pattern, monkeypatch):
    monkeypatch.setenv(served_batches.ENVIRONMENT, "localhost")
    with pytest.raises(ValueError, match="Received: data_service='localhost'"):
        read(pattern, None)
    assert contents(read(pattern, False))


@pytest.mark.parametrize("signum", [signal.SIGSTOP])
def test_a_data_worker_that_hangs_is_overtaken(pattern, started, signum):
    """Its steps are read here when the other is a window ahead."""
    got = []
    try:
        for batch in read(pattern, started.address):
            got.append((batch["y"].numpy().tolist(), batch["words"].to_list()))
            if len(got) == 3:
                started.processes[0].send_signal(signum)
            if len(got) > STEPS // 2:
                started.processes[0].send_signal(signal.SIGCONT)
    finally:
        started.processes[0].send_signal(signal.SIGCONT)
    assert got == contents(read(pattern))
