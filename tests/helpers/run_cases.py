"""`python -m tests.helpers.run_cases SETUP OUTPUT_DIRECTORY [--stock] [CASE ...]`: run cases and keep what they return.

Each task writes OUTPUT_DIRECTORY/RANK.pickle: {case: {"values": …} or {"error": traceback, "type": name}}. A collective
that failed takes the process' communication with it, so nothing runs after an error under a strategy; with --stock,
where most errors come before the first collective, the next case is tried.
"""

from __future__ import annotations

import pickle
import sys
import traceback
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tests.helpers.cases import all_cases, runs_in
from tests.helpers.setups import Setup
from tfdist.cluster import resolve

#: What an error says that leaves the process unfit for more.
POISON = ("aborted", "Collective", "collective", "Unavailable")


def main(arguments: list[str]) -> None:
    """Run the cases that are named, or all."""
    stock = "--stock" in arguments
    name, folder, *chosen = [a for a in arguments if a != "--stock"]
    setup = Setup.named(name, stock=stock)
    rank = resolve().worker_index or 0
    output = Path(folder) / f"{rank}.pickle"
    results: dict[str, Any] = {}
    for case in all_cases().values():
        if (chosen and case.name not in chosen) or not runs_in(case, name):
            continue
        results[case.name] = _run(case, setup)
        output.write_bytes(pickle.dumps(results))
        error = results[case.name].get("error", "")
        print(case.name, "error" if error else "done", error, flush=True)
        # There are no collectives, or none that an error could take along.
        goes_on = name in ("one_device", "parameter_server") or name.startswith("hybrid")
        if error and not goes_on and (not stock or any(word in error for word in POISON)):
            break
        keras.backend.clear_session()


def _run(case: Any, setup: Setup) -> dict[str, Any]:
    try:
        return {"values": {key: np.asarray(value) for key, value in case.run(setup).items()}}
    except Exception as error:
        return {"error": traceback.format_exc(), "type": type(error).__name__}


if __name__ == "__main__":
    main(sys.argv[1:])
