"""`python -m tests.helpers.run_cases SETUP OUTPUT_DIRECTORY [--stock] [CASE ...]`: run cases and keep what they return.

Each task writes OUTPUT_DIRECTORY/RANK.pickle: {case: {"values": …} or {"error": traceback}}. A collective that failed
takes the process' communication with it, so nothing runs after an error on several workers.
"""

from __future__ import annotations

import pickle
import sys
import traceback
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tests.helpers.cases import all_cases
from tests.helpers.setups import Setup


def main(arguments: list[str]) -> None:
    """Run the cases that are named, or all."""
    stock = "--stock" in arguments
    name, output, *chosen = [a for a in arguments if a != "--stock"]
    setup = Setup.named(name, stock=stock)
    results: dict[str, Any] = {}
    for case in all_cases().values():
        if chosen and case.name not in chosen:
            continue
        results[case.name] = _run(case, setup)
        print(case.name, "error" if "error" in results[case.name] else "done", flush=True)
        if "error" in results[case.name] and name != "one_device":
            print(results[case.name]["error"], flush=True)
            break
        keras.backend.clear_session()
    rank = getattr(setup.strategy, "worker_index", 0)
    (Path(output) / f"{rank}.pickle").write_bytes(pickle.dumps(results))


def _run(case: Any, setup: Setup) -> dict[str, Any]:
    try:
        return {"values": {key: np.asarray(value) for key, value in case.run(setup).items()}}
    except Exception:
        return {"error": traceback.format_exc()}


if __name__ == "__main__":
    main(sys.argv[1:])
