from __future__ import annotations

import keras
import pytest
import tensorflow as tf

from tests.compat.canary import Canary, Recorder
from tfdist._compat import hooks
from tfdist._compat.keras_packed_variables import Fetch
from tfdist.coordination.worker_step import WorkerStep

pytestmark = pytest.mark.unit
canary = Canary("keras_seeds")


def test_the_replaced_method_has_the_same_parameters():
    canary.find("keras:random.SeedGenerator.next")
    shim = canary.module()
    canary.same_parameters(shim._next, shim.next_seed)


def test_a_seed_is_a_pair_of_integers():
    seed = canary.module()._next(keras.random.SeedGenerator(7))
    canary.check(tuple(seed.shape) == (2,), f"a seed has the shape {seed.shape}, not (2,)")
    canary.check(seed.dtype.is_integer, f"a seed is of {seed.dtype}, not an integer")
    canary.check(seed.numpy().tolist() == [7, 0], f"the first seed of 7 is {seed.numpy().tolist()}, not [7, 0]")


def test_the_state_counts_in_the_second_number():
    """Replicas differ in the first, so their seeds don't meet."""
    seeds = keras.random.SeedGenerator(7)
    drawn = [canary.module()._next(seeds).numpy().tolist() for _ in range(3)]
    canary.check(drawn == [[7, 0], [7, 1], [7, 2]], f"the seeds of 7 are {drawn}")


@pytest.mark.parametrize("seeded", [True, False], ids=["own generator", "global generator"])
def test_random_layers_draw_through_the_replaced_method(monkeypatch, seeded):
    draw = Recorder(tf.constant([1, 2]))
    monkeypatch.setattr(keras.random.SeedGenerator, "next", draw)
    keras.random.uniform([2], seed=keras.random.SeedGenerator(7) if seeded else None)
    canary.check(draw.was_called, "random numbers are drawn from seeds that SeedGenerator.next did not give")


def test_dropout_draws_through_the_replaced_method(monkeypatch):
    draw = Recorder(tf.constant([1, 2]))
    layer = keras.layers.Dropout(0.5, seed=7)
    monkeypatch.setattr(keras.random.SeedGenerator, "next", draw)
    layer(tf.ones([2, 2]), training=True)
    canary.check(draw.was_called, "Dropout draws seeds that SeedGenerator.next did not give")


def test_the_fault_is_still_there(stock_faults):
    canary.still(stock_faults, "replicas_draw_the_same_seeds")


@pytest.mark.parametrize("layer", [keras.layers.RandomFlip(), keras.layers.RandAugment(), keras.layers.Dropout(0.5)])
def test_layers_in_a_data_set_draw_through_the_replaced_method(monkeypatch, layer):
    draw = Recorder(tf.constant([1, 2], tf.int64))
    monkeypatch.setattr(keras.random.SeedGenerator, "next", draw)
    tf.data.Dataset.from_tensors(tf.ones([2, 4, 4, 3])).map(lambda x: layer(x, training=True))
    canary.check(draw.was_called, f"{layer.name} in a data set draws seeds that SeedGenerator.next did not give")


def test_the_state_is_what_a_worker_counts_in():
    """A worker of a parameter-server job adds [0, 1] to it in place, in its dtype."""
    seeds = keras.random.SeedGenerator(7)
    canary.has(seeds, "state")
    state = seeds.state.numpy().tolist()
    canary.check(state == [7, 0], f"the state of the seed 7 is {state}")


@pytest.mark.parametrize("ordered", [True, False])
def test_workers_that_draw_at_the_same_time_draw_other_seeds(ordered):
    """Of the same state, as if neither had counted yet; and each counts."""
    shim, drawn = canary.module(), []
    for worker in range(2):
        seeds = keras.random.SeedGenerator(7)
        with hooks.step_scope(WorkerStep(None, tf.constant(worker), Fetch([], []))):
            drawn.append([shim.next_seed(seeds, ordered).numpy().tolist() for _ in range(2)])
    assert [first for first, _ in drawn[1]] == [first + shim.REPLICA_STRIDE for first, _ in drawn[0]]
    assert [second for _, second in drawn[1]] == [second for _, second in drawn[0]]
    if ordered:
        assert drawn[0] == [[7, 0], [7, 1]]
        assert seeds.state.numpy().tolist() == [7, 2]
