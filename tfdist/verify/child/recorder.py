"""Writes a recording: what a run did, a step at a time.

    FOLDER/worker-R/records.jsonl   one line a record
    FOLDER/worker-R/00007.npz       the arrays of record 7: the variables, and the rows that were trained on
    FOLDER/worker-R/facts.json      what is known of the run, its models and its script

Kinds of records: "begin" (a `fit` begins: the weights before its first step), "step" (after a training step, or after
the `steps_per_execution` steps of one execution: logs, weights, rows), "epoch" (the epoch's logs, validation included).
Only worker 0 keeps values of variables; the others keep checksums, since all must hold the same bits.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfdist.verify.child.sketch import keep


class Recorder:
    """The recording of one task.

    Args:
        folder: the run's folder.
        worker: this task's index.

    Attributes:
        facts: what is written to facts.json.
        steps: optimizer steps recorded so far.
    """

    def __init__(self, folder: Path, worker: int) -> None:
        self.facts: dict[str, Any] = {"fits": []}
        self.steps = 0
        self._folder = folder / f"worker-{worker}"
        self._folder.mkdir(parents=True)
        self._worker = worker
        self._records = 0
        self._rows: list[np.ndarray] = []

    def take_rows(self, numbers: np.ndarray) -> None:
        """Rows that this replica trains on; kept until the step is recorded."""
        self._rows.append(numbers)

    def begin(self, variables: Sequence[np.ndarray], facts: Mapping[str, Any]) -> None:
        """A `fit` begins."""
        self.facts["fits"].append(dict(facts))
        self._write("begin", {}, variables)
        self.write_facts()

    def step(
        self, steps: int, logs: Mapping[str, Any], variables: Sequence[np.ndarray], slots: Sequence[np.ndarray]
    ) -> None:
        """`steps` training steps are done.

        Args:
            steps: how many.
            logs: what the last returned.
            variables: the model's.
            slots: the optimizer's; kept for the first step only, in which they show the first gradient.
        """
        self.steps += steps
        is_first = self.steps == steps
        self._write("step", logs, variables, slots if is_first else ())

    def complete(self, variables: Sequence[Mapping[str, Any]]) -> None:
        """Describe the variables of a model that its first step has built."""
        if len(self.facts["fits"][-1]["variables"]) != len(variables):
            self.facts["fits"][-1]["variables"] = list(variables)
            self.write_facts()

    def epoch(self, logs: Mapping[str, Any]) -> None:
        """An epoch has ended."""
        self._write("epoch", logs, ())

    def write_facts(self) -> None:
        """Write what is known by now; whoever reads it meanwhile gets the old or the new file, whole."""
        path = self._folder / "facts.json"
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(self.facts, indent=1, default=str), encoding="utf-8")
        os.replace(draft, path)

    def _write(
        self, kind: str, logs: Mapping[str, Any], variables: Sequence[np.ndarray], slots: Sequence[np.ndarray] = ()
    ) -> None:
        arrays: dict[str, Any] = {"rows": np.concatenate([*self._rows, np.zeros([0], np.uint64)])}
        if self._worker == 0:
            arrays |= {f"variable{i}": keep(value) for i, value in enumerate(variables)}
            arrays |= {f"slot{i}": keep(slot) for i, slot in enumerate(slots)}
        np.savez(self._folder / f"{self._records:05d}.npz", **arrays)
        line = {
            "kind": kind,
            "step": self.steps,
            "fit": len(self.facts["fits"]) - 1,
            "logs": {name: _number(value) for name, value in logs.items()},
            "rows": [len(rows) for rows in self._rows],
            "checksums": [zlib.crc32(value.tobytes()) for value in variables],
        }
        with (self._folder / "records.jsonl").open("a", encoding="utf-8") as records:
            records.write(json.dumps(line) + "\n")
        self._records += 1
        self._rows = []


def _number(value: Any) -> float | list[float]:
    array = np.asarray(value, np.float64)
    return float(array) if array.ndim == 0 else [float(one) for one in array.ravel()]
