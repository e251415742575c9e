"""Into how many micro-batches the workers of an elastic job cut each batch: a number that the launcher says."""

from __future__ import annotations

import os

from tfdist.errors import ClusterError

ENVIRONMENT = "TFDIST_MICRO_BATCHES"


def micro_batches() -> int:
    """What the launcher says; 1 where there is none.

    Raises:
        ClusterError: it is no such number.
    """
    text = os.environ.get(ENVIRONMENT, "1")
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ClusterError(
            f"Expected: {ENVIRONMENT}, which tfdist launch --elastic_accumulation sets, to be at least 1. "
            f"Received: {ENVIRONMENT}={text!r}. Unset it."
        )
    return int(text)
