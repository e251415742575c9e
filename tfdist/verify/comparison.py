"""Compares two recordings, record by record: data, logs, weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfdist.verify.recording import Record, Recording
from tfdist.verify.tolerance import SUDDEN, Tolerance, difference, is_sudden, largest


@dataclass(frozen=True)
class Difference:
    """One number that is not the same in both runs.

    Args:
        step: optimizer steps done by then; 0 is before the first.
        kind: "variable" or "log".
        name: a variable's path, or the log's name.
        absolute: the largest difference of an element.
        allowed: what it may be.
        scale: the largest expected value.
        moved: how far one device's training had moved the variable.
    """

    step: int
    kind: str
    name: str
    absolute: float
    allowed: float
    scale: float
    moved: float = 0.0

    @property
    def excess(self) -> float:
        """The difference in units of what is allowed; above 1 it is too large."""
        if self.absolute == 0.0:
            return 0.0
        return self.absolute / self.allowed if self.allowed else float("inf")


@dataclass(frozen=True)
class DataDifference:
    """The first record in which other rows were trained on.

    Args:
        step: optimizer steps done by then.
        expected: rows of the first run.
        received: rows of the second, over all replicas.
        common: rows that both have.
    """

    step: int
    expected: int
    received: int
    common: int


@dataclass
class Comparison:
    """What was found.

    Attributes:
        steps: optimizer steps compared.
        variables: number of variables compared.
        logs: names of the logs compared.
        structure: how the recordings differ in what they hold, in words; empty if they don't.
        data: the first record with other rows.
        first: the differences that are too large, in the first record that has any; the worst first.
        worst_variable: the largest difference of a variable, measured in what is allowed.
        worst_log: the same of a log.
        medians: for each training record, the median over variables of difference / move.
        excesses: for each, the largest difference of a variable in units of what is allowed.
        sudden: whether the first differences came at once.
        workers_apart: the first step after which workers don't hold the same bits; None if they do.
    """

    steps: int = 0
    variables: int = 0
    logs: set[str] = field(default_factory=set)
    structure: str = ""
    data: DataDifference | None = None
    first: list[Difference] = field(default_factory=list)
    worst_variable: Difference | None = None
    worst_log: Difference | None = None
    medians: list[float] = field(default_factory=list)
    excesses: list[float] = field(default_factory=list)
    sudden: bool = False
    workers_apart: int | None = None

    @property
    def is_equal(self) -> bool:
        """Whether both runs did the same, within the tolerance."""
        return not (self.structure or self.data or self.first or self.workers_apart)

    @property
    def is_certain(self) -> bool:
        """Whether a difference can't be rounding."""
        before_first_step = bool(self.first) and self.first[0].step == 0
        return bool(self.structure or self.data or self.workers_apart) or self.sudden or before_first_step


def compare(
    expected: Recording, received: Recording, tolerance: Tolerance, *, without: frozenset[str] = frozenset()
) -> Comparison:
    """Compare a run with the reference run.

    Args:
        expected: of one device.
        received: of all workers.
        tolerance: what they may differ by.
        without: names of logs that are not compared.
    """
    found = Comparison(workers_apart=_workers_apart(received))
    scales = _log_scales(expected)
    begins: list[np.ndarray] = []
    for position, (one, other) in enumerate(zip(expected.records, received.records, strict=False)):
        found.structure = _structure(one, other)
        if found.structure:
            break
        if one.kind == "begin":
            begins = one.variables()
        names = [variable["path"] for variable in expected.fit(one.fit)["variables"]]
        _compare_data(found, one, received.rows_of(position), position)
        logs = (log for log in _logs(one, other, scales, tolerance) if log.name not in without)
        differences = [*logs, *_variables(one, other, names, begins, tolerance)]
        _take(found, one, differences)
    if not found.structure and len(expected.records) != len(received.records):
        found.structure = _lengths(expected, received)
    return found


