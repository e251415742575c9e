"""Workers compare what they are about to do before they do it, outside of any collective.

A collective between workers that run different code waits for ever or fails with shapes that say nothing. Each
worker publishes a few facts in the cluster's key-value store, reads everybody's, and names the first difference.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from tfdist._compat import hooks
from tfdist._compat import tensorflow as tf_compat
from tfdist.cluster.differences import first_difference
from tfdist.errors import WorkersDisagreeError
from tfdist.gradients import AccumulationOptions
from tfdist.log import logger

#: How often waiting is mentioned in the log.
MENTION_SECONDS = 30.0
#: How often it is asked whether the others are still there.
_CHECK_SECONDS = 1.0


def no_check() -> None:
    """Nobody is known to be gone."""


def wait_for(key: str, who: str, what: str, timeout_seconds: float, *, check: Callable[[], None] = no_check) -> str:
    """The value that another worker publishes under `key`.

    Args:
        key: its name in the key-value store.
        who: the worker that is waited for, for messages.
        what: what it is to do, for messages.
        timeout_seconds: how long to wait.
        check: raises an error if there is nobody to wait for.

    Raises:
        WorkersDisagreeError: it did not come in time.
    """
    now = time.monotonic()
    deadline, mention_at = now + timeout_seconds, now + MENTION_SECONDS
    while now < deadline:
        check()
        value = tf_compat.look_up(key, min(_CHECK_SECONDS, timeout_seconds))
        if value is not None:
            return value
        now = time.monotonic()
        if now >= mention_at:
            mention_at = now + MENTION_SECONDS
            logger.warning("waiting for %s to %s", who, what)
    raise WorkersDisagreeError(
        f"Expected: {who} to {what}, as this worker does. Received: nothing in {timeout_seconds:.0f} s. "
        "Run the same script on every task, and look at that worker's log."
    )


def compare(
    occasion: str,
    facts: Mapping[str, str],
    *,
    room: str,
    worker: int,
    workers: int,
    timeout_seconds: float,
    names: Mapping[str, str] | None = None,
    check: Callable[[], None] = no_check,
) -> None:
    """Check that all workers state the same facts.

    Args:
        occasion: what the workers are about to do, for messages.
        facts: what must be equal.
        room: prefix of keys, the same on every worker and new each time.
        worker: this worker's index.
        workers: how many there are.
        timeout_seconds: how long to wait for a worker.
        names: what messages call facts that this worker knows by another name than others do.
        check: raises an error if there is nobody to wait for.

    Raises:
        WorkersDisagreeError: facts differ; names the worker and the first fact that does, with both values.
    """
    tf_compat.publish(f"{room}/{worker}", json.dumps(dict(facts)))
    stated = {worker: dict(facts)}
    for other in range(workers):
        if other != worker:
            who = f"worker {other}"
            text = wait_for(f"{room}/{other}", who, f"reach {occasion}", timeout_seconds, check=check)
            stated[other] = json.loads(text)
    difference = first_difference(stated, worker)
    if difference is not None:
        fact, found = difference
        raise WorkersDisagreeError(
            f"Workers do not agree on the {(names or {}).get(fact, fact)} at {occasion}. Expected: the same on every "
            f"worker. Received: {found}. Run the same script with the same data, seeds and options on every task."
        )


def data_facts(data: hooks.DataSummary) -> dict[str, str]:
    """The input's shape and size."""
    return {
        "input": data.element_spec,
        "number of batches": str(data.num_batches),
        "batch size": str(data.batch_size),
    }


def model_facts(model: Any, accumulation: AccumulationOptions) -> dict[str, str]:
    """A model's variables, as far as it is built, its optimizer, and how that accumulates."""
    # Not the variables' names: automatic ones count up from whatever the process made before.
    layout = [f"{tuple(v.shape)} {v.dtype}" for v in model.variables]
    trainable = len(model.trainable_variables)
    code = zlib.crc32("\n".join(layout).encode())
    used = getattr(model, "optimizer", None)  # a model that isn't compiled has no such attribute
    optimizer = "none" if used is None else _config_of(used)
    steps = "a function" if callable(accumulation.steps) else str(accumulation.steps)
    rules = [rule.__name__ for rule in accumulation.skip_rules]
    how = f"{accumulation.leftover}, {accumulation.dtype}, {accumulation.splits} splits, skip rules {rules}"
    return {
        "model": f"{len(layout)} variables, {trainable} trainable, layout {code:08x}",
        "optimizer": optimizer,
        "gradient accumulation": f"{steps} steps, {how}",
    }


def _config_of(optimizer: Any) -> str:
    config = {key: value for key, value in optimizer.get_config().items() if key != "name"}
    return f"{type(optimizer).__name__} {json.dumps(_plain(config), sort_keys=True)}"


def _plain(value: Any) -> Any:
    """Numbers, words and their nestings; functions and objects are written differently in every process."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__lambda__":
            return "a function"
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else type(value).__name__
