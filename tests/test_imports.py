"""What importing costs: nothing beside TensorFlow, and not even that for what starts processes."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

import tfdist

pytestmark = pytest.mark.unit

HEAVY = ("tensorflow", "keras", "numpy")


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["tfdist", "tfdist.cluster", "tfdist.launch", "tfdist.config"])
def test_import_does_not_load_tensorflow(module):
    code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    assert run_python(code) == "[]"


def test_training_scripts_load_little_beside_tensorflow():
    """The milliseconds are benchmarks/imports.py's to tell; a library more is what makes them many."""
    code = (
        "import sys, tensorflow, keras; keras.Model; before = set(sys.modules)\n"
        "import tfdist; tfdist.MultiWorkerMirroredStrategy, tfdist.data.read_tfrecords\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    assert ast.literal_eval(run_python(code)) == ["google_crc32c", "tfdist", "tqdm"]


def test_every_public_name_loads():
    for name in tfdist.__all__:
        assert getattr(tfdist, name) is not None
    assert set(tfdist.__all__) <= set(dir(tfdist))


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'MirrorStrategy'"):
        tfdist.MirrorStrategy  # noqa: B018
