"""A pytest plugin for Keras' own tests: `-p tests.helpers.pytest_tfdist`.

With TFDIST_TEST_AS_MIRRORED=1 `tf.distribute.MirroredStrategy` is tfdist's; else a tfdist strategy is merely made
once, so that all shims are in place, as in a process that uses tfdist for other models.
"""

from __future__ import annotations

import os

import tensorflow as tf

import tfdist
from tfdist import _compat

if os.environ.get("TFDIST_TEST_AS_MIRRORED") == "1":
    tf.distribute.MirroredStrategy = tfdist.MirroredStrategy
_compat.install()


def pytest_configure(config) -> None:
    for marker in ("requires_trainable_backend", "multi_device", "requires_tpu"):
        config.addinivalue_line("markers", f"{marker}: Keras' own")
