from __future__ import annotations

import copy
import json
import pickle

import pytest

from tfdist.cluster import Address, Cluster, ClusterError, Task

pytestmark = pytest.mark.unit

TWO = {"worker": ["a:2222", "b:2222"]}
PS_JOB = {"chief": ["c:1"], "worker": ["a:1", "b:1"], "ps": ["p:1"]}


@pytest.mark.parametrize(
    "jobs, task, expected",
    [
        # (num_workers, num_ps, is_chief, worker_index, address), worked out by hand
        ({}, Task("worker", 0), (1, 0, True, 0, None)),
        (TWO, Task("worker", 0), (2, 0, True, 0, "a:2222")),
        (TWO, Task("worker", 1), (2, 0, False, 1, "b:2222")),
        ({"chief": ["c:1"], **TWO}, Task("chief", 0), (3, 0, True, 0, "c:1")),
        ({"chief": ["c:1"], **TWO}, Task("worker", 0), (3, 0, False, 1, "a:2222")),
        ({"chief": ["c:1"]}, Task("chief", 0), (1, 0, True, 0, "c:1")),
        (PS_JOB, Task("chief", 0), (2, 1, True, None, "c:1")),
        (PS_JOB, Task("worker", 0), (2, 1, False, 0, "a:1")),
        (PS_JOB, Task("ps", 0), (2, 1, False, None, "p:1")),
        (TWO, Task("evaluator", 0), (2, 0, False, None, None)),
        ({"evaluator": ["e:1"]}, Task("evaluator", 0), (0, 0, False, None, "e:1")),
    ],
)
def test_what_a_task_knows_of_itself(jobs, task, expected):
    c = Cluster(jobs, task)
    assert (c.num_workers, c.num_ps, c.is_chief, c.worker_index, c.address) == expected


@pytest.mark.parametrize("jobs", [{}, TWO, PS_JOB, {"worker": ["[::1]:2222", "10.0.0.1:1"]}])
@pytest.mark.parametrize("rpc_layer", ["grpc", "grpc+loas"])
def test_tf_config_is_read_back_as_written(jobs, rpc_layer):
    cluster = Cluster(jobs, Task("worker", 0), rpc_layer)
    assert Cluster.from_tf_config(cluster.to_tf_config()) == cluster
    assert Cluster.from_tf_config(json.loads(cluster.to_tf_config())) == cluster


def test_tf_config_is_what_tensorflow_documents():
    assert json.loads(Cluster(TWO, Task("worker", 1)).to_tf_config()) == {
        "cluster": TWO,
        "task": {"type": "worker", "index": 1},
    }


def test_other_systems_keys_and_text_indices_are_accepted():
    text = '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": "1"}, "environment": "cloud"}'
    assert Cluster.from_tf_config(text).task == Task("worker", 1)


@pytest.mark.parametrize("text", ["", " ", "{}", b"{}", '{"cluster": {}}'])
def test_an_empty_tf_config_is_one_local_task(text):
    assert Cluster.from_tf_config(text).is_local


def test_peers_and_at():
    cluster = Cluster(PS_JOB, Task("chief", 0))
    assert cluster.peers == {Task("worker", 0): "a:1", Task("worker", 1): "b:1", Task("ps", 0): "p:1"}
    assert cluster.at(Task("ps", 0)).address == "p:1"
    assert [str(task) for task in cluster.tasks] == ["chief/0", "worker/0", "worker/1", "ps/0"]


def test_a_cluster_can_be_hashed_copied_and_pickled_and_not_changed():
    cluster = Cluster(TWO, Task("worker", 1))
    assert {cluster, copy.deepcopy(cluster), pickle.loads(pickle.dumps(cluster))} == {cluster}
    with pytest.raises(AttributeError):
        cluster.task = Task("worker", 0)


@pytest.mark.parametrize(
    "text, host, port",
    [("a.b-c:1", "a.b-c", 1), ("[::1]:2222", "::1", 2222), ("10.0.0.1:65535", "10.0.0.1", 65535)],
)
def test_addresses(text, host, port):
    assert Address.parse(text) == Address(host, port)
    assert str(Address(host, port)) == text


