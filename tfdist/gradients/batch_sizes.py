"""The arithmetic of batches: global batch = gradient accumulation steps x replicas x rows of a replica."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSizes:
    """How many rows go where in one optimizer step.

        global_batch = gradient_accumulation_steps * micro_batch
        micro_batch  = replicas * per_replica_batch

    Strategies are exact for rows that don't divide, too; here they must, so that every number is one number.

    Args:
        global_batch: rows of an optimizer step.
        replicas: `strategy.num_replicas_in_sync`.
        gradient_accumulation_steps: micro-batches to an optimizer step, K.

    Raises:
        TypeError, ValueError: a number is no int, below 1, or the global batch can't be divided.

    Example:

        sizes = tfdist.gradients.BatchSizes(global_batch=4096, replicas=2, gradient_accumulation_steps=8)
        print(sizes)  # 4,096 rows an optimizer step = 8 micro-batches x 512 rows = 8 x 2 replicas x 256 rows
        data = data.batch(sizes.micro_batch)
    """

    global_batch: int
    replicas: int = 1
    gradient_accumulation_steps: int = 1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _count(field.name, getattr(self, field.name)))
        parts = self.gradient_accumulation_steps * self.replicas
        if self.global_batch % parts:
            below = self.global_batch - self.global_batch % parts
            near = " or ".join(f"{rows:,}" for rows in (below, below + parts) if rows)
            raise ValueError(
                f"Expected: global_batch that can be divided by gradient_accumulation_steps x replicas = "
                f"{self.gradient_accumulation_steps} x {self.replicas} = {parts}. "
                f"Received: global_batch={self.global_batch}. Take {near}."
            )

    @classmethod
    def from_micro_batch(
        cls, micro_batch: int, *, replicas: int = 1, gradient_accumulation_steps: int = 1
    ) -> BatchSizes:
        """From the rows of a dataset's batch."""
        steps = _count("gradient_accumulation_steps", gradient_accumulation_steps)
        rows = _count("micro_batch", micro_batch)
        return cls(global_batch=rows * steps, replicas=replicas, gradient_accumulation_steps=steps)

    @classmethod
    def that_fit(cls, *, global_batch: int, max_per_replica_batch: int, replicas: int = 1) -> BatchSizes:
        """The fewest micro-batches of which no replica gets more rows than it has memory for.

        Args:
            global_batch: rows of an optimizer step.
            max_per_replica_batch: rows that fit on one device.
            replicas: `strategy.num_replicas_in_sync`.
        """
        most = _count("max_per_replica_batch", max_per_replica_batch)
        rows = cls(global_batch=global_batch, replicas=replicas).per_replica_batch
        steps = next(steps for steps in range(-(-rows // most), rows + 1) if rows % steps == 0)
        return cls(global_batch=global_batch, replicas=replicas, gradient_accumulation_steps=steps)

    @property
    def micro_batch(self) -> int:
        """Rows of a micro-batch, of all replicas together: what a dataset's batch has."""
        return self.global_batch // self.gradient_accumulation_steps

    @property
    def per_replica_batch(self) -> int:
        """Rows of a micro-batch on one replica: what has to fit into a device's memory."""
        return self.micro_batch // self.replicas

    def micro_batches(self, rows: int) -> int:
        """Batches of an epoch of so many rows, the last one smaller where they don't divide."""
        return -(-_count("rows", rows) // self.micro_batch)

    def optimizer_steps(self, rows: int) -> int:
        """Optimizer steps of an epoch of so many rows; leftover micro-batches are one more."""
        return -(-_count("rows", rows) // self.global_batch)

    def __str__(self) -> str:
        """One line that shows the division."""
        steps, replicas = self.gradient_accumulation_steps, self.replicas
        micro_batches = f"{steps} micro-batch{'es' if steps > 1 else ''}"
        return (
            f"{self.global_batch:,} rows an optimizer step = {micro_batches} x {self.micro_batch:,} rows"
            f" = {steps} x {replicas} replica{'s' if replicas > 1 else ''} x {self.per_replica_batch:,} rows"
        )


def _count(name: str, value: Any) -> int:
    """`value` as an int of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"Expected: {name} as an int. Received: {name}={value!r}. Round it.")
    if value < 1:
        raise ValueError(f"Expected: {name} of at least 1. Received: {name}={value}. Correct it.")
    return int(value)
