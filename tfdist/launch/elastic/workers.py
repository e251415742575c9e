"""The workers of an attempt: where each listens, and how it's started."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from tfdist.cluster import Cluster, Task
from tfdist.cluster.address import Address
from tfdist.cluster.micro_batches import ENVIRONMENT as MICRO_BATCHES_ENVIRONMENT
from tfdist.cluster.ports import HeldPorts
from tfdist.errors import LaunchError
from tfdist.launch.elastic.hosts import is_here, is_loopback, machine_of
from tfdist.launch.elastic.members import Members
from tfdist.launch.elastic.remote import remote_task
from tfdist.launch.environment import task_environment
from tfdist.launch.options import DEFAULT_PORT_BASE, LaunchOptions
from tfdist.launch.task_process import TaskSpec

# Tells a task which host of the list it's on.
HOST_ENVIRONMENT = "TFDIST_HOST"
_THIS_MACHINE = "127.0.0.1"


class Extra(Protocol):
    """What else a task's environment has."""

    def environment(self, name: str) -> Mapping[str, str]:
        """Of the task of this name."""


@contextlib.contextmanager
def workers_of(
    members: Members, command: Sequence[str], options: LaunchOptions, extra: Extra
) -> Iterator[list[TaskSpec]]:
    """Gives what to start, in the order of workers; free ports are held until the context ends.

    Args:
        members: The host of each worker.
        command: Program and arguments.
        options: With `elastic`.
        extra: Variables beside those of the options.

    Raises:
        LaunchError: Hosts can't reach each other by their names.
    """
    with _addresses(members, options) as addresses:
        cluster = Cluster({"worker": addresses}, Task("worker", 0))
        job = _micro_batches(len(members), options)
        tasks = [(cluster.at(Task("worker", index)), host) for index, host in enumerate(members.hosts)]
        yield [_spec(one, host, command, options, {**job, **extra.environment(str(one.task))}) for one, host in tasks]


@contextlib.contextmanager
def _addresses(members: Members, options: LaunchOptions) -> Iterator[list[str]]:
    all_here = all(map(is_here, members.hosts))
    if all_here and options.port_base is None:
        with HeldPorts(len(members)) as held:
            held.release_for_servers()
            yield [str(Address(_THIS_MACHINE, port)) for port in held.ports]
        return
    loopback = next(filter(is_loopback, members.hosts), None)
    if loopback is not None and not all_here:
        raise LaunchError(
            f"Workers must reach each other by the names on the list of hosts. Received: host={loopback!r} beside "
            f"other machines, for which that name means themselves. List this machine by its name in the network."
        )
    base = DEFAULT_PORT_BASE if options.port_base is None else options.port_base
    taken: Counter[str] = Counter()
    found = []
    for host in members.hosts:
        # All names of a machine share its ports.
        machine = machine_of(host)
        found.append(str(Address(_THIS_MACHINE if all_here else host, base + taken[machine])))
        taken[machine] += 1
    yield found


def _micro_batches(workers: int, options: LaunchOptions) -> Mapping[str, str]:
    if options.elastic is None or not options.elastic.accumulate:
        return {}
    return {MICRO_BATCHES_ENVIRONMENT: str(math.ceil(options.elastic.max_workers / workers))}


def _spec(
    cluster: Cluster, host: str, command: Sequence[str], options: LaunchOptions, extra: Mapping[str, str]
) -> TaskSpec:
    name = str(cluster.task)
    own = {**extra, HOST_ENVIRONMENT: host}
    spec = TaskSpec(name, command, task_environment(cluster, options.env, verbose=options.verbose, extra=own))
    if is_here(host) or options.elastic is None:
        return spec
    return remote_task(spec, host, options.elastic.remote_shell, also=options.env.keys())
