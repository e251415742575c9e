"""The cluster of a process that nobody told about others: itself."""

from __future__ import annotations

from tfdist.cluster.spec import Cluster


class OneLocalTask:
    """Always answers; the last one asked."""

    name = "no TF_CONFIG: one local task"

    def resolve(self) -> Cluster:
        """Returns a cluster of one local worker without an address."""
        return Cluster()
