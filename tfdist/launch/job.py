"""Which tasks this node runs, and the cluster as each of them sees it.

Tasks are dealt to the nodes in blocks, chief first, then workers, then ps: with 4 workers on 2
nodes, node 0 runs workers 0 and 1. Every node deals in the same way, so all know all addresses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from tfdist.cluster import Cluster, Task
from tfdist.cluster.address import Address
from tfdist.cluster.ports import HeldPorts
from tfdist.errors import LaunchError
from tfdist.launch.options import DEFAULT_PORT_BASE, LaunchOptions

_THIS_MACHINE = "127.0.0.1"


@contextlib.contextmanager
def clusters_of_this_node(options: LaunchOptions) -> Iterator[list[Cluster]]:
    """Gives the cluster once for each task of this node, as that task sees it.

    Free ports are held (see `tfdist.cluster.ports`) until the context ends.
    """
    tasks = _tasks(options)
    if options.nnodes > 1 or options.port_base is not None:
        yield _on_nodes(tasks, options)
        return
    with HeldPorts(len(tasks)) as held:
        host = (options.node_addresses or (_THIS_MACHINE,))[0]
        cluster = _cluster(tasks, [str(Address(host, port)) for port in held.ports])
        held.release_for_servers()
        yield [cluster.at(task) for task in tasks]


def _tasks(options: LaunchOptions) -> list[Task]:
    return [
        *[Task("chief", 0)] * int(options.has_chief),
        *[Task("worker", index) for index in range(options.workers)],
        *[Task("ps", index) for index in range(options.ps)],
    ]


def _on_nodes(tasks: Sequence[Task], options: LaunchOptions) -> list[Cluster]:
    base = DEFAULT_PORT_BASE if options.port_base is None else options.port_base
    hosts = options.node_addresses or (_THIS_MACHINE,)
    blocks = _deal(len(tasks), options.nnodes)
    addresses = [
        str(Address(_host(hosts[node]), base + place))
        for node, block in enumerate(blocks)
        for place in range(len(block))
    ]
    cluster = _cluster(tasks, addresses)
    return [cluster.at(tasks[number]) for number in blocks[options.node_rank]]


def _deal(count: int, nodes: int) -> list[range]:
    """Returns the numbers of each node's tasks; the first nodes take those that are left over."""
    least, more = divmod(count, nodes)
    starts = [node * least + min(node, more) for node in range(nodes + 1)]
    return [range(starts[node], starts[node + 1]) for node in range(nodes)]


def _cluster(tasks: Sequence[Task], addresses: Sequence[str]) -> Cluster:
    jobs: dict[str, list[str]] = {}
    for task, address in zip(tasks, addresses, strict=True):
        jobs.setdefault(task.type, []).append(address)
    return Cluster(jobs, tasks[0])


def _host(given: str) -> str:
    host = given.strip().removeprefix("[").removesuffix("]")
    if not host or "/" in host or (":" in host and not _is_ipv6(host)):
        raise LaunchError(
            f"A node's address must be a host name or an IP address without port. Received: "
            f"node_addresses={given!r}. The ports are --port_base and those after it."
        )
    return host


def _is_ipv6(host: str) -> bool:
    return host.count(":") > 1
