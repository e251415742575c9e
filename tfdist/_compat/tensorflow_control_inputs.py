"""What an operation of a graph waits for.

Upstream: `tf.control_dependencies` knows only operations that are there already, and automatic control dependencies let
a function's operations with effects wait for each other, looks at the clock too.
Here: the methods with which they do it. Seen in TensorFlow 2.21. Can go when TensorFlow says this in public.
"""

from __future__ import annotations

from typing import Any


def let_wait(operation: Any, others: list[Any]) -> None:
    """An operation runs after others of its graph."""
    operation._add_control_inputs(others)


def let_run(operation: Any) -> None:
    """An operation waits for no other one but those that it was told to."""
    manager = operation.graph.experimental_acd_manager
    if manager is not None:
        manager.run_independently(operation)
