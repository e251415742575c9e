"""What can be seen of a job before its workers are connected: a taken port, hosts that nobody knows, missing tasks."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from tfdist.cluster.address import Address
from tfdist.cluster.checks.finding import Finding
from tfdist.cluster.checks.network import check_own, check_peer
from tfdist.cluster.spec import Cluster
from tfdist.errors import ClusterError

#: Tasks of a job start some seconds apart, or minutes where machines have to be found for them.
REPORT_SECONDS = 15.0
_ASK_SECONDS = 3.0
_MOST_AT_ONCE = 32


def check_own_port(cluster: Cluster) -> None:
    """Refuse a port on which this task can't listen.

    Raises:
        ClusterError: another process has it, or only the system's administrator may take it.
    """
    if cluster.address is None:
        return
    address = Address.parse(cluster.address)
    # TensorFlow listens on all interfaces, so the host may be a name that leads here through a gateway.
    finding = check_own(Address("0.0.0.0", address.port))
    if finding.is_problem:
        said = finding.said.replace(f"0.0.0.0:{address.port}", str(address))
        raise ClusterError(
            f"Expected: a port on which {cluster.task} can listen. Received: {address}, {finding.subject}: {said}. "
            f"{finding.fix}"
        )


def missing_tasks(cluster: Cluster) -> list[Finding]:
    """A problem for each other chief or worker that doesn't answer."""
    peers = {str(task): Address.parse(text) for task, text in cluster.peers.items() if task.type != "ps"}
    if not peers:
        return []
    with ThreadPoolExecutor(min(_MOST_AT_ONCE, len(peers))) as pool:
        asked = [pool.submit(check_peer, name, address, _ASK_SECONDS) for name, address in peers.items()]
        return [finding for finding in (answer.result() for answer in asked) if finding.is_problem]


@contextlib.contextmanager
def reporting_missing(cluster: Cluster, say: Callable[[str], None]) -> Iterator[None]:
    """While tasks connect: says every REPORT_SECONDS who is waited for, and why it may be missing.

    Args:
        cluster: as this task sees it.
        say: takes the message.
    """
    connected = threading.Event()

    def report() -> None:
        begun = time.monotonic()
        while not connected.wait(REPORT_SECONDS):
            missing = missing_tasks(cluster)
            if missing and not connected.is_set():
                seconds = time.monotonic() - begun
                said = "; ".join(f"{one.subject.removeprefix('peer ')}: {one.said}. {one.fix}" for one in missing)
                say(f"{cluster.task} has waited {seconds:.0f} s for {said}")

    thread = threading.Thread(target=report, name="tfdist-start-up", daemon=True)
    thread.start()
    try:
        yield
    finally:
        connected.set()
