"""What a failed job is told of: which task is gone, and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from tfdist.cluster import Address, Cluster
from tfdist.errors import TaskLostError

_GONE = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError)


@contextlib.contextmanager
def explained(cluster: Cluster) -> Iterator[None]:
    """In place of TensorFlow's error that a task could not be reached, one that names the parameter server.

    Raises:
        TaskLostError: a parameter server does not listen any more.
    """
    try:
        yield
    except _GONE as error:
        gone = [
            f"ps/{index} at {address}"
            for index, address in enumerate(cluster.addresses("ps"))
            if not Address.parse(address).listens()
        ]
        if not gone:
            raise
        raise TaskLostError(
            f"Parameter servers are gone, and the variables that they held: {', '.join(gone)}. Start the job again: "
            "with keras.callbacks.BackupAndRestore it goes on from the last backup, and "
            "`tfdist launch --max_restarts=3` starts it by itself."
        ) from error
