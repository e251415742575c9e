"""From evidence to the likely cause of a difference.

A cause is a function from `Evidence` to a `Finding`, or None where the evidence does not speak for it. The first that
finds something is reported: causes stand in the order in which they hide each other. Other rows make other weights
whatever else is wrong; a layer that mixes rows makes the gradients wrong, too.

    cause                                  what shows it
    reproducibility.not_reproducible       one device, run again, differs
    rows.sharded_by_hand                   other rows; the script calls Dataset.shard
    rows.other_batch_size                  N times or 1/N of the rows
    rows.other_rows_by_worker              worker 0 has one device's rows, others don't
    rows.other_rows                        any other difference in rows, or in the number of steps
    weights.other_initial_weights          weights differ before the first step
    settings.other_learning_rate           the learning rate differs in the step
    weights.own_state_only                 trainable weights equal, the state of a layer not
    randomness.random_numbers_in_step      the script draws in the step
    layers.batch_normalization             the probe: it is the first layer that mixes rows
    layers.micro_batch_statistics          the same, with gradient accumulation
    layers.rows_mixed                      the probe: another layer is
    gradients.clipped_in_step              the probe: the tape's gradients add up, those applied don't
    gradients.summed_over_rows             the probe: slices' mean gradient is 1/N of the whole batch's
    gradients.rows_compared                the probe: slices' mean loss is another
    gradients.scaled_by_hand               first gradients off by N or 1/N, though the probe sees nothing
    metrics.metric_is_no_sum               weights equal, logs not
"""

from __future__ import annotations

from tfdist.verify.diagnosis.finding import Cause, Evidence, Finding
from tfdist.verify.diagnosis.gradients import clipped_in_step, rows_compared, scaled_by_hand, summed_over_rows
from tfdist.verify.diagnosis.layers import batch_normalization, micro_batch_statistics, rows_mixed
from tfdist.verify.diagnosis.metrics import metric_is_no_sum
from tfdist.verify.diagnosis.randomness import random_numbers_in_step
from tfdist.verify.diagnosis.reproducibility import not_reproducible
from tfdist.verify.diagnosis.rows import other_batch_size, other_rows, other_rows_by_worker, sharded_by_hand
from tfdist.verify.diagnosis.settings import other_learning_rate
from tfdist.verify.diagnosis.weights import other_initial_weights, own_state_only

__all__ = ["CAUSES", "Evidence", "Finding", "diagnose"]

CAUSES: tuple[Cause, ...] = (
    not_reproducible,
    sharded_by_hand,
    other_batch_size,
    other_rows_by_worker,
    other_rows,
    other_initial_weights,
    other_learning_rate,
    own_state_only,
    random_numbers_in_step,
    batch_normalization,
    micro_batch_statistics,
    rows_mixed,
    clipped_in_step,
    summed_over_rows,
    rows_compared,
    scaled_by_hand,
    metric_is_no_sum,
)


def diagnose(evidence: Evidence) -> Finding:
    """The first cause that the evidence speaks for, or what is known if none does."""
    found = (cause(evidence) for cause in CAUSES)
    return next((finding for finding in found if finding is not None), unknown(evidence))


def unknown(evidence: Evidence) -> Finding:
    """No cause is known; what has been ruled out is."""
    ruled_out = ["the rows are the same", "the weights begin equal", "one device does the same when it is run again"]
    if "layers" in evidence.probe:
        ruled_out.append("slices of the first batch, on one device, add up to the whole")
    own = tuple(f"{name} at {where}" for name, where in evidence.fit["own"].items())
    if evidence.undecided:
        return Finding(
            "undecided",
            "this may be rounding",
            "The difference is too large for plain rounding and did not come as an error comes. In float64 rounding "
            f"would vanish, but the script does not run there. Ruled out: {', '.join(ruled_out)}.",
            "Write keras.config.floatx() where the script has float32, and run tfdist verify again.",
            own,
            "possible",
        )
    return Finding(
        "unknown",
        "nothing that is known explains it",
        f"Ruled out: {', '.join(ruled_out)}.",
        "Look at the script's own code first, by leaving parts of it out. If none is left, this is a defect of tfdist: "
        "please report it with the script.",
        own,
        "possible",
    )
