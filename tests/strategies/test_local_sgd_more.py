"""LocalSGDStrategy: compression within its bound, custom loops, replicas that differ, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.cluster_runner import run_python

pytestmark = pytest.mark.cluster

#: Workers and devices of each, and what is run there.
SETUPS = {
    "devices": (0, 2, ["compressed", "own_loop", "difference", "refusals"]),
    "workers": (2, 1, ["compressed", "own_loop", "difference", "disagreement"]),
}
REPLICAS = 2


@pytest.fixture(scope="module", params=SETUPS)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each process returned."""
    workers, devices, names = SETUPS[request.param]
    folder = tmp_path_factory.mktemp("more")
    arguments = ["-m", "tests.strategies.programs.local_sgd_more", str(folder), str(devices), *names]
    run_python(arguments, workers=workers, logs=folder / "logs")
    return [pickle.loads(path.read_bytes()) for path in sorted(Path(folder).glob("*.pickle"))]


def asked(found: list[dict[str, Any]], name: str) -> list[Any]:
    """What each process returned of one function."""
    if name not in found[0]:
        pytest.skip("not of this set-up")
    return [process[name] for process in found]


@pytest.mark.parametrize("how", ["bfloat16", "int8"])
def test_compression_is_within_its_bound(found: list[dict[str, Any]], how: str) -> None:
    """See gradients/averaging/compression.py for the bounds; both replicas had half of the rows."""
    processes = asked(found, "compressed")
    replicas = [replica for process in processes for replica in process["replicas"]]
    assert len(replicas) == REPLICAS
    differs = 0.0
    for place, before in enumerate(processes[0]["before"]):
        changes = [np.abs(before - replica[place]) for replica in replicas]
        if how == "bfloat16":
            bound = REPLICAS * 2**-8 * (1 + 2**-8) ** REPLICAS * sum(changes) / REPLICAS
        else:
            bound = sum(change.max() for change in changes) / REPLICAS / 254
        mean = sum(replica[place] for replica in replicas) / REPLICAS
        for process in processes:
            # The weights themselves are rounded to float32.
            off = np.abs(process[how][place] - mean)
            assert np.all(off <= bound + 2**-23 * np.abs(mean) + 1e-7)
            np.testing.assert_array_equal(process[how][place], processes[0][how][place])
            np.testing.assert_allclose(process["None"][place], mean, rtol=0, atol=1e-6)
        differs = max(differs, float(off.max()))
    assert differs > 1e-5, "nothing was rounded"


def test_a_custom_loop_does_what_fit_does(found: list[dict[str, Any]]) -> None:
    """Losses are divided by rows in one, and by the replica's in the other: float32 rounding."""
    for process in asked(found, "own_loop"):
        np.testing.assert_allclose(process["loop"], process["fit"], rtol=0, atol=1e-6)


def test_replicas_that_differ_after_an_averaging_stop_and_name_the_variable(found: list[dict[str, Any]]) -> None:
    for process in asked(found, "difference"):
        for when in ("step", "epoch"):
            assert "Expected: equal variables on all replicas after an averaging" in process[when]
            assert "hidden/bias'" in process[when]
        assert process["unverified"] == ""


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("synchronized", "Expected: layers of one replica, such as BatchNormalization(synchronized=False)"),
        ("loss scale", "Received: optimizer=LossScaleOptimizer. Use the policy 'mixed_bfloat16'"),
        ("accumulation", "Received: optimizer=SGD with gradient accumulation"),
        ("attached", "Received: optimizer=SGD with gradient accumulation"),
        ("strategy's accumulation", "Expected: gradient_accumulation_steps=1 under LocalSGDStrategy"),
        ("xla", "XLA cannot compile the collectives of LocalSGDStrategy"),
        ("warm-up", "Received: warmup_steps=2. Override train_step"),
    ],
)
def test_what_cannot_work_is_refused(found: list[dict[str, Any]], what: str, says: str) -> None:
    for process in asked(found, "refusals"):
        assert says in process[what]


def test_workers_with_other_options_say_so(found: list[dict[str, Any]]) -> None:
    for process in asked(found, "disagreement"):
        assert "Workers do not agree on the averaging at fit" in process["said"]
