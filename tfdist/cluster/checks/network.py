"""Whether this task can listen on its own address, and reach those of its peers."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tfdist.cluster.address import Address
from tfdist.cluster.checks.finding import Finding
from tfdist.cluster.spec import Cluster

_MOST_AT_ONCE = 32


def check_network(cluster: Cluster, timeout_seconds: float) -> Iterator[Finding]:
    """Gives one finding for the own address and one for each peer.

    Args:
        cluster: As this task sees it.
        timeout_seconds: How long to wait for each peer; they are asked at the same time.
    """
    if cluster.address is not None:
        yield check_own(Address.parse(cluster.address))
    peers = {str(task): Address.parse(text) for task, text in cluster.peers.items()}
    if not peers:
        return
    with ThreadPoolExecutor(min(_MOST_AT_ONCE, len(peers))) as pool:
        asked = [pool.submit(check_peer, name, address, timeout_seconds) for name, address in peers.items()]
        for answer in asked:
            yield answer.result()


def check_own(address: Address) -> Finding:
    """Tells whether a server could listen on `address` now."""
    subject = f"port {address.port}"
    try:
        family, kind, _, _, where = _look_up(address)
    except OSError as error:
        return _unknown_host(f"own address {address}", address, error)
    with socket.socket(family, kind) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(where)
        except OSError as error:
            return Finding(subject, *_why_not_bound(address, error))
    return Finding(subject, f"free, for this task at {address}")


def check_peer(name: str, address: Address, timeout_seconds: float) -> Finding:
    """Tells whether something answers at a peer's address."""
    subject = f"peer {name}"
    try:
        socket.create_connection((address.host, address.port), timeout_seconds).close()
    except socket.gaierror as error:
        return _unknown_host(subject, address, error)
    except TimeoutError:
        said = f"{address} did not answer within {timeout_seconds:g} s"
        return Finding(subject, said, f"Open port {address.port} in the firewalls on the way.")
    except ConnectionRefusedError:
        said = f"{address}: the machine is there, but nothing listens on port {address.port}"
        return Finding(subject, said, f"Start the task {name} there, and look at its output.")
    except OSError as error:
        return Finding(subject, f"{address}: {error.strerror}", "Check the address and the route.")
    return Finding(subject, f"{address} answers")


def _look_up(address: Address) -> tuple[Any, ...]:
    return socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]


def _unknown_host(subject: str, address: Address, error: OSError) -> Finding:
    fix = f"Check the name {address.host!r}, or use its IP address."
    return Finding(subject, f"the host of {address} is not known ({error.strerror})", fix)


def _why_not_bound(address: Address, error: OSError) -> tuple[str, str]:
    if error.errno == errno.EADDRINUSE:
        fix = "End the process that listens there (a task still running?), or change the port."
        return f"taken, though this task is to listen at {address}", fix
    if error.errno == errno.EADDRNOTAVAIL:
        fix = "Is task.index this machine's? Give it the address of this machine."
        return f"{address} is not an address of this machine", fix
    if error.errno == errno.EACCES:
        return f"not allowed to listen at {address}", "Choose a port from 1024 on."
    return f"can't listen at {address}: {error.strerror}", "Check the address."
