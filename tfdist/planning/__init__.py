"""A cost model of distributed training: what a step takes, sends and waits for, before machines are rented.

It knows latencies, bandwidths, bytes and times, and nothing of TensorFlow.
"""

from tfdist.planning.machines import WIRE_SHARE, Link, Machines
from tfdist.planning.methods import CostModel, Failures, Prediction
from tfdist.planning.plans import Plan, plan, scaling
from tfdist.planning.workload import Workload

__all__ = [
    "WIRE_SHARE",
    "CostModel",
    "Failures",
    "Link",
    "Machines",
    "Plan",
    "Prediction",
    "Workload",
    "plan",
    "scaling",
]
