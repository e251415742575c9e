"""The weights differ before the first step."""

from __future__ import annotations

from tfdist.verify.diagnosis.finding import Evidence, Finding


def other_initial_weights(evidence: Evidence) -> Finding | None:
    """What the first step begins with is not the same."""
    first = evidence.comparison.first
    if not first or first[0].step > 0:
        return None
    return Finding(
        "initial_weights",
        "training begins with other weights",
        "The weights differ before the first step of a fit, so they were drawn, loaded or changed in a way that "
        "depends on the number of replicas or on the worker.",
        "Make and load weights in the same way on every worker: initializers of Keras with the same seed, the same "
        "file. Don't scale them with the number of replicas.",
        (*(one.name for one in first), *evidence.sites("unseeded"), *evidence.sites("replicas", in_step=False)),
        "certain",
    )


def own_state_only(evidence: Evidence) -> Finding | None:
    """What is trained is equal, and what layers keep beside it is not."""
    first = evidence.comparison.first
    if not first or any(one.kind == "log" or evidence.is_trainable(one.name) for one in first):
        return None
    return Finding(
        "state_of_a_layer",
        "only what layers keep beside their weights differs",
        "After each step of fit, float variables that layers assign are averaged over the replicas, by rows, which is "
        "right for means and wrong for sums and counts; integers stay the replica's own.",
        "Keep means over rows in such variables (moving averages), or count in a metric, whose variables are added up.",
        tuple(one.name for one in first),
        "likely",
    )
