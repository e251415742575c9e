"""What a person asks of a launch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tfdist.errors import LaunchError
from tfdist.launch.elastic.options import ElasticOptions

# TensorFlow's own examples use this port; other nodes must be able to guess ours, so it's fixed.
DEFAULT_PORT_BASE = 2222
_MAX_PORT = 65535


@dataclass(frozen=True)
class LaunchOptions:
    """How many tasks, where, and what is shown of them.

    Args:
        workers: Worker tasks of the whole job, over all nodes.
        ps: Parameter server tasks of the whole job.
        chief: Adds a chief task. A job with ps tasks always has one: it coordinates them.
        data_workers: Processes on each machine that read and decode for its tasks, see `tfdist.data`.
        env: Environment variables for every task, over those of this process.
        log_dir: Where to write one file per task with all that it prints.
        verbose: Show TensorFlow's own messages and the tracebacks of all tasks.
        nnodes: Machines that take part; each runs the same command with its own `node_rank`.
        node_rank: This machine's position in `node_addresses`.
        node_addresses: Host names or IP addresses of the machines, without port.
        max_restarts: How often tasks that failed are started again, counted on each machine: a worker of a job
            with ps tasks alone, otherwise all tasks of the machine. None is as often as it takes in an elastic job, and
            never in others.
        restart_window_seconds: Only the restarts of the last so many seconds count; None counts all of the launch.
        port_base: First port of each machine's range. None takes free ports on one node and
            DEFAULT_PORT_BASE on several, which must all know the ports.
        mpi: Gives the tasks MPI ranks, in order, so that strategies talk through MPI; see docs/mpi.md.
        mpiexec: The command that makes ranks, with options; None for that of this Python's environment or of PATH.
        elastic: For a job whose machines come and go; it has workers only, as many as there is room for.

    Raises:
        LaunchError: If the options don't fit together.
    """

    workers: int = 1
    ps: int = 0
    chief: bool = False
    data_workers: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    log_dir: Path | None = None
    verbose: bool = False
    nnodes: int = 1
    node_rank: int = 0
    node_addresses: tuple[str, ...] = ()
    port_base: int | None = None
    max_restarts: int | None = None
    restart_window_seconds: float | None = None
    mpi: bool = False
    mpiexec: str | None = None
    elastic: ElasticOptions | None = None

    def __post_init__(self) -> None:
        _at_least("workers", self.workers, 1, "A job needs a worker; write --workers=2.")
        _at_least("ps", self.ps, 0, "Leave --ps out for a job without parameter servers.")
        _at_least("data_workers", self.data_workers, 0, "Leave --data_workers out to read in the tasks.")
        _at_least("max_restarts", self.max_restarts or 0, 0, "Leave --max_restarts out for none.")
        _at_least("nnodes", self.nnodes, 1, "Leave --nnodes out for one machine.")
        self._check_restart_window()
        self._check_elastic()
        self._check_mpi()
        self._check_nodes()
        self._check_ports()

    @property
    def has_chief(self) -> bool:
        """Whether the job has a task of type chief."""
        return self.chief or self.ps > 0

    @property
    def most_restarts(self) -> int | None:
        """How often tasks are started again; None for as often as it takes."""
        if self.max_restarts is None and self.elastic is None:
            return 0
        return self.max_restarts

    @property
    def num_tasks(self) -> int:
        """Tasks of the whole job."""
        return self.workers + self.ps + int(self.has_chief)

    def _check_restart_window(self) -> None:
        window = self.restart_window_seconds
        if window is None:
            return
        if not 0 < window < math.inf:
            raise LaunchError(
                f"restart_window must be a number of seconds above 0. Received: restart_window={window}. "
                f"Write for example --restart_window=3600."
            )
        if not self.max_restarts:
            raise LaunchError(
                f"restart_window says which restarts count, so there must be some. Received: "
                f"restart_window={window:g}, max_restarts={self.max_restarts}. Add for example --max_restarts=3."
            )

    def _check_elastic(self) -> None:
        if self.elastic is None:
            return
        others = {"workers": 1, "ps": 0, "chief": False, "data_workers": 0, "nnodes": 1, "node_addresses": ()}
        for name, default in others.items():
            if getattr(self, name) != default:
                raise LaunchError(
                    f"An elastic job has workers only, on the hosts of its list. Received: {name}="
                    f"{getattr(self, name)!r} with min_workers={self.elastic.min_workers}. Leave --{name} out."
                )

    def _check_mpi(self) -> None:
        if self.mpiexec and not self.mpi:
            raise LaunchError(f"mpiexec starts MPI ranks. Received: mpiexec={self.mpiexec!r} without mpi. Add --mpi.")
        if not self.mpi:
            return
        if self.ps:
            raise LaunchError(
                f"Parameter servers talk gRPC. Received: ps={self.ps} with mpi. Leave out --mpi, or --ps for a job "
                "whose workers share gradients."
            )
        if self.nnodes > 1 or self.elastic is not None:
            raise LaunchError(
                "--mpi is for the tasks of one machine. Received: several machines. Start the script itself by the "
                "mpiexec of the site, which knows them: mpiexec -n 8 -hosts host0,host1 python train.py"
            )

    def _check_nodes(self) -> None:
        if not 0 <= self.node_rank < self.nnodes:
            raise LaunchError(
                f"A node's rank must be from 0 to nnodes - 1. Received: node_rank="
                f"{self.node_rank}, nnodes={self.nnodes}. Give each machine its own --node_rank."
            )
        if self.nnodes > 1 and len(self.node_addresses) != self.nnodes:
            raise LaunchError(
                f"Each node needs an address. Received: nnodes={self.nnodes}, node_addresses="
                f"{','.join(self.node_addresses)!r}. List {self.nnodes} hosts: "
                f"--node_addresses=host0,host1,... (the same list on each machine)."
            )
        if len(set(self.node_addresses)) < len(self.node_addresses):
            raise LaunchError(
                f"Each node must have an address of its own. Received: node_addresses="
                f"{','.join(self.node_addresses)!r}. List each machine once."
            )
        if self.nnodes > self.num_tasks:
            raise LaunchError(
                f"Each node must run a task. Received: nnodes={self.nnodes} for {self.num_tasks} "
                f"task(s). --workers counts the workers of the whole job: raise it."
            )

    def _check_ports(self) -> None:
        if self.port_base is None:
            return
        num_tasks = self.num_tasks if self.elastic is None else self.elastic.max_workers
        last = _MAX_PORT - num_tasks + 1
        if not 1 <= self.port_base <= last:
            raise LaunchError(
                f"The port range must lie in 1 to {_MAX_PORT}. Received: port_base="
                f"{self.port_base}. Use for example --port_base={DEFAULT_PORT_BASE}."
            )


def _at_least(name: str, value: int, least: int, remedy: str) -> None:
    if value < least:
        raise LaunchError(f"{name} must be at least {least}. Received: {name}={value}. {remedy}")
