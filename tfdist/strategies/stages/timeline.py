"""When each stage was at work in one step, as a chart.

    pipeline 0  stage 0  0000111122223333AAAA....BBBB
                stage 1  ....0000AAAA1111BBBB2222CCCC

Digits are forward units, letters backward units: 0 and A are those of the first micro-batch.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np

#: Signs of units, forward and backward; the eleventh micro-batch has the first one's.
_SIGNS = ("0123456789", "ABCDEFGHIJ")
_STILL = "."


@dataclass(frozen=True)
class Timeline:
    """Begin and end of each unit of one training step.

    Attributes:
        seconds: float64 [pipelines, stages, 2 kinds, micro-batches, 2]: of forward and backward units begin and end,
            from the first unit's begin; NaN where there was none, such as backward units of a stage without parameters.
    """

    seconds: np.ndarray

    @property
    def span_seconds(self) -> float:
        """From the first unit's begin to the last one's end."""
        return float(np.nanmax(self.seconds[..., 1]))

    @functools.cached_property
    def busy_seconds(self) -> np.ndarray:
        """Of each pipeline's stages, float64 [pipelines, stages]: how long any unit was under way there."""
        pipelines, stages = self.seconds.shape[:2]
        busy = np.zeros((pipelines, stages))
        for place in np.ndindex(pipelines, stages):
            end = 0.0
            for begin, until in sorted(map(tuple, self.seconds[place].reshape(-1, 2))):
                if until > end:
                    busy[place] += until - max(begin, end)
                    end = until
        return busy

    @property
    def bubble(self) -> float:
        """The share of the span in which a stage has nothing under way, the mean of all."""
        return 1 - float(self.busy_seconds.mean()) / self.span_seconds

    @property
    def scheduled_bubble(self) -> float:
        """The same if all units took equally long: (S - 1) / (M + S - 1)."""
        _, stages, _, micro_batches, _ = self.seconds.shape
        return (stages - 1) / (micro_batches + stages - 1)

    @property
    def at_a_time(self) -> float:
        """Units that were under way at a time, the mean over the span."""
        return float(self.busy_seconds.sum()) / self.span_seconds

    def chart(self, width: int = 80) -> str:
        """A line for each stage, in so many columns, each of which shows what was under way in the middle of it."""
        pipelines, stages, _, micro_batches, _ = self.seconds.shape
        moments = (np.arange(width) + 0.5) * self.span_seconds / width
        lines = []
        for pipeline, stage in np.ndindex(pipelines, stages):
            line = np.full(width, _STILL)
            for kind, index in itertools.product(range(2), range(micro_batches)):
                begin, end = self.seconds[pipeline, stage, kind, index]
                line[(begin <= moments) & (moments < end)] = _SIGNS[kind][index % 10]
            head = "" if stage else f"pipeline {pipeline}"
            lines.append(f"{head:{len(str(pipelines)) + 9}}  stage {stage}  {''.join(line)}".rstrip())
        return "\n".join(lines)

    def __str__(self) -> str:
        kinds = (self.seconds[..., 1] - self.seconds[..., 0]) * 1000
        forward, backward = (float(np.nanmedian(kinds[:, :, kind])) for kind in range(2))
        return (
            f"{self.chart()}\n"
            f"{1000 * self.span_seconds:.1f} ms; a forward unit took {forward:.1f} ms, a backward unit {backward:.1f} "
            f"ms (medians); {self.at_a_time:.2f} units at a time; bubble {self.bubble:.0%}, by the schedule "
            f"{self.scheduled_bubble:.0%}"
        )
