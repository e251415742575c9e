from __future__ import annotations

import os
import subprocess
import sys

import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_dtensor")
EXTENDED = "tensorflow:distribute.StrategyExtended"


@pytest.mark.parametrize(
    "name",
    [
        *("_create_variable", "_update", "_replica_ctx_update", "_reduce_to", "_local_results"),
        *("_gather_to_implementation", "_experimental_distribute_dataset", "_in_multi_worker_mode"),
        *("_distribute_datasets_from_function", "_experimental_distribute_values_from_function"),
        *("_default_device_scope", "_num_replicas_in_sync", "_container_strategy"),
    ],
)
def test_upstream_still_has_what_is_overridden(name):
    canary.find(f"{EXTENDED}.{name}")


@pytest.mark.parametrize("name", ["_use_merge_call", "_get_local_replica_id"])
def test_strategies_still_have_what_tensorflow_asks_them(name):
    canary.find(f"tensorflow.python.distribute.mirrored_strategy:MirroredExtended.{name}")


def test_variables_are_made_with_what_they_belong_to():
    """Slots are laid out as their parameters, by `colocate_with`."""
    seen = []

    class Extended(canary.module().MeshExtended):
        def _create_variable(self, next_creator, **options):
            seen.append(options.get("colocate_with"))
            return tf.constant(0)

    class Strategy(tf.distribute.Strategy):
        def __init__(self):
            super().__init__(Extended(self, ("CPU:0",)))

    strategy, like = Strategy(), object()
    with strategy.scope(), strategy.extended.colocate_vars_with(like):
        tf.Variable(1.0)
    canary.check(seen == [like], f"the creator was given {seen}")


def test_devices_can_be_waited_for():
    canary.find("tensorflow.python.eager.context:async_wait")


def test_the_switch_is_kept_off(monkeypatch):
    shim = canary.module()
    canary.find("tensorflow.dtensor.python.api:_dtensor_singleton")
    monkeypatch.setattr(shim.api, "_dtensor_singleton", None)
    monkeypatch.setenv(shim.COMBINE_SWITCH, "0")
    monkeypatch.delenv(shim.COMBINE_SWITCH)
    shim.switch_off_combining()
    assert os.environ[shim.COMBINE_SWITCH] == "0"
    monkeypatch.setenv(shim.COMBINE_SWITCH, "1")
    with pytest.raises(RuntimeError, match=r"Received: DTENSOR_ENABLE_COMBINE.*='1' in the environment"):
        shim.switch_off_combining()


def test_it_is_too_late_once_dtensor_was_used(monkeypatch):
    shim = canary.module()
    monkeypatch.setattr(shim.api, "_dtensor_singleton", object())
    monkeypatch.setenv(shim.COMBINE_SWITCH, "0")
    shim.switch_off_combining()
    monkeypatch.delenv(shim.COMBINE_SWITCH)
    with pytest.raises(RuntimeError, match="before anything else uses DTensor"):
        shim.switch_off_combining()


def test_using_dtensor_can_be_seen():
    """In a process of its own, since nothing takes it back."""
    program = (
        "from tensorflow.experimental import dtensor; from tensorflow.dtensor.python import api;"
        "mesh = dtensor.create_mesh([('batch', 1)], devices=['CPU:0']); before = api._dtensor_singleton;"
        "dtensor.copy_to_mesh([1.0], dtensor.Layout.replicated(mesh, 1)); print(before, api._dtensor_singleton is None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    canary.check(
        done.stdout.split() == ["None", "False"], f"DTensor's device is elsewhere: {done.stdout or done.stderr}"
    )
