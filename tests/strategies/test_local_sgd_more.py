"""LocalSGDStrategy: compression within its bound, custom loops, replicas that differ, and what is refused."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.cluster_runner import run_python
from tests.helpers.once import once

pytestmark = pytest.mark.cluster

#: Workers and devices of each, and what is run there.
SETUPS = {
    (0, 2): ["compressed", "owing", "own_loop", "checkpoint", "difference", "refusals"],
    (2, 1): ["compressed", "owing", "own_loop", "checkpoint", "checkpoint_owing", "difference", "disagreement"],
}
REPLICAS = 2


@once
def found(workers: int, devices: int) -> list[dict[str, Any]]:
    """What each process returned."""
    with tempfile.TemporaryDirectory(prefix="tfdist-local-sgd-") as folder:
        arguments = ["-m", "tests.strategies.programs.local_sgd_more", folder, str(devices), *SETUPS[workers, devices]]
        run_python(arguments, workers=workers, logs=Path(folder) / "logs")
        return [pickle.loads(path.read_bytes()) for path in sorted(Path(folder).glob("*.pickle"))]


def of(name: str) -> Any:
    """Runs a test for every set-up that has run the function."""
    setups = [setup for setup, names in SETUPS.items() if name in names]
    return pytest.mark.parametrize(("workers", "devices"), setups)


@of("compressed")
@pytest.mark.parametrize("how", ["bfloat16", "int8"])
def test_compression_is_within_its_bound(workers: int, devices: int, how: str) -> None:
    """See gradients/averaging/compression.py for the bounds; both replicas had half of the rows."""
    processes = [process["compressed"] for process in found(workers, devices)]
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


@of("owing")
def test_what_is_left_out_is_owed_to_the_next_averaging(workers: int, devices: int) -> None:
    """Four bits: each change is -7..7 times a seventh of its largest, here by hand."""
    processes = [process["owing"]["4 bits"] for process in found(workers, devices)]
    owed = [[np.zeros_like(w) for w in processes[0]["averaged"][0]] for _ in range(REPLICAS)]
    for epoch in range(3):
        before, after = processes[0]["averaged"][epoch : epoch + 2]
        replicas = [replica for process in processes for replica in process["apart"][epoch]]
        for place, start in enumerate(before):
            total = 0.0
            for replica, debts in zip(replicas, owed, strict=True):
                debt = (start - replica[place]) / REPLICAS + debts[place]
                step = np.abs(debt).max() / np.float32(7)
                said = np.round(debt / step) * step if debt.ndim == 2 else debt
                debts[place], total = debt - said, total + said
            np.testing.assert_allclose(after[place], start - total, atol=1e-6)
    assert np.abs(owed[0][0]).max() > 1e-3, "nothing was left out"


@of("owing")
def test_a_compressor_that_leaves_nothing_out_is_none(workers: int, devices: int) -> None:
    for process in found(workers, devices):
        for one, other in zip(*(process["owing"][name]["averaged"][-1] for name in ("all", "none")), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


@of("checkpoint_owing")
def test_a_checkpoint_has_what_every_replica_owes(workers: int, devices: int) -> None:
    for process in found(workers, devices):
        result = process["checkpoint_owing"]
        np.testing.assert_array_equal(result["again"], result["whole"])


@of("checkpoint")
def test_a_tensorflow_checkpoint_in_the_middle_of_a_period(workers: int, devices: int) -> None:
    """Every replica has its own momentum back: the same bits."""
    for process in found(workers, devices):
        np.testing.assert_array_equal(process["checkpoint"]["again"], process["checkpoint"]["whole"])


@of("own_loop")
def test_a_custom_loop_does_what_fit_does(workers: int, devices: int) -> None:
    """Losses are divided by rows in one, and by the replica's in the other: float32 rounding."""
    for process in [process["own_loop"] for process in found(workers, devices)]:
        np.testing.assert_allclose(process["loop"], process["fit"], rtol=0, atol=1e-6)


@of("difference")
def test_replicas_that_differ_after_an_averaging_stop_and_name_the_variable(workers: int, devices: int) -> None:
    for process in [process["difference"] for process in found(workers, devices)]:
        for when, name in (("step", "hidden/bias'"), ("epoch", "hidden/bias'"), ("overlap", "hidden_bias_anchor'")):
            assert "Expected: equal variables on all replicas after an averaging" in process[when]
            assert name in process[when]
        assert process["unverified"] == ""


@of("refusals")
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
        ("overlap", "Received: overlap_steps=1. Override train_step"),
    ],
)
def test_what_cannot_work_is_refused(workers: int, devices: int, what: str, says: str) -> None:
    for process in [process["refusals"] for process in found(workers, devices)]:
        assert says in process[what]


@of("disagreement")
def test_workers_with_other_options_say_so(workers: int, devices: int) -> None:
    for process in [process["disagreement"] for process in found(workers, devices)]:
        assert "Workers do not agree on the averaging at fit" in process["said"]
