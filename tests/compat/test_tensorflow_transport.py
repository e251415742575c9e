from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_transport")
LAUNCHER = "tensorflow.python.distribute.cross_device_utils:CollectiveReplicaLauncher"


class Alone:
    """A transport of one worker, which notes its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def sum(self, *arrays: np.ndarray) -> list[np.ndarray]:
        self.calls.append(f"sum {arrays[0].dtype} {len(arrays)} {arrays[0].flat[0]:g}")
        return [array.copy() for array in arrays]

    def gather(self, array: np.ndarray) -> np.ndarray:
        self.calls.append(f"gather {array.dtype} {array.flat[0]:g}")
        return array.copy()


@pytest.fixture(scope="module")
def strategy() -> tf.distribute.Strategy:
    """Its workers are one, and its collectives are made all the same."""
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(tf.train.ClusterSpec({}))
    return tf.distribute.MultiWorkerMirroredStrategy(resolver)


@pytest.fixture
def launcher(strategy):
    canary.has(strategy.extended, "_num_workers", "_cross_device_ops")
    canary.has(strategy.extended._cross_device_ops, "_launchers")
    return strategy.extended._cross_device_ops._launchers[0]


@pytest.fixture
def transport(strategy, launcher):
    upstream = {name: getattr(launcher, name) for name in ("all_reduce", "batch_all_reduce", "_all_gather")}
    canary.module().use_transport(strategy, transport := Alone())
    yield transport
    for name, function in upstream.items():
        setattr(launcher, name, function)


def test_launchers_have_what_the_shim_replaces(launcher):
    cls = canary.find(LAUNCHER)
    canary.has(launcher, "_group_size", "_device")
    canary.takes(cls.all_reduce, launcher, tf.ones(1), None, None)
    canary.takes(cls.batch_all_reduce, launcher, [[tf.ones(1)]], None)
    canary.takes(cls._all_gather, launcher, tf.ones(1), None)


def traced(function: Any) -> Any:
    return tf.function(tf.autograph.experimental.do_not_convert(function))


def test_communicators_ask_the_launcher(strategy, transport):
    """So that replacing its methods is enough."""
    communicator = strategy.extended._cross_device_ops
    values = [tf.constant([1.0]), tf.constant([2.0])]
    reduced = traced(lambda: communicator._all_reduce(tf.distribute.ReduceOp.SUM, values, 0, communicator._options))()
    canary.check([float(one[0]) for one in reduced] == [1.0, 2.0], f"sums of one worker are {reduced}")
    canary.check(transport.calls == ["sum float32 2 2"], f"_all_reduce makes the calls {transport.calls}")


def test_gathers_ask_the_launcher(launcher, transport):
    gathered = traced(lambda: launcher.all_gather(tf.constant([[5.0], [6.0]]), 0))()
    canary.check(gathered.numpy().tolist() == [[5.0], [6.0]], f"a gather of one worker is {gathered}")
    canary.check(transport.calls[-1:] == ["gather float32 5"], f"all_gather makes the calls {transport.calls}")


def test_calls_come_in_the_order_of_the_program(launcher, transport):
    """In loops, conditionals and functions too, though nothing that they compute depends on each other."""

    @tf.function
    def inner() -> None:
        launcher.all_reduce(tf.constant([4.0]))

    @tf.function
    def program() -> None:
        launcher.all_reduce(tf.constant([0.0]))
        for index in tf.range(3):
            launcher.all_reduce(tf.cast([index + 1], tf.float32))
        inner()
        if tf.random.uniform([]) < 2.0:
            launcher.all_reduce(tf.constant([5.0]))
        launcher.all_reduce(tf.constant([6.0]))

    program()
    assert transport.calls == [f"sum float32 1 {number}" for number in range(7)]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_summed_in_float32(launcher, transport, dtype):
    total = traced(lambda: launcher.all_reduce(tf.constant([3.0], dtype)))()
    assert total.dtype == dtype
    assert transport.calls == ["sum float32 1 3"]
