"""A pytest plugin for Keras' own tests: `-p tests.helpers.pytest_tfdist`.

TFDIST_TEST_AS picks what is tested:
    mirrored: `tf.distribute.MirroredStrategy` is tfdist's.
    installed (the default): all shims are in place, as in a process that uses tfdist for other models.
    absent: nothing of tfdist; what fails here as well is not ours.
"""

from __future__ import annotations

import os
import sys
import types

import keras
import pytest
import tensorflow as tf

MODES = ("mirrored", "installed", "absent")
MODE = os.environ.get("TFDIST_TEST_AS", "installed")
MARKERS = ("requires_trainable_backend", "multi_device", "requires_tpu")

if MODE not in MODES:
    raise ValueError(f"Expected: one of {MODES}. Received: TFDIST_TEST_AS={MODE}")
if MODE != "absent":
    import tfdist
    from tfdist import _compat

    _compat.install()
if MODE == "mirrored":
    tf.distribute.MirroredStrategy = tfdist.MirroredStrategy


def stand_ins() -> dict[str, types.ModuleType]:
    """What Keras' tests import and its package does not bring: its root conftest, and JAX, which they name only."""
    conftest = types.ModuleType("conftest")
    conftest.skip_if_backend = lambda backend, reason: pytest.mark.skipif(
        keras.backend.backend() == backend, reason=reason
    )
    return {"conftest": conftest, "jax": types.ModuleType("jax")}


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", f"{marker}: Keras' own")


@pytest.hookimpl(hookwrapper=True)
def pytest_collection():
    """The stand-ins are there while the tests' modules are imported, and not when they run."""
    added = {name: module for name, module in stand_ins().items() if name not in sys.modules}
    sys.modules.update(added)
    yield
    for name in added:
        del sys.modules[name]
