"""What is asked of the coordinator of a parameter-server job.

Upstream: `ClusterCoordinator.schedule` takes graph functions only, which leave no place to choose what a worker works
on as it begins. A worker's thread waits for messages to other workers too: while one is cut off, all stand still. At
the third time that any worker can't reach a ps the job is given up.
Here: Python functions can be scheduled, a worker's thread waits for that worker only, and a ps is given up when it's
gone.
Seen in TensorFlow 2.21. Can go when upstream takes Python functions and waits for one worker at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute.coordinator import cluster_coordinator, coordinator_context
from tensorflow.python.eager import context

#: gRPC connects anew after about as long.
_TRY_AGAIN_SECONDS = 0.5
CHIEF_CPU = "/job:chief/replica:0/task:0/device:CPU:0"


def cancelable(coordinator: Any, function: Any) -> Callable[..., Any]:
    """A concrete function, ended early when the coordinator's job has failed."""
    return coordinator._cluster.closure_queue._cancellation_mgr.get_cancelable_function(function)


def is_spoiled(error: tf.errors.OpError) -> bool:
    """Whether it came from a server that lost its chief in the middle of a function.

    All that it is asked for from then on is done and then answered with this error.
    """
    return isinstance(error, tf.errors.AbortedError) and "Cleanup " in str(error)


def doubt_ps_failures(coordinator: Any, is_there: Callable[[], bool]) -> None:
    """Have a worker that can't reach a ps try again while `is_there` says that it's the worker's own trouble.

    Upstream gives up at the third time that any worker says so of a ps, however long ago the first was.
    """
    cluster = coordinator._cluster
    upstream = cluster._record_and_ignore_transient_ps_failure

    def record(error: Exception) -> bool:
        is_out_of_reach = isinstance(error, tf.errors.UnavailableError) and cluster_coordinator._is_ps_failure(error)
        if not is_out_of_reach or not is_there():
            return upstream(error)
        time.sleep(_TRY_AGAIN_SECONDS)
        return True

    cluster._record_and_ignore_transient_ps_failure = record


def on_chief(value: Any) -> tf.Tensor:
    """A tensor in this process, wherever the coordinator's thread would put it."""
    with tf.device(CHIEF_CPU):
        return tf.constant(value)


def another_handle(value: Any) -> Any:
    """The same tensor, not copied, as an object of its own; anything else as it is."""
    if not tf.is_tensor(value):
        return value
    with tf.device(CHIEF_CPU):
        return tf.identity(value)


def current_worker() -> int:
    """In a function that the coordinator runs: the index of the worker that it runs for."""
    return int(coordinator_context.get_current_dispatch_context().worker_index)


def schedule(coordinator: Any, function: Callable[[], Any]) -> None:
    """Have a Python function called in the thread and on the device of a worker, again on another if that one fails.

    Upstream takes graph functions only, which leave no place to choose what a worker works on as it begins.
    """
    queue = coordinator._cluster.closure_queue
    closure = _Closure(function, queue._cancellation_mgr)
    closure.build_output_remote_value()
    queue.put(closure)


class _Closure(cluster_coordinator.Closure):
    def execute_on(self, worker: Any) -> None:
        """Upstream's, without its wait for all that was asked of any worker, by any thread.

        It comes with the end of a scope of the worker's executor, so here the thread, which is the worker's, keeps it.
        """
        context.context().executor = worker.executor
        with tf.device(worker.device_name), coordinator_context.with_dispatch_context(worker):
            self._function()
