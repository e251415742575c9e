"""Parts of the data, each trained on by one worker, and the average of their changes."""

from __future__ import annotations

from dataclasses import dataclass

from tfdist.updates.local_policy import Local, LocalPolicy


@dataclass(frozen=True)
class Incremental(LocalPolicy):
    """The data is cut into parts; of N workers each trains on a part from the same parameters c.

        x_i = c after training on part i, which has n_i records;  c <- c + sum_i n_i (x_i - c) / sum_i n_i

    This is incremental SGD as in iterative parameter mixing (McDonald, Hall, Mann, "Distributed training strategies for
    the structured perceptron", 2010; Moritz et al., "SparkNet", 2015). The chief averages N changes, and all workers go
    on from there. A part whose worker failed is done again by another; each part counts once. Where the length of the
    data is known and workers read it themselves, a worker's parts get as long as it is fast, so that all have done
    theirs at the same time; on average they have `part_records`.

    Args:
        part_records: Records of a part, rounded up to whole batches.

    Raises:
        ValueError: it's less than 1.
    """

    part_records: int

    follows_speed = True
    counts_records = True

    def __post_init__(self) -> None:
        if not isinstance(self.part_records, int) or self.part_records < 1:
            raise ValueError(f"part_records is 1 or more. Received: part_records={self.part_records!r}.")

    def steps_together(self, batch_rows: int) -> int:
        """See `LocalPolicy`."""
        return -(-self.part_records // batch_rows)

    def gradients_per_step(self, workers: int) -> int | None:
        """See `Policy`."""
        return workers

    def step(self, local: Local) -> None:
        """See `LocalPolicy`."""
        local.update()

    def finish(self, local: Local) -> None:
        """See `LocalPolicy`."""
        local.meet_after(1, lambda _: self._meet(local))

    def _meet(self, local: Local) -> None:
        pairs = zip(local.own, local.start, strict=True)
        local.add_to_centre([own.read_value() - start.read_value() for own, start in pairs])
