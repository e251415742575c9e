"""What the script does to losses and gradients in its training step."""

from __future__ import annotations

from typing import Any

from tfdist.verify.diagnosis.finding import Evidence, Finding

#: As in child/probe.py: what is more is no rounding.
_ROUNDING = 1e-3


def clipped_in_step(evidence: Evidence) -> Finding | None:
    """The tape's gradients add up and what the optimizer gets does not: they are clipped, or the like, in between."""
    gradients, applied = _seen(evidence, "gradients"), _seen(evidence, "applied")
    sites = evidence.sites("clip", in_step=True, after_gradients=True)
    if _adds_up(gradients) and applied and not _adds_up(applied):
        confidence = "certain"
    elif sites and "gradients" not in evidence.probe:
        confidence = "possible"
    else:
        return None
    return Finding(
        "clipped_before_reduce",
        "train_step clips gradients of a replica, not of the global batch" if sites else _NOT_LINEAR,
        "In train_step a replica has the gradients of its own rows. Clipping them there is not clipping the global "
        "batch's gradients: the mean of clipped gradients is not the clipped mean.",
        "Let the optimizer clip: keras.optimizers.Adam(global_clipnorm=1.0), clipnorm, or clipvalue. tfdist reduces "
        "gradients before it does.",
        sites or _own(evidence),
        confidence,
    )


_NOT_LINEAR = "train_step changes a replica's gradients before they are reduced"


def scaled_by_hand(evidence: Evidence) -> Finding | None:
    """All gradients are off by N or 1/N, though slices on one device add up: the script scales by the replicas."""
    factor = evidence.update_factor
    if factor is None or not _is_power(factor, evidence.workers) or not _adds_up(_seen(evidence, "gradients")):
        return None
    said, done = ("1/N of", "divides by") if factor < 1 else ("N times", "multiplies by")
    return Finding(
        "scaled_by_replicas",
        f"the script {done} the number of replicas by itself",
        f"All first gradients are {factor:.4g} times one device's, {said} them with N = {evidence.workers} replicas. "
        "In train_step, compute_loss and losses tfdist weighs each replica's mean by its rows; what the script scales "
        "on top of that is scaled twice.",
        "Write losses as for one device: plain means over the rows at hand, without the number of replicas.",
        evidence.sites("replicas") or _own(evidence),
        "certain" if evidence.sites("replicas") else "likely",
    )


def summed_over_rows(evidence: Evidence) -> Finding | None:
    """Cut into slices on one device, the mean of gradients is 1/N of the whole batch's: the loss is a sum."""
    gradients, losses = _seen(evidence, "gradients"), _seen(evidence, "losses")
    factor = None if gradients is None else gradients["factor"]
    slices = evidence.workers * evidence.accumulate
    if factor is None or losses is None or not _is_power(factor, slices) or factor > 1:
        return None
    return Finding(
        "loss_is_a_sum",
        "the loss is a sum over the rows of the batch",
        f"On one device, slices of the first batch give gradients whose mean is {factor:.4g} of the whole batch's, so "
        "the loss grows with the number of rows. tfdist puts replicas' losses together as means over rows: it knows "
        "sums where Keras makes them (keras.losses with reduction='sum'), not where the script does.",
        "Return the mean over the rows (tf.reduce_mean), and raise the learning rate instead; or return one loss a row "
        "from a loss function given to compile(), and leave the reduction to Keras.",
        _own(evidence),
        "certain",
    )


def rows_compared(evidence: Evidence) -> Finding | None:
    """Cut into slices on one device, the mean of losses is another: the loss is no mean over rows."""
    losses = _seen(evidence, "losses")
    if evidence.is_stock_step or losses is None or _adds_up(losses):
        return None
    return Finding(
        "loss_compares_rows",
        "the loss of a batch is not the mean of its rows' losses",
        "On one device, cut into slices as replicas get them, the first batch has another loss, by "
        f"{losses['difference']:.1e}: it compares rows with each other (contrastive and triplet losses, in-batch "
        "negatives), or is no linear function of a batch's mean (squares of means, standard deviations).",
        "A replica has its own rows only. Take a loss that is a mean over rows; one that must see all rows of the "
        "global batch trains exactly on one device only.",
        _own(evidence),
        "certain",
    )


def _seen(evidence: Evidence, what: str) -> dict[str, Any] | None:
    return evidence.probe.get(what)


def _adds_up(seen: dict[str, Any] | None) -> bool:
    return seen is not None and seen["difference"] <= _ROUNDING


def _is_power(factor: float, workers: int) -> bool:
    return workers > 1 and any(abs(factor / power - 1) < 1e-2 for power in (float(workers), 1.0 / workers))


def _own(evidence: Evidence) -> tuple[str, ...]:
    own = [
        f"{name} at {where}" for name, where in evidence.fit["own"].items() if name in ("train_step", "compute_loss")
    ]
    loss = evidence.fit["own_loss"]
    return (*own, *([f"loss {evidence.fit['loss']} at {loss}"] if loss else []))
