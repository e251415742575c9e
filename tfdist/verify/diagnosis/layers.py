"""Layers whose output for a row depends on the batch's other rows: a replica sees its own only."""

from __future__ import annotations

from typing import Any

from tfdist.verify.diagnosis.finding import Evidence, Finding


def batch_normalization(evidence: Evidence) -> Finding | None:
    """BatchNormalization without synchronized=True normalizes with the moments of a replica's rows."""
    layers = evidence.layers("BatchNormalization", synchronized=False, trainable=True)
    if evidence.accumulate > 1 or not layers or not _is_first(evidence, "BatchNormalization"):
        return None
    return Finding(
        "unsynchronized_batch_normalization",
        "BatchNormalization uses each replica's own mean and variance",
        "In training, BatchNormalization normalizes with the mean and variance of the rows that it sees, and a replica "
        "sees its slice of the global batch only.",
        "Write BatchNormalization(synchronized=True), which takes mean and variance over all replicas, or use a layer "
        "that normalizes each row by itself (LayerNormalization, GroupNormalization).",
        layers,
        "certain" if _mixing(evidence) else "likely",
    )


def micro_batch_statistics(evidence: Evidence) -> Finding | None:
    """With gradient accumulation, synchronized or not, BatchNormalization sees a micro-batch at a time."""
    layers = evidence.layers("BatchNormalization", trainable=True)
    if evidence.accumulate == 1 or not layers or not _is_first(evidence, "BatchNormalization"):
        return None
    return Finding(
        "batch_normalization_of_micro_batches",
        "BatchNormalization uses each micro-batch's own mean and variance",
        f"An optimizer step has {evidence.accumulate} micro-batches, one after the other, and BatchNormalization "
        "normalizes each with its own mean and variance, where one device takes those of the whole batch. "
        "synchronized=True takes a micro-batch's over all replicas, not a step's over all micro-batches.",
        "Use a layer that normalizes each row by itself (LayerNormalization, GroupNormalization), or take batches that "
        "need no accumulation, with BatchNormalization(synchronized=True).",
        layers,
        "certain" if _mixing(evidence) else "likely",
    )


def rows_mixed(evidence: Evidence) -> Finding | None:
    """Any other layer of which the probe has seen it."""
    mixing = _mixing(evidence)
    if not mixing:
        return None
    first = mixing[0]
    return Finding(
        "layer_mixes_rows",
        f"{first['class']} {first['path']} mixes the rows of a batch",
        "On one device, cut into slices as replicas get them, the first batch gives other outputs from this layer on "
        f"(by {first['difference']:.1e} of the largest), so its output for a row depends on the other rows.",
        "Compute each row by itself, or take moments of the batch from BatchNormalization(synchronized=True), which "
        "knows all replicas. A layer that must see all rows trains exactly on one device only.",
        (first["path"],),
        "certain",
    )


def _mixing(evidence: Evidence) -> list[dict[str, Any]]:
    return evidence.probe.get("layers") or []


def _is_first(evidence: Evidence, class_: str) -> bool:
    """Whether such a layer is the first that mixes rows; where the probe saw nothing, whether logs differ."""
    if "layers" in evidence.probe:
        return bool(evidence.probe["layers"]) and evidence.probe["layers"][0]["class"] == class_
    return any(one.kind == "log" for one in evidence.comparison.first)
