"""All checks, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

from tfdist.cluster.checks.finding import Finding
from tfdist.cluster.checks.machine import check_machine
from tfdist.cluster.checks.mpi import check_mpi
from tfdist.cluster.checks.network import check_network
from tfdist.cluster.checks.task import check_task
from tfdist.cluster.checks.tensorflow import check_tensorflow
from tfdist.cluster.checks.versions import check_versions


def check_all(timeout_seconds: float) -> Iterator[Finding]:
    """Gives the findings one by one, as they are made.

    Args:
        timeout_seconds: How long to wait for a peer to answer.
    """
    yield from check_versions()
    yield from check_machine()
    yield from check_tensorflow()
    yield from check_mpi()
    cluster, findings = check_task()
    yield from findings
    if cluster is not None:
        yield from check_network(cluster, timeout_seconds)
