"""Averaging in place of an all-reduce in every step: local SGD, DiLoCo and their kin."""

from __future__ import annotations

from tfdist.gradients.averaging.averaging import LocalAveraging, stopping_at_difference
from tfdist.gradients.averaging.local_step import LocalStep
from tfdist.gradients.averaging.options import AveragingOptions
from tfdist.gradients.averaging.outer import OuterFactory, describe, is_outer
from tfdist.gradients.averaging.state import AveragingCheckpoint, AveragingState

__all__ = [
    "AveragingCheckpoint",
    "AveragingOptions",
    "AveragingState",
    "LocalAveraging",
    "LocalStep",
    "OuterFactory",
    "describe",
    "is_outer",
    "stopping_at_difference",
]
