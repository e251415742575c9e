"""Accumulation on one device without a strategy: numbers by hand, settings, errors, files."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.optimizers import SGD

import tfdist
from tfdist._compat import hooks
from tfdist._compat.keras_optimizers import accumulation_of
from tfdist.errors import TfdistError
from tfdist.gradients import AccumulationOptions, accumulate, flush, non_finite, norm_above
from tfdist.gradients.slots import DenseSlot, SparseSlot, slot_dtype

pytestmark = pytest.mark.unit


def applied(optimizer: Any, gradients: list[float]) -> keras.Variable:
    """A weight that starts at 0, after these gradients."""
    weight = keras.Variable(0.0)
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)], [weight])
    return weight


def test_micro_batches_count_alike_where_nobody_knows_their_rows():
    """-(1 + 5 + 6) / 3, then two wait, which flush makes a step of: -4 - (3 + 5) / 2."""
    optimizer = accumulate(SGD(1.0), 3)
    weight = applied(optimizer, [1.0, 5.0, 6.0, 3.0, 5.0])
    assert (float(weight), int(optimizer.iterations)) == (-4.0, 1)
    flush(optimizer)
    assert (float(weight), int(optimizer.iterations)) == (-8.0, 2)
    flush(optimizer)
    assert (float(weight), int(optimizer.iterations)) == (-8.0, 2)


def test_keras_own_test_of_accumulation():
    """Its numbers for weights and `iterations`, under a strategy, without what it says of private variables."""
    strategy = tfdist.OneDeviceStrategy("CPU:0")
    with strategy.scope():
        v = keras.Variable([[1.0, 2.0], [3.0, 4.0]])
        optimizer = SGD(learning_rate=1.0, gradient_accumulation_steps=3)
    gradient = tf.constant([[1.0, 1.0], [2.0, 2.0]])
    for done in (0, 0, 1):
        strategy.run(lambda: optimizer.apply_gradients([(gradient, v)]))
        assert int(np.asarray(optimizer.iterations)) == done
    np.testing.assert_allclose(v, [[0.0, 1.0], [1.0, 2.0]])


def test_clipping_sees_the_mean():
    """(3 + 5) / 2 = 4, clipped to 0.5; clipped one by one the mean would be the same, so the second has none."""
    assert float(applied(accumulate(SGD(1.0, clipvalue=0.5), 2), [3.0, 5.0])) == -0.5
    assert float(applied(accumulate(SGD(1.0, clipvalue=3.0), 2), [8.0, -4.0])) == -2.0


def test_an_inf_in_one_micro_batch_skips_the_update_once():
    optimizer = accumulate(keras.optimizers.LossScaleOptimizer(SGD(1.0), initial_scale=8.0), 2)
    weight = applied(optimizer, [np.inf, 1.0])
    assert (float(weight), float(optimizer.dynamic_scale), int(optimizer.iterations)) == (0.0, 4.0, 0)


@pytest.mark.parametrize(
    ("rule", "gradients", "skipped"),
    [(non_finite, [np.nan, 1.0], 1), (non_finite, [1.0, 1.0], 0), (norm_above(4.0), [1.0, 9.0], 1)],
)
def test_rules_skip_updates(rule, gradients, skipped):
    optimizer = accumulate(SGD(1.0), AccumulationOptions(2, skip_rules=[rule]))
    weight = applied(optimizer, gradients)
    assert int(optimizer.iterations) == 1 - skipped
    assert (float(weight) == 0.0) == bool(skipped)
    assert accumulation_of(optimizer).skip_counts == {f"skipped_{rule.__name__}": skipped}


def test_a_rule_sees_gradients_without_their_loss_scale():
    scaled = keras.optimizers.LossScaleOptimizer(SGD(1.0), initial_scale=8.0)
    optimizer = accumulate(scaled, AccumulationOptions(1, skip_rules=[norm_above(4.0), non_finite]))
    weight = applied(optimizer, [24.0])
    assert float(weight) == -3.0
    assert accumulation_of(optimizer).skip_counts == {"skipped_norm_above": 0, "skipped_non_finite": 0}


def test_a_loss_scale_adapts_although_a_rule_is_against_the_update():
    scaled = keras.optimizers.LossScaleOptimizer(SGD(1.0), initial_scale=8.0)
    optimizer = accumulate(scaled, AccumulationOptions(1, skip_rules=[non_finite]))
    applied(optimizer, [np.inf])
    assert float(optimizer.dynamic_scale) == 4.0
    assert accumulation_of(optimizer).skip_counts == {"skipped_non_finite": 1}


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_limit_must_be_positive(limit):
    with pytest.raises(ValueError, match=r"limit above 0. Received: limit="):
        norm_above(limit)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 0}, ValueError, "at least 1. Received: gradient_accumulation_steps=0"),
        ({"steps": 2.0}, TypeError, "as an int.*Received: gradient_accumulation_steps=2.0"),
        ({"leftover": "keep"}, ValueError, "'flush', 'carry', 'drop'.*Received: leftover='keep'"),
        ({"dtype": "int32"}, ValueError, "floating dtype.*Received: dtype='int32'"),
        ({"skip_rules": ["nan"]}, TypeError, "functions of the gradients"),
        ({"skip_rules": [norm_above(1.0), norm_above(2.0)]}, ValueError, "names of their own"),
    ],
)
def test_wrong_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        AccumulationOptions(**options)


def test_two_doors_with_different_numbers_are_refused():
    with pytest.raises(ValueError, match=r"asked for twice.*=4.*=2.*Remove it from the optimizer"):
        accumulate(SGD(gradient_accumulation_steps=2), 4)
    assert accumulation_of(accumulate(SGD(gradient_accumulation_steps=2), 2)).options.steps == 2


def test_an_optimizer_accumulates_once():
    optimizer = accumulate(SGD(), 2)
    with pytest.raises(ValueError, match="does not accumulate yet"):
        accumulate(optimizer, 2)
    outer = keras.optimizers.LossScaleOptimizer(inner := SGD())
    accumulate(outer, 2)
    with pytest.raises(ValueError, match="inside another optimizer"):
        accumulate(inner, 2)


def test_a_gradient_that_comes_late_is_refused():
    """It would be lost in the steps that were compiled before."""
    first, second = keras.Variable(0.0), keras.Variable(0.0)
    optimizer = accumulate(SGD(1.0), 2)
    optimizer.apply([tf.constant(1.0), None], [first, second])
    with pytest.raises(TfdistError, match=r"same variables to have gradients.*had none before"):
        optimizer.apply([None, tf.constant(1.0)], [first, second])


def test_no_accumulators_where_every_batch_is_a_step():
    strategy = tfdist.OneDeviceStrategy("CPU:0", gradient_accumulation_steps=1)
    with strategy.scope():
        optimizer = SGD(1.0)
        weight = keras.Variable(0.0)
    strategy.run(lambda: optimizer.apply([tf.constant(1.0)], [weight]))
    assert accumulation_of(optimizer) is None


@pytest.mark.parametrize(
    ("variable", "wanted", "expected"),
    [
        ("float32", None, "float32"),
        ("bfloat16", None, "bfloat16"),
        ("bfloat16", "float32", "float32"),
        ("float16", None, "float32"),
        ("float64", None, "float64"),
    ],
)
def test_dtype_of_accumulators(variable, wanted, expected):
    assert slot_dtype(variable, wanted) == expected


def test_accumulators_are_one_for_each_variable_in_its_dtype():
    optimizer = accumulate(SGD(1.0), AccumulationOptions(2, dtype="float32"))
    weight = keras.Variable(np.zeros(3), dtype="bfloat16")
    optimizer.apply([tf.ones(3, tf.bfloat16)], [weight])
    (slot,) = accumulation_of(optimizer).state.slots.values()
    assert (slot.dtype, slot.read().shape) == (tf.float32, (3,))


def test_sparse_rows_are_kept_as_they_come():
    slot = SparseSlot(tf.TensorShape([5, 2]), tf.float32)
    for value, index in ((1.0, 3), (2.0, 3), (4.0, 0)):
        slot.add(tf.IndexedSlices(tf.fill([1, 2], value), tf.constant([index]), tf.constant([5, 2])))
    rows = slot.read()
    np.testing.assert_array_equal(rows.values[:, 0], [1.0, 2.0, 4.0])
    np.testing.assert_array_equal(rows.indices, [3, 3, 0])
    np.testing.assert_array_equal(tf.convert_to_tensor(rows)[:, 1], [4.0, 0.0, 0.0, 3.0, 0.0])
    slot.clear()
    assert slot.read().values.shape == (0, 2)
    with pytest.raises(ValueError, match=r"a sparse gradient.*Received: a dense one"):
        slot.add(tf.ones([5, 2]))


def test_dense_sums_take_sparse_rows():
    slot = DenseSlot(tf.TensorShape([3, 1]), tf.float32)
    slot.add(tf.ones([3, 1]))
    slot.add(tf.IndexedSlices(tf.constant([[2.0], [5.0]]), tf.constant([1, 1]), tf.constant([3, 1])))
    np.testing.assert_array_equal(slot.read(), [[1.0], [8.0], [1.0]])


def model_of(optimizer: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    model.compile(optimizer, "mse")
    model.optimizer.build(model.trainable_variables)
    return model


X, Y = np.arange(8.0).reshape(4, 2).astype("float32"), np.ones((4, 3), "float32")


@pytest.mark.parametrize("use_ema", [False, True])
def test_plain_keras_reads_what_is_saved_and_the_other_way(tmp_path, use_ema):
    """Keras' own setting: the same variables in the same places, and micro-batches in `_iterations`."""

    def make() -> Any:
        return keras.optimizers.Adam(0.1, gradient_accumulation_steps=2, use_ema=use_ema)

    strategy = tfdist.OneDeviceStrategy("CPU:0")
    with strategy.scope():
        ours = model_of(make())
    plain = model_of(make())
    for model in (ours, plain):
        for _ in range(4):
            model.train_on_batch(X, Y)
        model.save_weights(tmp_path / f"{model is ours}.weights.h5")
    plain_again, ours_again = model_of(make()), None
    with strategy.scope():
        ours_again = model_of(make())
    for path, model in itertools.product((True, False), (plain_again, ours_again)):
        model.load_weights(tmp_path / f"{path}.weights.h5")
        assert int(model.optimizer.iterations) == 2
        for ours_value, value in zip(ours.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_allclose(ours_value, value, atol=1e-6)
        for _ in range(2):
            model.train_on_batch(X, Y)
        assert int(model.optimizer.iterations) == 3


def test_the_strategys_setting_leaves_no_trace_between_steps(tmp_path):
    """A whole model that plain Keras loads with its optimizer's state."""
    strategy = tfdist.OneDeviceStrategy("CPU:0", gradient_accumulation_steps=2)
    with strategy.scope():
        model = model_of(keras.optimizers.Adam(0.1))
    for _ in range(4):
        model.train_on_batch(X, Y)
    model.save(tmp_path / "model.keras")
    plain = keras.models.load_model(tmp_path / "model.keras")
    assert int(plain.optimizer.iterations) == 2
    for ours, theirs in zip(model.optimizer.variables, plain.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_a_file_between_steps_clears_what_waits(tmp_path):
    strategy = tfdist.OneDeviceStrategy("CPU:0", gradient_accumulation_steps=2)
    with strategy.scope():
        model = model_of(SGD(0.1))
    model.save_weights(tmp_path / "start.weights.h5")
    model.train_on_batch(X, Y)
    assert accumulation_of(model.optimizer).micro_steps == 1
    model.load_weights(tmp_path / "start.weights.h5")
    assert accumulation_of(model.optimizer).micro_steps == 0
    flush(model.optimizer)
    assert int(model.optimizer.iterations) == 0


def test_a_word_about_batch_statistics_once(caplog):
    strategy = tfdist.OneDeviceStrategy("CPU:0", gradient_accumulation_steps=2)
    with strategy.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization(), keras.layers.Dense(3)])
        model.compile("sgd", "mse")
    with caplog.at_level(logging.WARNING, logger="tfdist"):
        for _ in range(2):
            model.fit(X, Y, batch_size=2, epochs=2, verbose=0)
    (record,) = [record for record in caplog.records if "BatchNormalization" in record.message]
    assert "synchronized=True" in record.message and "GroupNormalization" in record.message


def test_tensorflows_one_device_strategy():
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        model = model_of(accumulate(SGD(0.1), 2))
    model.fit(X, Y, batch_size=1, verbose=0)
    assert int(model.optimizer.iterations) == 2


def test_accumulations_come_in_the_order_of_the_train_step():
    """On every worker, since flushing each is a collective; objects in a set come in the order of their addresses."""
    model = model_of(SGD(0.1))
    optimizers = [accumulate(SGD(), 2) for _ in range(20)]
    made = [accumulation_of(optimizer) for optimizer in optimizers]
    hooks.begin_fit(model)
    for accumulation in reversed(made):
        hooks.note_accumulation(accumulation)
    hooks.end_fit(model)
    assert hooks.accumulations_of(model) == made[::-1]
