"""An operation of a graph that waits for another one which was made after it.

Upstream: `tf.control_dependencies` knows only operations that are there already; automatic control dependencies use the
method below. Here: the same method. Seen in TensorFlow 2.21. Can go when TensorFlow says this in public.
"""

from __future__ import annotations

from typing import Any


def let_wait(operation: Any, others: list[Any]) -> None:
    """An operation runs after others of its graph."""
    operation._add_control_inputs(others)