def _take(found: Comparison, record: Record, differences: list[Difference]) -> None:
    found.steps = record.step
    variables = [one for one in differences if one.kind == "variable"]
    logs = [one for one in differences if one.kind == "log"]
    found.logs |= {one.name for one in logs}
    found.variables = max(found.variables, len(variables))
    found.worst_variable = _worst([found.worst_variable, *variables])
    found.worst_log = _worst([found.worst_log, *logs])
    if record.kind == "step":
        found.medians.append(_median(variables))
        found.excesses.append(max((one.excess for one in variables), default=0.0))
    if not found.first:
        found.first = sorted((one for one in differences if one.excess > 1), key=lambda one: -one.excess)
        if found.first and record.kind == "step":
            position = len(found.medians) - 1
            found.sudden = is_sudden(found.medians, position) or (position == 0 and _other_loss(logs))


def _other_loss(logs: list[Difference]) -> bool:
    """Whether the first loss, which no update has touched, is off by what no rounding can make."""
    return any(one.name == "loss" and one.absolute > SUDDEN * one.scale for one in logs)


def _worst(differences: list[Difference | None]) -> Difference | None:
    return max((one for one in differences if one), key=lambda one: one.excess, default=None)


def _median(variables: list[Difference]) -> float:
    parts = [one.absolute / one.moved for one in variables if one.moved > 0]
    return float(np.median(parts)) if parts else 0.0


def _structure(one: Record, other: Record) -> str:
    if (one.kind, one.step, one.fit) == (other.kind, other.step, other.fit):
        return ""
    return f"one device records {_named(one)} where the other run records {_named(other)}"


def _named(record: Record) -> str:
    what = {"begin": "the begin of a fit", "step": "a training step", "epoch": "the end of an epoch"}[record.kind]
    return f"{what} after step {record.step}" if record.kind == "begin" else f"{what} at step {record.step}"


def _lengths(expected: Recording, received: Recording) -> str:
    steps = [recording.records[-1].step if recording.records else 0 for recording in (expected, received)]
    return f"one device makes {steps[0]} steps and the other run {steps[1]}"


def _log_scales(recording: Recording) -> dict[str, float]:
    """The largest value of each log, in the whole run."""
    scales: dict[str, float] = {}
    for record in recording.records:
        for name, value in record.logs.items():
            scales[name] = max(scales.get(name, 0.0), largest(np.atleast_1d(value)))
    return scales


def _logs(one: Record, other: Record, scales: dict[str, float], tolerance: Tolerance) -> Iterator[Difference]:
    for name, value in one.logs.items():
        if name not in other.logs:
            yield Difference(one.step, "log", name, float("inf"), 0.0, scales[name])
            continue
        absolute = difference(np.atleast_1d(other.logs[name]), np.atleast_1d(value))
        yield Difference(one.step, "log", name, absolute, tolerance.of_log(scales[name]), scales[name])


def _variables(
    one: Record, other: Record, names: list[str], begins: list[np.ndarray], tolerance: Tolerance
) -> Iterator[Difference]:
    expected, received = one.variables(), other.variables()
    # A model that is built by its first step has no weights before: all they are is a move.
    begins = [*begins, *(np.zeros_like(value) for value in expected[len(begins) :])]
    moves = [difference(value, begin) for value, begin in zip(expected, begins, strict=False)]
    largest_move = max((move for move in moves if np.isfinite(move)), default=0.0)
    for place, (name, value, move) in enumerate(zip(names, expected, moves, strict=False)):
        absolute = difference(received[place], value) if place < len(received) else float("inf")
        scale = largest(value)
        allowed = tolerance.of_variable(scale, move, largest_move)
        yield Difference(one.step, "variable", name, absolute, allowed, scale, move)


def _compare_data(found: Comparison, one: Record, received: list[np.ndarray], position: int) -> None:
    if found.data is not None or one.kind != "step":
        return
    expected = Counter(one.row_numbers().tolist())
    others = Counter(np.concatenate(received).tolist())
    if expected != others:
        common = (expected & others).total()
        found.data = DataDifference(one.step, expected.total(), others.total(), common)


def _workers_apart(recording: Recording) -> int | None:
    """The first step after which a worker's variables are not worker 0's."""
    for records in zip(*recording.workers, strict=False):
        checksums: set[Any] = {record.checksums for record in records}
        if len(checksums) > 1:
            return records[0].step
    return None
