"""Sums and shares worked out by hand, in two replicas with 1 and 3 rows; run as a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tests.helpers.setups import Setup
from tfdist._compat.hooks import step_scope
from tfdist.gradients import ReplicaStep, all_reduce_gradients, average_over_replicas, count_rows

STRATEGY = Setup.named("mirrored2").strategy


def in_replicas(compute: Callable[[int, ReplicaStep], Any], rows: tuple[int, int], *, in_keras: bool = True) -> Any:
    """What `compute(replica, step)` gives in each replica, as numbers."""

    @tf.function
    def run() -> Any:
        def replica() -> Any:
            index = int(tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group))
            with step_scope(ReplicaStep(tf.constant(rows[index]), in_keras=in_keras)) as step:
                return compute(index, step)

        return STRATEGY.extended.call_for_each_replica(replica)

    results = tf.nest.map_structure(STRATEGY.experimental_local_results, run())
    return tf.nest.map_structure(lambda value: np.asarray(tf.convert_to_tensor(value)), results)


def shares() -> None:
    """n_r / n, and 0 for a replica without rows."""
    for rows, expected in (((1, 3), [0.25, 0.75]), ((0, 2), [0.0, 1.0]), ((0, 0), [0.0, 0.0])):
        got = in_replicas(lambda index, step: step.row_share(), rows)
        np.testing.assert_allclose(got, expected)


def gradients_are_weighted_before_they_are_summed() -> None:
    """0.25 * 8 + 0.75 * 4 = 5; Nones stay; NaN from a replica without rows does not spread."""

    def reduce(index: int, step: ReplicaStep) -> Any:
        dense = tf.constant([8.0, float("nan") if step_is_empty else 16.0] if index == 0 else [4.0, 4.0])
        reduced = all_reduce_gradients([dense, None], share=step.gradient_share())
        assert reduced[1] is None
        return reduced[0]

    step_is_empty = False
    np.testing.assert_allclose(in_replicas(reduce, (1, 3)), [[5.0, 7.0]] * 2)
    step_is_empty = True
    np.testing.assert_allclose(in_replicas(reduce, (0, 3)), [[4.0, 4.0]] * 2)


def sparse_gradients_stay_sparse() -> None:
    """The rows of all replicas one after another, duplicates kept, as one device has them."""

    def reduce(index: int, step: ReplicaStep) -> Any:
        values, ids = ([[8.0]], [2]) if index == 0 else ([[4.0], [12.0]], [2, 0])
        slices = tf.IndexedSlices(tf.constant(values), tf.constant(ids), tf.constant([3, 1]))
        (reduced,) = all_reduce_gradients([slices], share=step.gradient_share())
        assert isinstance(reduced, tf.IndexedSlices)
        return {"values": reduced.values[:, 0], "ids": reduced.indices}

    got = in_replicas(reduce, (1, 3))
    for replica in range(2):
        pairs = sorted(zip(got["ids"][replica].tolist(), got["values"][replica].tolist(), strict=True))
        assert pairs == [(0, 9.0), (2, 2.0), (2, 3.0)], pairs


def factors() -> None:
    """A loss that was divided by d_r = 4 of d = 8 on both replicas, with rows 1 and 3 of 4; sums; row means."""
    divisors = (tf.constant(4.0), tf.constant(4.0))
    keras = in_replicas(lambda index, step: step.mean(tf.constant(1.0), divisors[index]), (1, 3))
    np.testing.assert_allclose(keras, [0.5 / 0.25, 0.5 / 0.75])
    loop = in_replicas(lambda index, step: step.mean(tf.constant(1.0), divisors[index]), (1, 3), in_keras=False)
    np.testing.assert_allclose(loop, [0.5, 0.5])
    np.testing.assert_allclose(in_replicas(lambda index, step: step.sum_factor(), (1, 3)), [4.0, 4.0 / 3.0], rtol=1e-6)
    np.testing.assert_allclose(
        in_replicas(lambda index, step: step.row_mean(tf.constant(1.0)), (1, 3), in_keras=False), [0.25, 0.75]
    )
    assert all(in_replicas(lambda index, step: tf.constant(step.gradient_share() is None), (1, 3), in_keras=False))


def averages() -> None:
    """0.25 * 4 + 0.75 * 8 = 7, of two dtypes."""

    def average(index: int, step: ReplicaStep) -> Any:
        value = tf.constant(4.0 + 4.0 * index)
        return average_over_replicas([value, tf.cast(value, tf.float64)], share=step.row_share())

    for got in in_replicas(average, (1, 3)):
        np.testing.assert_allclose(got, [7.0, 7.0])


def a_gradient_through_the_sum_of_replicas() -> None:
    """L = sum_r share_r * L_r with L_r = a_r * (x_0 + x_1): dL/dx_s = 0.25 * a_0 + 0.75 * a_1 on every replica.

    The optimizer multiplies with the replica's own share, so share_s times the tape's gradient must be that.
    """

    def differentiate(index: int, step: ReplicaStep) -> Any:
        x, a = tf.constant(1.0 + index), tf.constant(8.0 if index == 0 else 4.0)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = a * step.all_reduce(x)
        return step.row_share() * tape.gradient(loss, x)

    got = in_replicas(differentiate, (1, 3))
    np.testing.assert_allclose(got, [0.25 * 8 + 0.75 * 4] * 2, rtol=1e-6)


def rows() -> None:
    """The first leaf that has any."""
    assert int(count_rows((tf.constant(1), {"b": tf.zeros([5, 2])}))) == 5
    assert int(count_rows(tf.ragged.constant([[1], [], [2, 3]]))) == 3
    assert int(count_rows(tf.sparse.from_dense(np.eye(4)))) == 4
    assert count_rows((1.5, None)) is None


if __name__ == "__main__":
    for check in (
        shares,
        gradients_are_weighted_before_they_are_summed,
        sparse_gradients_stay_sparse,
        factors,
        averages,
        a_gradient_through_the_sum_of_replicas,
        rows,
    ):
        check()
        print(check.__name__, "as by hand")
