"""Whether all replicas have the same weights, and if not, whose differ first.

A fingerprint of 8 bytes of every variable is computed where the variable is. Workers compare theirs through the
cluster's key-value store, not in a collective, in which workers that don't do the same would wait for ever.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfdist.errors import WorkersDisagreeError
from tfdist.gradients.averaging import fingerprint


def check_equal_weights(strategy: Any, variables: Sequence[Any], occasion: str) -> None:
    """Compare all replicas of a synchronous strategy; eagerly, on every worker.

    Args:
        strategy: the strategy.
        variables: Keras variables that are to be equal.
        occasion: what training has reached, for messages; the same on all workers.

    Raises:
        WorkersDisagreeError: replicas differ; names the first variable that does, and the replica or worker.
    """
    names, facts = {}, {}
    for index, variable in enumerate(variables):
        copies = [int(fingerprint(tf.convert_to_tensor(one))) for one in _copies(strategy, variable)]
        if len(set(copies)) > 1:
            raise WorkersDisagreeError(
                f"Replicas do not agree on the weights {variable.path!r} at {occasion}. Expected: the same on every "
                f"replica. Received: others on {_odd(copies)} of worker {strategy.worker_index}. Something changes "
                "them on some replicas only, such as a layer of your own, or a device computes wrongly."
            )
        # By number: automatic names count up from whatever the process made before.
        names[f"weights {index}"] = f"weights {variable.path!r}"
        facts[f"weights {index}"] = f"fingerprint {copies[0] % 2**64:016x}"
    strategy.agree(occasion, facts, names)


def _copies(strategy: Any, variable: Any) -> Sequence[Any]:
    return strategy.experimental_local_results(variable.value)


def _odd(copies: list[int]) -> str:
    """The replicas that differ from most others."""
    usual, _ = collections.Counter(copies).most_common(1)[0]
    return "replica " + ", ".join(str(index) for index, copy in enumerate(copies) if copy != usual)
