"""One replica's share of a global batch, and what follows from it for losses and gradients.

With n_r rows on replica r and n = sum of n_r, the global batch's mean loss is

    L = sum_r (n_r / n) * mean_r

so a gradient is exact when each replica's gradient is weighted with its row share n_r / n and the weighted ones are
summed, whatever the n_r are, zero included. A loss that was divided by something else, d_r (unmasked tokens, a sum of
sample weights), needs (d_r / d) in place of (n_r / n).

Two kinds of steps:
    in Keras' own steps user code is written for one device: losses are the replica's own means and the row share is
        applied to the gradients, once, in the optimizer (`gradient_share`);
    in a custom loop tf.distribute's convention holds, gradients are summed, so the losses carry their share.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfdist._compat import hooks


class ReplicaStep(hooks.Step):
    """The step as one replica sees it; made in replica context.

    Args:
        rows: rows of the replica's batch, an int scalar; None where the arguments hold no batch.
        in_keras: True in Keras' train, test and predict steps.
    """

    def __init__(self, rows: tf.Tensor | None, *, in_keras: bool) -> None:
        context = tf.distribute.get_replica_context()
        self.in_keras = in_keras
        self.local_loss = False
        self.assigned: list[Any] = []
        self.layer_losses: dict[int, tuple[Any, list[Any]]] = {}
        self.results: list[tuple[Any, Any]] = []
        self._graph = _current_graph()
        self._replicas = context.num_replicas_in_sync
        self._rows = None if rows is None else tf.cast(rows, tf.float32)
        self._total_rows: tf.Tensor | None = None

    def has_rows(self) -> tf.Tensor:
        """Whether n_r > 0, a bool scalar; true where no rows are known."""
        return tf.constant(True) if self._rows is None else self._rows > 0

    def row_share(self) -> tf.Tensor:
        """n_r / n, a float32 scalar; 1 / replicas where no rows are known, 0 where the global batch is empty."""
        if self._rows is None or (self._total_rows is None and not self._can_reduce()):
            return tf.constant(1.0 / self._replicas)
        return tf.math.divide_no_nan(self._rows, self.total_rows())

    def _can_reduce(self) -> bool:
        """Whether this is the replica's own graph: in a graph inside it TensorFlow refuses collectives."""
        return _current_graph() is self._graph

    def total_rows(self) -> tf.Tensor:
        """n, the rows of the global batch, a float32 scalar; the number of replicas where no rows are known."""
        if self._rows is None:
            return tf.constant(float(self._replicas))
        if self._total_rows is None:
            self._total_rows = _all_reduce_sum(self._rows)
        return self._total_rows

    def gradient_share(self) -> tf.Tensor | None:
        """What this replica's gradients are weighted with before they are summed; None for nothing."""
        return self.row_share() if self.in_keras else None

    def mean_factor(self, divisor: tf.Tensor) -> tf.Tensor:
        """d_r / d in a custom loop; that over the row share in Keras' steps, where the share comes later.

        Inside a function or conditional of the user's, where replicas cannot exchange anything, the row share stands
        for d_r / d; they are the same unless there are masks, ragged values or sample-weighted means.
        """
        if not self._can_reduce():
            return self.row_mean_factor()
        divisor = divisor * tf.cast(self.has_rows(), divisor.dtype)
        share = tf.math.divide_no_nan(divisor, self._total(divisor))
        if not self.in_keras:
            return share
        return tf.math.divide_no_nan(share, self.row_share())

    def row_mean_factor(self) -> tf.Tensor:
        """The row share in a custom loop, 1 in Keras' steps."""
        return tf.constant(1.0) if self.in_keras else self.row_share()

    def sum_factor(self) -> tf.Tensor:
        """1 in a custom loop; in Keras' steps what undoes the row share."""
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
            return _all_reduce_sum(divisor)
        total = _all_reduce_sum(tf.stack([divisor, self._rows]))
        self._total_rows = total[1]
        return total[0]


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
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


def _current_graph() -> Any:
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
