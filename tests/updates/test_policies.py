"""Three steps of each policy, worked out by hand: w = 1, gradients 0.5, SGD with rate 0.1 unless it says otherwise."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdist.updates import Async, BoundedStaleness, DelayCompensated, Policy, Push, StalenessAware, Synchronous

pytestmark = pytest.mark.unit

RATE, GRADIENT = 0.1, 0.5


def train(
    policy: Policy, stalenesses: list[int], optimizer: Any = None, *, read: list[float] | None = None
) -> tuple[list[float], list[bool]]:
    """The variable after each step, and whether it was applied."""
    variable = keras.Variable([1.0])
    optimizer = optimizer or keras.optimizers.SGD(RATE)
    optimizer.build([variable])

    @tf.function
    @tf.autograph.experimental.do_not_convert
    def step(staleness: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        def update(gradients: list[Any], variables: list[Any]) -> None:
            optimizer.apply(gradients, variables)

        gradients = [tf.constant([GRADIENT])]
        push = Push(gradients, [variable], [value], staleness, optimizer, update, f"tests/updates/{id(variable)}")
        return policy.apply(push)

    values, applied = [], []
    for number, staleness in enumerate(stalenesses):
        value = variable.numpy() if read is None else np.float32([read[number]])
        applied.append(bool(step(tf.constant(staleness, tf.int64), tf.constant(value))))
        values.append(float(variable.numpy()[0]))
    return values, applied


def test_async_applies_whatever_the_staleness():
    assert train(Async(), [0, 7, 100]) == (pytest.approx([0.95, 0.9, 0.85]), [True] * 3)


def test_steps_are_divided_by_the_staleness():
    """0.05, 0.05 / 1, 0.05 / 5."""
    assert train(StalenessAware(), [0, 1, 5])[0] == pytest.approx([0.95, 0.9, 0.89])


def test_dynsgd_divides_by_one_more():
    """0.05, 0.05 / 2, 0.05 / 5."""
    assert train(StalenessAware(offset=1), [0, 1, 4])[0] == pytest.approx([0.95, 0.925, 0.915])


def test_with_adam_too_the_step_is_divided():
    """On gradients that stay the same, each step of Adam is its rate long, but for its epsilon and rounding."""
    values, _ = train(StalenessAware(), [0, 1, 5], keras.optimizers.Adam(RATE))
    assert values == pytest.approx([0.9, 0.8, 0.78], abs=1e-5)


def test_the_optimizer_is_left_as_it_was():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(RATE), initial_scale=1.0)
    assert train(StalenessAware(), [1, 2, 2], optimizer)[0] == pytest.approx([0.95, 0.925, 0.9])
    assert float(optimizer.learning_rate) == pytest.approx(RATE)
    assert "_get_current_learning_rate" not in vars(optimizer.inner_optimizer)


@pytest.mark.parametrize("when_exceeded", ["drop", "wait"])
def test_what_is_older_than_the_bound_is_not_applied(when_exceeded):
    values, applied = train(BoundedStaleness(2, when_exceeded), [2, 3, 0])
    assert values == pytest.approx([0.95, 0.95, 0.9])
    assert applied == [True, False, True]


def test_what_is_older_than_the_bound_is_scaled():
    """0.05, 0.05 x 3 / 4, 0.05 x 3 / 6."""
    values, applied = train(BoundedStaleness(2, "scale"), [2, 3, 5])
    assert values == pytest.approx([0.95, 0.9125, 0.8875])
    assert applied == [True] * 3


def test_gradients_are_moved_to_where_the_parameters_are():
    """g + 2 g^2 (w - w'): 0.5 at w' = 1; 0.5 + 2 x 0.25 x (0.95 - 1); 0.5 + 2 x 0.25 x (0.9025 - 1.1025)."""
    values, _ = train(DelayCompensated(2.0, adaptive=False), [0, 1, 2], read=[1.0, 1.0, 1.1025])
    assert values == pytest.approx([0.95, 0.95 - 0.0475, 0.9025 - 0.04])


def test_the_strength_follows_the_size_of_gradients():
    """m = 0.05 x 0.25, then 0.95 m + 0.05 x 0.25; the strength is 2 over its root."""
    first = 0.0125
    second = 0.95 * first + 0.0125
    moved = 0.5 + 2 / np.sqrt(second + 1e-7) * 0.25 * (0.95 - 1.0)
    values, _ = train(DelayCompensated(), [0, 1], read=[1.0, 1.0])
    assert values == pytest.approx([0.95, 0.95 - RATE * moved])


def test_rows_of_embeddings_are_not_moved():
    variable = keras.Variable([[1.0], [1.0]])
    optimizer = keras.optimizers.SGD(RATE)
    optimizer.build([variable])
    slices = tf.IndexedSlices(tf.constant([[GRADIENT]]), tf.constant([1]), tf.constant([2, 1]))
    push = Push(
        [slices, None][:1], [variable], [tf.zeros([2, 1])], tf.constant(3, tf.int64), optimizer, optimizer.apply, ""
    )
    DelayCompensated().apply(push)
    assert variable.numpy().ravel().tolist() == pytest.approx([1.0, 0.95])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: BoundedStaleness(-1), "max_staleness=-1"),
        (lambda: BoundedStaleness(1.5), "max_staleness=1.5"),
        (lambda: BoundedStaleness(1, "stop"), "when_exceeded='stop'"),
        (lambda: StalenessAware(offset=2), "offset=2"),
        (lambda: DelayCompensated(0.0), "strength=0.0"),
        (lambda: Synchronous(-1), "backup_workers=-1"),
        (lambda: Synchronous(0.5), "backup_workers=0.5"),
        (lambda: Synchronous(3).gradients_per_step(3), "at most 2 can be backup workers. Received: backup_workers=3"),
    ],
)
def test_what_makes_no_sense_is_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_gradients_of_a_synchronous_step():
    assert [Synchronous(backup).gradients_per_step(5) for backup in range(5)] == [5, 4, 3, 2, 1]
    assert Async().gradients_per_step(5) is None


def test_only_waiting_holds_up_others():
    assert BoundedStaleness(3).waits_at == 3
    assert [one.waits_at for one in (Async(), BoundedStaleness(3, "drop"), StalenessAware())] == [None] * 3
