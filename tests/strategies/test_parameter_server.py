"""Two workers train at the same time, and what Keras promises holds: no step, batch or update is lost or counted twice.

That one worker's training is that of one device is in test_matrix.py.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.helpers.cluster_runner import run_python
from tests.strategies.programs.parameter_server import RATE, SHARE

pytestmark = pytest.mark.cluster
PROGRAM = "tests.strategies.programs.parameter_server"

#: Float32 rounding of sums in another order.
ROUNDING = 1e-6


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[Any, Any]]:
    """Of all checks, run once."""
    folder = tmp_path_factory.mktemp("parameter_server")
    output = folder / "results.pickle"
    run_python(["-m", PROGRAM, str(output)], workers=0, logs=folder / "logs", timeout_seconds=280)
    return pickle.loads(output.read_bytes())


@pytest.fixture
def of(results: dict[str, dict[Any, Any]]) -> Callable[[str], dict[Any, Any]]:
    """`of("fits")` is what that check found."""

    def found(name: str) -> dict[Any, Any]:
        if "error" in results[name]:
            pytest.fail(results[name]["error"])
        return results[name]

    return found


def assert_same_logs(found: dict[str, float], expected: dict[str, float], tolerance: float = ROUNDING) -> None:
    """Counts, of which accuracy and AUC are made, and the largest value are exact; means are to rounding."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        near = 0.0 if name in ("accuracy", "auc") else tolerance
        assert found[name] == pytest.approx(value, abs=near, rel=0), name


def test_a_fit_makes_every_step_of_every_epoch(of):
    found = of("fits")
    assert found["epochs"] == [0, 1, 2]
    assert found["history"] == {"accuracy": 3, "loss": 3}
    assert found["second history"] == {"accuracy": 2, "loss": 2, "val_accuracy": 2, "val_loss": 2}
    assert found["iterations"] == [24, 48, 72, 96, 120], "of two fits, at the end of each epoch"
    assert found["begun"] == found["ended"] == [*range(24)] * 5
    assert found["losses"] == sorted(found["losses"], reverse=True)


def test_validation_waits_for_all_steps(of):
    """The weights on which an epoch was validated are those after it: the same numbers on the same workers."""
    found = of("fits")
    assert found["last val_loss"] == pytest.approx(found["evaluated"], abs=ROUNDING)


def test_no_gradient_is_lost_or_counted_twice(of):
    """100 steps of the same gradient 1; sums of halves are exact."""
    assert of("every_gradient_counts") == {"slope": -100 * RATE, "iterations": 100}


@pytest.mark.parametrize("data", ["dataset", "arrays", "weighted", "two steps"])
def test_evaluate_is_that_of_one_device(of, data):
    assert_same_logs(*of("evaluates")[data])


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_training_logs_are_of_all_data(of, steps_per_execution):
    history, expected = of("training_metrics")[steps_per_execution]
    for epoch in range(2):
        assert_same_logs({name: values[epoch] for name, values in history.items()}, expected)


@pytest.mark.parametrize("data", ["arrays", "dataset", "executions of 4", "two steps", "again"])
def test_predictions_are_in_order(of, data):
    found, expected = of("predicts")[data]
    np.testing.assert_allclose(found, expected, atol=ROUNDING, rtol=0)
    assert len(np.unique(expected)) == len(expected), "each row can be told from the others"


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_what_layers_count_is_not_lost(of, steps_per_execution):
    """80 steps, of which each adds 1 to a counter and draws once a Dropout."""
    found = of("state_of_layers")[steps_per_execution]
    assert found["count"] == 80
    assert found["draws"] == [80, 80]


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_moving_averages_lose_no_batch(of, steps_per_execution):
    """Each of 80 steps adds SHARE x (1 - mean) to a mean of 0, and SHARE x (0 - variance) to a variance of 1.

    What a step reads may be a few steps old, which makes up to SHARE of its own part of the result; all 80 SHARE at
    most. One lost batch would make 1/80.
    """
    found = of("state_of_layers")[steps_per_execution]
    for changed in (found["moving mean"], 1 - found["moving variance"], found["renorm mean"]):
        assert 80 * SHARE * (1 - 80 * SHARE) <= changed <= 80 * SHARE + ROUNDING
    assert 80 * SHARE < 1 / 80


def test_schedules_see_the_steps_of_all_workers(of):
    """The rate is 1 where fewer than 30 steps were made before; the other worker may have begun before the 30th."""
    found = of("schedule")
    assert -31 <= found["slope"] <= -30
    assert found["rate"] == 0


