"""What a person asks of an elastic job."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from tfdist.errors import LaunchError

# Asks for nothing: there is nobody to answer.
DEFAULT_REMOTE_SHELL = ("ssh", "-o", "BatchMode=yes")


@dataclass(frozen=True)
class ElasticOptions:
    """How many workers, where they may be, and when they change.

    Args:
        min_workers: With fewer slots than these the job waits.
        max_workers: More slots than these stay unused.
        host_discovery: Program and arguments that print the list of hosts, `host[:slots]` a line.
        hosts_file: A file with that list; one of the two must be given.
        discovery_seconds: From one reading of the list to the next.
        discovery_timeout_seconds: How long `host_discovery` may take.
        elastic_timeout_seconds: How long the job waits for `min_workers` slots.
        settle_seconds: How long more slots must be there, and the attempt must last, before workers are added.
        remote_shell: Program and arguments that run a command on another host, whose name comes behind them.
        host_failures: A host that fails so often in a row is left out for a while.
        host_cooldown_seconds: For how long; twice as long each further time.
        reset_limit: How often the members may change; None for as often as they do.
        accumulate: Workers that are fewer than `max_workers` cut each batch into micro-batches, so that none has more
            rows at a time than if all were there.

    Raises:
        LaunchError: If the options don't fit together.
    """

    min_workers: int
    max_workers: int
    host_discovery: tuple[str, ...] = ()
    hosts_file: Path | None = None
    discovery_seconds: float = 1.0
    # Scripts ask cloud providers, which take seconds.
    discovery_timeout_seconds: float = 30.0
    elastic_timeout_seconds: float = 600.0
    # Machines of a group come one after another, and each change costs the start of all workers.
    settle_seconds: float = 10.0
    remote_shell: tuple[str, ...] = DEFAULT_REMOTE_SHELL
    host_failures: int = 3
    host_cooldown_seconds: float = 60.0
    reset_limit: int | None = None
    accumulate: bool = False

    def __post_init__(self) -> None:
        self._check_workers()
        self._check_source()
        for name in ("discovery_seconds", "discovery_timeout_seconds", "elastic_timeout_seconds"):
            _check_seconds(name, getattr(self, name), may_be_zero=False)
        for name in ("settle_seconds", "host_cooldown_seconds"):
            _check_seconds(name, getattr(self, name), may_be_zero=True)
        if self.host_failures < 1:
            raise LaunchError(
                f"host_failures must be at least 1. Received: host_failures={self.host_failures}. "
                f"With --host_failures=1 a host is left out after its first failure."
            )
        if self.reset_limit is not None and self.reset_limit < 0:
            raise LaunchError(
                f"reset_limit must be at least 0. Received: reset_limit={self.reset_limit}. Leave it out for no limit."
            )
        if not self.remote_shell:
            raise LaunchError(
                f"The remote shell must be a program. Received: remote_shell=''. "
                f"Write for example --remote_shell={' '.join(DEFAULT_REMOTE_SHELL)!r}."
            )

    def _check_workers(self) -> None:
        if not 1 <= self.min_workers <= self.max_workers:
            raise LaunchError(
                f"An elastic job needs 1 <= min_workers <= max_workers. Received: min_workers={self.min_workers}, "
                f"max_workers={self.max_workers}. Write for example --min_workers=1 --max_workers=4."
            )

    def _check_source(self) -> None:
        if bool(self.host_discovery) == (self.hosts_file is not None):
            raise LaunchError(
                f"An elastic job must learn its hosts from one of host_discovery and hosts_file. Received: "
                f"host_discovery={' '.join(self.host_discovery)!r}, hosts_file={str(self.hosts_file or '')!r}. "
                f"Write for example --host_discovery=./hosts.sh."
            )
        if self.host_discovery and shutil.which(self.host_discovery[0]) is None:
            raise LaunchError(
                f"The host discovery must be a program that can be run. Received: host_discovery="
                f"{self.host_discovery[0]!r}. Check the path (./hosts.sh, not hosts.sh) and its right to be run: "
                f"chmod +x."
            )


def _check_seconds(name: str, value: float, *, may_be_zero: bool) -> None:
    is_right = 0 <= value < math.inf if may_be_zero else 0 < value < math.inf
    if not is_right:
        bound = "at least 0" if may_be_zero else "above 0"
        raise LaunchError(f"{name} must be a number {bound}. Received: {name}={value}. Give seconds.")
