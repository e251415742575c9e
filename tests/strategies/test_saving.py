"""Only the chief writes, nobody hangs, nobody clashes, and plain Keras reads what was written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.cluster_runner import run_python

PLAIN_KERAS = """
import sys
sys.modules["tfdist"] = None  # importing it is an error
import keras, numpy as np
sys.path.insert(0, {root!r})
folder = {folder!r}
from tests.helpers.setups import batches, features, weights
import tensorflow as tf
model = keras.models.load_model(folder + "/model.keras")
assert int(model.optimizer.iterations) == 12, model.optimizer.iterations
np.save(folder + "/predictions-plain.npy", model.predict(features(53), verbose=0))
served = tf.saved_model.load(folder + "/exported")
np.save(folder + "/predictions-served.npy", served.serve(features(53)).numpy())
model.fit(batches(53, 10), epochs=1, verbose=0)
np.save(folder + "/continued-plain.npy", weights(model))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two workers saved."""
    folder = tmp_path_factory.mktemp("saved")
    run_python(["-m", "tests.strategies.programs.saving", str(folder)], workers=2, logs=folder / "logs")
    return folder


@pytest.mark.cluster
def test_every_callback_wrote_once(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"best.keras", "epoch-1.weights.h5", "epoch-2.weights.h5", "step.weights.h5"} <= names
    assert {"log.csv", "board", "backup", "chief_only.keras", "function.keras"} <= names
    assert len((folder / "log.csv").read_text().splitlines()) == 3, "a header and two epochs"
    assert len(list((folder / "board" / "train").glob("events*"))) == 1, "one writer, the chief"


@pytest.mark.cluster
def test_plain_keras_continues_from_the_saved_model(folder: Path) -> None:
    root = str(Path(__file__).parents[2])
    code = PLAIN_KERAS.format(root=root, folder=str(folder))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = np.load(folder / "predictions-0.npy")
    np.testing.assert_array_equal(np.load(folder / "predictions-1.npy"), expected)
    # Other kernels' order of summation, in float32.
    np.testing.assert_allclose(np.load(folder / "predictions-plain.npy"), expected, atol=1e-6)
    np.testing.assert_allclose(np.load(folder / "predictions-served.npy"), expected, atol=1e-6)
    np.testing.assert_array_equal(np.load(folder / "continued-0.npy"), np.load(folder / "continued-1.npy"))
    # One more epoch of Adam: its slots came along, else the first step would be another size.
    np.testing.assert_allclose(np.load(folder / "continued-plain.npy"), np.load(folder / "continued-0.npy"), atol=1e-5)
