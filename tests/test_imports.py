"""What importing costs: nothing beside TensorFlow, and not even that for what starts processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tfdist

pytestmark = pytest.mark.unit

MAX_IMPORT_MS = 100.0
HEAVY = ("tensorflow", "keras", "numpy")


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["tfdist", "tfdist.cluster", "tfdist.launch", "tfdist.config"])
def test_import_does_not_load_tensorflow(module):
    code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    assert run_python(code) == "[]"


def test_importing_tfdist_adds_under_100_ms_to_tensorflow():
    """The least of three: what else the machine does only adds."""
    code = (
        "import time, tensorflow; start = time.perf_counter(); import tfdist; "
        "print(1e3 * (time.perf_counter() - start))"
    )
    assert min(float(run_python(code)) for _ in range(3)) < MAX_IMPORT_MS


def test_using_tfdist_adds_under_100_ms_to_tensorflow():
    """As above, with the strategies that a training script names, Keras being loaded already."""
    code = (
        "import time, tensorflow, keras; keras.Model; start = time.perf_counter(); "
        "import tfdist; tfdist.MultiWorkerMirroredStrategy, tfdist.data.read_tfrecords; "
        "print(1e3 * (time.perf_counter() - start))"
    )
    assert min(float(run_python(code)) for _ in range(3)) < MAX_IMPORT_MS


def test_every_public_name_loads():
    for name in tfdist.__all__:
        assert getattr(tfdist, name) is not None
    assert set(tfdist.__all__) <= set(dir(tfdist))


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'MirrorStrategy'"):
        tfdist.MirrorStrategy  # noqa: B018
