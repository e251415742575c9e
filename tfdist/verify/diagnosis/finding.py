"""What a cause is told, and what it answers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfdist.verify.comparison import Comparison
from tfdist.verify.recording import Recording


@dataclass(frozen=True)
class Finding:
    """A cause of a difference.

    Args:
        cause: its name, for machines: "unsynchronized_batch_normalization".
        title: in a few words.
        explanation: why it makes a difference.
        remedy: what to do.
        where: layers, or lines of the script.
        confidence: "certain" if an experiment shows it, "likely" if everything fits, "possible" if nothing else does.
    """

    cause: str
    title: str
    explanation: str
    remedy: str
    where: tuple[str, ...] = ()
    confidence: str = "likely"


@dataclass(frozen=True)
class Evidence:
    """All that is known when causes are looked for.

    Args:
        reference: of one device.
        distributed: of all workers.
        comparison: of both.
        workers: how many there are.
        accumulate: micro-batches to an optimizer step.
        again: the comparison of one device with itself, run again; None if it was not.
        probe: what `child/probe.py` saw; empty if nothing.
        undecided: whether it may be rounding, and float64 could not be asked.
    """

    reference: Recording
    distributed: Recording
    comparison: Comparison
    workers: int
    accumulate: int = 1
    again: Comparison | None = None
    probe: dict[str, Any] = field(default_factory=dict)
    undecided: bool = False

    @functools.cached_property
    def fit(self) -> dict[str, Any]:
        """The facts of the `fit` in which the first difference is."""
        number = next((r.fit for r in self.reference.records if r.step >= self.first_step), 0)
        return self.reference.fit(max(number, 0))

    @property
    def first_step(self) -> int:
        """The step of the first difference."""
        if self.comparison.data is not None:
            return self.comparison.data.step
        return self.comparison.first[0].step if self.comparison.first else self.comparison.steps

    def sites(self, kind: str, **state: bool) -> tuple[str, ...]:
        """Lines of the script where something was called, as "what at file:line".

        Args:
            kind: of `child/call_sites.py`.
            **state: what must be so at the call: in_step, after_gradients.
        """
        calls: dict[str, None] = {}
        for facts in (*self.distributed.facts, self.reference.chief_facts):
            for site in facts.get("sites", {}).get(kind, ()):
                if all(site[name] == value for name, value in state.items()):
                    calls[f"{site['what']} at {site['where']}"] = None
        return tuple(calls)

    def is_trainable(self, path: str) -> bool:
        """Whether the variable with this path is trained."""
        return any(one["path"] == path and one["trainable"] for one in self.fit["variables"])

    def layers(self, class_: str, **settings: Any) -> tuple[str, ...]:
        """Paths of the model's layers of a class whose settings are as given."""
        return tuple(
            layer["path"]
            for layer in self.fit["layers"]
            if layer["class"] == class_ and all(layer["settings"].get(k) == v for k, v in settings.items())
        )

    @property
    def is_stock_step(self) -> bool:
        """Whether nothing of the training step and the loss is the script's own."""
        own = self.fit["own"]
        return not ("train_step" in own or "compute_loss" in own or self.fit["own_loss"])

    @functools.cached_property
    def update_factor(self) -> float | None:
        """The one number that lies between the first gradients of both runs; None if there's none."""
        return update_factor(self.reference, self.distributed, self.workers)


Cause = Callable[[Evidence], Finding | None]


def update_factor(reference: Recording, distributed: Recording, workers: int) -> float | None:
    """The factor by which the first update, or what the optimizer kept of the first gradient, is off.

    SGD's update is proportional to the gradient g. Adam's is not, but its momentum is (0.1 g), and its velocity is
    proportional to g^2: the factor is N^e where every slot is off by N^e or N^(2e).
    """
    if not (reference.steps and distributed.steps):
        return None
    begin = next(record for record in reference.records if record.kind == "begin").variables()
    one, other = reference.steps[0], distributed.steps[0]
    updates = [[after - before for before, after in zip(begin, r.variables(), strict=False)] for r in (one, other)]
    factor = constant_factor(updates[0], updates[1])
    if factor is not None and abs(factor - 1) > 1e-3:
        return factor
    slots = [
        constant_factor([expected], [received])
        for expected, received in zip(one.slots(), other.slots(), strict=False)
        if expected.size > 1 and np.any(expected)
    ]
    powers = {_power(slot, workers) for slot in slots}
    if powers in ({1}, {1, 2}, {2}):
        return float(workers)
    return 1.0 / workers if powers in ({-1}, {-1, -2}, {-2}) else None


def constant_factor(expected: list[np.ndarray], received: list[np.ndarray]) -> float | None:
    """c with received = c * expected, by least squares; None where no number will do."""
    one = np.concatenate([value.ravel() for value in expected]).astype(np.float64)
    other = np.concatenate([value.ravel() for value in received]).astype(np.float64)
    square = float(one @ one)
    if one.shape != other.shape or not square:
        return None
    factor = float(other @ one) / square
    apart = float(np.linalg.norm(other - factor * one))
    return factor if apart <= 1e-3 * abs(factor) * square**0.5 else None


def _power(factor: float | None, workers: int) -> int | None:
    """e of N^e, or None where the factor is no such power; N = 1 has none but 0."""
    if factor is None or factor <= 0 or workers == 1:
        return None
    power = np.log(factor) / np.log(workers)
    return round(power) if abs(power - round(power)) < 1e-2 else None
