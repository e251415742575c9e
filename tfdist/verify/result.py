"""What `tfdist verify` found."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass
from typing import Any

from tfdist.verify.comparison import Comparison, Difference
from tfdist.verify.diagnosis.finding import Finding
from tfdist.verify.options import VerifyOptions


class Verdict(enum.Enum):
    """The answer; its value is in the JSON, its exit code what the command returns."""

    EQUAL = "equal"
    DIFFERENT = "different"
    NOT_RUN = "could not run"

    @property
    def exit_code(self) -> int:
        """0, 1 or 2."""
        return {Verdict.EQUAL: 0, Verdict.DIFFERENT: 1, Verdict.NOT_RUN: 2}[self]


@dataclass(frozen=True)
class Result:
    """A verdict and what it stands on.

    Args:
        verdict: the answer.
        options: what was asked.
        comparison: in the script's own precision; None if it could not run.
        float64: the comparison in float64, if that decided.
        finding: why they differ.
        inert: random layers that were switched off.
        failed: the run that failed, if one did, and how.
        words: its traceback.
        notes: what else a reader should know.
    """

    verdict: Verdict
    options: VerifyOptions
    comparison: Comparison | None = None
    float64: Comparison | None = None
    finding: Finding | None = None
    inert: tuple[str, ...] = ()
    failed: str = ""
    words: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def deciding(self) -> Comparison | None:
        """The comparison that the verdict stands on."""
        return self.float64 or self.comparison

    def to_json(self) -> dict[str, Any]:
        """All of it, in numbers, strings, lists and dictionaries."""
        found = self.deciding
        return {
            "verdict": self.verdict.value,
            "exit_code": self.verdict.exit_code,
            "script": self.options.script,
            "workers": self.options.workers,
            "accumulate": self.options.accumulate,
            "decided_in": "float64" if self.float64 or self.options.float64 else "the script's precision",
            "steps": found.steps if found else 0,
            "variables": found.variables if found else 0,
            "logs": sorted(found.logs) if found else [],
            "first": [_difference(one) for one in found.first] if found else [],
            "largest_variable_difference": _difference(found.worst_variable) if found else None,
            "largest_log_difference": _difference(found.worst_log) if found else None,
            "data": asdict(found.data) if found and found.data else None,
            "finding": asdict(self.finding) if self.finding else None,
            "inert_random_layers": list(self.inert),
            "failed": self.failed,
            "traceback": list(self.words),
            "notes": list(self.notes),
        }


def _difference(one: Difference | None) -> dict[str, Any] | None:
    return None if one is None else {**asdict(one), "excess": one.excess}
