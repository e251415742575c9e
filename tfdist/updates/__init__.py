"""How a worker's gradient meets the parameters, for `ParameterServerStrategy(update=…)`: one file a policy."""

from __future__ import annotations

from tfdist.updates.accumulated import Accumulated
from tfdist.updates.asynchronous import Async
from tfdist.updates.bounded_staleness import BoundedStaleness
from tfdist.updates.delay_compensated import DelayCompensated
from tfdist.updates.elastic_averaging import ElasticAveraging
from tfdist.updates.incremental import Incremental
from tfdist.updates.local_policy import Local, LocalPolicy
from tfdist.updates.policy import Policy, Push
from tfdist.updates.staleness_aware import StalenessAware
from tfdist.updates.synchronous import Synchronous

__all__ = [
    "Accumulated",
    "Async",
    "BoundedStaleness",
    "DelayCompensated",
    "ElasticAveraging",
    "Incremental",
    "Local",
    "LocalPolicy",
    "Policy",
    "Push",
    "StalenessAware",
    "Synchronous",
]
