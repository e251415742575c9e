"""Which way to train suits a workload and its machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tfdist.planning.machines import Machines
from tfdist.planning.methods import CostModel, Failures, Prediction
from tfdist.planning.workload import Workload

#: By which another method must be faster to be worth weights that differ from those of one device.
WORTH_IT = 1.1
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
    exact = [model.synchronous(), model.sharded()]
    if machines.devices == 1:
        exact = exact[:1]
    others = [model.local_sgd(_EVERY)]
    others += [model.parameter_server(servers or max(1, machines.hosts // 4))] if machines.hosts > 1 else []
    if device_bytes is not None and state > device_bytes:
        reason = (
            f"{state / 1e9:.4g} GB of parameters, gradients and Adam's moments don't fit on one device of "
            f"{device_bytes / 1e9:.4g} GB, and on {machines.devices} they do"
        )
        replicated = [replace(one, remark="does not fit on a device") for one in (exact[0], *others)]
        return Plan((exact[-1], *replicated), exact[-1], reason)
    candidates = exact[:1] + (others if machines.devices > 1 else [])
    best, reason = exact[0], "the weights are those of one device, and nothing else is much faster"
    for other in candidates[1:]:
        if other.efficiency > WORTH_IT * best.efficiency:
            gain = other.efficiency / exact[0].efficiency
            best, reason = other, f"{gain:.1f} times as fast as all-reduce; {other.remark}"
    return Plan((*exact, *(others if machines.devices > 1 else [])), best, reason)


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
        found.setdefault("parameter servers", []).append(model.parameter_server(max(1, count // 4)).efficiency)
    return found
