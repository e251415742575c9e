"""What a child process is told: one JSON file for all tasks of a run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

#: The seed of scripts that set none; a number nobody would choose, so that it is known as ours.
SEED = 1_905_041_733

#: Name under which a step's learning rate stands among its logs.
LEARNING_RATE = "optimizer.learning_rate"


@dataclass(frozen=True)
class ChildSpec:
    """One run of the user's script.

    Args:
        script: the user's Python file.
        arguments: its arguments.
        folder: where task R writes its recording, in a folder of its own, `worker-R`.
        steps: optimizer steps after which the script ends.
        timeout_seconds: after which the process ends itself.
        workers: worker processes; 0 for plain Keras on one device.
        float64: whether layers compute in float64, whatever the script sets.
        accumulate: micro-batches a global batch is cut into.
        enter_scope: whether the script makes no strategy of its own, so that all of it runs in the scope.
        own_seeds: whether each worker draws other numbers from `random` and NumPy before the strategy is made, as
            processes do whose script sets no seed.
        probe: the number of slices into which the first batch is cut to look at the first step; 0 for no look.
    """

    script: str
    arguments: tuple[str, ...]
    folder: str
    steps: int
    timeout_seconds: float
    workers: int = 0
    float64: bool = False
    accumulate: int = 1
    enter_scope: bool = False
    own_seeds: bool = False
    probe: int = 0

    @property
    def is_distributed(self) -> bool:
        """Whether the run has a tfdist strategy, rather than plain Keras on one device."""
        return self.workers > 0

    def write(self, path: Path) -> None:
        """Write the file that `read` reads."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> ChildSpec:
        """The specification in a file that `write` wrote."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**fields, "arguments": tuple(fields["arguments"])})
