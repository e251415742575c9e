"""What a person asks of `tfdist verify`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tfdist.errors import TfdistError


class VerifyError(TfdistError, ValueError):
    """Scripts can't be compared as asked; the message names the option, the value and the fix."""


@dataclass(frozen=True)
class VerifyOptions:
    """Which script is compared, with how many workers, and for how long.

    Args:
        script: the user's Python file.
        arguments: its arguments, passed untouched.
        workers: worker processes of the distributed run.
        accumulate: micro-batches that the distributed run cuts each global batch into.
        steps: optimizer steps to compare.
        float64: compare in float64 from the start.
        timeout_seconds: how long a single run may take.
        json_path: where to write the result for machines; None for nowhere.
        keep: directory that keeps the recordings and logs; None throws them away.

    Raises:
        VerifyError: an option is out of range, or there is no such script.
    """

    script: str
    arguments: Sequence[str] = ()
    workers: int = 2
    accumulate: int = 1
    steps: int = 20
    float64: bool = False
    # TensorFlow starts in seconds; this is for models that take a minute a step on a CPU.
    timeout_seconds: float = 1800.0
    json_path: Path | None = None
    keep: Path | None = None

    def __post_init__(self) -> None:
        _at_least("steps", self.steps, 1, "Compare one step or more.")
        _at_least("accumulate", self.accumulate, 1, "Leave --accumulate out for no gradient accumulation.")
        least = 1 if self.accumulate > 1 else 2
        _at_least("workers", self.workers, least, "One device is compared with several; write --workers=2.")
        _at_least("timeout_seconds", self.timeout_seconds, 1, "Give a run a second or more.")
        if not Path(self.script).is_file():
            raise VerifyError(
                f"The script must be a Python file. Received: script={self.script!r}, seen from {Path.cwd()}. "
                "Check the path. Write for example: tfdist verify --workers=2 train.py"
            )


def _at_least(name: str, value: float, least: int, remedy: str) -> None:
    if value < least:
        raise VerifyError(f"{name} must be at least {least}. Received: {name}={value}. {remedy}")
