from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap

import psutil
import pytest

import tfdist.cluster
from tests.helpers.warm_processes import server_pids
from tfdist.cluster import Address, ClusterError, Task


@pytest.mark.cluster
def test_servers_answer_compute_and_end(tmp_path):
    """One cluster for all questions: it takes seconds to start."""
    with tfdist.cluster.local(workers=2, ps=1) as cluster:
        assert cluster.task == Task("chief", 0)
        assert (cluster.num_workers, cluster.num_ps) == (2, 1)
        for text in cluster.peers.values():
            address = Address.parse(text)
            socket.create_connection((address.host, address.port), 10).close()
        servers = [child for child in psutil.Process().children() if child.pid not in server_pids()]
        assert len(servers) >= 3
        script = tmp_path / "coordinator.py"
        script.write_text(COORDINATOR)
        done = subprocess.run(
            [sys.executable, str(script)],
            env={**os.environ, "TF_CONFIG": cluster.to_tf_config(), "TF_CPP_MIN_LOG_LEVEL": "2"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["40.0", "/job:ps/replica:0/task:0/device:CPU:0"]
    assert not any(server.is_running() for server in servers)


# 40 closures that block in the servers' inter-op threads a little, on 2 workers.
COORDINATOR = textwrap.dedent("""
    import tensorflow as tf
    strategy = tf.distribute.ParameterServerStrategy(tf.distribute.cluster_resolver.TFConfigClusterResolver())
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    with strategy.scope():
        total = tf.Variable(0.0)
    @tf.function
    def add():
        total.assign_add(1.0)
    for _ in range(40):
        coordinator.schedule(add)
    coordinator.join()
    print(total.numpy(), total.device, flush=True)
""")


@pytest.mark.cluster
def test_no_server_outlives_a_killed_parent(tmp_path, wait_until):
    code = (
        "import tfdist.cluster, signal\n"
        "with tfdist.cluster.local(workers=1) as cluster:\n"
        "    print(cluster.to_tf_config(), flush=True)\n"
        "    signal.pause()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout.readline()
    servers = psutil.Process(parent.pid).children(recursive=True)
    parent.send_signal(signal.SIGKILL)
    parent.communicate(timeout=60)
    wait_until(lambda: not any(server.is_running() for server in servers))


@pytest.mark.unit
def test_a_server_that_does_not_start_is_an_error_with_its_last_words(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise ImportError('no TensorFlow here')")
    env = {"PYTHONPATH": str(tmp_path)}
    with pytest.raises(ClusterError, match=r"worker/0 ended with exit code 1(.|\n)*no TensorFlow here"):
        tfdist.cluster.local(workers=1, env=env).__enter__()


@pytest.mark.unit
def test_a_server_that_does_not_answer_in_time_is_an_error(tmp_path):
    (tmp_path / "tensorflow.py").write_text("import signal; signal.pause()")
    with pytest.raises(ClusterError, match=r"timeout_seconds=0\.5"):
        tfdist.cluster.local(workers=1, env={"PYTHONPATH": str(tmp_path)}, timeout_seconds=0.5).__enter__()


@pytest.mark.unit
@pytest.mark.parametrize("counts, received", [({"workers": 0}, "workers=0"), ({"ps": -1}, "ps=-1")])
def test_wrong_counts(counts, received):
    with pytest.raises(ClusterError, match=f"Received: {received}"):
        tfdist.cluster.local(**counts).__enter__()
