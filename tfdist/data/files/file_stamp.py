"""What a file is told by: its size and when it was last changed."""

from __future__ import annotations

import os

import tensorflow as tf

from tfdist.errors import DataError


def stamp_of(path: str) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds; TensorFlow knows local files' only to the second.

    Raises:
        DataError: If there is no such file.
    """
    try:
        found = os.stat(path)
        return found.st_size, found.st_mtime_ns
    except FileNotFoundError:
        try:
            remote = tf.io.gfile.stat(path)
        except tf.errors.NotFoundError:
            raise DataError(f"{path}: the file is gone. Restore it.") from None
        return remote.length, remote.mtime_nsec
