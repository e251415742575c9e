"""The optimizer is set in another way."""

from __future__ import annotations

import numpy as np

from tfdist.verify.diagnosis.finding import Evidence, Finding
from tfdist.verify.recording import Record
from tfdist.verify.spec import LEARNING_RATE


def other_learning_rate(evidence: Evidence) -> Finding | None:
    """The learning rate of the step in which the first difference is."""
    if not any(one.name == LEARNING_RATE for one in evidence.comparison.first):
        return None
    step = evidence.first_step
    rates = [_rate(recording.steps, step) for recording in (evidence.reference, evidence.distributed)]
    return Finding(
        "learning_rate",
        "the learning rate depends on the number of replicas",
        f"At step {step} one device trains with {rates[0]:.6g} and the workers with {rates[1]:.6g}. A global batch has "
        "as many rows on any number of replicas, so there's nothing to make up for. (Scaling the learning rate is for "
        "batches that grow with the number of replicas.)",
        "Set the learning rate for the global batch, whatever the number of replicas.",
        evidence.sites("replicas"),
        "certain",
    )


def _rate(records: list[Record], step: int) -> float:
    found = [record.logs[LEARNING_RATE] for record in records if record.step == step]
    return float(np.max(found)) if found else float("nan")
