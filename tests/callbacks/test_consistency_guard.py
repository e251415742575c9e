"""ConsistencyGuard: one bit of one replica's weights is turned over in the middle of training."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import tfdist
from tests.helpers.cluster_runner import run_python


def outputs(folder: Path, workers: int, devices: int, worker: int, replica: int = 0) -> list[str]:
    arguments = ["-m", "tests.callbacks.programs.consistency", *map(str, (devices, worker, replica))]
    run_python(arguments, workers=workers, logs=folder, timeout_seconds=150)
    return [(folder / f"{index}.log").read_text() for index in range(max(workers, 1))]


@pytest.mark.cluster
def test_two_workers_stop_at_the_next_comparison_and_name_the_variable(tmp_path: Path) -> None:
    """Turned after step 9, compared after step 12: which of two is wrong nobody knows."""
    for text in outputs(tmp_path, workers=2, devices=1, worker=1):
        assert "STOPPED at step 12: Workers do not agree on the weights" in text
        assert "hidden/bias' at epoch 1, step 12 of fit" in text
        assert "worker 0 has" in text
        assert "worker 1 has" in text


@pytest.mark.cluster
def test_of_three_workers_all_name_the_one_that_differs(tmp_path: Path) -> None:
    for text in outputs(tmp_path, workers=3, devices=1, worker=0):
        assert "STOPPED at step 12" in text
        assert "most workers have" in text
        assert "worker 0 has" in text


@pytest.mark.cluster
def test_replicas_of_one_process(tmp_path: Path) -> None:
    (text,) = outputs(tmp_path, workers=0, devices=3, worker=0, replica=2)
    assert "STOPPED at step 12: Replicas do not agree on the weights" in text
    assert "others on replica 2 of worker 0" in text


@pytest.mark.cluster
def test_equal_workers_train_to_the_end(tmp_path: Path) -> None:
    for text in outputs(tmp_path, workers=2, devices=1, worker=-1):
        assert "trained 18 steps" in text


@pytest.mark.unit
def test_wrong_options() -> None:
    with pytest.raises(ValueError, match=r"every_steps of at least 1\. Received: every_steps=0"):
        tfdist.callbacks.ConsistencyGuard(every_steps=0)


@pytest.mark.unit
def test_a_model_whose_replicas_are_not_compared() -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"Expected: a model under tfdist\.MirroredStrategy or"):
        model.fit(np.ones([2, 1]), np.ones([2, 1]), verbose=0, callbacks=[tfdist.callbacks.ConsistencyGuard()])
