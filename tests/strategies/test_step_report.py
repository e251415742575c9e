"""The step that the launcher is told, under each kind of strategy."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tfdist.cluster.progress import ENVIRONMENT, TrainingStep, read_progress

pytestmark = pytest.mark.cluster

# The last step of three epochs of four batches; with its file gone, training goes on all the same.
PROGRAM = """
import sys
import keras, numpy as np
from tests.helpers.setups import Setup
if __name__ == "__main__":
    strategy = Setup.named(sys.argv[1]).strategy
    with strategy.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    x = np.ones((8, 2), "float32")
    model.fit(x, x[:, :1], batch_size=2, epochs=3, verbose=0)
"""


@pytest.mark.parametrize(
    "setup, folder",
    [("one_device_strategy", "there"), ("one_device_strategy", "gone"), ("parameter_server", "there")],
)
def test_the_last_step_is_told(tmp_path, setup, folder):
    (tmp_path / "there").mkdir()
    program, step = tmp_path / "program.py", tmp_path / folder / "step"
    program.write_text(PROGRAM)
    paths = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, ENVIRONMENT: str(step), "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run([sys.executable, program, setup], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert read_progress(step) == (TrainingStep(2, 3) if folder == "there" else None)
