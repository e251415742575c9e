"""Whether anybody looks at the logs of single batches of a `fit`.

Upstream: `fit` hands each batch's logs to every callback, whether or not it has a method for them, and takes those of
an epoch from the metrics themselves.
Here: callbacks are asked as upstream asks them when it decides whether to call them in a thread. A callback that has
such a method but no use for logs says so: `reads_batch_logs = False`. Seen in Keras 3.15.1. Can go when Keras asks for
logs only where they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras.src import utils

_METHODS = ("on_batch_end", "on_train_batch_end")


def reads_batch_logs(callbacks: Sequence[Any], verbose: Any) -> bool:
    """Whether a `fit` with these callbacks shows or uses the logs of batches.

    Args:
        callbacks: all that `fit` is given.
        verbose: as `fit` takes it; 2 is a line an epoch.
    """
    return verbose not in (0, 2) or any(_reads(one) for one in callbacks)


def _reads(callback: Any) -> bool:
    if type(callback) is keras.callbacks.ProgbarLogger:
        return callback.verbose not in (0, 2)
    if type(callback) is keras.callbacks.BackupAndRestore:
        return False
    has_method = not all(utils.is_default(getattr(callback, name)) for name in _METHODS)
    return bool(getattr(callback, "reads_batch_logs", has_method))
