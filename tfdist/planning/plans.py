"""Which way to train suits a workload and its machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tfdist.planning.machines import Machines
from tfdist.planning.methods import CostModel, Failures, Prediction
from tfdist.planning.workload import Workload

#: By which another method must be faster to be worth weights that differ from those of one device.
WORTH_IT = 1.1
_WHY_EXACT = "the weights are those of one device, and nothing else is much faster"
_EVERY = 16
#: Weight, gradient and two moments in float32, for each byte of a gradient.
_STATE = 4.0


@dataclass(frozen=True)
class Plan:
    """What there is to choose from.

    Args:
        predictions: of all methods.
        best: the one to take.
        reason: why.
    """

    predictions: tuple[Prediction, ...]
    best: Prediction
    reason: str


def plan(
    workload: Workload,
    machines: Machines,
    *,
    failures: Failures | None = None,
    servers: int | None = None,
    device_bytes: float | None = None,
) -> Plan:
    """Compare all methods, and choose.

    Args:
        workload: a step of one replica.
        machines: where it runs.
        failures: what they cost.
        servers: parameter servers; a quarter of the hosts if None.
        device_bytes: memory of a device for parameters, gradients and slots; None if all methods fit.

    Raises:
        ValueError: not even split over all devices does the model fit.
    """
    model = CostModel(workload, machines, failures)
    state = workload.gradient_bytes * _STATE
    if device_bytes is not None and state > device_bytes * machines.devices:
        raise ValueError(
            f"Expected: parameters, gradients and Adam's moments that fit on {machines.devices} devices together. "
            f"Received: {state / 1e9:.4g} GB, and {device_bytes * machines.devices / 1e9:.4g} GB of memory. Use more "
            "devices or a smaller model."
        )
    synchronous = model.synchronous()
    if machines.devices == 1:
        return Plan((synchronous,), synchronous, _WHY_EXACT)
    sharded, others = model.sharded(), [model.local_sgd(_EVERY)]
    if machines.hosts > 1:
        others.append(model.parameter_server(servers or _servers_of(machines.hosts)))
    if device_bytes is not None and state > device_bytes:
        reason = (
            f"{state / 1e9:.4g} GB of parameters, gradients and Adam's moments don't fit on one device of "
            f"{device_bytes / 1e9:.4g} GB, and on {machines.devices} they do"
        )
        replicated = [replace(one, remark="does not fit on a device") for one in (synchronous, *others)]
        return Plan((sharded, *replicated), sharded, reason)
    best, reason = synchronous, _WHY_EXACT
    for other in others:
        if other.efficiency > WORTH_IT * best.efficiency:
            gain = other.efficiency / synchronous.efficiency
            best, reason = other, f"{gain:.1f} times as fast as all-reduce; {other.remark}"
    return Plan((synchronous, sharded, *others), best, reason)


def _servers_of(hosts: int) -> int:
    """A quarter as many."""
    return max(1, hosts // 4)


def scaling(
    workload: Workload, machines: Machines, hosts: Sequence[int], failures: Failures | None = None
) -> dict[str, list[float]]:
    """Efficiency of each method for each of these numbers of hosts."""
    found: dict[str, list[float]] = {}
    for count in hosts:
        model = CostModel(workload, replace(machines, hosts=count), failures)
        each = [model.synchronous(), model.sharded(), model.local_sgd(_EVERY)]
        for prediction in each:
            found.setdefault(prediction.method, []).append(prediction.efficiency)
        found.setdefault("parameter servers", []).append(model.parameter_server(_servers_of(count)).efficiency)
    return found
