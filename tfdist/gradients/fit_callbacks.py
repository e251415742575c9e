"""What accumulation does around a `fit`: leftovers at the end of an epoch, counts in the logs, a word of caution."""

from __future__ import annotations

import weakref
from typing import Any

import keras

from tfdist._compat import hooks
from tfdist._compat.keras_trainer import flatten_layers
from tfdist.log import logger

_warned: weakref.WeakSet[Any] = weakref.WeakSet()


class EndOfEpoch(keras.callbacks.Callback):
    """Takes care of micro-batches that wait for an optimizer step before anything looks at the epoch's weights."""

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Validation, which comes before the epoch's end."""
        self._end_epoch()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Before the user's callbacks."""
        self._end_epoch()

    def _end_epoch(self) -> None:
        for accumulation in hooks.accumulations_of(self.model):
            accumulation.end_epoch()
        if hooks.accumulations_of(self.model):
            caution_about_batch_statistics(self.model)


class SkipCounts(keras.callbacks.Callback):
    """Adds to the logs how often each skip rule left out an update, since the model was made."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """For progress bars."""
        self._add_to(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """For the history."""
        self._add_to(logs)

    def _add_to(self, logs: dict[str, Any] | None) -> None:
        counts: dict[str, int] = {}
        for accumulation in hooks.accumulations_of(self.model):
            for name, count in accumulation.skip_counts.items():
                counts[name] = counts.get(name, 0) + count
        if logs is not None:
            logs.update(counts)


def fit_callbacks(*, with_skip_rules: bool) -> list[keras.callbacks.Callback]:
    """What a `fit` with accumulation needs, in order."""
    return [EndOfEpoch(), SkipCounts()] if with_skip_rules else [EndOfEpoch()]


def caution_about_batch_statistics(model: Any) -> None:
    """Say once for each model that batch statistics are those of micro-batches."""
    layers = [layer for layer in flatten_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    if not layers or model in _warned:
        return
    _warned.add(model)
    logger.warning(
        "model %r accumulates gradients and has %d BatchNormalization layers, which normalize with the statistics of "
        "their micro-batch (ghost batch normalization), not of the accumulated batch. synchronized=True takes the "
        "micro-batch of all replicas; GroupNormalization and LayerNormalization depend on no batch and are exact",
        model.name,
        len(layers),
    )
