from __future__ import annotations

import pytest

from tfdist.cluster import Task
from tfdist.errors import LaunchError
from tfdist.launch import LaunchOptions
from tfdist.launch.job import clusters_of_this_node

pytestmark = pytest.mark.unit


def clusters(**options):
    with clusters_of_this_node(LaunchOptions(**options)) as found:
        return found


def test_one_node_takes_free_ports():
    found = clusters(workers=2)
    assert [str(c.task) for c in found] == ["worker/0", "worker/1"]
    assert found[0].jobs == found[1].jobs
    assert len(set(found[0].addresses("worker"))) == 2


def test_ps_tasks_bring_a_chief():
    assert [str(c.task) for c in clusters(workers=1, ps=2)] == ["chief/0", "worker/0", "ps/0", "ps/1"]


def test_a_chief_beside_the_workers():
    found = clusters(workers=2, chief=True)
    assert [c.is_chief for c in found] == [True, False, False]


def test_a_port_base_fixes_the_ports():
    assert clusters(workers=2, port_base=5000)[0].addresses("worker") == ("127.0.0.1:5000", "127.0.0.1:5001")


def test_nodes_share_out_the_tasks_and_agree_on_the_addresses():
    """5 tasks on 2 nodes: the first takes 3. Worked out by hand."""
    options = {"workers": 3, "ps": 1, "nnodes": 2, "node_addresses": ("a", "fe80::1")}
    first, second = (clusters(**options, node_rank=rank) for rank in (0, 1))
    expected = {"chief": ("a:2222",), "worker": ("a:2223", "a:2224", "[fe80::1]:2222"), "ps": ("[fe80::1]:2223",)}
    assert all(c.jobs == expected for c in (*first, *second))
    assert [c.task for c in first] == [Task("chief"), Task("worker", 0), Task("worker", 1)]
    assert [c.task for c in second] == [Task("worker", 2), Task("ps", 0)]


@pytest.mark.parametrize("num_tasks, nodes", [(1, 1), (2, 2), (7, 3), (8, 3), (9, 3)])
def test_every_task_is_started_on_exactly_one_node(num_tasks, nodes):
    options = {"workers": num_tasks, "nnodes": nodes, "node_addresses": tuple("abcdefgh"[:nodes])}
    started = [c.task.index for rank in range(nodes) for c in clusters(**options, node_rank=rank)]
    assert started == list(range(num_tasks))


@pytest.mark.parametrize(
    "options, received",
    [
        ({"workers": 0}, "workers=0"),
        ({"ps": -1}, "ps=-1"),
        ({"nnodes": 0}, "nnodes=0"),
        ({"nnodes": 2}, "nnodes=2, node_addresses=''"),
        ({"nnodes": 2, "node_rank": 2}, "node_rank=2, nnodes=2"),
        ({"nnodes": 2, "workers": 1, "node_addresses": ("a", "b")}, "nnodes=2 for 1 task(s)"),
        ({"nnodes": 2, "workers": 2, "node_addresses": ("a", "a")}, "node_addresses='a,a'"),
        ({"nnodes": 2, "workers": 2, "node_addresses": ("a:1", "b")}, "node_addresses='a:1'"),
        ({"port_base": 0}, "port_base=0"),
        ({"port_base": 65535, "workers": 2}, "port_base=65535"),
    ],
)
def test_errors(options, received):
    with pytest.raises(LaunchError) as caught:
        clusters(**options)
    assert f"Received: {received}" in str(caught.value)
