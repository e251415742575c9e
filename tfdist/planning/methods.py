"""What a step costs under each way to train."""

from __future__ import annotations

from dataclasses import dataclass

from tfdist.planning.collectives import all_gather_seconds, all_reduce_seconds, exposed_seconds, sent_bytes
from tfdist.planning.delays import useful_share, waiting_seconds
from tfdist.planning.machines import Machines
from tfdist.planning.workload import Workload


@dataclass(frozen=True)
class Failures:
    """What a failure costs.

    Args:
        checkpoint_seconds: that training waits for each checkpoint.
        restart_seconds: from a failure until training goes on.
    """

    checkpoint_seconds: float = 1.0
    restart_seconds: float = 120.0


@dataclass(frozen=True)
class Prediction:
    """A step in the mean.

    Args:
        method: the way to train.
        strategy: of tfdist, that does so.
        compute_seconds: of one device alone.
        communication_seconds: that no computing hides.
        waiting_seconds: for the slowest.
        useful: share of the time that failures leave.
        sent_bytes: by a host over the network.
        remark: what training by this method is not.
    """

    method: str
    strategy: str
    compute_seconds: float
    communication_seconds: float
    waiting_seconds: float
    useful: float
    sent_bytes: float
    remark: str = ""

    @property
    def step_seconds(self) -> float:
        """All of it, failures too."""
        busy = self.compute_seconds + self.communication_seconds + self.waiting_seconds
        return busy / self.useful if self.useful else float("inf")

    @property
    def efficiency(self) -> float:
        """Examples a second, as a share of what so many single devices would make."""
        return self.compute_seconds / self.step_seconds

    @property
    def bottleneck(self) -> str:
        """What takes most of what is lost."""
        lost = {
            "network": self.communication_seconds,
            "stragglers": self.waiting_seconds,
            "failures": self.step_seconds * (1 - self.useful),
        }
        worst = max(lost, key=lambda name: lost[name])
        return worst if lost[worst] > 0.01 * self.compute_seconds else "none"


class CostModel:
    """Predicts each method for one workload on one set of machines.

    Args:
        workload: a step of one replica.
        machines: where it runs.
        failures: what they cost.
    """

    def __init__(self, workload: Workload, machines: Machines, failures: Failures | None = None) -> None:
        self.workload, self.machines = workload, machines
        failures = failures or Failures()
        self._useful = useful_share(
            machines.seconds_between_job_failures(), failures.checkpoint_seconds, failures.restart_seconds
        )
        # Without collectives the others go on while one worker is started again, and nothing is made twice.
        self._useful_alone = 1 / (1 + failures.restart_seconds / machines.seconds_between_failures)

    def _waiting(self, every: int = 1) -> float:
        machines = self.machines
        return waiting_seconds(self.workload.compute_seconds, machines.variation, machines.devices, every)

    def synchronous(self, *, overlap: bool = True, wire_share: float = 1.0, micro_batches: int = 1) -> Prediction:
        """All-reduce of gradients in each step.

        Args:
            overlap: whether buckets are exchanged while the backward pass goes on.
            wire_share: bytes on the wire for each of a gradient: 0.5 for bfloat16.
            micro_batches: added up before an exchange.
        """
        work = self.workload

        def cost(size: float) -> float:
            return all_reduce_seconds(size * wire_share, self.machines)

        buckets = list(work.buckets())
        after = exposed_seconds(buckets, cost) if overlap else sum(cost(size) for _, size in buckets)
        name = "all-reduce" + (", bfloat16" if wire_share == 0.5 else "")
        remark = "weights are rounded on the wire" if wire_share < 1 else ""
        if micro_batches > 1:
            name, remark = f"{name}, {micro_batches} micro-batches", f"a batch {micro_batches} times as large"
        sent = sent_bytes(work.gradient_bytes * wire_share, self.machines) / micro_batches
        strategy = "MultiWorkerMirroredStrategy" if self.machines.hosts > 1 else "MirroredStrategy"
        # Of each micro-batch, gradients exchanged or not.
        small = work.small_exchanges * all_reduce_seconds(0.0, self.machines)
        waiting, after = self._waiting(micro_batches), after / micro_batches + small
        return Prediction(name, strategy, work.compute_seconds, after, waiting, self._useful, sent, remark)

    def sharded(self) -> Prediction:
        """FSDP: parameters gathered in the forward and in the backward pass, gradients reduce-scattered (ZeRO 3)."""
        work, forward = self.workload, self.workload.compute_seconds * (1 - self.workload.backward_share)
        buckets = list(work.buckets())

        def cost(size: float) -> float:
            return all_gather_seconds(size, self.machines)

        first = max(0.0, sum(cost(size) for _, size in buckets) - forward)
        after = exposed_seconds(buckets, lambda size: 2 * cost(size))
        sent = 1.5 * sent_bytes(work.gradient_bytes, self.machines)
        return Prediction(
            *("FSDP", "HybridParallelStrategy", work.compute_seconds, first + after),
            *(self._waiting(), self._useful, sent),
        )

    def local_sgd(self, every: int) -> Prediction:
        """Weights are averaged every so many steps, behind the step."""
        work = self.workload
        average = all_reduce_seconds(work.gradient_bytes, self.machines) / every
        sent = sent_bytes(work.gradient_bytes, self.machines) / every
        return Prediction(
            *(f"local SGD, every {every} steps", "LocalSGDStrategy", work.compute_seconds, average),
            *(self._waiting(every), self._useful, sent, "replicas differ between averagings"),
        )

    def parameter_server(self, servers: int) -> Prediction:
        """Every host by itself gets all parameters and sends all gradients, in equal parts from and to the servers.

        Args:
            servers: machines of their own with the same network.
        """
        work, link = self.workload, self.machines.network
        own = 2 * (link.latency_seconds + work.gradient_bytes / link.bytes_per_second)
        inside = all_reduce_seconds(work.gradient_bytes, alone(self.machines))
        # Both directions of a server's link are used at once, by different workers.
        busy = self.machines.hosts * work.gradient_bytes / servers / link.bytes_per_second
        communication = max(own + inside, busy - work.compute_seconds)
        waiting = waiting_seconds(work.compute_seconds, self.machines.variation, self.machines.devices_per_host)
        return Prediction(
            *(f"{servers} parameter server{'s' * (servers > 1)}", "ParameterServerStrategy", work.compute_seconds),
            *(communication, waiting, self._useful_alone, work.gradient_bytes),
            f"gradients are {self.machines.hosts - 1} steps old" if self.machines.hosts > 1 else "",
        )


def alone(machines: Machines) -> Machines:
    """One of the hosts."""
    return Machines(1, machines.devices_per_host, machines.network, machines.local, machines.variation)
