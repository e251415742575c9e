"""docs/hybrid_parallel_layers.md: every layer class of Keras on a mesh, tried.

python -m tests.helpers.hybrid_layers docs/hybrid_parallel_layers.md        # some minutes
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.helpers.cluster_runner import run_python
from tests.helpers.keras_layers import EXAMPLES, NOT_IN_MODELS, all_names
from tfdist.layouts.treatments import treatment_of

#: Float32 rounding of one step.
TOLERANCE = 1e-5
HEAD = """# Keras' layers on a mesh

Each layer class that `keras.layers` exports, in a model with a `Dense` layer before it (where it takes floats) and one
after it, took one training step on a 2 x 2 mesh of CPUs: rows split over `batch`, the last dimension of every weight
over `model`. "Exact": loss and weights are one device's to 1e-5. "Refused": a `ValueError` says what can't be split and
what to do; nothing is trained. Made by `python -m tests.helpers.hybrid_layers`; a nightly test tries all of them again.

- *by rows*: while the layer computes, its inputs are split by rows alone and its weights are gathered; between steps
  they stay split.
- *unrolled*: the loop over time steps is written out, so their number must be known.
- *never gathered*: with `zero_stage=3` too, each device looks up rows in its part.

| layer | result | how |
|---|---|---|
"""


def tried(names: Iterable[str]) -> dict[str, Any]:
    """What became of each layer."""
    with tempfile.TemporaryDirectory(prefix="tfdist-layers-") as folder:
        output = Path(folder) / "found.json"
        arguments = ["-m", "tests.strategies.programs.hybrid_parallel_layers", str(output), *names]
        run_python(arguments, workers=0, logs=Path(folder) / "logs", timeout_seconds=1500)
        return json.loads(output.read_text())


def line(name: str, found: dict[str, Any] | None) -> str:
    """A layer's line of the table.

    Raises:
        AssertionError: it was neither exact nor refused.
    """
    if found is None:
        return f"| {name} | not tried | {NOT_IN_MODELS[name]} |"
    if "refused" in found:
        return f"| {name} | refused | {_reason(found['refused'])} |"
    assert "difference" in found, f"{name}: {found}"
    assert found["difference"] <= TOLERANCE, f"{name}: {found}"
    return f"| {name} | exact | {_how(name)} |"


def _how(name: str) -> str:
    treatment = treatment_of(EXAMPLES[name].make())
    how = ["by rows"] * (treatment.inputs == "rows") + ["unrolled"] * treatment.unrolled
    return ", ".join(how + ["never gathered"] * treatment.weights_as_kept)


def _reason(said: str) -> str:
    if "no rule by which" in said:
        return f"no rule for `{said.split(chr(39))[1]}`"
    return said.partition(": ")[2].partition(" Received")[0]


def main(output: str) -> None:
    found = tried(EXAMPLES)
    lines = [line(name, found.get(name)) for name in all_names()]
    Path(output).write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
