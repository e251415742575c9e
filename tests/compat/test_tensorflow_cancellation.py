from __future__ import annotations

import threading

import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_cancellation")


def test_what_it_uses_is_there():
    canary.find("tensorflow.python.eager.execute:execute_with_cancellation")
    manager = canary.find("tensorflow.python.eager.cancellation:CancellationManager")
    canary.has(manager(), "start_cancel")
    canary.has(iter(tf.data.Dataset.range(1)), "_iterator_resource")


def test_elements_come_in_order_and_end():
    dataset = tf.data.Dataset.from_tensor_slices(([1, 2], ["a", "b"]))
    found = [(int(number), text.numpy()) for number, text in canary.module().Elements(dataset)]
    canary.check(found == [(1, b"a"), (2, b"b")], f"the elements are {found}")


def test_who_waits_is_woken_and_nobody_else():
    """The producer waits for a second dataset that never gives anything until it's told to stop."""
    goes_on = threading.Event()
    dataset = tf.data.Dataset.range(1).map(lambda x: tf.numpy_function(lambda x: goes_on.wait(30) and x, [x], tf.int64))
    elements = canary.module().Elements(dataset.prefetch(1))
    ended: list[str] = []

    def take():
        try:
            list(elements)
        except tf.errors.CancelledError:
            ended.append("cancelled")

    thread = threading.Thread(target=take)
    thread.start()
    elements.cancel()
    thread.join(20)
    alive = thread.is_alive()
    other = [int(x) for x in tf.data.Dataset.range(3)]
    goes_on.set()
    thread.join()
    canary.check(not alive and ended == ["cancelled"], "a wait for an element isn't ended by start_cancel")
    assert other == [0, 1, 2]
