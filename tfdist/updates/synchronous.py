"""One optimizer step of all workers, not waiting for the slowest ones.

Chen et al., "Revisiting distributed synchronous SGD", 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfdist.updates.policy import Policy


@dataclass(frozen=True)
class Synchronous(Policy):
    """Workers compute on the same parameters; the first N of N + b gradients make one optimizer step.

        w <- w - lr sum_i n_i g_i(w) / sum_i n_i        over the N batches whose gradients came first, n_i their rows

    What comes later, of the b slowest, is dropped, and counted in the logs. With `backup_workers=0` all count, and
    training is that of one device on global batches of N = the number of workers' batches. An execution has one step.

    Args:
        backup_workers: b, from 0 to one less than the number of workers.

    Raises:
        ValueError: it's negative.
    """

    backup_workers: int = 0

    drops = True

    def __post_init__(self) -> None:
        if not isinstance(self.backup_workers, int) or self.backup_workers < 0:
            raise ValueError(
                "backup_workers counts workers whose gradients may be dropped, 0 or more. Received: backup_workers="
                f"{self.backup_workers!r}."
            )

    def gradients_per_step(self, workers: int) -> int | None:
        """See `Policy`.

        Raises:
            ValueError: there are no more workers than that.
        """
        if self.backup_workers >= workers:
            raise ValueError(
                f"Of {workers} workers at most {workers - 1} can be backup workers. Received: backup_workers="
                f"{self.backup_workers}."
            )
        return workers - self.backup_workers
