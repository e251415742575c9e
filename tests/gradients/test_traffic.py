"""K micro-batches cost one all-reduce of the gradients and one optimizer step."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gradients.programs.traffic import MICRO_BATCHES, NEVER
from tests.helpers.cluster_runner import run_python
from tests.helpers.setups import WORKERS

#: Bytes of the model: 64 x 512, twice 512 x 512, 512 x 1 and their biases, float32.
MODEL_BYTES = 4 * (64 * 512 + 2 * 512 * 512 + 512 + 3 * 512 + 1)


@pytest.fixture(scope="module", params=["mirrored2", "workers2"])
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What one worker counted, by K."""
    folder = tmp_path_factory.mktemp("traffic")
    arguments = ["-m", "tests.gradients.programs.traffic", request.param, str(folder)]
    run_python(arguments, workers=WORKERS[request.param], logs=folder / "logs")
    found = {int(steps): counts for steps, counts in json.loads((folder / "0.json").read_text()).items()}
    return {**found, 0: {"is_cluster": request.param == "workers2"}}


@pytest.mark.cluster
@pytest.mark.parametrize("steps", [2, 4, 16])
def test_one_optimizer_step_and_one_all_reduce_for_all_gradients(measured, steps: int) -> None:
    """Between workers it is in buckets: each of the two large kernels, and the rest."""
    counts, never = measured[steps], measured[NEVER]
    buckets = 3 if measured[0]["is_cluster"] else 1
    assert counts["flushes"] == counts["optimizer steps"] == MICRO_BATCHES // steps
    assert counts["collectives"] - never["collectives"] == buckets * MICRO_BATCHES // steps
    assert measured[1]["optimizer steps"] == MICRO_BATCHES


@pytest.mark.cluster
@pytest.mark.parametrize("steps", [2, 4, 16])
def test_bytes_fall_with_the_number_of_micro_batches(measured, steps: int) -> None:
    """In a ring of two each worker sends and receives the model once; metrics and counts are left out."""
    if not measured[0]["is_cluster"]:
        pytest.skip("replicas in one process share memory")
    gradients = {k: measured[k]["bytes"] - measured[NEVER]["bytes"] for k in (1, steps)}
    assert gradients[1] / gradients[steps] == pytest.approx(steps, rel=0.05)
    assert gradients[1] == pytest.approx(MICRO_BATCHES * 2 * MODEL_BYTES, rel=0.05)
