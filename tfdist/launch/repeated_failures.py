"""Tells a failure that comes back at the same step, a bug or a broken record, from one that happened by chance."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tfdist.cluster.progress import TrainingStep
from tfdist.launch.root_cause import looks_dragged_down
from tfdist.launch.task_process import Ending

_HEADER = "Traceback (most recent call last):"
# A script that isn't Python has no traceback.
_NO_PYTHON = re.compile(r"(?:Syntax|Indentation|Tab)Error: ")
# Logs of C++ that come after a traceback, with a time and a thread in each line.
_LOG = re.compile(r"[IWEF]\d{4} |\d{4}-\d\d-\d\d ")
# Addresses of objects, and the numbers that TensorFlow gives to functions: "[Op:__inference_one_step_417]".
_OF_ONE_PROCESS = re.compile(r"0x[0-9a-fA-F]+|(?<=_)\d+(?=\])")


@dataclass(frozen=True)
class Failure:
    """An exception of a task's own.

    Args:
        words: The end of its traceback, without what differs from one process to the next.
        step: In which it was; None if the task doesn't say.
    """

    words: str
    step: TrainingStep | None

    def __str__(self) -> str:
        where = f"at {self.step}" if self.step else "at a step that the script doesn't tell"
        return f"{self.words.splitlines()[0]} ({where})"


def own_exception(ending: Ending, step: TrainingStep | None) -> Failure | None:
    """Returns what a task raised, or None if it ended in another way or was dragged down by a peer.

    Args:
        ending: Of the task.
        step: The last that it noted.
    """
    if ending.code <= 0 or looks_dragged_down(ending):
        return None
    words = _exception(ending.words)
    return Failure(words, step) if words else None


def _exception(words: list[str]) -> str:
    """What stands below the frames of the last traceback: "ValueError: bad batch", and more lines of the message."""
    starts = [number for number, line in enumerate(words) if line.startswith(_HEADER)]
    if not starts:
        return next((line for line in words if _NO_PYTHON.match(line)), "")
    below = words[starts[-1] + 1 :]
    first = next((number for number, line in enumerate(below) if line and not line[0].isspace()), len(below))
    said = [line for line in below[first:] if not _LOG.match(line)]
    return _OF_ONE_PROCESS.sub("...", "\n".join(said).rstrip())
