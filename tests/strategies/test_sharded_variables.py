"""Variables in shards train as whole ones do on one device, and files know nothing of shards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.cluster_runner import run_python
from tests.strategies.programs.sharded_variables import CHECKS, MODELS, OPTIMIZERS, ids

pytestmark = pytest.mark.cluster
PROGRAM = "tests.strategies.programs.sharded_variables"

PLAIN_KERAS = """
import sys
sys.modules["tfdist"] = None  # importing it is an error
import keras, numpy as np, tensorflow as tf
folder, ids = {folder!r}, np.load({ids!r})
expected = np.load(folder + "/predictions.npy")
model = keras.models.load_model(folder + "/model.keras")
np.testing.assert_allclose(model.predict(ids, verbose=0), expected, atol=1e-6)
served = tf.saved_model.load(folder + "/exported")
np.testing.assert_allclose(served.serve(ids).numpy(), expected, atol=1e-6)
fresh = keras.models.clone_model(model)
fresh.compile(keras.optimizers.Adam(0.5))
fresh.load_weights(folder + "/model.weights.h5")
np.testing.assert_allclose(fresh.predict(ids, verbose=0), expected, atol=1e-6)
fresh.optimizer.build(fresh.trainable_variables)
checkpoint = tf.train.Checkpoint(model=fresh, optimizer=fresh.optimizer)
checkpoint.read(folder + "/checkpoint").assert_existing_objects_matched()
state = list(np.load(folder + "/state.npz").values())
for one in (model, fresh):
    for variable, value in zip([*one.weights, *one.optimizer.variables], state, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the program wrote."""
    folder = tmp_path_factory.mktemp("sharded")
    run_python(["-m", PROGRAM, str(folder)], workers=0, logs=folder / "logs")
    return folder


@pytest.fixture(scope="module")
def checks(folder: Path) -> dict[str, Any]:
    """What the program saw."""
    return json.loads((folder / "checks.json").read_text())


@pytest.mark.parametrize("name", [*OPTIMIZERS, *MODELS, "executions"])
def test_as_on_one_device(checks: dict[str, Any], name: str) -> None:
    found = checks[name]
    assert "error" not in found, found["error"]
    assert found.pop("moved") > 1e-3, "nothing was learned"
    # Other orders of summation, in float32.
    assert {what: value for what, value in found.items() if value > 1e-6} == {}


@pytest.mark.parametrize("name", CHECKS)
def test_shards(checks: dict[str, Any], name: str) -> None:
    assert "error" not in checks[name], checks[name]["error"]


def test_files_are_read_with_another_number_of_ps(folder: Path, checks: dict[str, Any]) -> None:
    run_python(["-m", PROGRAM, str(folder), "3"], workers=0, logs=folder / "logs-3")


def test_plain_keras_reads_the_files(folder: Path, checks: dict[str, Any]) -> None:
    np.save(folder / "ids.npy", ids())
    code = PLAIN_KERAS.format(folder=str(folder / "sharded"), ids=str(folder / "ids.npy"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
