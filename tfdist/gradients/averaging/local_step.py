"""A step that a replica makes by itself: nothing is asked of the others, neither rows nor divisors of losses."""

from __future__ import annotations

import tensorflow as tf

from tfdist.gradients.step import ReplicaStep, weight_dtype


class LocalStep(ReplicaStep):
    """The step of one replica as if it were alone; made in replica context.

    A mean is over the replica's own rows. Where a share of the global batch is asked for (losses that are sums), it is
    1 / replicas, which is exact where batches divide evenly.
    """

    def _can_reduce(self) -> bool:
        return False

    def total_rows(self) -> tf.Tensor:
        """An estimate of n: as if all replicas had as many rows as this one."""
        return self.rows() * tf.cast(self._replicas, weight_dtype())

    def rows(self) -> tf.Tensor:
        """n_r, a float scalar; 1 where no rows are known, so that all replicas count alike."""
        return tf.constant(1.0, weight_dtype()) if self._rows is None else self._rows

    def gradient_share(self) -> tf.Tensor | None:
        """What this replica's gradients are multiplied with.

        None, for 1, in Keras' steps, whose losses are the replica's own means. In a custom loop losses carry a share
        of 1 / replicas, which is undone: a local step is a whole step.
        """
        return None if self.in_keras else tf.constant(float(self._replicas), weight_dtype())

    def all_reduce(self, value: tf.Tensor) -> tf.Tensor:
        """Refused.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "Layers that mix replicas in their forward pass need an exchange in every step, which local steps avoid. "
            "Expected: layers of one replica, such as BatchNormalization(synchronized=False), whose statistics are "
            f"averaged with the weights. Received: a layer that sums value={value} over the replicas. Change the "
            "layer, or use MirroredStrategy or MultiWorkerMirroredStrategy."
        )
