"""Apply at once.

Downpour SGD: Dean et al., "Large scale distributed deep networks", 2012. Hogwild!: Recht et al., 2011.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from tfdist.updates.policy import Policy, Push


@dataclass(frozen=True)
class Async(Policy):
    """A gradient is applied when it comes, whatever happened to the parameters meanwhile.

    w <- w - lr g(w')        w': the parameters as they were tau pushes before
    """

    def apply(self, push: Push) -> tf.Tensor:
        """See `Policy`."""
        push.update(push.gradients, push.variables)
        return tf.constant(True)
