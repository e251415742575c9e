"""One replica's share of a global batch, and what follows from it for losses and gradients.

With n_r rows on replica r and n = sum of n_r, the global batch's mean loss is

    L = sum_r (n_r / n) * mean_r

so a gradient is exact when each replica's gradient is weighted with its row share n_r / n and the weighted ones are
summed, whatever the n_r are, zero included. A loss that was divided by something else, d_r (unmasked tokens, a sum of
sample weights), needs (d_r / d) in place of (n_r / n).

Gradients of several micro-batches k are weighted likewise, with n_rk, or with what their losses were divided by; see
`micro_batch_weight`.

Two kinds of steps:
    in Keras' own steps user code is written for one device: losses are the replica's own means and the row share is
        applied to the gradients, once, in the optimizer (`gradient_share`);
    in a custom loop tf.distribute's convention holds, gradients are summed, so the losses carry their share.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfdist._compat import hooks
from tfdist.gradients.reduction import sum_over_replicas


class _Mean(NamedTuple):
    """What a loss was divided by: on this replica, and over all."""

    divisor: tf.Tensor
    total: tf.Tensor


class ReplicaStep(hooks.Step):
    """The step as one replica sees it; made in replica context.

    Args:
        rows: rows of the replica's batch, an int scalar; None where the arguments hold no batch.
        in_keras: True in Keras' train, test and predict steps.
        ends_batch: whether a batch that is cut into micro-batches is through with this one, a bool scalar; None where
            the step has a whole batch.
    """

    def __init__(self, rows: tf.Tensor | None, *, in_keras: bool, ends_batch: tf.Tensor | None = None) -> None:
        context = tf.distribute.get_replica_context()
        self.in_keras = in_keras
        self.ends_batch = ends_batch
        self.local_loss = False
        self.is_concurrent = False
        self.replica = 0
        self.seed_offset = None
        self.assigned: list[Any] = []
        #: What variables were before the step, by id, as far as a step without rows is to leave them alone.
        self.before: dict[int, tf.Tensor] = {}
        self.layer_losses: dict[int, tuple[Any, list[Any]]] = {}
        self.results: list[tuple[Any, Any]] = []
        self._graph = _current_graph()
        self._replicas = context.num_replicas_in_sync
        self._rows = None if rows is None else tf.cast(rows, weight_dtype())
        self._total_rows: tf.Tensor | None = None
        #: Means over replicas that were asked for.
        self._means: list[_Mean] = []
        self._has_other_losses = False
        #: The mean whose divisor the gradients are weighted with, in place of rows.
        self._sole: _Mean | None = None

    def has_rows(self) -> tf.Tensor:
        """Whether n_r > 0, a bool scalar; true where no rows are known."""
        return tf.constant(True) if self._rows is None else self._rows > 0

    def row_share(self) -> tf.Tensor:
        """n_r / n, a float scalar; 1 / replicas where no rows are known, 0 where the global batch is empty."""
        if self._rows is None or (self._total_rows is None and not self._can_reduce()):
            return tf.constant(1.0 / self._replicas, weight_dtype())
        return tf.math.divide_no_nan(self._rows, self.total_rows())

    def _can_reduce(self) -> bool:
        """Whether this is the replica's own graph: in a graph inside it TensorFlow refuses collectives."""
        return _current_graph() is self._graph

    def total_rows(self) -> tf.Tensor:
        """n, the rows of the global batch, a float scalar; the number of replicas where no rows are known."""
        if self._rows is None:
            return tf.constant(float(self._replicas), weight_dtype())
        if self._total_rows is None:
            (self._total_rows,) = sum_over_replicas([self._rows])
        return self._total_rows

    def gradient_share(self) -> tf.Tensor | None:
        """What this replica's gradients are weighted with before they are summed; None for nothing."""
        if not self.in_keras:
            return None
        if self._sole is None:
            return self.row_share()
        return tf.math.divide_no_nan(self._sole.divisor, self._sole.total)

    def micro_batch_weight(self) -> tuple[tf.Tensor, tf.Tensor]:
        """What this replica's gradients are multiplied with when micro-batches are added up, and the sum's divisor.

        With d_rk what the step's only loss was divided by in micro-batch k on replica r, D_k its sum over R replicas:

            in Keras' steps         d_rk, and the same
            in a custom loop        D_k, since its losses have their share already, and D_k / R

        Rows stand for d_rk where there are several losses, and in Keras' steps where the loss gave none. In a custom
        loop that divided its losses by itself it is 1, so that micro-batches count alike.

        Returns:
            Two float scalars; the divisor is to be summed over replicas and micro-batches.
        """
        if self.in_keras:
            weight = tf.constant(1.0, weight_dtype()) if self._rows is None else self._rows
            weight = weight if self._sole is None else self._sole.divisor
            return weight, weight
        total = tf.constant(1.0, weight_dtype())
        if self._means:
            total = self._means[0].total if len(self._means) == 1 else self.total_rows()
        return total, total / self._replicas

    def mean(self, loss: tf.Tensor, divisor: tf.Tensor) -> tf.Tensor:
        """The global batch's part of a loss that was divided by this replica's own `divisor` d_r.

        In a custom loop that is d_r / d times the loss. In Keras' steps it is that over the row share, since the share
        comes later; where it is the step's only loss, its gradient is left as it is and d_r / d becomes the share, so
        that the backward pass needn't wait for the other replicas' divisors.

        Inside a function or conditional of the user's, where replicas cannot exchange anything, the row share stands
        for d_r / d; they are the same unless there are masks, ragged values or sample-weighted means.
        """
        if not self._can_reduce():
            return self.row_mean(loss)
        divisor = tf.cast(divisor, weight_dtype()) * tf.cast(self.has_rows(), weight_dtype())
        mean = _Mean(divisor, self._total(divisor))
        self._means.append(mean)
        share = tf.math.divide_no_nan(mean.divisor, mean.total)
        if not self.in_keras:
            return loss * tf.cast(share, loss.dtype)
        factor = tf.cast(tf.math.divide_no_nan(share, self.row_share()), loss.dtype)

        @tf.custom_gradient
        def with_late_share(loss: tf.Tensor) -> tuple[tf.Tensor, Any]:
            return loss * factor, lambda upstream: upstream if self._is_sole(mean) else upstream * factor

        return with_late_share(loss)

    def _is_sole(self, mean: _Mean) -> bool:
        """Whether a mean is all that the gradient comes from; asked in the backward pass, when all losses are known."""
        layer_losses = any(losses for _, losses in self.layer_losses.values())
        if len(self._means) == 1 and not self._has_other_losses and not layer_losses:
            self._sole = mean
        return self._sole is not None

    def row_mean(self, loss: tf.Tensor) -> tf.Tensor:
        """The global batch's part of a mean over rows: the row share in a custom loop, all in Keras' steps."""
        self._has_other_losses = True
        if self.in_keras:
            return loss
        if self._can_reduce():
            self._means.append(_Mean(self.total_rows(), self.total_rows()))
        return loss * tf.cast(self.row_share(), loss.dtype)

    def sum_factor(self) -> tf.Tensor:
        """1 in a custom loop; in Keras' steps what undoes the row share."""
        self._has_other_losses = True
        if not self.in_keras:
            return tf.constant(1.0)
        return tf.math.divide_no_nan(1.0, self.row_share())

    def unreduced(self, loss: tf.Tensor) -> tf.Tensor:
        """A loss by row as it is, except that its gradient gets what `sum_factor` would give a sum."""
        factor = tf.cast(self.sum_factor(), loss.dtype)

        @tf.custom_gradient
        def scale_gradient(loss: tf.Tensor) -> tuple[tf.Tensor, Any]:
            return tf.identity(loss), lambda upstream: upstream * factor

        return scale_gradient(loss)

    def all_reduce(self, value: tf.Tensor) -> tf.Tensor:
        """The sum over replicas, for layers that mix replicas in their forward pass.

        In Keras' steps the gradient that comes back from replica s weighs n_s / n, but it is n_r / n that it will be
        weighted with on this replica; so it is sent weighted and divided by this replica's own share.
        """
        # Rows have a share wherever there are any, which a loss' own divisor needn't.
        self._has_other_losses = True
        if not self.in_keras:
            return _all_reduce_sum(value)
        share = tf.cast(self.row_share(), value.dtype)

        @tf.custom_gradient
        def reduce(value: tf.Tensor) -> tuple[tf.Tensor, Any]:
            def gradient(upstream: tf.Tensor) -> tf.Tensor:
                weighted = tf.math.multiply_no_nan(upstream, share)
                return tf.math.divide_no_nan(_all_reduce_sum(weighted), share)

            return _all_reduce_sum(value), gradient

        return reduce(value)

    def _total(self, divisor: tf.Tensor) -> tf.Tensor:
        """The divisor's sum over replicas; the rows' sum comes along in the same all-reduce if it is not known."""
        if self._rows is None or self._total_rows is not None:
            return sum_over_replicas([divisor])[0]
        (total,) = sum_over_replicas([tf.stack([divisor, self._rows])])
        self._total_rows = total[1]
        return total[0]


