"""Keras callbacks for distributed training."""

from tfdist.callbacks.input_monitor import InputMonitor
from tfdist.callbacks.staleness_histogram import StalenessHistogram

__all__ = ["InputMonitor", "StalenessHistogram"]
