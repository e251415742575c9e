"""Recordings made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfdist.verify.child.recorder import Recorder
from tfdist.verify.recording import Recording

#: A step: the variables' values after it, its logs, the rows trained on, and by how many steps it counts.
Step = tuple[Sequence[Sequence[float]], Mapping[str, float], Sequence[int]]

NAMES = ("first", "second")


def make(
    folder: Path,
    begin: Sequence[Sequence[float]],
    steps: Sequence[Step],
    *,
    slots: Sequence[Sequence[float]] = (),
    dtype: str = "float32",
    **facts: Any,
) -> Recording:
    """What one worker would record whose model has one variable for each of `begin`."""
    recorder = Recorder(folder, 0)
    recorder.facts.update({"strategies": [], "sites": {}, **facts})
    variables = [{"path": name, "trainable": True} for name, _ in zip(NAMES, begin, strict=False)]
    fit = {"variables": variables, "layers": [], "own": {}, "own_loss": None, "loss": "mse", "inert": []}
    recorder.begin([np.array(value, dtype) for value in begin], {**fit, **facts.get("fit", {})})
    for values, logs, rows in steps:
        recorder.take_rows(np.array(rows, np.uint64))
        arrays = [np.array(value, dtype) for value in values]
        recorder.step(1, logs, arrays, [np.array(slot, dtype) for slot in slots])
    recorder.write_facts()
    return Recording.read(folder)
