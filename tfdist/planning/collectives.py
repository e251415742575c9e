"""How long exchanges take."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from tfdist.planning.machines import Link, Machines


def ring_seconds(size: float, ends: int, link: Link) -> float:
    """An all-reduce in a ring: every end sends 2 (n - 1) / n of the bytes (Patarasuk and Yuan, 2009)."""
    return 2 * (ends - 1) * (link.latency_seconds + size / ends / link.bytes_per_second)


def tree_seconds(size: float, ends: int, link: Link) -> float:
    """An all-reduce over two trees, each for half of the bytes, in pieces that follow each other.

    Sanders et al., 2009. All bytes cross each link twice, and the first of them waits for the height of the tree twice.
    """
    return 2 * math.ceil(math.log2(ends)) * link.latency_seconds + 2 * size / link.bytes_per_second if ends > 1 else 0.0


def all_reduce_seconds(size: float, machines: Machines) -> float:
    """Between all devices: first within each host, then between hosts by what is faster, ring or trees."""
    between = min(way(size, machines.hosts, machines.network) for way in (ring_seconds, tree_seconds))
    return ring_seconds(size, machines.devices_per_host, machines.local) + between


def all_gather_seconds(size: float, machines: Machines) -> float:
    """Of `size` bytes in equal parts on all devices to each of them; as long as a reduce-scatter."""
    return all_reduce_seconds(size, machines) / 2


def sent_bytes(size: float, machines: Machines) -> float:
    """Bytes that a host sends over the network in an all-reduce of `size` bytes."""
    return 2 * size * (machines.hosts - 1) / machines.hosts


def exposed_seconds(buckets: Iterable[tuple[float, float]], seconds_of: Callable[[float], float]) -> float:
    """How long exchanges go on behind the end of the backward pass, one after the other, each when its gradients are
    there (wait-free backpropagation; Zhang et al., "Poseidon", 2017).

    Args:
        buckets: seconds before the end at which each is there, and bytes.
        seconds_of: of an exchange of so many bytes.
    """
    end = -math.inf
    for before_end, size in buckets:
        end = max(end, -before_end) + seconds_of(size)
    return max(end, 0.0)
