"""Keras callbacks for distributed training."""

from tfdist.callbacks.checkpoint import Checkpoint
from tfdist.callbacks.consistency_guard import ConsistencyGuard
from tfdist.callbacks.input_monitor import InputMonitor
from tfdist.callbacks.staleness_histogram import StalenessHistogram

__all__ = ["Checkpoint", "ConsistencyGuard", "InputMonitor", "StalenessHistogram"]
