"""Private TensorFlow API: collective instance keys, places in the cluster, its key-value store, AutoGraph."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.autograph.core import ag_ctx
from tensorflow.python.autograph.impl import api as autograph
from tensorflow.python.distribute import cross_device_ops
from tensorflow.python.eager import context
from tensorflow.python.framework import config

from tfdist._compat.tensorflow_repeated_keys import repeated_key

#: Far above the keys that TensorFlow counts up from in Python.
_FIRST_KEY = 1 << 29

#: The chief's answer takes a millisecond, and longer than its heartbeats may if it is stopped for a while.
PUBLISH_SECONDS = 60.0

#: One counter for each device of each group of devices: runtimes remember the keys of all strategies of a process.
_counters: dict[tuple[int, int, str], tf.Variable] = {}


def use_runtime_instance_keys(strategy: tf.distribute.Strategy) -> None:
    """Number collectives at run time, so that they work inside while loops and conditionals.

    Upstream: `CollectiveReplicaLauncher._next_instance_key` captures a key per function call, which fails where a
    function is called inside a conditional, and so with steps_per_execution > 1 ("placeholder" error).
    Here: inside functions the key comes from a counter variable, which every replica counts alike, unless an
    all-reduce keeps its key (tensorflow_repeated_keys.py). One launcher instance is changed at a time, no class. Seen
    in TensorFlow 2.21. Can go when upstream keys work in control flow.
    """
    for launcher in _launchers(strategy):
        _count_keys(launcher)


def _launchers(strategy: tf.distribute.Strategy) -> list[Any]:
    communicators = {
        id(value): value
        for value in vars(strategy.extended).values()
        if isinstance(value, cross_device_ops.CollectiveAllReduce)
    }
    return [launcher for communicator in communicators.values() for launcher in communicator._launchers]


def _count_keys(launcher: Any) -> None:
    counter = _counter(launcher._group_key, launcher._device)
    upstream = launcher._next_instance_key

    def next_key() -> Any:
        if tf.executing_eagerly():
            return upstream()
        repeated = repeated_key(launcher)
        if repeated is not None:
            return tf.constant(repeated)
        with tf.device("CPU:0"):
            return counter.assign_add(1, read_value=True)

    launcher._next_instance_key = next_key


def _counter(group_key: int, device: str) -> tf.Variable:
    place = (id(context.context()), group_key, device)
    if place not in _counters:
        with tf.init_scope(), tf.device("CPU:0"):
            _counters[place] = tf.Variable(_FIRST_KEY, dtype=tf.int32, trainable=False, name="collective_instance_key")
    return _counters[place]


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """This process's place among the workers, the chief first; 0 in a job of one."""
    return int(getattr(strategy.extended, "_id_in_cluster", 0))


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """How many processes the strategy spans."""
    return int(getattr(strategy.extended, "_num_workers", 1))


def publish(key: str, value: str, timeout_seconds: float = PUBLISH_SECONDS) -> None:
    """Put a value into the cluster's key-value store, where every worker can read it.

    Raises:
        DeadlineExceededError: the chief, which keeps the store, has not answered in time.
    """
    ended: list[Exception | None] = []

    def put() -> None:
        try:
            context.context().set_config_key_value(key, value)
            ended.append(None)
        except Exception as error:
            ended.append(error)

    # Upstream waits for ever where the network to the chief is cut.
    thread = threading.Thread(target=put, daemon=True, name=f"tf_publish {key}")
    thread.start()
    thread.join(timeout_seconds)
    if not ended:
        raise tf.errors.DeadlineExceededError(None, None, f"The chief has not answered for {timeout_seconds:.0f} s.")
    if ended[0] is not None:
        raise ended[0]


def publish_first(key: str, value: str, timeout_seconds: float = PUBLISH_SECONDS) -> bool:
    """As `publish`, if there is none under this key yet; whether there was none."""
    try:
        publish(key, value, timeout_seconds)
    except tf.errors.AlreadyExistsError:
        return False
    return True


def look_up(key: str, timeout_seconds: float) -> str | None:
    """A value of the cluster's key-value store, waited for; None when it is not there in time."""
    try:
        # Upstream takes 0 for ever.
        return context.context().get_config_key_value(key, max(1, int(timeout_seconds * 1000)))
    except tf.errors.DeadlineExceededError:
        return None


def global_seed() -> int | None:
    """The seed that `tf.random.set_seed` was given, or None."""
    seed = context.global_seed()
    return None if seed is None else int(seed)


def op_determinism() -> bool:
    """Whether `tf.config.experimental.enable_op_determinism` was called; upstream has no public way to ask."""
    return bool(config.is_op_determinism_enabled())


def caller_autograph() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Converts functions as AutoGraph would where this is called; for functions that are called later."""
    status = ag_ctx.control_status_ctx()
    return lambda function: autograph.tf_convert(function, status, convert_by_default=False)


def python_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a `tf.function` was made from, converted as it would convert it; any other function itself.

    Replicas cannot exchange anything inside a function that is called in a replica, so a decorated train_step is
    traced into the function around it.
    """
    if not isinstance(function, tf.types.experimental.PolymorphicFunction):
        return function
    enabled = ag_ctx.ControlStatusCtx(status=ag_ctx.Status.ENABLED)
    return autograph.tf_convert(function.python_function, enabled)
