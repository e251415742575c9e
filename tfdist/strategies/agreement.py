"""Workers compare what they are about to do before they do it, outside of any collective.

A collective between workers that run different code waits for ever or fails with shapes that say nothing. Each
worker publishes a few facts in the cluster's key-value store, reads everybody's, and names the first difference.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping
from typing import Any

from tfdist._compat import tensorflow as tf_compat
from tfdist.errors import WorkersDisagreeError
from tfdist.log import logger

#: Workers may prepare data for minutes before they reach `fit`; longer than this is taken for a worker that won't.
WAIT_SECONDS = 900.0
#: How often waiting is mentioned in the log.
MENTION_SECONDS = 30.0


def wait_for(key: str, who: str, what: str, *, timeout_seconds: float = WAIT_SECONDS) -> str:
    """The value that another worker publishes under `key`.

    Args:
        key: its name in the key-value store.
        who: the worker that is waited for, for messages.
        what: what it is to do, for messages.
        timeout_seconds: how long to wait.

    Raises:
        WorkersDisagreeError: it did not come in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        value = tf_compat.look_up(key, min(MENTION_SECONDS, timeout_seconds))
        if value is not None:
            return value
        logger.warning("waiting for %s to %s", who, what)
    raise WorkersDisagreeError(
        f"Expected: {who} to {what}, as this worker does. Received: nothing in {timeout_seconds:.0f} s. "
        "Run the same script on every task, and look at that worker's log."
    )


def compare(
    name: str,
    facts: Mapping[str, str],
    *,
    worker: int,
    workers: int,
    timeout_seconds: float = WAIT_SECONDS,
) -> None:
    """Check that all workers state the same facts.

    Args:
        name: the occasion, the same on every worker and new each time.
        facts: what must be equal.
        worker: this worker's index.
        workers: how many there are.
        timeout_seconds: how long to wait for a worker.

    Raises:
        WorkersDisagreeError: facts differ; names the worker and the first fact that does, with both values.
    """
    tf_compat.publish(f"tfdist/{name}/{worker}", json.dumps(dict(facts)))
    for other in range(workers):
        if other == worker:
            continue
        key, who = f"tfdist/{name}/{other}", f"worker {other}"
        theirs = json.loads(wait_for(key, who, f"reach {name}", timeout_seconds=timeout_seconds))
        for fact, value in facts.items():
            if theirs.get(fact) != value:
                raise WorkersDisagreeError(
                    f"Workers do not agree on the {fact} at {name}. Expected: the same on every worker. "
                    f"Received: worker {worker} has {value}, worker {other} has {theirs.get(fact)}. "
                    "Run the same script with the same data, seeds and options on every task."
                )


def model_facts(model: Any) -> dict[str, str]:
    """A model's variables and optimizer, by name, shape and value."""
    variables = [*model.variables, *(model.optimizer.variables if model.optimizer else [])]
    layout = [f"{v.path}{tuple(v.shape)}:{v.dtype}" for v in model.variables]
    return {
        "model": f"{len(layout)} variables, last {layout[-1] if layout else 'none'}, "
        f"layout {zlib.crc32(_without_numbers(layout)):08x}",
        "optimizer": type(model.optimizer).__name__,
        "weights": f"checksum {checksum(variables):08x}",
    }


def _without_numbers(layout: list[str]) -> bytes:
    """Layers' automatic names count up from what the process made before; shapes and order are what matters."""
    return "\n".join(entry[entry.index("(") :] for entry in layout).encode()


def checksum(variables: list[Any]) -> int:
    """CRC-32 of the variables' values, in order."""
    crc = 0
    for variable in variables:
        crc = zlib.crc32(variable.numpy().tobytes(), crc)
    return crc
