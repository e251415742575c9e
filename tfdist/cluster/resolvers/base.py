"""The protocol that each resolver implements."""

from __future__ import annotations

from typing import Protocol

from tfdist.cluster.spec import Cluster


class Resolver(Protocol):
    """One source of cluster descriptions."""

    @property
    def name(self) -> str:
        """What it reads, in words a user knows."""

    def resolve(self) -> Cluster | None:
        """Returns the cluster, or None when this source says nothing here.

        Raises:
            ClusterError: If the source says something wrong.
        """
