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


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_who_waits_is_woken_and_nobody_else(seconds):
    """As when all data workers are gone: a dispatcher that never has one. Before the wait begins, and in it."""
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer(service.DispatcherConfig(port=0))
    data = tf.data.Dataset.range(3).apply(service.distribute("parallel_epochs", dispatcher.target))
    elements = canary.module().Elements(data)
    ended: list[str] = []

    def take():
        try:
            list(elements)
        except tf.errors.CancelledError:
            ended.append("cancelled")

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not ended
    elements.cancel()
    thread.join(20)
    canary.check(ended == ["cancelled"], "a wait for an element isn't ended by start_cancel")
    assert [int(x) for x in tf.data.Dataset.range(3)] == [0, 1, 2]
