"""What happens to a gradient between the backward pass and the update: exact weighting, accumulation, the reduce."""

from __future__ import annotations

from tfdist.gradients.accumulation import GradientAccumulation
from tfdist.gradients.accumulation_options import AccumulationOptions, Steps
from tfdist.gradients.batch_sizes import BatchSizes
from tfdist.gradients.compression import Cast, Compressor, NoCompression, PowerSGD, Quantize, TopK
from tfdist.gradients.doors import accumulate, flush
from tfdist.gradients.reduction import all_reduce_gradients, average_over_replicas, sum_over_replicas
from tfdist.gradients.skip_rules import SkipRule, non_finite, norm_above
from tfdist.gradients.step import ReplicaStep, count_rows

__all__ = [
    "AccumulationOptions",
    "BatchSizes",
    "Cast",
    "Compressor",
    "GradientAccumulation",
    "NoCompression",
    "PowerSGD",
    "Quantize",
    "ReplicaStep",
    "SkipRule",
    "Steps",
    "TopK",
    "accumulate",
    "all_reduce_gradients",
    "average_over_replicas",
    "count_rows",
    "flush",
    "non_finite",
    "norm_above",
    "sum_over_replicas",
]
