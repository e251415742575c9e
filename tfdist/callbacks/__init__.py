"""Keras callbacks for distributed training."""

from tfdist.callbacks.input_monitor import InputMonitor

__all__ = ["InputMonitor"]
