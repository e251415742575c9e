"""How many collectives have run in functions of this process."""

from __future__ import annotations

from tfdist._compat import tensorflow as tf_compat
from tfdist._compat import tensorflow_repeated_keys


def count_all() -> None:
    """From now on all-reduces that are traced have a fresh key each time they run, and so are counted too."""
    tensorflow_repeated_keys._DTYPES = ()


def collectives() -> int:
    """Keys that were counted."""
    return max((int(key.numpy()) for key in tf_compat._counters.values()), default=0)
