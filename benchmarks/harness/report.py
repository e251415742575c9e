"""What a run found, as JSON and as tables.

The JSON has a row for each contender, setting and quantity, with the numbers of all rounds.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .benchmark import Benchmark
from .samples import Quantity, Samples
from .statistics import Summary, ratios

SCHEMA = 1


@dataclass(frozen=True)
class Report:
    """Of one run.

    Args:
        benchmark: that was run.
        samples: that it gave.
        command: that was typed.
        machine: see `machine.describe`, when it began.
        versions: by interpreter and package.
        baseline: name of the contender that others are compared with.
        missing: why a contender was left out, by name.
        options: of the benchmark.
        begun: when.
    """

    benchmark: Benchmark
    samples: Samples
    command: str
    machine: Mapping[str, Any]
    versions: Mapping[str, Mapping[str, str]]
    baseline: str
    missing: Mapping[str, str]
    options: Mapping[str, Any]
    begun: str = field(default_factory=lambda: datetime.datetime.now().astimezone().isoformat(timespec="seconds"))

    def as_json(self) -> dict[str, Any]:
        """Everything."""
        samples = self.samples
        return {
            "schema": SCHEMA,
            "benchmark": self.benchmark.name,
            "command": self.command,
            "begun": self.begun,
            "machine": dict(self.machine),
            "versions": {name: dict(found) for name, found in self.versions.items()},
            "options": dict(self.options),
            "baseline": self.baseline,
            "rows": [row for quantity in self.benchmark.quantities for row in self._rows(quantity)],
            "missing": [{"contender": name, "reason": reason} for name, reason in self.missing.items()],
            "failed": [
                {"contender": contender, "setting": setting, "error": error}
                for (contender, setting), error in samples.failures.items()
            ],
        }

    def _rows(self, quantity: Quantity) -> list[dict[str, Any]]:
        found = []
        for setting in self.samples.settings():
            baseline = self.samples.of(self.baseline, setting, quantity.name)
            for contender in self.samples.contenders():
                values = self.samples.of(contender, setting, quantity.name)
                if values:
                    shares = ratios(values, baseline) if quantity.has_ratio else []
                    found.append(
                        {
                            "contender": contender,
                            "setting": setting,
                            "quantity": quantity.name,
                            "unit": quantity.unit,
                            "rounds": {str(number): value * quantity.scale for number, value in values.items()},
                            **_numbers(Summary.of([value * quantity.scale for value in values.values()])),
                            "ratio": _numbers(Summary.of(shares)) if shares else None,
                        }
                    )
        return found

    def table(self) -> list[str]:
        """Markdown: a row for each contender and setting, median (lowest-highest) and median ratio of the rounds."""
        quantities = [one for one in self.benchmark.quantities if any(key.quantity == one.name for key in
                      self.samples.values)]  # fmt: skip
        rows = {(row["quantity"], row["setting"], row["contender"]): row for row in self.as_json()["rows"]}
        head = ["setting", "contender"]
        for quantity in quantities:
            head += [quantity.heading, f"to {self.baseline}"] if quantity.has_ratio else [quantity.heading]
        lines = [head]
        for setting in self.samples.settings():
            for contender in self.samples.contenders():
                found = [rows.get((quantity.name, setting, contender)) for quantity in quantities]
                if any(found):
                    lines.append([setting, contender, *_cells(quantities, found)])
        return _markdown(lines)

    def remarks(self) -> list[str]:
        """What follows, what was left out and why, and what failed."""
        return [
            *self.benchmark.remarks(self.samples),
            *(f"{name}: left out, {reason}" for name, reason in self.missing.items()),
            *(f"{contender}, {setting}: failed:\n{error}" for (contender, setting), error in
              self.samples.failures.items()),
        ]  # fmt: skip

    def source(self) -> str:
        """Machine, versions and command in one paragraph."""
        machine = self.machine
        versions = dict.fromkeys(
            f"{package} {version}" for found in self.versions.values() for package, version in found.items()
        )
        return (
            f"`{self.command}`, {self.begun[:10]}: {machine['cpu']}, {machine['cores']} cores, "
            f"{machine['memory_bytes'] / 2**30:.0f} GiB, load {machine['load']:.1f} at the start; "
            f"{', '.join(versions)}."
        )


def _numbers(summary: Summary) -> dict[str, float]:
    return {"median": summary.median, "low": summary.low, "high": summary.high}


def _cells(quantities: Sequence[Quantity], rows: Sequence[Mapping[str, Any] | None]) -> list[str]:
    cells = []
    for quantity, row in zip(quantities, rows, strict=True):
        cells.append(f"{number(row['median'])} ({number(row['low'])}-{number(row['high'])})" if row else "")
        if quantity.has_ratio:
            cells.append(f"{row['ratio']['median']:.2f}" if row and row["ratio"] else "")
    return cells


def number(value: float) -> str:
    """With three digits that say something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
             for row in rows]  # fmt: skip
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
