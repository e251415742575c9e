"""Says which way to train suits a model and its machines, before the machines are there.

    tfdist plan --params=1.2e9 --hosts=64 --gpus_per_host=8 --bandwidth=100Gbit
    tfdist plan --params=25.6e6 --compute=146ms --hosts=32 --gpus_per_host=8 --bandwidth=50Gbit --plot=plan.png

Predicts a step of synchronous training, FSDP, local SGD and parameter servers, with what it sends, what
machines of uneven speed cost (--variation) and what failures cost (--failures).
Efficiency is examples a second as a share of what as many single devices would make.

--compute is the time of a step on one device, measured. Without it, it is estimated: six floating-point
operations for each parameter and example (a token, for language models), at 40% of --device_flops.

Exit code: 0, 1 if the model fits nowhere, 2 if an option is wrong.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from absl import flags

from tfdist.cli.flags import UsageError, parse
from tfdist.errors import TfdistError
from tfdist.planning import WIRE_SHARE, Failures, Link, Machines, Workload, plan, quantities, scaling
from tfdist.planning.report import json_of, plot, text_of

USAGE = "tfdist plan --params=N --hosts=N --bandwidth=RATE [options]"
_EXAMPLE = "tfdist plan --params=1.2e9 --hosts=64 --gpus_per_host=8 --bandwidth=100Gbit"
T = TypeVar("T")

_FLOP_PER_PARAMETER = 6  # forward 2, backward 4; Kaplan et al., "Scaling laws", 2020
_DEVICE_SHARE = 0.4
_MOST_HOSTS = 10_000
#: Of a step of `fit` under tfdist: the divisor of the loss, and what the logs have.
_SMALL_EXCHANGES = 2


def define_flags() -> flags.FlagValues:
    """Returns the options of this command."""
    v = flags.FlagValues()
    flags.DEFINE_string("params", None, "Trainable parameters: 1.2e9, 25.6M.", flag_values=v)
    flags.DEFINE_integer("hosts", None, "Machines.", lower_bound=1, upper_bound=_MOST_HOSTS, flag_values=v)
    flags.DEFINE_integer("gpus_per_host", 1, "Devices of each.", lower_bound=1, upper_bound=1024, flag_values=v)
    flags.DEFINE_string("bandwidth", None, "Of a host's network, each way: 100Gbit.", flag_values=v)
    flags.DEFINE_string("latency", "25us", "Of a message between hosts.", flag_values=v)
    flags.DEFINE_string("local_bandwidth", "100GB", "Between devices of a host, each way.", flag_values=v)
    flags.DEFINE_string("compute", None, "Time of a step on one device.", flag_values=v)
    flags.DEFINE_string("examples", "8192", "Of a device's batch (tokens), where there's no --compute.", flag_values=v)
    flags.DEFINE_string("device_flops", "300T", "Peak of a device, where there's no --compute.", flag_values=v)
    flags.DEFINE_string("device_memory", None, "Of a device: 80GB; what doesn't fit is split.", flag_values=v)
    flags.DEFINE_float("bytes_per_param", 4.0, "Of a gradient on the wire.", lower_bound=0.01, flag_values=v)
    flags.DEFINE_integer("servers", None, "Parameter servers; a quarter of the hosts.", lower_bound=1, flag_values=v)
    flags.DEFINE_float(
        "variation", 0.02, "Of a step's time, standard deviation to mean.", lower_bound=0.0, flag_values=v
    )
    flags.DEFINE_string("failures", None, "Mean time between failures of a host: 1000h.", flag_values=v)
    flags.DEFINE_string("checkpoint", "1s", "That a step waits for a checkpoint.", flag_values=v)
    flags.DEFINE_string("restart", "2min", "From a failure until training goes on.", flag_values=v)
    flags.DEFINE_string("json", None, "Write all numbers to this file.", flag_values=v)
    flags.DEFINE_string("plot", None, "Draw efficiency over hosts into this file (PNG).", flag_values=v)
    return v


def run(argv: list[str]) -> int:
    """Carries the command out; returns its exit code."""
    values = define_flags()
    rest = parse(values, "plan", argv, options_anywhere=True)
    if rest:
        raise UsageError(f"tfdist plan takes options only. Received: {' '.join(rest)}.")
    for name in ("params", "hosts", "bandwidth"):
        if getattr(values, name) is None:
            raise UsageError(f"--{name} must be given. Write for example: {_EXAMPLE}")
    workload, machines = _workload(values), _machines(values)
    failures = Failures(_read(values, "checkpoint", quantities.seconds), _read(values, "restart", quantities.seconds))
    memory = _read(values, "device_memory", quantities.bytes_of) if values.device_memory else None
    try:
        found = plan(workload, machines, failures=failures, servers=values.servers, device_bytes=memory)
    except ValueError as error:
        raise TfdistError(str(error)) from error
    print(_heading(values, workload, machines))
    print(text_of(found))
    if values.json:
        _write(Path(values.json), json.dumps(json_of(found), indent=2) + "\n")
    if values.plot:
        hosts = [2**power for power in range(_MOST_HOSTS.bit_length()) if 2**power <= max(16, 4 * machines.hosts)]
        plot(Path(values.plot), hosts, scaling(workload, machines, hosts, failures))
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise UsageError(f"--json: Expected: a file to write to. Received: {path}: {error.strerror}.") from error


def _workload(values: flags.FlagValues) -> Workload:
    count = _read(values, "params", quantities.number)
    if values.compute is not None:
        compute = _read(values, "compute", quantities.seconds)
    else:
        operations = _FLOP_PER_PARAMETER * count * _read(values, "examples", quantities.number)
        compute = operations / _read(values, "device_flops", quantities.number) / _DEVICE_SHARE
    workload = Workload.of_parameters(count, compute, bytes_each=values.bytes_per_param)
    return dataclasses.replace(workload, small_exchanges=_SMALL_EXCHANGES)


def _machines(values: flags.FlagValues) -> Machines:
    network = Link(
        _read(values, "bandwidth", quantities.rate) * WIRE_SHARE, _read(values, "latency", quantities.seconds)
    )
    local = Link(_read(values, "local_bandwidth", quantities.rate), 5e-6)
    between = _read(values, "failures", quantities.seconds) if values.failures else float("inf")
    return Machines(values.hosts, values.gpus_per_host, network, local, values.variation, between)


def _read(values: flags.FlagValues, name: str, understand: Callable[[str], T]) -> T:
    try:
        return understand(getattr(values, name))
    except quantities.QuantityError as error:
        raise UsageError(f"--{name}: {error}") from error


def _heading(values: flags.FlagValues, workload: Workload, machines: Machines) -> str:
    source = "measured" if values.compute is not None else "estimated; --compute has a measured one"
    return (
        f"{machines.devices} devices on {machines.hosts} hosts; a step on one device: "
        f"{quantities.in_seconds(workload.compute_seconds)} ({source}); gradients: "
        f"{quantities.in_bytes(workload.gradient_bytes)}; {WIRE_SHARE:.0%} of the wire is used.\n"
    )