def config(cluster, task=("worker", 0), **more):
    return {"cluster": cluster, "task": {"type": task[0], "index": task[1]}, **more}


@pytest.mark.parametrize(
    "value, received, fix",
    [
        ("{", "TF_CONFIG='{'", "Write for example"),
        ("{'cluster': {}}", "TF_CONFIG=", "double quotes"),
        ("[]", "TF_CONFIG='[]'", "JSON object"),
        ({"cluster": TWO}, "task=None", 'Add "task"'),
        ({"cluster": TWO, "task": "worker"}, "task='worker'", '"index": 0'),
        ({"cluster": TWO, "task": {"type": "worker"}}, "without 'index'", '"index": 0'),
        ({"task": {"type": "ps", "index": 0}}, "task=ps/0", "List all tasks"),
        (config(TWO, ("worker", 2)), "task.index=2", "from 0 to 1"),
        (config(TWO, ("worker", -1)), "task.index=-1", "position"),
        (config(TWO, ("worker", "x")), "task.index='x'", "position"),
        (config(TWO, ("worker", True)), "task.index=True", "position"),
        (config(TWO, ("wroker", 0)), "task.type='wroker'", "Did you mean 'worker'?"),
        (config(TWO, ("master", 0)), "task.type='master'", "Did you mean 'chief'?"),
        (config(TWO, ("ps", 0)), "task.type='ps'", "Add cluster['ps']"),
        (config({"wrk": ["a:1"]}), "cluster job='wrk'", "Did you mean 'worker'?"),
        (config({"worker": ["a:1", "a:1"]}), "cluster['worker'][0]=cluster['worker'][1]='a:1'", "Change one"),
        (config({"worker": ["a:1"], "ps": ["a:1"]}), "cluster['worker'][0]=cluster['ps'][0]='a:1'", "Change one"),
        (config({"worker": ["a:x"]}), "cluster['worker'][0]='a:x' (port 'x')", "'a:2222'"),
        (config({"worker": ["a:"]}), "cluster['worker'][0]='a:'", "'a:2222'"),
        (config({"worker": ["a:-1"]}), "cluster['worker'][0]='a:-1'", "'a:2222'"),
        (config({"worker": ["a:0"]}), "(port 0)", "from 1 to 65535"),
        (config({"worker": ["a:65536"]}), "(port 65536)", "from 1 to 65535"),
        (config({"worker": ["a"]}), "cluster['worker'][0]='a'", "Add the port"),
        (config({"worker": ["::1:1"]}), "cluster['worker'][0]='::1:1'", "brackets"),
        (config({"worker": ["grpc://a:1"]}), "cluster['worker'][0]='grpc://a:1'", "rpc_layer"),
        (config({"worker": [7]}), "cluster['worker'][0]=7", "host:port"),
        (config({"worker": "a:1"}), "cluster['worker']='a:1'", "['10.0.0.1:2222']"),
        (config(["a:1"]), "cluster=['a:1']", "'worker'"),
        (config({**TWO, "evaluator": ["e:1"]}), "cluster['evaluator']=['e:1']", "Remove 'evaluator'"),
        (config({**TWO, "chief": ["c:1", "d:1"]}), "cluster['chief']=['c:1', 'd:1']", "Keep one"),
        (config({"ps": ["p:1"]}, ("ps", 0)), "cluster jobs=['ps']", "'worker'"),
        (config(TWO, ("evaluator", 1)), "task.index=1", "from 0 to 0"),
        (config(TWO, rpc_layer=7), "rpc_layer=7", "'grpc'"),
    ],
)
def test_errors_name_the_value_received_and_the_fix(value, received, fix):
    with pytest.raises(ClusterError) as caught:
        Cluster.from_tf_config(value)
    assert received in str(caught.value)
    assert fix in str(caught.value)


def test_arguments_of_the_wrong_kind_are_cluster_errors_too():
    with pytest.raises(ClusterError, match=r"Task\('worker', 0\)"):
        Cluster(TWO, ("worker", 0))
    with pytest.raises(ValueError, match=r"Received: cluster=None"):
        Cluster(None)