def current_share() -> tf.Tensor | None:
    """What this replica's gradients are weighted with before they are summed; None for nothing."""
    step = hooks.current_step()
    return step.gradient_share() if isinstance(step, ReplicaStep) else None


def current_micro_batch_weight() -> tuple[tf.Tensor | None, Any]:
    """See `ReplicaStep.micro_batch_weight`; outside of any step micro-batches count alike."""
    step = hooks.current_step()
    return step.micro_batch_weight() if isinstance(step, ReplicaStep) else (None, 1.0)


def current_end_of_batch() -> tf.Tensor | None:
    """See `ReplicaStep`'s `ends_batch`."""
    step = hooks.current_step()
    return step.ends_batch if isinstance(step, ReplicaStep) else None


def count_rows(data: Any) -> tf.Tensor | None:
    """Rows of a batch: the first dimension of the first leaf that has one, as a scalar; None without such a leaf.

    Args:
        data: any nesting of tensors, ragged and sparse ones included.
    """
    for leaf in tf.nest.flatten(data):
        if isinstance(leaf, tf.RaggedTensor):
            return leaf.nrows()
        if isinstance(leaf, tf.SparseTensor):
            return leaf.dense_shape[0]
        shape = getattr(leaf, "shape", None)
        if (tf.is_tensor(leaf) or hasattr(leaf, "__array__")) and tf.TensorShape(shape).rank != 0:
            return tf.shape(leaf)[0]
    return None


def _all_reduce_sum(value: tf.Tensor) -> tf.Tensor:
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def weight_dtype() -> tf.DType:
    """float64 where models are, else float32, which holds row counts exactly up to 16.7 million."""
    return tf.float64 if keras.config.floatx() == "float64" else tf.float32


def _current_graph() -> Any:
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
