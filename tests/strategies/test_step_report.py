"""The step that the launcher is told, under each kind of strategy."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tfdist.cluster.progress import ENVIRONMENT, TrainingStep, read_progress

pytestmark = pytest.mark.cluster

PROGRAM = """
import os, sys
import keras, numpy as np
from tests.helpers.setups import Setup
if __name__ == "__main__":
    strategy = Setup.named(sys.argv[1]).strategy
    with strategy.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    x = np.ones((8, 2), "float32")
    model.fit(x, x[:, :1], batch_size=2, epochs=3, verbose=0)
    os.environ[sys.argv[2]] = "/no/such/folder/step"
    model.fit(x, x[:, :1], batch_size=2, epochs=4, verbose=0)
"""


@pytest.mark.parametrize("setup", ["one_device_strategy", "parameter_server"])
def test_the_last_step_is_told(tmp_path, setup):
    """Of three epochs of four batches. Where the file can't be made, training goes on all the same."""
    program, step = tmp_path / "program.py", tmp_path / "step"
    program.write_text(PROGRAM)
    paths = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, ENVIRONMENT: str(step), "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, program, setup, ENVIRONMENT]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert read_progress(step) == TrainingStep(2, 3)
