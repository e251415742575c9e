"""Which slots the workers get: those of hosts that are on the list, and have not failed again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tfdist.launch.elastic.hosts import Host

_LONGEST_COOLDOWN_SECONDS = 3600.0


@dataclass(frozen=True)
class Members:
    """The slots of an attempt, in the order of its workers.

    Args:
        hosts: The host of each worker.
    """

    hosts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.hosts)

    def __str__(self) -> str:
        return ", ".join(f"{name} ({count})" for name, count in Counter(self.hosts).items())

    def gone_from(self, hosts: Sequence[Host]) -> list[str]:
        """The hosts of members that are not there any more, or not with as many slots."""
        there = {host.name: host.slots for host in hosts}
        return [name for name, count in Counter(self.hosts).items() if there.get(name, 0) < count]


def choose(hosts: Sequence[Host], most: int, before: Members) -> Members:
    """Returns the members of the next attempt.

    Args:
        hosts: What there is.
        most: No more than these.
        before: Members of the last attempt: their hosts come first, so that the chief stays where it is.
    """
    order = {name: place for place, name in enumerate(dict.fromkeys(before.hosts))}
    ordered = sorted(hosts, key=lambda host: order.get(host.name, len(order)))
    slots = [host.name for host in ordered for _ in range(host.slots)]
    return Members(tuple(slots[:most]))


@dataclass
class _Record:
    """What is known of a host.

    Args:
        in_a_row: Failures since its last good attempt.
        times_left_out: How often it was left out.
        until: When it may return, on the clock of time.monotonic.
    """

    in_a_row: int = 0
    times_left_out: int = 0
    until: float = float("-inf")


class HostRecords:
    """Leaves out a host that fails again and again, for a while; twice as long each further time.

    Args:
        failures: How many in a row.
        cooldown_seconds: For how long.
    """

    def __init__(self, failures: int, cooldown_seconds: float) -> None:
        self._failures, self._cooldown_seconds = failures, cooldown_seconds
        self._records: dict[str, _Record] = {}

    def note_failure(self, name: str, now: float) -> float | None:
        """Notes that the first worker to fail was on this host; returns for how many seconds it's left out now."""
        record = self._records.setdefault(name, _Record())
        record.in_a_row += 1
        if record.in_a_row < self._failures:
            return None
        seconds = min(self._cooldown_seconds * 2**record.times_left_out, _LONGEST_COOLDOWN_SECONDS)
        # When it returns, one more failure is enough.
        record.in_a_row, record.times_left_out = self._failures - 1, record.times_left_out + 1
        record.until = now + seconds
        return seconds

    def note_good(self, names: Sequence[str]) -> None:
        """Notes an attempt in which these hosts have not failed."""
        for name in names:
            if name in self._records:
                self._records[name].in_a_row = 0

    def usable(self, hosts: Sequence[Host], now: float) -> list[Host]:
        """The hosts that are not left out."""
        return [host for host in hosts if host.name not in self._records or self._records[host.name].until <= now]
