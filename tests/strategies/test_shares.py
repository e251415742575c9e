"""Workers that read their own data; and a multi-worker strategy that finds itself alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.cluster_runner import run_python

ALONE = """
import numpy as np, tfdist
from tests.helpers.setups import Setup, batches, features, weights
strategy = tfdist.MultiWorkerMirroredStrategy()
assert strategy.num_workers == 1 and strategy.is_chief and strategy.num_replicas_in_sync == 1
found = []
for setup, jit in ((Setup(None), False), (Setup(strategy), False), (Setup(strategy), True)):
    model = setup.classifier("adam", steps_per_execution=2, jit_compile=jit)
    model.fit(batches(53, 10), epochs=2, verbose=0)
    found.append((weights(model), model.predict(features(5), verbose=0)))
np.testing.assert_array_equal(found[0][0], found[1][0])
np.testing.assert_array_equal(found[0][1], found[1][1])
np.testing.assert_allclose(found[0][0], found[2][0], atol=1e-6)  # XLA's own order of sums
"""


@pytest.mark.cluster
def test_shares_of_unequal_length(tmp_path: Path) -> None:
    run_python(["-m", "tests.strategies.programs.shares"], workers=2, logs=tmp_path)


@pytest.mark.unit
def test_multi_worker_strategy_without_a_cluster(tmp_path: Path) -> None:
    run_python(["-c", ALONE], workers=0, logs=tmp_path)


@pytest.mark.cluster
def test_batches_are_on_the_replicas_devices(tmp_path: Path):
    run_python(["-m", "tests.strategies.programs.devices"], workers=0, logs=tmp_path)


@pytest.mark.cluster
def test_the_chief_does_something_while_the_others_wait(tmp_path: Path):
    run_python(["-m", "tests.strategies.programs.on_chief", str(tmp_path)], workers=2, logs=tmp_path)
