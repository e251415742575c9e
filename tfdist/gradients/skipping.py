"""Asks the skip rules before an update, and counts their reasons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfdist._compat.keras_optimizers import LossScale
from tfdist.gradients.accumulators import Accumulators
from tfdist.gradients.reduction import divided
from tfdist.gradients.skip_rules import SkipRule, non_finite


class Skipping:
    """The rules of one optimizer.

    Args:
        rules: asked in order; all that say so are counted.
        state: keeps the counts.
    """

    def __init__(self, rules: Sequence[SkipRule], state: Accumulators) -> None:
        self._rules, self._state = rules, state

    def unless(self, strategy: Any, gradients: list[Any], scale: LossScale, update: Callable[[], Any]) -> None:
        """Call `update` unless a rule is against it; in cross-replica context.

        Args:
            strategy: whose replicas hold the gradients.
            gradients: global ones, with their loss scale.
            scale: of the loss; an optimizer that adapts it must see non-finite gradients, so it gets them anyway and
                leaves out the update by itself.
            update: what to do.
        """
        if not self._rules:
            update()
            return
        each = strategy.extended.call_for_each_replica
        verdicts = each(lambda gradients: self._verdicts(gradients, scale), (gradients,))
        *reasons, finite = [strategy.experimental_local_results(verdict)[0] for verdict in verdicts]
        for rule, reason in zip(self._rules, reasons, strict=True):
            self._state.skipped[rule.__name__].assign_add(tf.cast(reason, tf.int64))
        skip = tf.reduce_any(tf.stack(reasons))
        if scale.is_dynamic:
            skip = tf.logical_and(skip, finite)
        tf.cond(skip, lambda: 0, lambda: _and_zero(update))

    def _verdicts(self, gradients: list[Any], scale: LossScale) -> list[tf.Tensor]:
        plain = [divided(g, scale.value) for g in gradients] if scale.value is not None else gradients
        return [*(tf.cast(rule(plain), tf.bool) for rule in self._rules), tf.logical_not(non_finite(plain))]


def _and_zero(update: Callable[[], Any]) -> int:
    update()
    return 0
