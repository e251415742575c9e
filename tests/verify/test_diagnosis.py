"""Each cause from evidence that was made by hand, and what hides what."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from tests.verify.recordings import make
from tfdist.verify.child.recorder import Recorder
from tfdist.verify.comparison import Comparison, DataDifference, Difference
from tfdist.verify.diagnosis import Evidence, diagnose
from tfdist.verify.diagnosis.finding import constant_factor, update_factor
from tfdist.verify.recording import Recording

pytestmark = pytest.mark.unit

BEGIN = [[1.0, 2.0], [0.0]]
VARIABLE = Difference(1, "variable", "first", 0.5, 1e-3, 2.0, 1.0)
LOSS = Difference(1, "log", "loss", 0.5, 1e-3, 2.0)
ADDS_UP = {"difference": 1e-7, "factor": 1.0}
APART = {"difference": 0.3, "factor": None}


def step(first=(2.0, 3.0), second=(1.0,), rows=(11, 12)):
    return ([first, second], {"loss": 1.0}, rows)


@pytest.fixture
def evidence(tmp_path):
    """A function that makes evidence of a difference in a variable after the first step, changed as it is told."""
    count = itertools.count()

    def made(*, one=(), other=(), fit=None, sites=None, slots=((), ()), **changes) -> Evidence:
        facts = {"fit": fit or {}, "sites": sites or {}}
        folder = tmp_path / str(next(count))
        reference = make(folder / "one", BEGIN, one or [step()], slots=slots[0], **facts)
        distributed = make(folder / "other", BEGIN, other or [step()], slots=slots[1], **facts)
        comparison = changes.pop("comparison", Comparison(first=[VARIABLE], worst_variable=VARIABLE, steps=1))
        return dataclasses.replace(Evidence(reference, distributed, comparison, 2), **changes)

    return made


def site(**state):
    return {"where": "train.py:7", "what": "call", "in_step": False, "after_gradients": False, **state}


def cause_of(found: Evidence) -> str:
    return diagnose(found).cause


def test_nothing_known(evidence):
    finding = diagnose(evidence())
    assert (finding.cause, finding.confidence) == ("unknown", "possible")


def test_what_float64_could_not_decide(evidence):
    assert cause_of(evidence(undecided=True)) == "undecided"
    assert cause_of(evidence(undecided=True, sites={"random": [site(in_step=True)]})) == "random_numbers_in_step"


@pytest.mark.parametrize(
    "again, said",
    [
        (Comparison(data=DataDifference(1, 2, 2, 0)), "other rows"),
        (Comparison(first=[dataclasses.replace(VARIABLE, step=0)]), "weights differ before the first step"),
        (Comparison(first=[VARIABLE]), "lead to other results"),
    ],
)
def test_not_reproducible_hides_everything(evidence, again, said):
    comparison = Comparison(first=[VARIABLE], data=DataDifference(1, 16, 32, 16))
    finding = diagnose(evidence(again=again, comparison=comparison, sites={"shard": [site()]}))
    assert finding.cause == "not_reproducible"
    assert said in finding.explanation


def test_equal_again_says_nothing(evidence):
    assert cause_of(evidence(again=Comparison())) == "unknown"


@pytest.mark.parametrize("received, expected", [(32, "2 times"), (8, "1/2 of")])
def test_batch_sizes(evidence, received, expected):
    comparison = Comparison(first=[VARIABLE], data=DataDifference(1, 16, received, 8))
    finding = diagnose(evidence(comparison=comparison, sites={"replicas": [site()]}))
    assert (finding.cause, finding.where) == ("per_replica_batch_size", ("call at train.py:7",))
    assert expected in finding.title


def test_sharding_by_hand_needs_other_rows(evidence):
    comparison = Comparison(first=[VARIABLE], data=DataDifference(1, 16, 16, 8))
    assert cause_of(evidence(comparison=comparison, sites={"shard": [site()]})) == "sharded_by_hand"


def test_sharding_with_the_same_rows_is_no_mistake(evidence):
    assert cause_of(evidence(sites={"shard": [site()]})) == "unknown"


def test_workers_with_other_batches(evidence, tmp_path):
    """Worker 0 has row 11 of one device's 11 and 12, worker 1 has row 99."""
    comparison = Comparison(first=[VARIABLE], data=DataDifference(1, 2, 2, 1))
    made = evidence(other=[step(rows=(11,))], comparison=comparison)
    worker = Recorder(tmp_path / "0" / "other", 1)
    worker.begin([np.zeros(1)], {})
    worker.take_rows(np.array([99], np.uint64))
    worker.step(1, {}, [np.zeros(1)], [])
    worker.write_facts()
    made = dataclasses.replace(made, distributed=Recording.read(tmp_path / "0" / "other"))
    finding = diagnose(made)
    assert finding.cause == "data_differs_between_workers"
    assert "worker 1 on others" in finding.explanation


def test_any_other_rows(evidence):
    comparison = Comparison(first=[VARIABLE], data=DataDifference(1, 2, 2, 0))
    assert cause_of(evidence(other=[step(rows=(98, 99))], comparison=comparison)) == "data_differs"


def test_another_number_of_steps(evidence):
    finding = diagnose(evidence(comparison=Comparison(structure="one device makes 2 steps and the other run 1")))
    assert finding.cause == "data_differs"
    assert "One device makes 2 steps" in finding.explanation


def test_initial_weights(evidence):
    comparison = Comparison(first=[dataclasses.replace(VARIABLE, step=0)])
    assert cause_of(evidence(comparison=comparison)) == "initial_weights"


