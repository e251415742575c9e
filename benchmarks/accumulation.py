"""What gradient accumulation saves on a slow link, costs on one device, and needs in memory.

    sudo .venv/bin/python benchmarks/accumulation.py [--only=link,device,memory] [--sessions=3] [--torch_python=PATH]

link: two workers, each on one core in a network namespace of its own, joined by 1 Gbit/s; time and bytes of an
optimizer step with K = 1, 4 and 16 against stock TensorFlow and torch. device: what a micro-batch costs on one device.
memory: bytes of the accumulators, and the largest memory of the process.

Everything that is compared runs alternately in the same session; medians are printed. Needs two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from accumulation_meter import Case, Plan
from limited_link import ADDRESSES, INTERFACE, Link, LinkFailed, limited_link

HERE = Path(__file__).parent
WORKERS = 2
PORT = 20_000
MEGABITS_PER_SECOND = 1000
#: Of an optimizer step where the micro-batches are what changes.
ROWS = 1024
#: Of a micro-batch where the optimizer step is what changes.
MICRO_ROWS = 64
STEPS = (1, 4, 16)
SIZES = [(ROWS // steps, steps) for steps in STEPS] + [(MICRO_ROWS, steps) for steps in STEPS[:2]]
#: What a cluster of each kind trains with.
ENGINES = {"tfdist": ("fit", "fit in executions", "loop"), "stock": ("stock",), "torch": ("torch",)}
SESSION_TIMEOUT_SECONDS = 600
#: Numbers by name of the case and of what they are.
Measured = dict[str, dict[str, list[float]]]


def cases_of(kind: str) -> list[Case]:
    """All cases of one cluster; stock TensorFlow has no accumulation, and an execution of one batch is `fit`."""
    least = {"fit in executions": 2}
    most = {"stock": 1}
    return [
        Case(engine, rows, steps)
        for engine in ENGINES[kind]
        for rows, steps in SIZES
        if least.get(engine, 1) <= steps <= most.get(engine, max(STEPS))
    ]


def environment(kind: str, end: int) -> dict[str, str]:
    """What a task finds; proxies would be asked for the way to the other worker."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    kept |= {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONUNBUFFERED": "1"}
    if kind == "torch":
        where = {"MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": str(PORT), "GLOO_SOCKET_IFNAME": INTERFACE}
        return {**kept, **where, "RANK": str(end), "WORLD_SIZE": str(WORKERS)}
    cluster = {"worker": [f"{address}:{PORT}" for address in ADDRESSES]}
    return {**kept, "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": end}})}


def measure_session(link: Link, kind: str, python: str, options: argparse.Namespace) -> Measured:
    """What the first worker saw in one cluster."""
    script = "accumulation_torch_task.py" if kind == "torch" else "accumulation_tf_task.py"
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        commands = []
        for end in range(WORKERS):
            plan, output = logs / f"plan-{end}.json", logs / f"results-{end}.json"
            Plan(cases_of(kind), options.optimizer_steps, options.rounds, INTERFACE, str(output)).write(plan)
            commands.append([python, str(HERE / script), str(plan)])
        environments = [environment(kind, end) for end in range(WORKERS)]
        link.run(commands, environments, logs, SESSION_TIMEOUT_SECONDS)
        return json.loads((logs / "results-0.json").read_text())


def measure_link(options: argparse.Namespace) -> None:
    """Print the tables of the link."""
    kinds = {"tfdist": sys.executable, "stock": sys.executable}
    if options.torch_python:
        kinds["torch"] = options.torch_python
    else:
        print("torch is left out: name a Python that has it with --torch_python=PATH")
    measured: Measured = {}
    with limited_link(MEGABITS_PER_SECOND) as link:
        for session in range(options.sessions):
            for kind, python in kinds.items():
                print(f"session {session + 1} of {options.sessions}: {kind}", file=sys.stderr, flush=True)
                for name, values in measure_session(link, kind, python, options).items():
                    kept = measured.setdefault(name, {key: [] for key in values})
                    for key, numbers in values.items():
                        kept[key] += numbers
    cases = sorted((case for kind in kinds for case in cases_of(kind)), key=lambda case: case.steps)
    same_rows = [case for case in cases if case.rows * case.steps == ROWS]
    same_micro_rows = [case for case in cases if case.rows == MICRO_ROWS]
    print_link_table(f"\n{ROWS:,} rows an optimizer step, cut into K micro-batches", measured, same_rows)
    print_link_table(f"\n{MICRO_ROWS} rows a micro-batch, K of them an optimizer step", measured, same_micro_rows)


def print_link_table(title: str, measured: Measured, cases: Sequence[Case]) -> None:
    """Microseconds for an example; communication is what is above the same work without another worker."""
    print(title)
    print("| engine | K x rows | us/example | to stock | communication | of K = 1 | MB/step | bytes/example |")
    print("|---|---|---|---|---|---|---|---|")
    stock = next(case for case in cases if case.engine == "stock")
    for case in cases:
        whole = next(one for one in cases if one.steps == 1 and case.engine.startswith(one.engine))
        rows = case.rows * case.steps
        size = statistics.median(measured[case.name]["bytes"])
        ratio = per_example(measured, case) / per_example(measured, stock)
        share = communication(measured, case) / communication(measured, whole)
        print(
            f"| {case.engine} | {case.steps} x {case.rows} | {per_example(measured, case):,.0f} | {ratio:.2f} "
            f"| {communication(measured, case):,.0f} | {share:.2f} | {size / 1e6:.1f} | {size / rows:,.0f} |"
        )


def per_example(measured: Measured, case: Case, key: str = "seconds") -> float:
    return 1e6 * statistics.median(measured[case.name][key]) / (case.rows * case.steps)


def communication(measured: Measured, case: Case) -> float:
    return per_example(measured, case) - per_example(measured, case, "alone_seconds")


def measure_in_a_process(script: str, *arguments: str) -> None:
    """Run a part of the benchmark on one core, in a process of its own, which prints its table."""
    core = str(max(os.sched_getaffinity(0)))
    pin = ["taskset", "-c", core] if shutil.which("taskset") else []
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [*pin, sys.executable, str(HERE / script), *arguments]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, timeout=SESSION_TIMEOUT_SECONDS, text=True)
    if done.returncode:
        raise LinkFailed(f"{script} exited with {done.returncode}:\n{done.stderr[-3000:]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="link,device,memory", help="parts, with commas between them")
    parser.add_argument("--sessions", type=int, default=3, help="clusters of each kind, alternately")
    parser.add_argument("--rounds", type=int, default=3, help="in each session")
    parser.add_argument("--optimizer_steps", type=int, default=6, help="of each case in each round")
    parser.add_argument("--torch_python", help="a Python that has torch, to compare with its no_sync")
    options = parser.parse_args()
    parts = options.only.split(",")
    try:
        if "link" in parts:
            measure_link(options)
    except LinkFailed as error:
        print(error, file=sys.stderr)
        return 1
    if "device" in parts:
        measure_in_a_process("accumulation_one_device.py")
    if "memory" in parts:
        measure_in_a_process("accumulation_memory.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
