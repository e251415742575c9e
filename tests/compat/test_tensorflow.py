from __future__ import annotations

import inspect

import pytest
import tensorflow as tf

from tests.compat.canary import Canary, Recorder

pytestmark = pytest.mark.unit
canary = Canary("tensorflow")
LAUNCHER = "tensorflow.python.distribute.cross_device_utils:CollectiveReplicaLauncher"
COMMUNICATOR = "tensorflow.python.distribute.cross_device_ops:CollectiveAllReduce"
CONTEXT = "tensorflow.python.eager.context"


@pytest.fixture
def strategy() -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(["CPU:0"])


@pytest.fixture
def launcher():
    """One as strategies have them, for one device."""
    keys = canary.find("tensorflow.python.distribute.cross_device_utils:CollectiveKeys")()
    options = canary.find("tensorflow.python.distribute.collective_util:Options")()
    communicator = canary.find(COMMUNICATOR)(("/device:CPU:0",), 1, options, collective_keys=keys)
    canary.has(communicator, "_launchers")
    return communicator._launchers[0]


def test_strategies_keep_their_communicator_in_an_attribute(strategy):
    cls = canary.find(COMMUNICATOR)
    found = [value for value in vars(strategy.extended).values() if isinstance(value, cls)]
    canary.check(found, "strategy.extended has no attribute that is a CollectiveAllReduce")


def test_launchers_have_what_the_shim_reads(launcher):
    cls = canary.find(LAUNCHER)
    canary.check(isinstance(launcher, cls), "CollectiveAllReduce._launchers are no CollectiveReplicaLaunchers")
    canary.has(launcher, "_next_instance_key", "_group_key", "_device")
    canary.takes(launcher._next_instance_key)
    canary.check(isinstance(launcher._group_key, int), "CollectiveReplicaLauncher._group_key is no integer")
    canary.check(tf.DeviceSpec.from_string(launcher._device), "CollectiveReplicaLauncher._device is no device's name")


@pytest.mark.parametrize("collective", ["all_reduce", "all_gather"])
def test_collectives_ask_the_instance_for_their_key(launcher, monkeypatch, collective):
    """So that replacing the method on one launcher is enough."""

    canary.has(launcher, collective)
    monkeypatch.setattr(launcher, "_next_instance_key", ask := Recorder(tf.constant(1 << 28)))
    axis = [0] if collective == "all_gather" else []
    options = canary.find("tensorflow.python.distribute.collective_util:Options")()
    # Traced and not run.
    run = tf.function(lambda value: getattr(launcher, collective)(value, *axis, options=options))
    run.get_concrete_function(tf.ones([1]))
    canary.check(ask.was_called, f"{collective} doesn't ask its launcher's own _next_instance_key() for a key")


def test_upstreams_keys_count_from_far_below_the_shims():
    first = canary.find("tensorflow.python.distribute.cross_device_utils:INSTANCE_KEY_START_NUMBER")
    canary.check(first < 1 << 20 < canary.module()._FIRST_KEY, f"upstream counts collectives from {first}")


def test_places_in_the_cluster_are_attributes():
    source = inspect.getsource(canary.find("tensorflow.python.distribute.collective_all_reduce_strategy"))
    for name in ("_id_in_cluster", "_num_workers"):
        canary.check(f"self.{name} = " in source, f"CollectiveAllReduceExtended.{name} is gone")


def test_the_key_value_store_takes_what_the_shim_passes():
    context = canary.find(f"{CONTEXT}:context")()
    canary.has(context, "set_config_key_value", "get_config_key_value")
    canary.takes(context.set_config_key_value, "key", "value")
    canary.takes(context.get_config_key_value, "key", 1000)
    unit = list(inspect.signature(context.get_config_key_value).parameters)[-1]
    canary.check(unit == "timeout_in_ms", f"get_config_key_value() takes {unit!r} where it took milliseconds")


def test_the_global_seed_is_what_was_set():
    canary.find(f"{CONTEXT}:global_seed")
    before = canary.module().global_seed()
    tf.random.set_seed(5)
    found = canary.module().global_seed()
    tf.random.set_seed(before)
    canary.check(found == 5, f"context.global_seed() is {found} after tf.random.set_seed(5)")


def test_determinism_can_be_asked_for():
    config = "tensorflow.python.framework.config"
    ask, disable = (canary.find(f"{config}:{name}") for name in ("is_op_determinism_enabled", "disable_op_determinism"))
    tf.config.experimental.enable_op_determinism()
    try:
        canary.check(ask(), "is_op_determinism_enabled() is false after enable_op_determinism()")
    finally:
        disable()
    canary.check(not ask(), "is_op_determinism_enabled() is true after disable_op_determinism()")


def test_autograph_converts_what_is_called_later():
    canary.find("tensorflow.python.autograph.core.ag_ctx:control_status_ctx")
    convert = canary.find("tensorflow.python.autograph.impl.api:tf_convert")
    canary.takes(convert, print, object(), convert_by_default=False)

    def absolute(value):
        if value < 0:
            return -value
        return value

    @tf.autograph.experimental.do_not_convert
    def later(function, value):
        return function(value)

    @tf.function
    def traced(value):
        return later(canary.module().caller_autograph()(absolute), value)

    try:
        converted = float(traced(tf.constant(-2.0))) == 2.0
    except tf.errors.OperatorNotAllowedInGraphError:
        converted = False
    canary.check(converted, "tf_convert() doesn't convert as the AutoGraph of where its status was taken")


def test_the_fault_is_still_there(stock_faults):
    canary.still(stock_faults, "instance_keys_fail_in_control_flow")
