"""OneDeviceStrategy: one device, with what tfdist adds to it."""

from __future__ import annotations

import tensorflow as tf

from tfdist.gradients import AccumulationOptions, Steps
from tfdist.strategies.synchronous import SynchronousStrategy


class OneDeviceStrategy(SynchronousStrategy, tf.distribute.OneDeviceStrategy):
    """Training on one device, with exact gradient accumulation.

    Args:
        device: such as "GPU:0"; None for the first GPU, or the CPU where there is none.
        gradient_accumulation_steps: batches (micro-batches) to an optimizer step, a function of optimizer steps that
            gives them, or `tfdist.gradients.AccumulationOptions`.

    Example:

        strategy = tfdist.OneDeviceStrategy(gradient_accumulation_steps=8)
        with strategy.scope():
            model = build_model()
            model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(dataset, epochs=10)
    """

    def __init__(
        self, device: str | None = None, *, gradient_accumulation_steps: Steps | AccumulationOptions = 1
    ) -> None:
        chosen = device or ("GPU:0" if tf.config.list_logical_devices("GPU") else "CPU:0")
        super().__init__(chosen, gradient_accumulation_steps=gradient_accumulation_steps)
