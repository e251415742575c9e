"""Averaging's options, schedule, fragments and fingerprints, in one process."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdist.gradients import NoCompression, PowerSGD, TopK
from tfdist.gradients.averaging import AveragingOptions
from tfdist.gradients.averaging.compression import BFloat16, Int8
from tfdist.gradients.averaging.equality import fingerprint
from tfdist.gradients.averaging.fragment import split
from tfdist.gradients.averaging.outer import outer_factory

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, "one of sync_every_steps and levels"),
        ({"sync_every_steps": 2, "levels": {"host": 1, "cluster": 4}}, "one of sync_every_steps and levels"),
        ({"sync_every_steps": 0}, "sync_every_steps of at least 1. Received: sync_every_steps=0"),
        ({"sync_every_steps": True}, "a number of steps or 'epoch'. Received: sync_every_steps=True"),
        ({"sync_every_steps": "epochs"}, "Received: sync_every_steps='epochs'"),
        ({"levels": {"host": 2, "cluster": 4}}, "Received: levels={'host': 2, 'cluster': 4}"),
        ({"levels": {"cluster": 4}}, "levels={'host': 1, 'cluster': steps}"),
        ({"levels": {"host": 1, "cluster": 0}}, r"levels\['cluster'\] of at least 1"),
        ({"sync_every_steps": 4, "warmup_steps": -1}, "Received: warmup_steps=-1"),
        ({"sync_every_steps": 4, "inner_state": "reset"}, "Received: inner_state='reset'"),
        ({"sync_every_steps": 4, "compression": "int4"}, "Received: compression='int4'"),
        ({"sync_every_steps": 4, "compression": PowerSGD(start_step=2)}, "without start_step"),
        ({"sync_every_steps": 4, "compression": TopK(0.1, momentum=0.9)}, "and momentum. Received"),
        ({"sync_every_steps": 4, "fragments": 5}, "sync_every_steps = 4. Received: fragments=5"),
        ({"sync_every_steps": "epoch", "fragments": 2}, "which is 1 fragment. Received: fragments=2"),
        ({"sync_every_steps": 4, "overlap_steps": -1}, "overlap_steps of at least 0. Received: overlap_steps=-1"),
        ({"sync_every_steps": 4, "fragments": 2, "overlap_steps": 2}, "overlap_steps below 2, .* overlap_steps=2"),
        ({"sync_every_steps": "epoch", "overlap_steps": 1}, "overlap_steps below 1, .* overlap_steps=1"),
        ({"sync_every_steps": 4, "outer_optimizer": 0.7}, "Received: outer_optimizer=0.7"),
    ],
)
def test_wrong_options_are_refused(options, error):
    with pytest.raises((ValueError, TypeError), match=error):
        AveragingOptions(**options)


def test_no_compression_is_none():
    assert AveragingOptions(sync_every_steps=2, compression=NoCompression()) == AveragingOptions(sync_every_steps=2)


@pytest.mark.parametrize(
    ("period", "fragments", "due"),
    [
        (1, 1, {0: [1, 2, 3, 4, 5, 6]}),
        (3, 1, {0: [3, 6]}),
        (4, 2, {0: [2, 6], 1: [4]}),
        (3, 2, {0: [1, 4], 1: [3, 6]}),
        ("epoch", 1, {0: []}),
    ],
)
def test_when_fragments_are_due(period, fragments, due):
    options = AveragingOptions(sync_every_steps=period, fragments=fragments)
    assert {p: [step for step in range(1, 7) if options.is_due(p, step)] for p in range(fragments)} == due


def test_what_is_due_in_an_execution_of_several_steps():
    options = AveragingOptions(sync_every_steps=4, fragments=2)
    assert [options.due_between(before, before + 3, 2) for before in (0, 3, 6)] == [(0,), (0, 1), (1,)]


def test_variables_are_split_into_runs_of_about_equal_size():
    variables = [np.zeros(shape) for shape in [(6, 8), (8,), (8, 3), (3,)]]
    assert [[v.shape for v in run] for run in split(variables, 2)] == [[(6, 8)], [(8,), (8, 3), (3,)]]
    assert [[v.shape for v in run] for run in split(variables, 1)] == [[v.shape for v in variables]]
    assert len(split(variables[:2], 4)) == 2, "a run for each variable where there are fewer variables"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int32", "bool"])
def test_a_fingerprint_sees_every_element_and_its_place(dtype):
    values = tf.cast([1, 0, 1, 1], dtype)
    same = tf.cast([1, 0, 1, 1], dtype)
    others = [tf.cast(one, dtype) for one in ([0, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 1])]
    assert fingerprint(values) == fingerprint(same)
    assert all(fingerprint(values) != fingerprint(other) for other in others)


def test_a_fingerprint_sees_the_last_bit():
    assert fingerprint(tf.constant([1.0, np.nextafter(np.float32(1), 2)])) != fingerprint(tf.constant([1.0, 1.0]))


def test_opposite_changes_do_not_cancel():
    """A plain sum of bits would not see them."""
    up, down = np.nextafter(np.float32(1), 2), np.nextafter(np.float32(1), 0)
    assert fingerprint(tf.constant([up, 1.0])) != fingerprint(tf.constant([1.0, up]))
    assert fingerprint(tf.constant([up, down])) != fingerprint(tf.constant([down, up]))


@pytest.mark.parametrize(
    "outer",
    [
        "sgd",
        keras.optimizers.SGD(0.01),
        {"class_name": "SGD", "config": {"learning_rate": 0.01}},
        lambda: keras.optimizers.SGD(0.01),
    ],
)
def test_ways_to_say_the_outer_optimizer(outer):
    make = outer_factory(outer)
    first, second = make(), make()
    assert isinstance(first, keras.optimizers.SGD)
    assert first is not second
    assert float(first.learning_rate) == pytest.approx(0.01)


@pytest.mark.parametrize("wire", [BFloat16(), Int8()])
def test_one_replica_gets_back_what_it_sent_but_for_rounding(wire):
    """Several replicas are in tests/strategies/test_local_sgd_more.py."""
    values = [tf.random.stateless_normal([7, 3], [1, 2]), tf.zeros([5]), tf.constant(2.0)]
    means = tf.function(lambda: wire.mean(values, tf.constant(1.0)))()
    for value, mean in zip(values, means, strict=True):
        assert mean.shape == value.shape
        # bfloat16 rounds to 8 bits, relative; int8 to half of 1/127 of the largest.
        bound = np.abs(value) * 2**-8 if isinstance(wire, BFloat16) else np.max(np.abs(value)) / 254
        assert np.all(np.abs(mean - value) <= bound * (1 + 1e-6))
