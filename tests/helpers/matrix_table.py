"""docs/matrix.md from test results: what tfdist reaches, and stock TensorFlow's result beside it.

TFDIST_MATRIX=all TFDIST_MATRIX_REPORT=build/matrix.jsonl python -m pytest tests/strategies/test_matrix.py
python -m tests.helpers.matrix_table stock build/stock.jsonl        # the same cases under stock tf.distribute
python -m tests.helpers.matrix_table write build/matrix.jsonl build/stock.jsonl docs/matrix.md
"""

from __future__ import annotations

import json
import pickle
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.cases import Case, all_cases
from tests.helpers.cluster_runner import ClusterFailed, run_python
from tests.helpers.matrix import difference_of, results
from tests.helpers.setups import WORKERS

COLUMNS = ["mirrored2", "mirrored3", "stock mirrored2", "workers2", "workers3", "stock workers2"]
COLUMNS += ["parameter_server", "parameter_server2"]
ACCUMULATION_COLUMNS = ["no_strategy", "one_device_strategy", "mirrored2", "mirrored3", "workers2", *COLUMNS[-2:]]
STOCK_SETUPS = ("mirrored2", "workers2")
HEAD = """# What equals one device, and how nearly

Each row is a case of `tests/helpers/cases/`, each cell the largest difference from one device on the same global
batches, over weights, History, evaluate and predict: absolute, or relative where the value is above 1. All workers
returned the same bits in every cell. `mirrored`: MirroredStrategy on 2 and 3 logical CPUs; `workers`:
MultiWorkerMirroredStrategy with 2 and 3 processes; `parameter_server`: ParameterServerStrategy with a worker, 2 ps and
`max_in_flight=1`, since asynchronous steps equal nothing; `parameter_server2`: the same with two replicas a worker,
for the cases in which they have to do with each other. `stock`: the same code under tf.distribute's own strategy; an
error is named by its type. The tolerance that the test enforces is 1e-5 where nothing else is said, 1e-6 for
accumulation, where one device trained on whole batches and the others on their micro-batches: `no_strategy` is
`tfdist.gradients.accumulate`, `one_device_strategy` is OneDeviceStrategy. Keras' own accumulation fails under stock
MirroredStrategy, so there is nothing to put beside it.

TensorFlow {tensorflow}, Keras {keras}, CPU. Made by `python -m tests.helpers.matrix_table`; see that file.

"""


def run_stock(output: Path) -> None:
    """Run all cases under stock strategies; a process that died or hung is followed by one for the rest."""
    with output.open("w") as report:
        for setup in STOCK_SETUPS:
            left = [case.name for case in all_cases().values() if case.group != "accumulation"]
            while left:
                found = _stock_results(setup, left) or {left[0]: {"error": "", "type": "ended or hung"}}
                for name, outcome in found.items():
                    left.remove(name)
                    row = {"setup": setup, "case": name, "stock": _stock_cell(all_cases()[name], outcome)}
                    print(row, flush=True)
                    report.write(json.dumps(row) + "\n")


def _stock_results(setup: str, names: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-m", "tests.helpers.run_cases", setup, folder, "--stock", *names]
        try:
            run_python(arguments, workers=WORKERS[setup], logs=Path(folder) / "logs", timeout_seconds=90)
        except ClusterFailed as failure:
            print(str(failure)[-300:])
        written = Path(folder) / "0.pickle"
        return pickle.loads(written.read_bytes()) if written.exists() else {}


def _stock_cell(case: Case, outcome: dict[str, Any]) -> str:
    if "error" in outcome:
        return outcome["type"]
    expected = results("one_device")[0][case.name]["values"]
    try:
        worst = max(difference_of(name, outcome["values"][name], expected[name]) for name in expected)
    except (AssertionError, KeyError):
        return "other shapes"
    return f"{worst:.0e}" if np.isfinite(worst) else "NaN"


def write_table(matrix: Path, stock: Path, output: Path) -> None:
    """Write the table."""
    from importlib.metadata import version

    cells = {(row["setup"], row["case"]): f"{row['difference']:.0e}" for row in _rows(matrix)}
    cells |= {(f"stock {row['setup']}", row["case"]): row["stock"] for row in _rows(stock)}
    text = [HEAD.format(tensorflow=version("tensorflow"), keras=version("keras"))]
    group = ""
    for case in all_cases().values():
        if case.group != group:
            group = case.group
            columns = COLUMNS if group != "accumulation" else ACCUMULATION_COLUMNS
            text += [f"\n## {group.replace('_', ' ').capitalize()}\n"]
            text += [f"| case | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        values = " | ".join(cells.get((column, case.name), "") for column in columns)
        looser = f" (tolerance {case.tolerance:.0e}: {case.why})" if case.why else ""
        text.append(f"| {case.name.replace('_', ' ')}{looser} | {values} |")
    output.write_text("\n".join(text) + "\n")


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    if sys.argv[1] == "stock":
        run_stock(Path(sys.argv[2]))
    else:
        write_table(*map(Path, sys.argv[2:5]))
