"""What compresses an optimizer's gradients, kept beside the optimizer and saved with it.

Upstream: attributes of an optimizer that are variables, or hold some, are tracked as its own, and get into its list and
its configuration.
Here: attributes that are not tracked as variables, which `model.save` and `tf.train.Checkpoint` find. Seen in Keras
3.15.1. Can go when Keras has a public place for state beside an optimizer.
"""

from __future__ import annotations

from typing import Any


def compression_of(optimizer: Any) -> Any:
    """What compresses an optimizer's gradients, or None."""
    return getattr(optimizer, "_tfdist_compression", None)


def attach_compression(optimizer: Any, compression: Any, checkpoint_state: Any) -> None:
    """Remember an optimizer's compression; files of Keras hold its `state`, those of TensorFlow `checkpoint_state`."""
    optimizer._tfdist_compression_checkpoint = checkpoint_state  # tracked by tf.train.Checkpoint
    object.__setattr__(optimizer, "_tfdist_compression", compression)
    object.__setattr__(optimizer, "_tfdist_compression_state", compression.state)
