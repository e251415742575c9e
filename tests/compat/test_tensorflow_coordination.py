from __future__ import annotations

import subprocess
import sys

import pytest
from tensorflow.python.eager import context

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_coordination")

#: A collective of two, of which only one comes.
WAITS = """
import threading, time
import tensorflow as tf
from tfdist._compat.tensorflow_coordination import abort_collectives, is_configured

assert not is_configured()
said = []

@tf.function
def wait():
    return tf.raw_ops.CollectiveReduceV2(
        input=tf.ones(3), group_size=2, group_key=1, instance_key=1, ordering_token=[], merge_op="Add", final_op="Id"
    )

def run():
    try:
        wait()
    except tf.errors.UnavailableError as error:
        said.append(str(error))

thread = threading.Thread(target=run, daemon=True)
thread.start()
while thread.is_alive() and not said:
    abort_collectives("worker 1 is gone")
    thread.join(0.1)
print(said)
"""


def test_what_it_uses_is_there():
    canary.find("tensorflow.python.distribute.multi_worker_util:coordination_leader")
    canary.find("tensorflow.compiler.xla.tsl.protobuf.coordination_config_pb2:CoordinatedJob")
    canary.takes(
        context.Context.configure_coordination_service,
        None,
        service_type="standalone",
        service_leader="",
        heartbeat_timeout_in_ms=1,
        cluster_register_timeout_in_ms=1,
        coordinated_jobs=[],
    )
    canary.takes(context.Context.abort_collective_ops, None, 14, "why")


def test_a_pending_collective_ends_with_our_words():
    done = subprocess.run([sys.executable, "-c", WAITS], capture_output=True, text=True, timeout=120)
    canary.check("worker 1 is gone" in done.stdout, f"an aborted collective says {done.stdout}{done.stderr[-500:]}")