def test_a_layers_own_state(evidence):
    fit = {"variables": [{"path": "first", "trainable": False}, {"path": "second", "trainable": True}]}
    assert cause_of(evidence(fit=fit)) == "state_of_a_layer"


def test_random_numbers(evidence):
    assert cause_of(evidence(sites={"random": [site(in_step=True)]})) == "random_numbers_in_step"


def test_random_numbers_outside_of_the_step_are_no_cause(evidence):
    assert cause_of(evidence(sites={"random": [site()]})) == "unknown"


def layer(**settings):
    return {"path": "norm", "class": "BatchNormalization", "settings": {"trainable": True, **settings}}


def mixing(class_="BatchNormalization", path="norm"):
    return {"layers": [{"path": path, "class": class_, "difference": 0.2}]}


def test_batch_normalization(evidence):
    finding = diagnose(evidence(fit={"layers": [layer(synchronized=False)]}, probe=mixing()))
    assert (finding.cause, finding.where) == ("unsynchronized_batch_normalization", ("norm",))
    assert finding.confidence == "certain"


def test_batch_normalization_without_a_probe_is_likely_if_the_loss_differs(evidence):
    fit = {"layers": [layer(synchronized=False)]}
    finding = diagnose(evidence(fit=fit, comparison=Comparison(first=[LOSS, VARIABLE])))
    assert (finding.cause, finding.confidence) == ("unsynchronized_batch_normalization", "likely")


def test_another_layer_comes_first(evidence):
    fit = {"layers": [layer(synchronized=False)]}
    finding = diagnose(evidence(fit=fit, probe=mixing("Centre", "centre")))
    assert (finding.cause, finding.where) == ("layer_mixes_rows", ("centre",))


def test_micro_batches_and_synchronized_batch_normalization(evidence):
    made = evidence(fit={"layers": [layer(synchronized=True)]}, probe=mixing(), accumulate=4)
    assert cause_of(made) == "batch_normalization_of_micro_batches"


def probe(**seen):
    return {"layers": [], "losses": ADDS_UP, "gradients": ADDS_UP, "applied": ADDS_UP, **seen}


def test_clipping_is_between_tape_and_optimizer(evidence):
    sites = {"clip": [site(in_step=True, after_gradients=True)]}
    finding = diagnose(evidence(sites=sites, probe=probe(applied=APART)))
    assert (finding.cause, finding.where) == ("clipped_before_reduce", ("call at train.py:7",))


def test_clipping_that_changes_nothing_is_no_cause(evidence):
    sites = {"clip": [site(in_step=True, after_gradients=True)]}
    assert cause_of(evidence(sites=sites, probe=probe())) == "unknown"


def test_sums(evidence):
    half = {"difference": 0.5, "factor": 0.5}
    made = evidence(probe=probe(losses=half, gradients=half, applied=half), fit={"own_loss": "train.py:3"})
    assert cause_of(made) == "loss_is_a_sum"


def test_losses_that_compare_rows(evidence):
    made = evidence(probe=probe(losses=APART, gradients=APART, applied=APART), fit={"own_loss": "train.py:3"})
    assert cause_of(made) == "loss_compares_rows"


def test_losses_of_keras_are_not_blamed(evidence):
    """Masked means, say, are no means over rows, and tfdist knows it."""
    assert cause_of(evidence(probe=probe(losses=APART, gradients=APART, applied=APART))) == "unknown"


def test_a_factor_that_the_probe_does_not_see(evidence):
    """One device moves by (1, 1) and 1, the workers by half of it."""
    made = evidence(other=[step((1.5, 2.5), (0.5,))], probe=probe(), sites={"replicas": [site(in_step=True)]})
    finding = diagnose(made)
    assert (finding.cause, finding.confidence) == ("scaled_by_replicas", "certain")
    assert "0.5 times one device's" in finding.explanation


def test_a_factor_that_is_no_power_of_the_replicas(evidence):
    assert cause_of(evidence(other=[step((1.7, 2.7), (0.7,))], probe=probe())) == "unknown"


def test_only_logs(evidence):
    small = dataclasses.replace(VARIABLE, absolute=1e-9)
    finding = diagnose(evidence(comparison=Comparison(first=[LOSS], worst_variable=small)))
    assert (finding.cause, finding.where) == ("metric_is_no_sum", ("loss",))


@pytest.mark.parametrize(
    "received, factor",
    [([[2.0, 4.0], [6.0]], 2.0), ([[0.5, 1.0], [1.5]], 0.5), ([[2.0, 4.0], [5.0]], None), ([[0.0, 0.0], [0.0]], 0.0)],
)
def test_constant_factors(received, factor):
    expected = [np.array(value) for value in ([1.0, 2.0], [3.0])]
    assert constant_factor(expected, [np.array(value) for value in received]) == (
        None if factor is None else pytest.approx(factor)
    )


@pytest.mark.parametrize(
    "momentum, velocity, factor",
    [(0.5, 0.25, 0.5), (2.0, 4.0, 2.0), (1.0, 0.25, None), (0.5, 0.3, None), (1.0, 1.0, None)],
)
def test_slots_of_adam_show_the_factor_that_its_steps_hide(evidence, momentum, velocity, factor):
    """Momentum is proportional to the gradient, velocity to its square; the count of steps is no slot of a gradient."""
    one = ([3.0], [0.1, 0.2], [0.01, 0.04])
    other = ([3.0], [0.1 * momentum, 0.2 * momentum], [0.01 * velocity, 0.04 * velocity])
    made = evidence(slots=(one, other))
    assert update_factor(made.reference, made.distributed, 2) == (None if factor is None else pytest.approx(factor))
