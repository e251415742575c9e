"""The machines of a job, as the cost model sees them."""

from __future__ import annotations

from dataclasses import dataclass

#: What TCP between good machines gets of the wire for messages of megabytes.
WIRE_SHARE = 0.75


@dataclass(frozen=True)
class Link:
    """What joins two ends, the same in both directions at once.

    Args:
        bytes_per_second: that arrive; of the wire, a transport gets about `WIRE_SHARE`.
        latency_seconds: from one end to the other for the smallest message, with the software on both.
    """

    bytes_per_second: float
    latency_seconds: float


@dataclass(frozen=True)
class Machines:
    """Where a job runs.

    Args:
        hosts: machines, each with one way to the network that its devices share.
        devices_per_host: on each of which one replica trains.
        network: between hosts.
        local: between devices of a host.
        variation: of a replica's time for a step, its standard deviation as a share of its mean; from input, the
            operating system, clocks and heat. Well kept clusters have 0.02 to 0.03.
        seconds_between_failures: of one host, in the mean; infinite if none fails.
    """

    hosts: int
    devices_per_host: int
    network: Link
    local: Link
    variation: float = 0.0
    seconds_between_failures: float = float("inf")

    @property
    def devices(self) -> int:
        """All of them."""
        return self.hosts * self.devices_per_host

    def seconds_between_job_failures(self) -> float:
        """Until any host of the job fails, in the mean."""
        return self.seconds_between_failures / self.hosts
