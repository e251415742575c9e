from __future__ import annotations

import inspect
import threading
from types import SimpleNamespace

import pytest
import tensorflow as tf

from tests.compat.canary import Canary, Recorder

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_coordinator")
COORDINATOR = "tensorflow.python.distribute.coordinator.cluster_coordinator"


def test_coordinators_have_a_cluster_with_a_queue():
    source = inspect.getsource(canary.find(f"{COORDINATOR}:ClusterCoordinator"))
    canary.check("self._cluster = Cluster(" in source, "ClusterCoordinator._cluster is gone")
    cluster = inspect.getsource(canary.find(f"{COORDINATOR}:Cluster"))
    canary.check("self.closure_queue = " in cluster, "Cluster.closure_queue is gone")
    source = inspect.getsource(canary.find(f"{COORDINATOR}:Worker"))
    canary.check("closure.execute_on(self)" in source, "a Worker runs closures in another way")


def test_a_scheduled_function_runs_on_its_worker():
    """In a thread of its own, which keeps the worker's executor."""
    queue, ran = canary.find(f"{COORDINATOR}:_CoordinatedClosureQueue")(), []
    shim = canary.module()
    coordinator = SimpleNamespace(_cluster=SimpleNamespace(closure_queue=queue))
    shim.schedule(coordinator, lambda: ran.append((shim.current_worker(), tf.constant(1.0).device)))
    executor = canary.find("tensorflow.python.eager.executor:new_executor")(enable_async=False)
    worker = SimpleNamespace(worker_index=3, device_name="/device:CPU:0", executor=executor)
    thread = threading.Thread(target=queue.get().execute_on, args=(worker,))
    thread.start()
    thread.join(30)
    queue.mark_finished()
    queue.stop()
    canary.check([index for index, _ in ran] == [3], f"a scheduled function ran on {ran}")
    canary.check("CPU:0" in ran[0][1], f"a scheduled function ran on {ran[0][1]}")


def test_a_ps_is_not_given_up_while_it_is_there():
    """Upstream gives up at the third error; the text is what a worker says."""
    cluster = canary.find(f"{COORDINATOR}:Cluster").__new__(canary.find(f"{COORDINATOR}:Cluster"))
    cluster._transient_ps_failures_threshold, cluster._potential_ps_failures_count = 3, [0]
    cluster._potential_ps_failures_lock = threading.Lock()
    remote = (
        "Additional GRPC error information from remote target /job:ps/replica:0/task:0/device:CPU:0 while calling x"
    )
    error = tf.errors.UnavailableError(None, None, f"failed to connect\n{remote}")
    canary.check(canary.find(f"{COORDINATOR}:_is_ps_failure")(error), "a worker says otherwise that it lost a ps")
    there = [True] * 5 + [False] * 5
    canary.module().doubt_ps_failures(SimpleNamespace(_cluster=cluster), lambda: there.pop(0))
    found = [cluster._record_and_ignore_transient_ps_failure(error) for _ in range(8)]
    assert found == [True] * 5 + [True, True, False]
    # A ps that was started again, without its variables.
    lost = tf.errors.InvalidArgumentError(None, None, f"unknown device\n{remote}")
    there[:] = [True]
    assert not cluster._record_and_ignore_transient_ps_failure(lost)


def test_a_server_that_lost_its_chief_says_so():
    """What such a server said; it takes luck with the time to have one say it."""
    shim = canary.module()
    assert shim.is_spoiled(tf.errors.AbortedError(None, None, "Cleanup 5085274412526874245"))
    assert not shim.is_spoiled(tf.errors.AbortedError(None, None, "Connection reset by peer"))


def test_closures_call_python_functions_as_they_are():
    """With no word about what they return."""
    queue = canary.find(f"{COORDINATOR}:_CoordinatedClosureQueue")()
    canary.has(queue, "_cancellation_mgr")
    function = Recorder()
    closure = canary.find(f"{COORDINATOR}:Closure")(function, queue._cancellation_mgr, args=(), kwargs={})
    canary.check(closure._function is function, "a Closure wraps a Python function")


def test_a_concrete_function_can_be_cancelled_with_the_queue():
    queue = canary.find(f"{COORDINATOR}:_CoordinatedClosureQueue")()
    canary.has(queue._cancellation_mgr, "get_cancelable_function", "start_cancel")
    function = tf.function(lambda x: x + 1).get_concrete_function(tf.TensorSpec([], tf.int32))
    coordinator = SimpleNamespace(_cluster=SimpleNamespace(closure_queue=queue))
    call = canary.module().cancelable(coordinator, function)
    assert int(call(tf.constant(1))) == 2
    queue._cancellation_mgr.start_cancel()
    try:
        call(tf.constant(1))
        ended = False
    except tf.errors.CancelledError:
        ended = True
    canary.check(ended, "a function that was made cancelable goes on when the queue's cancellation has started")


def test_a_closure_knows_its_worker():
    context = "tensorflow.python.distribute.coordinator.coordinator_context"
    canary.find(f"{context}:get_current_dispatch_context")
    with canary.find(f"{context}:with_dispatch_context")(SimpleNamespace(worker_index=3)):
        found = canary.module().current_worker()
    canary.check(found == 3, f"the index of worker 3 is {found}")
    source = inspect.getsource(canary.find(f"{COORDINATOR}:Closure.execute_on"))
    canary.check("with_dispatch_context(worker)" in source, "a Closure runs without the dispatch context of its worker")