def test_callbacks_stop_and_log(of):
    found = of("callbacks")
    assert (found["epochs"], found["stopped"]) == (5, 4), "the first epoch is the best, patience is 4"
    header, *lines = found["csv"]
    assert header.split(",") == ["epoch", *sorted(found["history"])]
    assert [float(line.split(",")[-2]) for line in lines] == pytest.approx(found["history"]["val_loss"], abs=ROUNDING)
    assert found["board"] == ["train", "validation"]


def test_callbacks_save_what_plain_keras_loads(of):
    found = of("callbacks")
    epochs = {f"epoch-{epoch}.weights.h5" for epoch in range(1, 6)}
    # Each fourth batch of six an epoch, counted over epochs: 4, 8, 12, ... have these places in their epochs.
    steps = {f"{(batch - 1) % 6 + 1}.weights.h5" for batch in range(4, 31, 4)}
    assert set(found["files"]) == {"best.keras", "board", "log.csv"} | epochs | steps
    loaded, own = found["saved"]
    np.testing.assert_allclose(loaded, own, atol=ROUNDING, rtol=0)


def test_a_rate_that_a_callback_changes_is_the_next_epochs(of):
    """8 steps at 1, 8 at 1, since the first epoch is the best so far, and 8 at 1/2."""
    assert of("rate_on_plateau") == {"rates": [1.0, 1.0, 0.5], "slope": -20.0}


@pytest.mark.parametrize("steps_per_execution", [1, 4])
@pytest.mark.parametrize(
    "data", ["infinite", "unknown size", "known size", "generator", "generator of one epoch", "sequence"]
)
def test_epochs_have_the_steps_of_one_device(of, data, steps_per_execution):
    """Iterations too, but where Keras' own count one more for data that turns out to be at its end."""
    (slope, iterations, ended), (expected_slope, _, expected_ended) = of("amounts_of_data")[
        f"{data}, {steps_per_execution} steps an execution"
    ]
    assert (slope, ended) == (expected_slope, expected_ended)
    assert slope == -RATE * iterations[-1], "what is counted is what was made"
    if steps_per_execution == 1:
        assert iterations == {"infinite": [7, 14, 21], "generator of one epoch": [11]}.get(data, [11, 22, 33])


def test_weights_of_classes_and_samples_weigh(of):
    """Ten steps; each batch's weights are 1, 3, 1, 3 or 0.5, 1, 1.5, 5, both of mean 2."""
    assert of("weighted_rows") == {"class_weight": -20 * RATE, "sample_weight": -20 * RATE, "none": -10 * RATE}


def test_mixed_precision_scales_the_loss_and_counts_steps(of):
    """Gradients of 1, scaled by powers of two, are exact in float16."""
    found = of("mixed_precision")
    assert (found["optimizer"], found["compute dtype"], found["variable dtype"]) == (
        *("LossScaleOptimizer", "float16", "float32"),
    )
    assert found["slope"] == -30 * 2.0**-5
    assert (found["iterations"], found["step counter"]) == (30, 30)


def test_a_callback_that_evaluates_takes_nothing_away(of):
    assert of("evaluated_in_between") == {"reported": 40, "iterations": 40}


def test_an_interrupted_fit_leaves_no_trace_but_its_steps(of):
    found = of("interrupted")
    assert found["raised"]
    # Batch 9 has ended, and those in flight count too: two executions of two steps a worker, at most.
    assert 10 <= found["iterations"] <= 10 + 8
    assert found["slope"] == found["loss"] == -RATE * found["iterations"]
    assert found["later iterations"] == found["iterations"] + 10
    assert found["later slope"] == -RATE * found["later iterations"]


def test_the_logs_after_an_interrupted_fit_are_of_the_new_data(of):
    found = of("interrupted")
    assert_same_logs({name: value for name, (value,) in found["history"].items()}, found["expected"])


@pytest.mark.parametrize("models", ["stack", "both"])
def test_parameter_servers_hold_the_same_amount(of, models):
    """Of bytes, within a fifth, weights and Adam's slots together; of dense layers, and with a MobileNetV2."""
    held = of("placement")[models]
    assert min(held) > 0
    assert max(held) / min(held) <= 1.2


def test_what_was_made_outside_of_the_scope_is_refused(of):
    found = of("refusals")
    assert "optimizer was made outside" in found["optimizer"]
    assert "strategy.scope()" in found["optimizer"]
    assert found["inner optimizer"] == found["optimizer"]
    assert "made outside of the strategy's scope" in found["model"]
    assert found["slope"] == -4 * RATE, "a model made inside trains after that"


def test_a_slow_worker_holds_up_no_other(of):
    """Taken in the order in which they began, there would be three steps of the other's for each of the slow one's."""
    slow, quick = of("overtakes")["steps"]
    assert slow + quick == 80
    assert quick > 4 * slow > 0


def test_steps_of_two_workers_overlap(of):
    assert all(met >= 2 for met in of("steps_meet").values())
