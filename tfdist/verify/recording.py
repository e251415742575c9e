"""Reads what `child/recorder.py` wrote."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Record:
    """One line of a recording, and its arrays.

    Args:
        kind: "begin", "step" or "epoch".
        step: optimizer steps done by then.
        fit: which `fit` of the script it belongs to, from 0.
        logs: what the step or epoch returned.
        rows: rows of each batch that this worker's replica trained on since the last record.
        checksums: CRC-32 of each variable.
        arrays: file with the variables and rows; None for records without.
    """

    kind: str
    step: int
    fit: int = 0
    logs: Mapping[str, float | list[float]] = field(default_factory=dict)
    rows: tuple[int, ...] = ()
    checksums: tuple[int, ...] = ()
    arrays: Path | None = None

    def variables(self) -> list[np.ndarray]:
        """Values, or sketches of large ones, in float64 where they were."""
        return self._numbered("variable")

    def slots(self) -> list[np.ndarray]:
        """The optimizer's variables; of the first step only."""
        return self._numbered("slot")

    def row_numbers(self) -> np.ndarray:
        """A number for each row, in the order of training."""
        return self._load().get("rows", np.zeros([0], np.uint64))

    def _numbered(self, prefix: str) -> list[np.ndarray]:
        arrays = self._load()
        count = sum(name.startswith(prefix) for name in arrays)
        return [arrays[f"{prefix}{number}"] for number in range(count)]

    def _load(self) -> dict[str, np.ndarray]:
        if self.arrays is None:
            return {}
        with np.load(self.arrays) as file:
            return dict(file)


@dataclass(frozen=True)
class Recording:
    """What all workers of a run recorded.

    Args:
        workers: the records of each worker.
        facts: the facts of each.
    """

    workers: tuple[tuple[Record, ...], ...]
    facts: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, folder: Path) -> Recording:
        """The recording in a run's folder."""
        folders = sorted(folder.glob("worker-*"), key=lambda path: int(path.name.partition("-")[2]))
        return cls(tuple(_records(one) for one in folders), tuple(_facts(one) for one in folders))

    @property
    def records(self) -> tuple[Record, ...]:
        """Worker 0's, whose logs and variables stand for all."""
        return self.workers[0] if self.workers else ()

    @property
    def chief_facts(self) -> dict[str, Any]:
        """Worker 0's facts."""
        return self.facts[0] if self.facts else {}

    @functools.cached_property
    def steps(self) -> list[Record]:
        """Worker 0's records of training steps."""
        return [record for record in self.records if record.kind == "step"]

    def fit(self, number: int) -> dict[str, Any]:
        """The facts of a `fit`."""
        return self.chief_facts["fits"][number]

    def rows_of(self, position: int) -> list[np.ndarray]:
        """What each worker's replica trained on in the record at this position."""
        return [records[position].row_numbers() for records in self.workers]


def _records(folder: Path) -> tuple[Record, ...]:
    path = folder / "records.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return tuple(_record(json.loads(line), folder / f"{number:05d}.npz") for number, line in enumerate(lines))


def _record(line: dict[str, Any], arrays: Path) -> Record:
    return Record(
        kind=line["kind"],
        step=line["step"],
        fit=line["fit"],
        logs=line["logs"],
        rows=tuple(line["rows"]),
        checksums=tuple(line["checksums"]),
        arrays=arrays if arrays.exists() else None,
    )


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / "facts.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"fits": []}
